"""The decision rules, fixed before training: the schema of ``conf/rules/``, which only the analysis reads.

None of these values is a published constant; each is a team's decision. The plan records them and their hash before
anything is trained, and the report lists every later change. The rules are no part of a job's identity, so changing one
trains nothing again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from experiments.strict import Strict


class ConfidenceRules(Strict):
    """When a result counts as certain."""

    min_seeds_for_high: int = Field(ge=3, description="fewest seeds of each arm with which confidence can be high")


class ReadinessRules(Strict):
    """When the base counts as nearly right (votes for DPO) or unruly (votes for PPO); shares are 0 to 1."""

    best_of: int = Field(
        ge=2, description="n of best-of-n: samples of the base per prompt; the best by the measure counts"
    )
    target_points: float = Field(ge=0, le=100, description="lowest score of a good response, points of the measure")
    high_reach: float = Field(ge=0, le=1, description="above: the best of n reaches the target often enough, for DPO")
    low_reach: float = Field(ge=0, le=1, description="below, and no headroom for PPO: neither has a case yet")
    large_headroom_base_sd: float = Field(ge=0, description="best of n minus mean; above: exploring pays, for PPO")
    small_coverage_gap_nats: float = Field(
        ge=0, description="at most this, above or below 0: chosen responses are on support, for DPO; nats per token"
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
        description="whether a response cut at the length limit misbehaves; false if the limit cuts nearly all of them"
    )
    min_reward_accuracy: float = Field(ge=0, le=1, description="on held-out comparisons; below: PPO maximises noise")
    min_proxy_measure_correlation: float = Field(ge=-1, le=1, description="rank correlation on the base's samples")
    max_length_correlation: float = Field(ge=0, le=1, description="absolute rank correlation of proxy and length")
    min_votes: int = Field(ge=1, le=5, description="agreeing votes for an answer, with neither U1 nor U2 against it")


class DecisionRules(Strict):
    """The gates that an arm must pass, and how many prompts the recommendation may ask for."""

    min_win_rate_percent: float = Field(ge=0, le=100, description="against the base, by the primary judge; 50 is even")
    min_gain_base_sd: float = Field(description="smallest gain over the base worth having, base SD of the measure")
    max_style_auc: float = Field(ge=0.5, le=1, description="how well its texts may be distinguished from the base's")
    max_cost_ratio: float = Field(ge=1, description="device time of training over the cheapest arm's")
    max_num_evaluation_prompts: int = Field(ge=2, description="a lead that needs more is called too small to look for")


class StyleRules(Strict):
    """When an arm's style counts as drifted: it passes all of these, and the base compared with itself does not."""

    significance_level: float = Field(
        gt=0, lt=1, description="chance of calling any measure of an unchanged arm drifted, after Holm's correction"
    )
    min_effect_base_sd: float = Field(
        ge=0, description="smallest change of a mean that counts, in standard deviations of the base's responses"
    )
    min_distance_times_floor: float = Field(
        ge=1, description="smallest distance that counts, as a multiple of the base's distance from itself"
    )
    min_auc: float = Field(
        ge=0.5, le=1, description="smallest chance, 0.5 to 1, of telling an arm's response from the base's, that counts"
    )


class StabilityRules(Strict):
    """What counts as unstable. One base SD: standard deviation over prompts of the base's mean of the measure."""

    max_drawdown: float = Field(gt=0, description="base SD: tolerated fall below the running peak")
    yes_probability: float = Field(gt=0.5, lt=1, description="yes if a tolerated drawdown is at least so probable")
    no_probability: float = Field(gt=0, le=0.5, description="no if it is at most so probable and a drop is shown")
    tail_share: float = Field(gt=0, le=1, description="last share of the training steps (points), called the tail")
    worst_response_share: float = Field(gt=0, le=1, description="share of all responses that counts as the worst")
    min_kept_by_selection: float = Field(
        gt=0, le=1, description="share of the peak's gain that a chosen checkpoint must keep on other prompts"
    )
    seed_looks: tuple[int, ...] = Field(min_length=1, description="numbers of seeds at which results are examined")


class CollapseRules(Strict):
    """Thresholds of the collapse detectors, relative to the base or to the run's own median."""

    min_entropy_ratio: float = Field(gt=0, lt=1, description="entropy per token over the base's")
    min_distinct_2_ratio: float = Field(gt=0, lt=1, description="share of different word pairs over the base's")
    max_extra_loops: float = Field(
        gt=0, lt=1, description="share of responses with a repeated four-word run, over base"
    )
    max_extra_truncated: float = Field(gt=0, lt=1, description="share of responses cut at the length limit, over base")
    max_extra_empty: float = Field(gt=0, lt=1, description="share of responses of at most one token, over base")
    max_extra_identical: float = Field(
        gt=0, lt=1, description="share of responses that are identical for several prompts, over base"
    )
    max_kl_per_token: float = Field(gt=0, description="nats per token, to the base")
    min_kl_jump: float = Field(
        gt=0, description="nats per token: smallest KL at which a doubling between points counts"
    )
    max_spike: float = Field(gt=1, description="a row of gradient norm or PPO's update KL, over the run's median")
    min_update_kl_spike: float = Field(gt=0, description="nats: smallest spike of PPO's update KL")
    max_points_below_reference: int = Field(ge=1, description="successive evaluation points with falling chosen reward")


class ScalingLawRules(Strict):
    """When and to which points the curve of the measure over the distance to the base is fitted."""

    min_root_kl: float = Field(ge=0, description="smallest distance to the base, √nats, of a point in the fit")
    min_num_points: int = Field(ge=3, description="fewest such evaluation points for a fit")
    min_num_prompts: int = Field(ge=2, description="fewest evaluation prompts for a fit")
    max_misfit: float = Field(gt=0, description="distance of the points to the curve over their noise, for a peak")


class OverOptimisationRules(Strict):
    """When a sign of over-optimisation fires: only if the whole interval of its number passes the threshold."""

    min_num_prompts: int = Field(ge=2, description="fewest prompts (or prompts of a half) for a measurement")
    window_points: int = Field(ge=2, description="H1: last evaluation points over which the slopes are taken")
    drop: float = Field(ge=0, description="H2: fall of the measure from its peak, base SD")
    correlation_fall: float = Field(
        ge=0, description="H3: fall of the rank correlation of proxy and measure from the base's"
    )
    length_correlation_rise: float = Field(ge=0, description="H4a: rise of the proxy-length rank correlation")
    num_length_bins: int = Field(ge=2, description="H4b: bins of length with equal numbers of responses")
    non_length_share: float = Field(ge=0, le=1, description="H4b: share of the proxy's gain at equal length")
    severe_non_length_share: float = Field(ge=0, le=1, description="H4b: share that is severe, see the verdict rule")
    style_premium: float = Field(ge=0, description="H5: raw minus controlled win rate, points")
    outlier_percentile: float = Field(gt=0, lt=100, description="H6: of the base's distances; an outlier is beyond")
    outlier_share: float = Field(ge=0, le=100, description="H6: outliers among the arm's responses, percent")


class SwitchRules(Strict):
    """Which gain is worth its risk and cost. Weights are in base SD of the measure."""

    min_num_intervals: int = Field(ge=2, description="fewest intervals between evaluation points for a switch point")
    min_num_prompts: int = Field(ge=2, description="fewest prompts of each half for a switch point")
    drawdown_weight: float = Field(ge=0, description="the measure, base SD, that one base SD of drawdown is worth")
    diversity_weight: float = Field(
        ge=0, description="the measure, base SD, that one base SD of entropy per token is worth"
    )
    min_gain_per_tenth: float = Field(
        ge=0, description="the measure, base SD, that a tenth of the run's device time must buy"
    )
    min_probability: float = Field(gt=0.5, lt=1, description="of the bootstrap that an interval did not pay")
    max_interval_share: float = Field(gt=0, le=1, description="width of the switch point's interval, share of the run")
    tolerated_shift: int = Field(ge=0, description="points it may move when a weight is halved or doubled")


class JudgeRules(Strict):
    """When the verdicts of a configured judge count."""

    max_missing_share: float = Field(ge=0, lt=1, description="share of a contest's pairs that may lack a verdict")
    min_swap_consistency: float = Field(
        ge=0, le=1, description="share of pairs whose verdict must survive showing the two in the other order"
    )


class WinRateRules(Strict):
    """Which win rates a verdict may rest on."""

    primary_judge: str = Field(
        description="judge of the primary comparisons: the name of a score card of the task, or a judge that "
        "`judge` configures (endpoint, reward_model); never the training reward"
    )
    primary_comparisons: tuple[Literal["arm_against_base", "plain_against_plain", "staged_against_plain"], ...] = Field(
        description="the family of final comparisons whose p-values are corrected together (Holm); all else is "
        "descriptive"
    )
    significance_level: float = Field(
        gt=0,
        le=0.05,
        description="chance of calling anyone ahead in any primary comparison if there is no difference, after "
        "Holm's correction; with the false alarms of all other detectors it should stay under 5 %",
    )
    max_missing_percent: float = Field(
        ge=0,
        le=100,
        description="missing preferences, in percent of the pairs, above which a comparison decides nothing",
    )
    max_intransitivity_points: float = Field(
        ge=0,
        le=100,
        description="how many points a direct win rate may differ from the prediction of strengths fitted without it; "
        "if the whole interval is above, the judge is called intransitive",
    )


class Rules(Strict):
    """All sections."""

    confidence: ConfidenceRules
    readiness: ReadinessRules
    decision: DecisionRules
    stability: StabilityRules
    collapse: CollapseRules
    scaling_law: ScalingLawRules
    over_optimisation: OverOptimisationRules
    switch: SwitchRules
    judges: JudgeRules
    style: StyleRules
    win_rate: WinRateRules
