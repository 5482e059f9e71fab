"""Ledger -> the one dictionary that is report.json. Every rendering is a function of it.

A number is an estimate ({"value", "low", "high", "unit", …}) or measured without sampling error ({"exact", "unit"}).
"""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np

from analysis import collapse, scores, stability
from analysis import win_rates as win_rate
from analysis.answers import Answer
from analysis.decision import gates, recommendation
from analysis.decision import headline as decision
from analysis.ledger import BASE, Ledger
from analysis.over_optimisation import audit as over_optimisation
from analysis.questions import readiness, recovery, switch_point
from analysis.questions import recovery_words as recovery_answer
from analysis.questions import switch_words as switch_answer
from analysis.report import context, side_by_side
from analysis.report.schema import REPORT_SCHEMA, checked
from analysis.statistics.bootstrap import CONFIDENCE_LEVEL, Estimate, Resamples
from analysis.statistics.scaling_law import Law
from analysis.style import sweep as style_drift
from analysis.text import all_visible
from analysis.win_rates import at_equal_style as style_control
from analysis.win_rates import bradley_terry as strengths
from analysis.win_rates import judges

ANALYSIS_SEED = 20261123  # of the bootstrap; the same ledger gives the same bytes
# Generators of their own, so that one part does not move the numbers of the others.
HALVES_STREAM, REFITS_STREAM = 4, 5


def build_report(ledger: Ledger) -> dict[str, Any]:
    """Collect everything the report says.

    Args:
        ledger: of one sweep, as `load_ledger` returns it.
    """
    rng = np.random.default_rng(ANALYSIS_SEED)
    max_seeds = max(len(ledger.seeds(arm)) for arm in ledger.arms)
    resamples = Resamples.draw(rng, len(ledger.prompt_ids), max_seeds, win_rate.num_resamples(ledger))
    compared = win_rate.compare_all(ledger, resamples)
    halves = scores.Halves.draw(ledger, np.random.default_rng((ANALYSIS_SEED, HALVES_STREAM)))
    style = style_drift.SweepStyle(ledger, resamples)
    recovered = recovery.recoveries(ledger, style, resamples)
    checkpoints = recovery.checkpoints(ledger, recovered, halves)
    way_back = recovery_answer.answer(ledger, recovered, checkpoints)
    outcome = decision.decide(ledger, compared, resamples, rng, way_back)
    steadiness = {arm: stability.stability_of(ledger, arm, resamples) for arm in ledger.arms}
    together = stability.together(ledger, steadiness, resamples)
    decides = win_rate.rules_of(ledger).primary_judge
    refits = np.random.default_rng((ANALYSIS_SEED, REFITS_STREAM))
    controls = style_control.control_all(ledger, decides, resamples, refits)
    rates = _win_rates(ledger, compared, decides, controls)
    audits = _audits(ledger, resamples, controls if decides == ledger.measure.name else {}, halves)
    arms = [
        {
            **_arm(ledger, arm, resamples, steadiness[arm], style, rates[arm, BASE]),
            "verdict": decision.verdict(compared.get((arm, BASE, decides))),
            **plain(audits[arm]),
        }
        for arm in ledger.arms
    ]
    from_base = ledger.between_plain_arms()
    pairs = [
        {"arm": arm, "opponent": opponent, "win_rate": by_judge}
        for (arm, opponent), by_judge in rates.items()
        if (arm, opponent) in from_base and by_judge[ledger.measure.name]
    ]
    staged = [
        {"arm": arm, "opponent": opponent, "win_rate": by_judge}
        for (arm, opponent), by_judge in rates.items()
        if opponent != BASE and (arm, opponent) not in from_base and by_judge[ledger.measure.name]
    ]
    switched = _switched(ledger, outcome, audits)
    questions = recommendation.Questions(
        readiness.readiness_of(ledger, resamples, rng),
        oscillation=together.algorithms.get("ppo"),
        stops_paying=switched.switch_answer if switched else None,
        switch_at=switch_answer.switch_at(switched.switch) if switched else None,
    )
    against_base = {arm: compared.get((arm, BASE, decides)) for arm in ledger.arms}
    gates_by_arm = _gates(ledger, resamples, against_base, steadiness, audits, style, controls)
    report = {
        "schema": REPORT_SCHEMA,
        "sweep": ledger.plan["sweep"],
        "created": ledger.plan["created"],
        "headline": outcome.headline,
        "summary": _summary(arms, pairs, ledger.measure.name, decides),
        "decision": {
            **plain(outcome),
            "minimum_detectable_effect": _detectable(outcome.final, compared) if outcome.final else None,
            "selection_rule": decision.SELECTION_RULE,
            "confidence_rule": f"{decision.AHEAD_RULE} {decision.CONFIDENCE_RULE}",
        },
        "recommendation": _recommendation(ledger, outcome, gates_by_arm, questions),
        "questions": plain(questions.shown()),
        "gates": plain(gates_by_arm),
        "missing": plain(ledger.missing),
        "design": _design(ledger, len(resamples.prompts)),
        "base": _base(ledger, resamples),
        "arms": arms,
        "stability": plain(together),
        "head_to_head": pairs,
        "staged": staged,
        "recovery": plain(recovered),
        "checkpoints": plain(checkpoints),
        "style": style.context(),
        "scores": plain(ledger.scores),
        "judges": {
            name: {**plain(card), "decides": name == decides} for name, card in win_rate.judges_of(ledger).items()
        },
        "strengths": plain(strengths.strength_scale(ledger, win_rate.rules_of(ledger), resamples)),
        "asked_judges": plain(judges.assessments(ledger, resamples)),
        "missing_judges": plain(ledger.missing_judges),
        "samples": {"rule": side_by_side.RULE, "chosen": side_by_side.choose_samples(ledger)},
        "artifacts": context.artifacts(ledger),
        "health_metrics": {metric: what for metric, (what, _) in context.health_metrics(ledger).items()},
        "shared_costs": context.shared_costs(ledger),
        "settings": ledger.plan["settings"],
        "over_optimisation": {
            "verdict_rule": over_optimisation.VERDICT_RULE,
            "measured_coverage": list(over_optimisation.MEASURED_COVERAGE),
        },
        "rules": {
            "registered_sha256": ledger.plan["registered_rules"]["sha256"],
            "in_use": ledger.plan["rules"],
            "changed": plain(ledger.changed_rules),
        },
        "fairness": ledger.plan["fairness"],
        "provenance": context.provenance(ledger),
        "ledger": {"sha256": ledger.manifest.sha256, "num_files": len(ledger.manifest.files)},
    }
    safe: dict[str, Any] = all_visible(report)
    return checked(safe)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and numpy numbers as JSON values."""
    if isinstance(value, Estimate):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _gates(
    ledger: Ledger,
    resamples: Resamples,
    against_base: dict[str, win_rate.WinRate | None],
    steadiness: dict[str, stability.ArmStability],
    audits: dict[str, Audited],
    style: style_drift.SweepStyle,
    controls: style_control.Controls,
) -> dict[str, tuple[gates.Gate, ...]]:
    """Of every finished arm."""
    costs = context.cost_ratios(ledger)
    return {
        arm: gates.gates_of(
            gates.Measurements(
                win_rate=against_base[arm],
                controlled_win_rate=style_control.identified_rate(controls.get((arm, BASE))),
                gain=scores.score_gain(ledger, ledger.measure, arm, ledger.final_point, resamples),
                stability=steadiness[arm].tolerance.answer,
                style_auc=style.drifts[arm].auc.change,
                over_optimisation=(audits[arm].audit.reply, audits[arm].audit.why),
                cost_ratio=costs.get(arm),
                why_not_controlled=style_control.NOT_IDENTIFIED if (arm, BASE) in controls else gates.NOT_MEASURED,
            ),
            ledger.rules.decision,
        )
        for arm in ledger.arms
    }


def _recommendation(
    ledger: Ledger,
    outcome: decision.Decision,
    gates_by_arm: dict[str, tuple[gates.Gate, ...]],
    questions: recommendation.Questions,
) -> dict[str, Any]:
    """With the whole table of rules, so that a reader sees which row applied."""
    final = outcome.final
    sweep = recommendation.Sweep(
        name=ledger.plan["sweep"],
        algorithms={arm: ledger.algorithm(arm) for arm in ledger.arms},
        planned_seeds=sorted({int(arm["seed"]) for arm in ledger.plan["arms"]}),
        num_seeds=len(final.seeds) if final else min(len(ledger.seeds(arm)) for arm in ledger.arms),
        num_prompts=len(ledger.prompt_ids),
        num_missing=len(ledger.missing),
        seed_looks=ledger.rules.stability.seed_looks,
        arguments=tuple(ledger.plan["command"]),
        identity=next((str(job["identity"]) for job in ledger.plan["jobs"] if job["kind"] == "report"), ""),
    )
    sure_by = ledger.rules.confidence
    found = recommendation.recommend(
        sweep,
        final,
        decision.confidence(final, sure_by) if final else "inconclusive",
        gates_by_arm,
        questions,
        sure_by,
        ledger.rules.decision,
        outcome.staged,
    )
    table = [{"when": rule.when, "then": rule.then, "rests_on": rule.rests_on} for rule in recommendation.RULES]
    return {**plain(found), "rules": table}


def _detectable(final: decision.Final, compared: win_rate.Comparisons) -> float:
    """True lead in points that both conditions of `decision.AHEAD_RULE` would often show."""
    on_all_prompts = compared[final.arm, final.opponent, final.judge]
    return max(final.rate.minimum_detectable_effect, on_all_prompts.minimum_detectable_effect)


def _design(ledger: Ledger, num_resamples: int) -> dict[str, Any]:
    _, num_prompts, num_samples = ledger.array(BASE, "response").shape
    return {
        "base_model": context.base_model(ledger.plan["settings"]),
        "num_evaluation_prompts": num_prompts,
        "samples_per_prompt": num_samples,
        "num_evaluation_points": ledger.final_point + 1,
        "planned_seeds": sorted({int(arm["seed"]) for arm in ledger.plan["arms"]}),
        "confidence_level": CONFIDENCE_LEVEL,
        "num_resamples": num_resamples,
        "analysis_seed": ANALYSIS_SEED,
        "base_sd_points": context.exact(scores.POINTS * scores.base_sd(ledger), "points"),
    }


def _base(ledger: Ledger, resamples: Resamples) -> dict[str, Any]:
    return {"measure": scores.measure_mean(ledger, BASE, resamples).as_dict()}


def _arm(
    ledger: Ledger,
    arm: str,
    resamples: Resamples,
    steadiness: stability.ArmStability,
    style: style_drift.SweepStyle,
    rates: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    difference = scores.measure_difference(ledger, arm, resamples)
    drift = style.drifts[arm]
    knobs = next(item["knobs"] for item in ledger.plan["arms"] if item["arm"] == arm)
    return {
        "arm": arm,
        "algorithm": ledger.algorithm(arm),
        "algorithm_label": ledger.label(ledger.algorithm(arm)),
        "seeds": ledger.seeds(arm),
        "measure": scores.measure_mean(ledger, arm, resamples).as_dict(),
        "measure_difference": with_mde(difference),
        "win_rate": rates,
        "outcomes": plain(win_rate.outcome_changes(ledger, arm, resamples)),
        "stability": plain(steadiness),
        "collapse": plain(collapse.collapse_of(ledger, arm, resamples)),
        "style_drift": plain(drift.measures),
        "style_moved": plain(drift.moved),
        "kl": plain(scores.divergence(ledger, arm, resamples)),
        "curve": _curve(ledger, arm, resamples),
        "over_optimisation": plain(over_optimisation.gains(ledger, arm, resamples)),
        "cost": context.cost(ledger, arm),
        "health": context.health(ledger, arm),
        "comparisons": context.comparisons(ledger, arm),
        "knobs": {key: value for key, value in knobs.items() if key not in {"name", "algorithm"}},
    }


@dataclass(frozen=True)
class Audited:
    """What is said of one arm's measure and training reward along training."""

    scaling_law: Law
    audit: over_optimisation.Audit
    switch: switch_point.Switch
    switch_answer: Answer


def _audits(
    ledger: Ledger, resamples: Resamples, controls: style_control.Controls, halves: scores.Halves
) -> dict[str, Audited]:
    """Of every arm; `controls` are by the measure, or empty."""
    base = over_optimisation.reference(ledger, resamples)
    audits = {}
    for arm in ledger.arms:
        control = controls.get((arm, BASE))
        style = control.rates if control else None
        audit = over_optimisation.audit(ledger, arm, base, resamples, halves, style)
        switch = switch_point.switch_of(ledger, arm, halves, audit.hacking_points)
        law = over_optimisation.law(ledger, arm, resamples)
        audits[arm] = Audited(law, audit, switch, switch_answer.answer(ledger, arm, switch))
    return audits


def _switched(ledger: Ledger, outcome: decision.Decision, audits: dict[str, Audited]) -> Audited | None:
    """Of the PPO arm that the recommendation is about, else the plan's first."""
    arms = [arm for arm in ledger.arms if ledger.algorithm(arm) == "ppo"]
    chosen = outcome.final.arm if outcome.final and outcome.final.arm in arms else next(iter(arms), None)
    return audits[chosen] if chosen else None


def with_mde(estimate: Estimate) -> dict[str, Any]:
    """An estimate of a difference, with the smallest true one that would mostly be found."""
    return {**estimate.as_dict(), "minimum_detectable_effect": estimate.minimum_detectable_effect}


def _win_rates(
    ledger: Ledger, compared: win_rate.Comparisons, decides: win_rate.JudgeName, controls: style_control.Controls
) -> dict[tuple[str, str], dict[str, dict[str, Any] | None]]:
    """(arm, opponent) -> judge -> what the report says of their win rate; the deciding judge's also at equal style."""
    found: dict[tuple[str, str], dict[str, dict[str, Any] | None]] = {}
    for arm, opponent, _ in ledger.contests:
        found[arm, opponent] = {
            judge: _rate(compared.get((arm, opponent, judge))) for judge in win_rate.judges_of(ledger)
        }
        rate = found[arm, opponent][decides]
        if rate:
            rate["controlled"] = plain(controls.get((arm, opponent)))
    return found


def _rate(rate: win_rate.WinRate | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    return {
        **rate.estimate.as_dict(),
        "minimum_detectable_effect": rate.minimum_detectable_effect,
        "ties": rate.ties.as_dict(),
        "p": rate.p,
        "adjusted_p": rate.adjusted_p,
        "sign_test_p": rate.sign_test,
        "seeds": list(rate.seeds),
        "num_pairs": rate.num_pairs,
        "num_missing": rate.num_missing,
        "blocked": rate.blocked,
        "ahead": win_rate.ahead(rate),
    }


def _curve(ledger: Ledger, arm: str, resamples: Resamples) -> list[dict[str, Any]]:
    """Every evaluation point, the base first: what training had taken, how far the model had moved, the measure."""
    taken = context.training_axes(ledger, arm)
    still = {"exact": 0.0, "unit": "nats"}
    return [
        {
            "point": point,
            **taken[point],
            "kl": plain(scores.divergence(ledger, arm, resamples, point).per_response) if point else still,
            "measure": scores.measure_mean(ledger, arm, resamples, point).as_dict(),
        }
        for point in range(ledger.final_point + 1)
    ]


def _summary(
    arms: list[dict[str, Any]], pairs: list[dict[str, Any]], measure: str, decides: win_rate.JudgeName
) -> dict[str, float]:
    """Flat names and numbers for experiment trackers. Percent, points, base SD, nats and seconds.

    The win rates are those of the judge that decides; one that it has not given is left out.
    """
    numbers: dict[str, float] = {}
    for arm in arms:
        name = arm["arm"]
        if arm["win_rate"][decides]:
            numbers[f"win_rate/{name}_vs_base"] = arm["win_rate"][decides]["value"]
        numbers[f"{measure}/{name}"] = arm["measure"]["value"]
        numbers[f"{measure}_difference/{name}_vs_base"] = arm["measure_difference"]["value"]
        numbers[f"drawdown/{name}"] = arm["stability"]["drawdown"]["value"]
        numbers[f"kl/{name}"] = arm["kl"]["per_response"]["value"]
        if arm["cost"]["wall_seconds"]:
            numbers[f"wall_seconds/{name}"] = arm["cost"]["wall_seconds"]["exact"]
    for pair in pairs:
        if pair["win_rate"][decides]:
            numbers[f"win_rate/{pair['arm']}_vs_{pair['opponent']}"] = pair["win_rate"][decides]["value"]
    return numbers
