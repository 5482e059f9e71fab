"""How steadily an arm got where it ended: over its evaluation points, over the samples of one prompt, over seeds.

over_time    dispersion, worst step and drawdown along training, with the evaluation noise taken out
over_samples dispersion and risk over the samples of one prompt
over_seeds   dispersion and risk over seeds
behaviour    changed answers and style between successive points
tolerance    the question "can we tolerate oscillation?"
sensitivity  how far an algorithm's variants end apart
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from analysis.answers import Answer
from analysis.ledger import BASE, Ledger
from analysis.scores import above_base, base_sd, curve, halves_of
from analysis.stability import behaviour, over_samples, over_seeds, over_time, sensitivity, tolerance
from analysis.stability.over_time import OverTime
from analysis.statistics.bootstrap import Resamples

__all__ = ["ArmStability", "SweepStability", "stability_of", "together"]


@dataclass(frozen=True, kw_only=True)
class ArmStability(OverTime):
    """One arm along training, and what the other modules say of it."""

    samples: over_samples.OverSamples | None
    seeds: over_seeds.SeedSpread
    behaviour: behaviour.Behaviour
    tolerance: tolerance.Tolerance


@dataclass(frozen=True)
class SweepStability:
    """What is said of all arms together.

    Attributes:
        algorithms: can we tolerate the oscillation of each algorithm?
        samples_of_base: dispersion and risk over samples of the base, beside the arms' own.
        sensitivity: of each algorithm to its knobs.
        worst_response_share: of all responses that `worst_responses` are.
    """

    algorithms: dict[str, Answer]
    samples_of_base: over_samples.OverSamples | None
    sensitivity: list[sensitivity.Sensitivity]
    worst_response_share: float


def stability_of(ledger: Ledger, arm: str, resamples: Resamples) -> ArmStability:
    """Stability of one arm."""
    rules = ledger.rules.stability
    curve_SCP = curve(ledger, ledger.measure, arm) / base_sd(ledger)
    over = over_time.spread_over_time(curve_SCP, resamples, rules.tail_share)
    halves = halves_of(ledger)
    return ArmStability(
        **{item.name: getattr(over, item.name) for item in fields(OverTime)},
        samples=_over_samples(ledger, arm, resamples),
        seeds=over_seeds.spread_over_seeds(curve_SCP[:, -1] - curve_SCP[:, 0]),
        behaviour=behaviour.behaviour_of(behaviour.Responses(ledger), arm, resamples),
        tolerance=tolerance.judge(arm, curve_SCP, over, halves, resamples, rules),
    )


def together(ledger: Ledger, arms: Mapping[str, ArmStability], resamples: Resamples) -> SweepStability:
    """What is said of all arms together."""
    judged = {arm: item.tolerance for arm, item in arms.items()}
    algorithms = {
        name: tolerance.of_algorithm(
            ledger.label(name), {arm: item for arm, item in judged.items() if ledger.algorithm(arm) == name}
        )
        for name in dict.fromkeys(ledger.algorithm(arm) for arm in judged)
    }
    return SweepStability(
        algorithms,
        _over_samples(ledger, BASE, resamples),
        list(sensitivity.sensitivities(ledger, resamples)),
        ledger.rules.stability.worst_response_share,
    )


def _over_samples(ledger: Ledger, arm: str, resamples: Resamples) -> over_samples.OverSamples | None:
    values_SPM = above_base(ledger, ledger.measure, arm)
    return over_samples.spread_over_samples(values_SPM, resamples, ledger.rules.stability.worst_response_share)
