"""Unruly or nearly right? What the base was before any training, by five measurements that vote for PPO or for DPO.

U1 headroom and reach of the best of n samples; U2 whether the base would have written the chosen responses itself;
U3 whether it finds them likelier than the rejected ones; U4 how often it misbehaves; U5 whether the reward model is
good enough to be maximised. The mechanisms: on-policy exploration pays if the good answers are far from the base
(Tajwar et al. 2024, arXiv:2404.14367), DPO goes astray on responses that the base would not write (Xu et al. 2024,
arXiv:2404.10719). The thresholds are a team's judgement, registered before training (rules.readiness).

Shapes: P prompts, N samples of a prompt, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.answers import Answer, Evidence, Reply
from analysis.ledger import BASE, FLOOR_STREAM, FURTHER_STREAM, STREAM, Ledger
from analysis.scores import base_sd, values, values_of
from analysis.statistics.bootstrap import (
    CONFIDENCE_LEVEL,
    Estimate,
    FloatArray,
    Resamples,
    estimate_from_draws,
    multinomial_weights,
)
from analysis.statistics.sample_size import units_needed
from analysis.style.surface import Text, repeats
from experiments.records import ScoreCard
from experiments.rules import ReadinessRules

Vote = Literal["PPO", "DPO", "neither", "neutral"]  # "neither" stands against both

QUESTION = "Is the base nearly right already (a case for DPO), rather than unruly (a case for PPO)?"
TOPICS = {"U1": "headroom", "U2": "coverage", "U3": "implicit ranking", "U4": "misbehaviour", "U5": "reward model"}
DECISIVE = ("U1", "U2")  # a verdict may not go against these
BETWEEN = "between the thresholds"
MET: dict[Reply, str] = {
    "yes": "met",
    "no": "not met",
    "inconclusive": "inconclusive",
    "not assessable": "not assessable: this sweep recorded no such score",
}
NO_RANKING = (
    "not assessable: the ledger holds no ranking data with a better and a worse response (an earlier version did not "
    "record it)"
)


@dataclass(frozen=True)
class Finding:
    """One of U1 to U5: its vote and what it rests on.

    Attributes:
        turns_at: of each piece of evidence, the numbers at which the vote turns; none if it cannot turn the vote.
    """

    key: str
    vote: Vote
    evidence: tuple[Evidence, ...]
    turns_at: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class RankedSamples:
    """The ranking data, `[P, N]`: nats per token under the base at the sampling temperature (NLL), and the measure.

    Only prompts of which the measure ranks one response above another: the others make no pair.
    """

    nll: FloatArray
    measure: FloatArray


# ------------------------------------------------------------------------------------------------------ pure statistics
def best_of_n(values_PN: FloatArray, n: int) -> FloatArray:
    """Unbiased estimate `[P]` of the expected best of n samples, from N >= n samples of each prompt.

    The mean over all n-subsets: the i-th smallest is the best of C(i-1, n-1) of the C(N, n).
    """
    num_samples = values_PN.shape[1]
    shares = [math.comb(rank - 1, n - 1) / math.comb(num_samples, n) for rank in range(1, num_samples + 1)]
    return np.asarray(np.sort(values_PN, axis=1) @ np.array(shares))


def reach_of_n(values_PN: FloatArray, n: int, target: float) -> FloatArray:
    """Unbiased estimate `[P]` of the probability that the best of n samples attains the target.

    1 - C(N - c, n) / C(N, n) with c samples at the target or above: pass@k (Chen et al. 2021, arXiv:2107.03374, eq. 1).
    """
    num_samples = values_PN.shape[1]
    missed = [math.comb(num_samples - hits, n) / math.comb(num_samples, n) for hits in range(num_samples + 1)]
    return np.asarray(1 - np.array(missed)[(values_PN >= target).sum(axis=1)])


def rank_correlation(ours_PN: FloatArray, theirs_PN: FloatArray, weights_BP: FloatArray) -> Estimate:
    """Spearman correlation over all samples; prompts are resampled, the ranks are those of the whole.

    A side that never varies has no order to compare: correlation 0.
    """
    x, y = (stats.rankdata(values).reshape(values.shape) for values in (ours_PN, theirs_PN))
    x, y = x - x.mean(), y - y.mean()
    moments_P5 = np.stack([x, y, x * x, y * y, x * y]).mean(axis=2).T
    value = float(_correlations(moments_P5.mean(axis=0)[None])[0])
    return estimate_from_draws(value, _correlations(weights_BP @ moments_P5), "plain", len(x))


def _correlations(moments_B5: FloatArray) -> FloatArray:
    """From the means of x, y, x^2, y^2 and xy."""
    x, y, xx, yy, xy = moments_B5.T
    spread = np.sqrt(np.clip((xx - x * x) * (yy - y * y), 0, None))
    return np.asarray(np.divide(xy - x * y, spread, out=np.zeros_like(spread), where=spread > 0))


def size(correlation: Estimate) -> Estimate:
    """Of a correlation whose sign does not matter; an interval around zero begins at zero."""
    bounds = abs(correlation.low), abs(correlation.high)
    low = min(bounds) if correlation.excludes(0) else 0.0
    return replace(correlation, value=abs(correlation.value), low=low, high=max(bounds))


def side(estimate: Estimate, threshold: float) -> int:
    """1 if the whole interval is above the threshold, -1 if it is below, 0 if it contains it."""
    return int(estimate.low > threshold) - int(estimate.high < threshold)


def vote_between(estimate: Estimate, for_dpo: float, for_ppo: float) -> Vote:
    """DPO if the whole interval lies beyond its threshold, away from PPO's; PPO the same; neutral otherwise."""
    outward = 1 if for_dpo > for_ppo else -1
    if side(estimate, for_dpo) == outward:
        return "DPO"
    return "PPO" if side(estimate, for_ppo) == -outward else "neutral"


def verdict(votes: Mapping[str, Vote], min_votes: int) -> Vote:
    """The side with enough votes, unless U1 or U2 votes for the other or for neither; otherwise neutral."""
    sides: tuple[tuple[Vote, Vote], ...] = (("DPO", "PPO"), ("PPO", "DPO"))
    for ours, other in sides:
        enough = sum(vote == ours for vote in votes.values()) >= min_votes
        if enough and not any(votes.get(key) in (other, "neither") for key in DECISIVE):
            return ours
    return "neutral"


def weighted_mean(values_P: FloatArray, weights_BP: FloatArray, unit: str) -> Estimate:
    """Mean over prompts with its interval; rows of the weights sum to 1."""
    return estimate_from_draws(float(values_P.mean()), weights_BP @ values_P, unit, len(values_P))


# ---------------------------------------------------------------------------------------------------- the five findings
def headroom(measure_PN: FloatArray | None, scale: float, weights_BP: FloatArray, rules: ReadinessRules) -> Finding:
    """U1: is the good answer within reach of a few samples?

    Args:
        measure_PN: the measure of the base's samples, 0 to 1; None if there are too few of a prompt.
        scale: one base SD of the measure.
        weights_BP: of the resamples.
        rules: the thresholds.
    """
    n = rules.best_of
    threshold = (
        f"reach above {_percent(rules.high_reach)}: DPO; below it, with a headroom above "
        f"{rules.large_headroom_base_sd:g} SD and a reach that still rises: PPO; otherwise, below "
        f"{_percent(rules.low_reach)}: neither"
    )
    names = "U1 Headroom", "U1 Reach"
    meanings = (
        f"expected best of {n} samples minus their mean, by the measure",
        f"chance that the best of {n} samples has at least {rules.target_points:g} points",
    )
    if measure_PN is None:
        why = f"not assessable: fewer than {n} samples of the base on each evaluation prompt were recorded"
        return _absent("U1", names, meanings, threshold, why)
    counts = _powers_of_two(n)
    best = [(best_of_n(measure_PN, count) - measure_PN.mean(axis=1)) / scale for count in counts]
    reached = [reach_of_n(measure_PN, count, rules.target_points / 100) for count in counts]
    gain, reach = weighted_mean(best[-1], weights_BP, "base SD"), weighted_mean(reached[-1], weights_BP, "share")
    rise = weighted_mean(reached[-1] - reached[-2], weights_BP, "share")
    vote, why = headroom_vote(gain, reach, rise, rules)
    curves = (
        ", ".join(f"{values.mean():.2f} SD of {count}" for values, count in zip(best[1:], counts[1:], strict=True)),
        ", ".join(f"{_percent(values.mean())} of {count}" for values, count in zip(reached, counts, strict=True)),
    )
    evidence = (
        Evidence(names[0], meanings[0], gain, threshold, f"{why}; best of n: {curves[0]}"),
        Evidence(names[1], meanings[1], reach, threshold, f"best of n: {curves[1]}"),
    )
    return Finding("U1", vote, evidence, ((), (rules.high_reach,)))


def headroom_vote(gain: Estimate, reach: Estimate, rise: Estimate, rules: ReadinessRules) -> tuple[Vote, str]:
    """The vote of U1 and why. `rise`: of the reach, from half as many samples to all."""
    if side(reach, rules.high_reach) > 0:
        return "DPO", "the good answer is in the distribution already"
    if side(reach, rules.high_reach) < 0 and side(gain, rules.large_headroom_base_sd) > 0 and rise.low > 0:
        return "PPO", "more samples still find better answers, so exploring pays"
    if side(reach, rules.low_reach) < 0:
        return (
            "neither",
            "good answers are out of reach and exploring finds few; demonstrations or other data come first",
        )
    return "neutral", BETWEEN


def coverage(ranked: RankedSamples | None, weights_BP: FloatArray | None, rules: ReadinessRules) -> Finding:
    """U2: would the base have written the chosen responses itself?"""
    names = "U2 Coverage gap", "U2 Off-support share"
    meanings = (
        "how much more a chosen response surprises the base, per token, than its own samples do",
        "chosen responses that surprise the base more than 95 % of its own samples do",
    )
    gap_at = (rules.small_coverage_gap_nats, rules.large_coverage_gap_nats)
    share_at = (rules.small_off_support_share, rules.large_off_support_share)
    threshold = (
        f"gap within ±{gap_at[0]:g} nats and share below {_percent(share_at[0])}: DPO; "
        f"gap above {gap_at[1]:g} nats or share above {_percent(share_at[1])}: PPO"
    )
    if ranked is None or weights_BP is None:
        return _absent("U2", names, meanings, threshold, NO_RANKING)
    chosen = _at(ranked.nll, ranked.measure.argmax(axis=1))
    # The chosen one stays among the base's own samples: leaving it out would leave out the base's best.
    gap = weighted_mean(chosen - ranked.nll.mean(axis=1), weights_BP, "nats per token")
    unusual = (chosen > np.quantile(ranked.nll, 0.95)).astype(np.float64)
    share = weighted_mean(unusual, weights_BP, "share")
    vote, why = coverage_vote(gap, share, rules)
    evidence = (
        Evidence(names[0], meanings[0], gap, threshold, why),
        Evidence(names[1], meanings[1], share, threshold, "5 % is what the base shows against itself"),
    )
    return Finding("U2", vote, evidence, ((-gap_at[0], *gap_at), share_at))


def coverage_vote(gap: Estimate, share: Estimate, rules: ReadinessRules) -> tuple[Vote, str]:
    """The vote of U2 and why.

    A clearly negative gap is no vote for DPO: text can be likelier than the base's own samples and still be none that
    the base writes. Short, plain sentences of people are, under a small base.
    """
    small = rules.small_coverage_gap_nats
    by_gap = vote_between(gap, small, rules.large_coverage_gap_nats)
    by_share = vote_between(share, rules.small_off_support_share, rules.large_off_support_share)
    if "PPO" in (by_gap, by_share):
        return "PPO", "DPO would learn from responses that the base does not write"
    if side(gap, -small) < 0:
        return "neutral", "the chosen responses are likelier than the base's own samples, so they are not typical of it"
    if by_gap == by_share == "DPO" and side(gap, -small) > 0:
        return "DPO", "on support: the base itself would write the chosen responses (here it did: they are its samples)"
    return "neutral", BETWEEN


def implicit_ranking(ranked: RankedSamples | None, weights_BP: FloatArray | None, rules: ReadinessRules) -> Finding:
    """U3: does the base find the better response likelier, per token, than the worse? Ties of likelihood count half."""
    name = "U3 Implicit ranking"
    meaning = "pairs (best against worst of a prompt) whose better response the base finds likelier per token"
    at = rules.nearly_right_ranking_accuracy, rules.unknown_ranking_accuracy
    threshold = f"above {_percent(at[0])}: DPO; below {_percent(at[1])} (50 % is chance): PPO"
    if ranked is None or weights_BP is None:
        return _absent("U3", (name,), (meaning,), threshold, NO_RANKING)
    chosen, rejected = (
        _at(ranked.nll, index) for index in (ranked.measure.argmax(axis=1), ranked.measure.argmin(axis=1))
    )
    right = (np.sign(rejected - chosen) + 1) / 2
    accuracy = weighted_mean(right, weights_BP, "share")
    vote = vote_between(accuracy, *at)
    why = {
        "DPO": "the base orders most pairs right already",
        "PPO": "the base does not know this preference yet",
        "neutral": BETWEEN,
    }[vote]
    evidence = (Evidence(name, meaning, accuracy, threshold, why),)
    return Finding("U3", vote, evidence, (at,))


def misbehaviour(
    texts_PN: npt.NDArray[Any], cut_PN: npt.NDArray[np.bool_], weights_BP: FloatArray, rules: ReadinessRules
) -> Finding:
    """U4: how often a response of the base is empty, goes round in a loop or (if the rules say so) was cut."""
    name = "U4 Misbehaviour"
    counted = (
        "empty, looping (a four-word run again) or cut at the limit"
        if rules.cut_is_misbehaviour
        else ("empty or looping (a four-word run again)")
    )
    at = rules.nearly_right_misbehaviour, rules.unruly_misbehaviour
    threshold = f"below {_percent(at[0])}: DPO; above {_percent(at[1])}: PPO"
    bad = np.frompyfunc(_empty_or_looping, 1, 1)(texts_PN).astype(bool)
    rate = weighted_mean((bad | (cut_PN & rules.cut_is_misbehaviour)).mean(axis=1), weights_BP, "share")
    vote = vote_between(rate, *at)
    why = {"DPO": "well-behaved", "PPO": "unruly", "neutral": BETWEEN}[vote]
    cut = "" if rules.cut_is_misbehaviour else f"; {_percent(cut_PN.mean())} are cut at the limit, which does not count"
    unseen = "not seen by these rules: refusals, unsafe, false or off-topic content"
    evidence = (Evidence(name, f"responses that are {counted}", rate, threshold, f"{why}{cut}; {unseen}"),)
    return Finding("U4", vote, evidence, (at,))


def reward_model(
    accuracy: Estimate | None, with_measure: Estimate | None, with_length: Estimate | None, rules: ReadinessRules
) -> Finding:
    """U5: a reward model that is clearly too weak speaks for DPO; a good one permits PPO and speaks for neither.

    Args:
        accuracy: share of held-out comparisons; None if it was not recorded, like the others.
        with_measure: rank correlation of the training reward and the measure on the base's samples.
        with_length: size of the rank correlation of the training reward and length there.
        rules: the thresholds.
    """
    least = rules.min_reward_accuracy, rules.min_proxy_measure_correlation
    most = rules.max_length_correlation
    checks = (  # name, meaning, number, bound, the bound in words, whether the number should be above it
        ("U5 Reward model's accuracy", "held-out comparisons that it orders as the measure does",
         accuracy, least[0], f"at least {_percent(least[0])}", True),
        ("U5 Training reward and measure", "rank correlation on the base's samples",
         with_measure, least[1], f"at least {least[1]:g}", True),
        ("U5 The training reward and length", "rank correlation with tokens on the base's samples, either way",
         with_length, most, f"at most {most:g}", False),
    )  # fmt: skip
    met = [_is_met(number, bound, above) for *_, number, bound, _, above in checks]
    evidence = (
        Evidence(name, meaning, number, f"{words}, or PPO would maximise noise: DPO", MET[reply])
        for (name, meaning, number, _, words, _), reply in zip(checks, met, strict=True)
    )
    return Finding("U5", "DPO" if "no" in met else "neutral", tuple(evidence), tuple((check[3],) for check in checks))


def _is_met(number: Estimate | None, bound: float, above: bool) -> Reply:
    if number is None:
        return "not assessable"
    replies: dict[int, Reply] = {1: "yes", 0: "inconclusive", -1: "no"}
    return replies[side(number, bound) if above else -side(number, bound)]


# ----------------------------------------------------------------------------------------------------------- the answer
def answer(findings: Sequence[Finding], min_votes: int) -> Answer:
    """Yes: nearly right, DPO's case. No: unruly, PPO's case."""
    votes = {finding.key: finding.vote for finding in findings}
    outcome = verdict(votes, min_votes)
    reply: Reply = {"DPO": "yes", "PPO": "no", "neutral": "inconclusive"}[outcome]  # type: ignore[assignment]
    undecided = f"Undecided: no side has {min_votes} votes without headroom or coverage against it"
    if "neither" in votes.values():
        undecided = "A case for neither yet: good answers are out of the base's reach"
    sentence = {
        "DPO": "Nearly right: the base offers DPO what it needs",
        "PPO": "Unruly: the base is far from what is wanted, and then exploring with PPO pays",
        "neutral": undecided,
    }[outcome]
    return Answer(
        QUESTION,
        reply,
        f"{sentence} ({_tally(votes)}).",
        tuple(_with_votes(findings)),
        _would_change(findings, outcome),
    )


def _tally(votes: Mapping[str, Vote]) -> str:
    words = [
        f"{'neutral' if whom == 'neutral' else f'for {whom}'}: {', '.join(names)}"
        for whom in ("DPO", "PPO", "neither", "neutral")
        if (names := [f"{TOPICS[key]} ({key})" for key, vote in votes.items() if vote == whom])
    ]
    return "; ".join(words)


def _with_votes(findings: Sequence[Finding]) -> Iterator[Evidence]:
    """The vote stands before the reading of a finding's first number."""
    for finding in findings:
        first, *others = finding.evidence
        said = "no vote" if finding.vote == "neutral" else f"votes {finding.vote}"
        yield replace(first, reading=f"{said}: {first.reading}")
        yield from others


def _would_change(findings: Sequence[Finding], outcome: Vote) -> str:
    """For every vote that is open: how many prompts would settle its number."""
    wanting = [
        f"{item.name}, {_more(number, thresholds)}"
        for finding in findings
        if finding.vote == "neutral"
        for item, thresholds in zip(finding.evidence, finding.turns_at, strict=False)
        if (number := item.number) and any(side(number, threshold) == 0 for threshold in thresholds)
    ]
    absent = [item.name for finding in findings for item in finding.evidence if item.number is None]
    parts = [f"Open for want of data: {'; '.join(wanting)}."] if wanting else []
    parts += [f"Not measured in this sweep: {', '.join(absent)}."] if absent else []
    decisive = {finding.vote for finding in findings if finding.key in DECISIVE}
    if decisive == {"PPO", "DPO"}:
        parts.append(
            "Headroom (U1) and coverage (U2) disagree, which no further sample settles: short pilots of both, on the "
            "same prompts, do."
        )
    elif outcome == "neutral":
        parts.append("If the votes stay split, short pilots of both on the same prompts decide.")
    else:
        parts.append("A vote of headroom (U1) or coverage (U2) for the other side would overturn it.")
    return " ".join(parts)


def _more(number: Estimate, thresholds: Sequence[float]) -> str:
    nearest = min(thresholds, key=lambda threshold: abs(number.value - threshold))
    needed = units_needed(number, nearest)
    if needed is None:
        return "which lies on a threshold, so more would hardly settle it"
    return f"about {needed} in place of {number.n} if the value stays"


# ------------------------------------------------------------------------------------------------------ from the ledger
def readiness_of(ledger: Ledger, resamples: Resamples, rng: np.random.Generator) -> Answer:
    """Measure the base of a sweep."""
    rules = ledger.rules.readiness
    weights_BP = resamples.prompts
    measure, length = base_scores(ledger, ledger.measure), base_samples(ledger, "num_tokens").astype(np.float64)
    reward = base_scores(ledger, ledger.training_reward) if ledger.training_reward else None
    ranked = ranked_samples(ledger)
    ranking_weights = None if ranked is None else multinomial_weights(rng, len(ranked.nll), len(weights_BP))
    findings = (
        headroom(measure if measure.shape[1] >= rules.best_of else None, base_sd(ledger), weights_BP, rules),
        coverage(ranked, ranking_weights, rules),
        implicit_ranking(ranked, ranking_weights, rules),
        misbehaviour(
            base_samples(ledger, "response"), base_samples(ledger, "finish_reason") == "length", weights_BP, rules
        ),
        reward_model(
            recorded_accuracy(ledger),
            rank_correlation(reward, measure, weights_BP) if reward is not None else None,
            size(rank_correlation(reward, length, weights_BP)) if reward is not None else None,
            rules,
        ),
    )
    return answer(findings, rules.min_votes)


def base_samples(ledger: Ledger, column: str) -> npt.NDArray[Any]:
    """One column of all samples of the base, under whichever random numbers, `[P, N]`."""
    return np.concatenate([ledger.array(BASE, column, stream=stream)[0] for stream in drawn_streams(ledger)], axis=1)


def base_scores(ledger: Ledger, score: ScoreCard) -> FloatArray:
    """A score of all samples of the base, `[P, N]`."""
    return np.concatenate([values(ledger, score, BASE, stream=stream)[0] for stream in drawn_streams(ledger)], axis=1)


def drawn_streams(ledger: Ledger) -> list[int]:
    """The base's random numbers that were drawn."""
    drawn = set(ledger.samples.loc[ledger.samples["arm"] == BASE, "stream"])
    return [stream for stream in (STREAM, FLOOR_STREAM, FURTHER_STREAM) if stream in drawn]


def ranked_samples(ledger: Ledger) -> RankedSamples | None:
    """The ranking data, or None if the ledger does not have it or nothing in it is ranked."""
    rows = ledger.ranking
    if rows is None:
        return None
    num_prompts = rows["prompt_id"].nunique()
    nll = -rows["logp_base"].to_numpy(np.float64) / rows["num_tokens"].to_numpy(np.float64).clip(1)
    nll, measure = nll.reshape(num_prompts, -1), values_of(rows, ledger.measure).reshape(num_prompts, -1)
    ranked = measure.max(axis=1) > measure.min(axis=1)
    return RankedSamples(nll[ranked], measure[ranked]) if ranked.any() else None


def recorded_accuracy(ledger: Ledger) -> Estimate | None:
    """The reward model's accuracy on held-out comparisons with the interval that its job recorded."""
    rows = ledger.metrics[ledger.metrics["label"] == "reward_model"]
    name, count = "reward_model/held_out_accuracy", "reward_model/num_held_out_comparisons"
    columns = [name, f"{name}_low", f"{name}_high", count]
    known = rows.dropna(subset=columns) if set(columns) <= set(rows) else rows.head(0)
    if known.empty:
        return None
    value, low, high, n = (float(known[column].iloc[-1]) for column in columns)
    return Estimate(value, low, high, (high - low) / (2 * stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2)), "share", int(n))


# -------------------------------------------------------------------------------------------------------------- helpers
def _absent(key: str, names: Sequence[str], meanings: Sequence[str], threshold: str, why: str) -> Finding:
    evidence = (Evidence(name, meaning, None, threshold, why) for name, meaning in zip(names, meanings, strict=True))
    return Finding(key, "neutral", tuple(evidence))


def _at(values_PN: FloatArray, index_P: npt.NDArray[np.intp]) -> FloatArray:
    """One sample of each prompt."""
    return np.asarray(np.take_along_axis(values_PN, index_P[:, None], axis=1)[:, 0])


def _powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … below n, and n."""
    return [2**power for power in range(n.bit_length()) if 2**power < n] + [n]


def _empty_or_looping(text: str) -> bool:
    return not text.strip() or repeats(Text.read(text).lower)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
