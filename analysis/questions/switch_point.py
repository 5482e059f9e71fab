"""Where an arm's marginal gain falls under its risk and cost: the point at which to stop it, or to switch to DPO.

For the interval between two evaluation points, all in SD of the base,

    U = Δmeasure − λ_drawdown Δ(largest fall so far) − λ_diversity Δ(entropy lost) − λ_cost Δ(share of the device time)

The switch point is the start of the first two successive intervals that did not pay, each with bootstrap probability
P(U < 0) of at least `min_probability`; or, if it comes earlier, the last point before over-optimisation was found.
It is chosen on one half of the prompts, and what it is worth is reported on the other. The same rule is applied to
every resample, which gives the interval; the finding of over-optimisation is taken as it is there.

The measure is smoothed before differences are taken: by the fitted curve of `scaling_law` if the points lie about it
within their noise, otherwise by straight lines over three points (Savitzky & Golay 1964). The risk of style is not in
U, because the style-controlled win rate is known for the final model only.

Shapes: S seeds, C evaluation points with the base first, P prompts, B resamples, I = C − 1 intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import savgol_filter

from analysis.answers import Reply
from analysis.ledger import Ledger
from analysis.scores import Halves, curves
from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, mean_estimate, recentred_estimate
from analysis.statistics.scaling_law import Fit, curve, fit_curve, root_kl, weighted_means
from experiments.rules import ScalingLawRules, SwitchRules

LEVEL = 0.8  # of the interval of the switch point
SMOOTHED_POINTS = 3
NEVER = np.inf  # no switch within the run
HALF = 0.5  # of the resamples: beyond it, that a run has no switch point is what they say


@dataclass(frozen=True)
class Place:
    """A point of the run on three axes; device seconds are None if they were not recorded."""

    point: int
    prompts_seen: float
    device_seconds: float | None


@dataclass(frozen=True)
class Interval:
    """What one interval between evaluation points brought and what it cost, on the half that the point is chosen on.

    Attributes:
        utility: base SD.
        the measure, drawdown, entropy_lost, cost_share: the changes in it; the first three in base SD.
        probability: P(U < 0) by bootstrap.
    """

    start: Place
    end: Place
    utility: Estimate
    measure: float
    drawdown: float
    entropy_lost: float
    cost_share: float
    probability: float


@dataclass(frozen=True)
class Switch:
    """One arm.

    Attributes:
        reply: whether there is a switch point within the run; yes only if it passed every guard.
        best: the switch point by the rule; None if the rule finds none.
        median, low, high: of the bootstrap; None if that is beyond the run.
        probability_of_none: share of the resamples without a switch point in the run.
        gate: the point before over-optimisation was found, if that is what decides.
        shifts: the switch point under other weights, by what was changed; None if there is none then.
        gain_at_switch: the measure over the base at the switch point, on the half that had no part in choosing it.
        later_change: the measure of the final point minus the measure of the switch point, on that half.
        smoothing: how the measure was smoothed.
    """

    reply: Reply
    why: str
    intervals: tuple[Interval, ...] = ()
    best: Place | None = None
    median: Place | None = None
    low: Place | None = None
    high: Place | None = None
    probability_of_none: float | None = None
    gate: int | None = None
    shifts: tuple[tuple[str, int | None], ...] = ()
    gain_at_switch: Estimate | None = None
    later_change: Estimate | None = None
    smoothing: str = ""
    num_prompts: int = 0
    num_seeds: int = 0


@dataclass(frozen=True)
class Changes:
    """Changes over the intervals, one row each: the observed `[1, I]` or the resampled `[B, I]`."""

    measure: FloatArray
    drawdown: FloatArray
    entropy_lost: FloatArray
    cost: FloatArray


@dataclass(frozen=True)
class Weights:
    """λ of each part, base SD of the measure."""

    drawdown: float
    diversity: float
    cost: float  # of the whole run's device time

    @classmethod
    def of(cls, rules: SwitchRules) -> Weights:
        """The registered ones."""
        return cls(rules.drawdown_weight, rules.diversity_weight, 10 * rules.min_gain_per_tenth)


# ------------------------------------------------------------------------------------------------------ pure statistics
def utility(changes: Changes, weights: Weights) -> FloatArray:
    """U of every interval, base SD."""
    return np.asarray(
        changes.measure
        - weights.drawdown * changes.drawdown
        - weights.diversity * changes.entropy_lost
        - weights.cost * changes.cost
    )


def switch_points(utility_BI: FloatArray, margin_I: FloatArray, gate: float = NEVER) -> FloatArray:
    """Start of the first two successive intervals that surely did not pay, `[B]`; `NEVER` if there is none.

    Args:
        utility_BI: U.
        margin_I: how far under zero U has to be, for P(U < 0) to be large enough.
        gate: point that may not be passed.
    """
    bad_BI = utility_BI < -margin_I
    twice_BI = bad_BI[:, :-1] & bad_BI[:, 1:]
    first_B = np.where(twice_BI.any(axis=1), twice_BI.argmax(axis=1), NEVER)
    return np.minimum(first_B, gate)


def margins(utility_I: FloatArray, draws_BI: FloatArray, probability: float) -> FloatArray:
    """How far under zero U has to be observed for a bootstrap P(U < 0) of `probability`. `[I]`."""
    return np.asarray(np.quantile(draws_BI - utility_I, probability, axis=0))


def order_statistic(points_B: FloatArray, quantile: float) -> float:
    """A quantile that is one of the points, since some may be infinite."""
    return float(np.quantile(points_B, quantile, method="inverted_cdf"))


def drawdown_so_far(measure_BC: FloatArray) -> FloatArray:
    """Largest fall below the running peak up to each point (Chan et al. 2020, arXiv:1912.05663), over the last axis."""
    falls = np.maximum.accumulate(measure_BC, axis=-1) - measure_BC
    return np.maximum.accumulate(falls, axis=-1)


def lines_over_three(measure_SC: FloatArray) -> FloatArray:
    """Straight lines over three points, along the last axis; the base, which is exact, stays."""
    level = savgol_filter(measure_SC, SMOOTHED_POINTS, 1, axis=-1, mode="interp")
    return np.concatenate([measure_SC[..., :1], level[..., 1:]], axis=-1)


def changes(measure_BSC: FloatArray, entropy_lost_BSC: FloatArray, cost_C: FloatArray, seeds_BS: FloatArray) -> Changes:
    """Changes over the intervals, mean over seeds.

    Args:
        measure_BSC: smoothed gain over the base, base SD.
        entropy_lost_BSC: fall of the entropy per token under the base's, base SD.
        cost_C: share of the device time spent by each point.
        seeds_BS: weights of the seeds.
    """

    def over_seeds(values_BSC: FloatArray) -> FloatArray:
        return np.diff(np.einsum("bs,bsc->bc", seeds_BS, values_BSC), axis=-1)

    return Changes(
        over_seeds(measure_BSC),
        over_seeds(drawdown_so_far(measure_BSC)),
        over_seeds(np.maximum(0.0, entropy_lost_BSC)),
        np.diff(cost_C)[None],
    )


def judge(
    utility_I: FloatArray, points_B: FloatArray, pays_at_end: bool, best: float, rules: SwitchRules
) -> tuple[Reply, str]:
    """Whether there is a switch point within the run, by the guards, and why.

    Args:
        utility_I: observed.
        points_B: switch points of the resamples.
        pays_at_end: whether the last two intervals surely paid.
        best: the switch point by the rule.
        rules: in use.
    """
    run = len(utility_I)
    none = float(np.mean(np.isinf(points_B)))
    low, high = (min(run, order_statistic(points_B, quantile)) for quantile in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    if none > HALF:
        if pays_at_end:
            return "no", "its last two intervals still paid"
        return "inconclusive", "no two successive intervals surely failed to pay, nor did the last two surely pay"
    if high - low > rules.max_interval_share * run:
        return "inconclusive", f"the switch point's interval spans {high - low:.0f} of the run's {run} intervals"
    if np.isinf(best):
        return "inconclusive", "the resamples have a switch point, but the prompts as they are have none"
    return "yes", "two successive intervals did not pay"


# -------------------------------------------------------------------------------------------------------------- one arm
def switch_of(ledger: Ledger, arm: str, halves: Halves, hacking_points: Sequence[int]) -> Switch:
    """The switch point of one arm.

    Args:
        ledger: of the sweep.
        arm: any arm.
        halves: to choose on and to report on.
        hacking_points: evaluation points at which over-optimisation was found.
    """
    rules = ledger.rules.switch
    num_intervals, fewest = ledger.final_point, min(len(halves.chosen_on), len(halves.reported_on))
    if num_intervals < rules.min_num_intervals:
        return Switch(
            "not assessable", f"{num_intervals} intervals between points; the rule asks for {rules.min_num_intervals}"
        )
    if fewest < rules.min_num_prompts:
        return Switch("not assessable", f"{fewest} prompts a half; the rule asks for {rules.min_num_prompts}")
    seen = curves(ledger, arm)
    gate = min(hacking_points) - 1 if hacking_points else None
    observed, draws, smoothing = marginal_changes(
        seen.measure_SCP[:, :, halves.chosen_on],
        seen.nats_SCP[:, :, halves.chosen_on],
        _entropy_lost(ledger, arm)[:, :, halves.chosen_on],
        _cost_share(ledger, arm),
        halves.choosing,
        ledger.rules.scaling_law,
    )
    found = decide(observed, draws, NEVER if gate is None else gate, rules)
    places = _places(ledger, arm)
    chosen = found.best if np.isfinite(found.best) else order_statistic(found.points_B, 0.5)

    def place(point: float) -> Place | None:
        return places[int(point)] if np.isfinite(point) else None

    switch = Switch(
        found.reply,
        found.why,
        intervals=_intervals(observed, draws, found, places, len(halves.chosen_on), len(seen.measure_SCP)),
        best=place(found.best),
        median=place(order_statistic(found.points_B, 0.5)),
        low=place(order_statistic(found.points_B, (1 - LEVEL) / 2)),
        high=place(order_statistic(found.points_B, (1 + LEVEL) / 2)),
        probability_of_none=float(np.mean(np.isinf(found.points_B))),
        gate=gate if gate is not None and found.best == gate else None,
        shifts=found.shifts,
        smoothing=smoothing,
        num_prompts=len(halves.chosen_on),
        num_seeds=len(seen.measure_SCP),
    )
    return _with_value(switch, seen.measure_SCP, chosen, halves)


def marginal_changes(
    measure_SCP: FloatArray,
    nats_SCP: FloatArray,
    lost_SCP: FloatArray,
    cost_C: FloatArray,
    resamples: Resamples,
    rules: ScalingLawRules,
) -> tuple[Changes, Changes, str]:
    """Observed and resampled changes, and how the measure was smoothed.

    Args:
        measure_SCP: gain over the base, base SD.
        nats_SCP: log π − log π_base of the arm's own samples.
        lost_SCP: fall of the entropy per token under the base's, base SD.
        cost_C: share of the device time spent by each point.
        resamples: of these prompts.
        rules: of the fitted curve.
    """
    num_seeds = len(measure_SCP)
    measure_BSC, once = weighted_means(measure_SCP, resamples), np.full((1, num_seeds), 1 / num_seeds)
    found = fit_curve(measure_SCP, nats_SCP, resamples, rules)
    if isinstance(found, Fit) and found.residual <= found.noise:
        smoothed_SC = curve(found.coefficients_2, root_kl(nats_SCP.mean(axis=2)))
        smoothed_BSC = curve(found.coefficients_B2[:, None], root_kl(weighted_means(nats_SCP, resamples)))
        smoothing = "by the fitted curve over the distance to the base"
    else:
        smoothed_SC, smoothed_BSC = lines_over_three(measure_SCP.mean(axis=2)), lines_over_three(measure_BSC)
        smoothing = "by straight lines over three evaluation points"
    return (
        changes(smoothed_SC[None], lost_SCP.mean(axis=2)[None], cost_C, once),
        changes(smoothed_BSC, weighted_means(lost_SCP, resamples), cost_C, resamples.seeds[num_seeds]),
        smoothing,
    )


@dataclass(frozen=True)
class Found:
    """What the rule says under the registered weights and under others."""

    reply: Reply
    why: str
    best: float
    points_B: FloatArray
    utility_I: FloatArray
    utility_BI: FloatArray
    shifts: tuple[tuple[str, int | None], ...]


def decide(observed: Changes, draws: Changes, gate: float, rules: SwitchRules) -> Found:
    """The switch point by the registered weights, as observed and in every resample.

    Args:
        observed: `[1, I]` each.
        draws: `[B, I]` each.
        gate: point that may not be passed, `NEVER` if there is none.
        rules: in use.
    """
    weights = Weights.of(rules)
    utility_I, utility_BI = _centred(observed, draws, weights)
    margin_I = margins(utility_I, utility_BI, rules.min_probability)
    best = float(switch_points(utility_I[None], margin_I, gate)[0])
    points_B = switch_points(utility_BI, margin_I, gate)
    pays_at_end = bool(np.all(np.mean(utility_BI[:, -2:] > 0, axis=0) >= rules.min_probability))
    reply, why = judge(utility_I, points_B, pays_at_end, best, rules)
    if np.isfinite(gate) and best == gate:
        why = "over-optimisation was found at the point after it"
    return Found(reply, why, best, points_B, utility_I, utility_BI, _shifts(observed, draws, weights, gate, rules))


def _centred(observed: Changes, draws: Changes, weights: Weights) -> tuple[FloatArray, FloatArray]:
    """U as observed `[I]` and in every resample `[B, I]`.

    The resamples are shifted to the observed value: noise makes drawdowns larger, and a resample has it twice.
    """
    utility_I, utility_BI = utility(observed, weights)[0], utility(draws, weights)
    return utility_I, utility_BI - utility_BI.mean(axis=0) + utility_I


def _shifts(
    observed: Changes, draws: Changes, weights: Weights, gate: float, rules: SwitchRules
) -> tuple[tuple[str, int | None], ...]:
    """The switch point with the risk weights, or the cost weight, halved and doubled."""
    found = []
    for part, fields in (("risk", ("drawdown", "diversity")), ("cost", ("cost",))):
        for word, factor in (("halved", 0.5), ("doubled", 2.0)):
            changed = replace(weights, **{name: factor * getattr(weights, name) for name in fields})
            utility_I, utility_BI = _centred(observed, draws, changed)
            margin_I = margins(utility_I, utility_BI, rules.min_probability)
            point = float(switch_points(utility_I[None], margin_I, gate)[0])
            found.append((f"weight of {part} {word}", int(point) if np.isfinite(point) else None))
    return tuple(found)


def _intervals(
    observed: Changes, draws: Changes, found: Found, places: Sequence[Place], num_prompts: int, num_seeds: int
) -> tuple[Interval, ...]:
    return tuple(
        Interval(
            start=places[i],
            end=places[i + 1],
            utility=recentred_estimate(
                float(found.utility_I[i]), found.utility_BI[:, i], "base SD", num_prompts, num_seeds
            ),
            measure=float(observed.measure[0, i]),
            drawdown=float(observed.drawdown[0, i]),
            entropy_lost=float(observed.entropy_lost[0, i]),
            cost_share=float(observed.cost[0, i]),
            probability=float(np.mean(found.utility_BI[:, i] < 0)),
        )
        for i in range(len(found.utility_I))
    )


def _with_value(switch: Switch, measure_SCP: FloatArray, chosen: float, halves: Halves) -> Switch:
    """What stopping there is worth, on the half of the prompts that had no part in choosing it."""
    if not np.isfinite(chosen):
        return switch
    other_SCP = measure_SCP[:, :, halves.reported_on]
    there_SP = other_SCP[:, int(chosen)]
    return replace(
        switch,
        gain_at_switch=mean_estimate(there_SP, halves.reporting, "base SD"),
        later_change=mean_estimate(other_SCP[:, -1] - there_SP, halves.reporting, "base SD"),
    )


def _entropy_lost(ledger: Ledger, arm: str) -> FloatArray:
    """Fall of the entropy per token under the base's, in SD of the base over prompts, `[S, C, P]`.

    The entropy is estimated by −log π of the arm's own samples. Zero if the base has no spread.
    """
    tokens_SCP = np.maximum(ledger.curve(arm, "num_tokens"), 1.0)
    entropy_SCP = -ledger.curve(arm, "logp_policy") / tokens_SCP
    scale = float(np.std(entropy_SCP[0, 0], ddof=1))
    return np.asarray((entropy_SCP[:, :1] - entropy_SCP) / scale) if scale > 0 else np.zeros(entropy_SCP.shape)


def _cost_share(ledger: Ledger, arm: str) -> FloatArray:
    """Share of the run's device time spent by each point; equal shares if it was not recorded. `[C]`."""
    spent = ledger.spent(arm, ["device_seconds"])
    if None in spent or not spent[-1]:
        return np.linspace(0, 1, ledger.final_point + 1)
    spent_C = np.array(spent, dtype=np.float64)
    return np.asarray(spent_C / spent_C[-1])


def _places(ledger: Ledger, arm: str) -> list[Place]:
    seen, spent = (ledger.spent(arm, [name]) for name in ("prompts_seen", "device_seconds"))
    return [
        Place(point, prompts or 0.0, seconds) for point, (prompts, seconds) in enumerate(zip(seen, spent, strict=True))
    ]
