"""Can we tolerate oscillation? A registered tolerance, the probability that the drawdown stays within it, an answer.

P is the share of bootstrap curves, over prompts and from three seeds on over seeds, whose largest drawdown stays within
the tolerance. Noise alone makes the drawdown of a flat curve positive, and a resample has that noise twice; so the
resampled drawdowns are moved to the observed one less its bias (curves.bias_of). Besides, "no" needs a drop that is
shown: the lower end of the drawdown's interval above zero. Without it a twin of the base would be refused for the noise
of a small evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.answers import Answer, Evidence, Reply
from analysis.stability.over_time import ResampledOverTime
from analysis.statistics.bootstrap import (
    MIN_SEEDS_FOR_METHOD,
    Estimate,
    FloatArray,
    Resamples,
    mean_draws,
    mean_estimate,
    percentile_interval,
)
from analysis.statistics.sample_size import scaled
from experiments.rules import StabilityRules

QUESTION = "Can we tolerate the oscillation of {}?"
BEYOND_REACH = 20  # times as many prompts; more is said in words


@dataclass(frozen=True)
class Selection:
    """Keeping the best checkpoint instead of the last one: chosen on one half of the prompts, judged on the other.

    Attributes:
        points: the point chosen for each seed.
        regret_of_last: the measure of the chosen point less the last one's, on the other half, base SD.
        kept: percent of the peak's gain over the base, on the other half, that the chosen point has there; the peak is
            the highest point of that half itself, which noise raises, so this is on the low side. None if that gain
            is not shown to be above zero.
    """

    points: tuple[int, ...]
    regret_of_last: Estimate
    kept: Estimate | None


@dataclass(frozen=True)
class Tolerance:
    """One arm.

    Attributes:
        probability: that the largest drawdown stays within the tolerance.
    """

    probability: float
    selection: Selection
    answer: Answer


def probability_within(drawdown_draws_B: FloatArray, tolerance: float) -> float:
    """Share of the resampled drawdowns that stay within the tolerance (base SD)."""
    return float(np.mean(drawdown_draws_B <= tolerance))


def reply(probability: float, drawdown: Estimate, rules: StabilityRules) -> Reply:
    """Yes from `yes_probability` on; no up to `no_probability`, if a drop is shown at all."""
    if probability >= rules.yes_probability:
        return "yes"
    return "no" if probability <= rules.no_probability and drawdown.low > 0 else "inconclusive"


# ------------------------------------------------------------------------------------------------- checkpoint selection
def select(curve_SCP: FloatArray, halves: tuple[list[int], list[int]], resamples: Resamples) -> Selection:
    """Choose each seed's best point on the first half of the prompts and judge it on the second.

    Args:
        curve_SCP: score per prompt, base SD.
        halves: positions of the two halves.
        resamples: of all prompts; the second half's weights are theirs, scaled to sum to one.
    """
    chosen_on, judged_on = halves
    judged = curve_SCP[:, :, judged_on]
    points = curve_SCP[:, :, chosen_on].mean(axis=2).argmax(axis=1)
    peaks = judged.mean(axis=2).argmax(axis=1)
    seeds = np.arange(len(curve_SCP))
    half = resamples.of_prompts(judged_on)
    gain, peak = judged[seeds, points] - judged[:, 0], judged[seeds, peaks] - judged[:, 0]
    peak_gain = mean_estimate(peak, half, "base SD")
    kept = None
    if peak_gain.low > 0:
        draws = 100 * mean_draws(gain, half) / np.maximum(mean_draws(peak, half), 1e-9)
        value = 100 * float(gain.mean()) / peak_gain.value
        low, high = percentile_interval(draws)
        kept = Estimate(
            value, min(low, value), max(high, value), float(draws.std()), "percent", len(judged_on), len(seeds)
        )
    regret = mean_estimate(judged[seeds, points] - judged[:, -1], half, "base SD")
    return Selection(tuple(int(point) for point in points), regret, kept)


# ----------------------------------------------------------------------------------------------------------- one answer
def judge(
    arm: str,
    curve_SCP: FloatArray,
    over_time: ResampledOverTime,
    halves: tuple[list[int], list[int]],
    resamples: Resamples,
    rules: StabilityRules,
) -> Tolerance:
    """The answer for one arm."""
    probability = probability_within(over_time.drawdown_draws, rules.max_drawdown)
    said = reply(probability, over_time.drawdown, rules)
    selection = select(curve_SCP, halves, resamples)
    evidence = (_drawdown_evidence(over_time, probability, rules), _selection_evidence(selection, rules))
    settled = (
        "A drawdown on the other side of the tolerance, in more seeds or on more prompts."
        if said != "inconclusive"
        else what_would_settle(over_time, rules)
    )
    return Tolerance(
        probability,
        selection,
        Answer(
            QUESTION.format(arm),
            said,
            _sentence(arm, said, probability, over_time, rules, selection),
            evidence,
            settled,
        ),
    )


def _drawdown_evidence(over_time: ResampledOverTime, probability: float, rules: StabilityRules) -> Evidence:
    threshold = (
        f"at most {rules.max_drawdown:g} base SD: yes from a probability of {rules.yes_probability:.0%} on, no up to "
        f"{rules.no_probability:.0%} if a drop is shown"
    )
    return Evidence(
        "largest drawdown",
        "largest fall below the running peak, corrected for noise",
        over_time.drawdown,
        threshold,
        f"stays within the tolerance with probability {probability:.0%}",
    )


def _selection_evidence(selection: Selection, rules: StabilityRules) -> Evidence:
    threshold = f"at least {rules.min_kept_by_selection:.0%} of the peak's gain"
    number = selection.kept
    if number is None:
        reading = "not assessable: on the half that judges, no point is shown to gain on the base"
    elif number.value >= 100 * rules.min_kept_by_selection:
        reading = "oscillation can be lived with if the best checkpoint is kept instead of the last"
    else:
        reading = "choosing a checkpoint on some prompts does not carry over to others"
    return Evidence(
        "best checkpoint instead of the last",
        "chosen on one half of the prompts; what it keeps of the peak's gain on the other",
        number,
        threshold,
        reading,
    )


def _sentence(
    arm: str, said: Reply, probability: float, over_time: ResampledOverTime, rules: StabilityRules, selection: Selection
) -> str:
    fall = over_time.drawdown
    facts = (
        f"its largest drawdown is {fall.value:.2f} base SD [95 % interval {fall.low:.2f} to {fall.high:.2f}] and stays "
        f"within {rules.max_drawdown:g} with probability {probability:.0%}"
    )
    words = {"yes": f"Yes, {arm}", "no": f"No, not {arm} as it is", "inconclusive": f"Inconclusive for {arm}"}[said]
    rescued = said == "no" and selection.kept is not None and selection.kept.value >= 100 * rules.min_kept_by_selection
    remedy = (
        f"; keeping the best checkpoint instead of the last holds {selection.kept.value:.0f} % of the peak's gain"
        if rescued and selection.kept
        else ""
    )
    few = "" if fall.num_seeds >= MIN_SEEDS_FOR_METHOD else "; this speaks of these runs, not of the method"
    return f"{words}: {facts}{remedy}{few}."


# ------------------------------------------------------------------------------------------------------- what is needed
def seed_share(per_seed_S: FloatArray, prompt_variance: float) -> float:
    """Share of the variance of one run's drawdown that lies between seeds (one-way random effects), 0 to 1.

    Args:
        per_seed_S: one number a seed, from two seeds on.
        prompt_variance: of such a number over resamples of prompts.
    """
    between = max(0.0, float(per_seed_S.var(ddof=1)) - prompt_variance)
    return between / (between + prompt_variance) if between + prompt_variance > 0 else 0.0


def what_would_settle(over_time: ResampledOverTime, rules: StabilityRules) -> str:
    """Prompts or seeds, whichever the uncertainty comes from."""
    fall = over_time.drawdown
    distance = abs(rules.max_drawdown - fall.value)
    half_width = fall.high - fall.value if fall.value <= rules.max_drawdown else fall.value - fall.low
    num_seeds, per_seed = fall.num_seeds, np.array(over_time.drawdown_per_seed)
    if num_seeds >= MIN_SEEDS_FOR_METHOD and seed_share(per_seed, over_time.prompt_variance) > 1 / 2:
        return _seeds_needed(scaled(num_seeds, half_width, distance), num_seeds, rules)
    prompts = scaled(fall.n, half_width, distance)
    many = (
        f"about {math.ceil(prompts / 10) * 10} evaluation prompts instead of {fall.n}"
        if prompts <= BEYOND_REACH * fall.n
        else f"more than {BEYOND_REACH} times the {fall.n} evaluation prompts, as the drawdown is near the tolerance"
    )
    seeds = "" if num_seeds >= MIN_SEEDS_FOR_METHOD else (
        f", for these runs; to speak of the method, {MIN_SEEDS_FOR_METHOD} seeds at least"
    )  # fmt: skip
    return f"{many[0].upper()}{many[1:]}{seeds}."


def _seeds_needed(count: float, have: int, rules: StabilityRules) -> str:
    looks = [look for look in rules.seed_looks if look > have]
    enough = next((look for look in looks if look >= count), None)
    if enough is not None:
        return f"{enough} seeds instead of {have}: the runs differ more than the prompts leave open."
    following = f"{looks[0]} seeds are the next look, but " if looks else ""
    amount = f"about {math.ceil(count)}" if count <= BEYOND_REACH * have else f"more than {BEYOND_REACH * have}"
    return f"{following}{amount} seeds would be needed: the runs differ more than the prompts leave open."


# ----------------------------------------------------------------------------------------------------- one algorithm
def of_algorithm(label: str, answers: Mapping[str, Tolerance]) -> Answer:
    """Yes if every variant is within the tolerance, no if none is, inconclusive if it depends on the knob."""
    replies = {arm: item.answer.reply for arm, item in answers.items()}
    said: Reply = "inconclusive"
    if len(set(replies.values())) == 1:
        said = next(iter(replies.values()))
        every = "its only arm" if len(replies) == 1 else f"each of its {len(replies)} arms"
        sentence = f"{said.capitalize()} for {every} ({', '.join(replies)})."
    else:
        parts = [
            f"{word} for {', '.join(arm for arm, value in replies.items() if value == word)}"
            for word in ("yes", "no", "inconclusive")
            if word in replies.values()
        ]
        sentence = f"It depends on the variant: {'; '.join(parts)}."
    evidence = tuple(
        Evidence(
            arm,
            "largest drawdown of this variant",
            item.answer.evidence[0].number,
            item.answer.evidence[0].threshold,
            f"{item.answer.reply}: {item.answer.evidence[0].reading}",
        )
        for arm, item in answers.items()
    )
    open_arms = [
        f"{arm}: {item.answer.would_change}" for arm, item in answers.items() if replies[arm] == "inconclusive"
    ]
    would_change = " ".join(open_arms) or "Another variant, or a drawdown on the other side of the tolerance."
    return Answer(QUESTION.format(label), said, sentence, evidence, would_change)
