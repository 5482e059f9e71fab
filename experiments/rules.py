"""The rules of judgement, fixed before training: the schema of ``conf/rules/``, read by the analysis only.

None of these values is a published constant; each is a team's decision. The plan records them and their hash before
anything is trained, and the report prints what was changed afterwards. They are no part of any job's identity: changing
one trains nothing again.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Immutable; a key that is not declared is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConfidenceRules(Section):
    """When a result counts as sure."""

    min_seeds_for_high: int = Field(ge=3, description="seeds of each arm from which on confidence can be high")


class ReadinessRules(Section):
    """When the base counts as nearly right (votes for DPO) or unruly (votes for PPO); shares are 0 to 1."""

    best_of: int = Field(ge=2, description="samples of the base on a prompt, of which the best by gold counts")
    target_gold_points: float = Field(ge=0, le=100, description="from here on a response is good, gold points")
    high_reach: float = Field(ge=0, le=1, description="above: the best sample attains the target often enough, for DPO")
    low_reach: float = Field(ge=0, le=1, description="below, and nothing for PPO to explore: neither has a case yet")
    large_headroom_base_sd: float = Field(ge=0, description="above: exploring pays, for PPO; best of n minus mean")
    small_coverage_gap_nats: float = Field(
        description="below: chosen responses are on support, for DPO; nats per token"
    )
    large_coverage_gap_nats: float = Field(description="above: they are not, for PPO; nats per token")
    small_off_support_share: float = Field(ge=0, le=1, description="of chosen responses; below: for DPO")
    large_off_support_share: float = Field(ge=0, le=1, description="of chosen responses; above: for PPO")
    nearly_right_ranking_accuracy: float = Field(
        ge=0, le=1, description="of the base's own likelihoods; above: for DPO"
    )
    unknown_ranking_accuracy: float = Field(ge=0, le=1, description="below: the base does not know it yet, for PPO")
    nearly_right_misbehaviour: float = Field(ge=0, le=1, description="share of responses; below: for DPO")
    unruly_misbehaviour: float = Field(ge=0, le=1, description="share of responses; above: for PPO")
    cut_is_misbehaviour: bool = Field(
        description="whether a response cut at the length limit misbehaves; not where the limit ends nearly all of them"
    )
    min_reward_accuracy: float = Field(ge=0, le=1, description="of held-out comparisons; below: PPO maximises noise")
    min_proxy_gold_correlation: float = Field(ge=-1, le=1, description="rank correlation on the base's samples")
    max_length_correlation: float = Field(ge=0, le=1, description="size of the proxy's rank correlation with length")
    min_votes: int = Field(ge=1, le=5, description="agreeing votes for an answer, with neither U1 nor U2 against it")


class DecisionRules(Section):
    """The gates that an arm must pass, and what the recommendation may ask for."""

    min_win_rate_percent: float = Field(ge=0, le=100, description="against the base, by gold; 50 is no difference")
    min_gold_gain_base_sd: float = Field(description="smallest gain over the base worth having, base SD of gold")
    max_style_auc: float = Field(ge=0.5, le=1, description="how well its texts may be told from the base's")
    max_cost_ratio: float = Field(ge=1, description="device time of training, in times the cheapest arm's")
    max_num_evaluation_prompts: int = Field(ge=2, description="beyond it a lead is called too small to look for")


class JudgeRules(Section):
    """When the word of a judge that was asked beyond the scorers counts."""

    max_missing_share: float = Field(ge=0, lt=1, description="share of a contest's pairs that may lack a verdict")
    min_swap_consistency: float = Field(
        ge=0, le=1, description="share of pairs whose verdict must survive showing the two in the other order"
    )


class Rules(Section):
    """All sections."""

    confidence: ConfidenceRules
    readiness: ReadinessRules
    decision: DecisionRules
    judges: JudgeRules
