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
from dataclasses import dataclass

from analysis.answers import Answer
from analysis.ledger import BASE, Ledger
from analysis.scores import above_base, base_sd, curve, halves_of
from analysis.stability import behaviour, over_samples, over_seeds, over_time, sensitivity, tolerance
from analysis.stability.over_time import Measured, StepSpread
from analysis.stability.tolerance import StabilityRules
from analysis.statistics.bootstrap import Estimate, Resamples

__all__ = ["ArmStability", "SweepStability", "assess", "together"]


@dataclass(frozen=True)
class ArmStability:
    """One arm; see the modules for the meaning of each number. `tolerance` is None where the plan has no rules."""

    drawdown: Estimate
    observed_drawdown: Measured
    drawdown_tail: Estimate
    num_tail_points: int
    under_water: Estimate
    final_over_peak: Estimate
    worst_step: Estimate
    num_tail_steps: int
    step_spread: StepSpread | None
    samples: over_samples.OverSamples | None
    seeds: over_seeds.SeedSpread
    behaviour: behaviour.Behaviour
    tolerance: tolerance.Tolerance | None


@dataclass(frozen=True)
class SweepStability:
    """What is said of all arms together.

    Attributes:
        algorithms: can we tolerate the oscillation of each algorithm? Empty where the plan has no rules.
        reason: why it is empty.
        samples_of_base: dispersion and risk over samples of the base, beside the arms' own.
        sensitivity: of each algorithm to its knobs.
        worst_response_share: of all responses that `worst_responses` are; None where the plan has no rules.
    """

    algorithms: dict[str, Answer]
    reason: str | None
    samples_of_base: over_samples.OverSamples | None
    sensitivity: list[sensitivity.Sensitivity]
    worst_response_share: float | None


def assess(ledger: Ledger, arm: str, resamples: Resamples) -> ArmStability:
    """Stability of one arm."""
    rules = rules_of(ledger)
    curve_SCP = curve(ledger, ledger.measure, arm) / base_sd(ledger)
    over = over_time.assess(curve_SCP, resamples, rules.tail_share if rules else 0.0)
    judged = None
    if rules:
        judged = tolerance.judge(arm, curve_SCP, over, halves_of(ledger), resamples, rules)
    return ArmStability(
        drawdown=over.drawdown,
        observed_drawdown=over.observed_drawdown,
        drawdown_tail=over.drawdown_tail,
        num_tail_points=over.num_tail_points,
        under_water=over.under_water,
        final_over_peak=over.final_over_peak,
        worst_step=over.worst_step,
        num_tail_steps=over.num_tail_steps,
        step_spread=over.step_spread,
        samples=_over_samples(ledger, arm, resamples, rules),
        seeds=over_seeds.assess(curve_SCP[:, -1] - curve_SCP[:, 0]),
        behaviour=behaviour.assess(behaviour.Responses(ledger), arm, resamples),
        tolerance=judged,
    )


def together(ledger: Ledger, arms: Mapping[str, ArmStability], resamples: Resamples) -> SweepStability:
    """What is said of all arms together."""
    rules = rules_of(ledger)
    judged = {arm: item.tolerance for arm, item in arms.items() if item.tolerance}
    algorithms = {
        name: tolerance.of_algorithm(name, {arm: item for arm, item in judged.items() if ledger.algorithm(arm) == name})
        for name in dict.fromkeys(ledger.algorithm(arm) for arm in judged)
    }
    return SweepStability(
        algorithms,
        None if rules else "not assessable: the plan registered no tolerance before training",
        _over_samples(ledger, BASE, resamples, rules),
        sensitivity.assess(ledger, resamples),
        rules.worst_response_share if rules else None,
    )


def rules_of(ledger: Ledger) -> StabilityRules | None:
    """None where the sweep was planned before there were such rules."""
    return ledger.rules("stability", StabilityRules) if "stability" in ledger.plan["rules"] else None


def _over_samples(
    ledger: Ledger, arm: str, resamples: Resamples, rules: StabilityRules | None
) -> over_samples.OverSamples | None:
    values_SPM = above_base(ledger, ledger.measure, arm)
    return over_samples.assess(values_SPM, resamples, rules.worst_response_share if rules else None)
