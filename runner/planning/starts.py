"""Arms that start from another arm's checkpoint: from whose, and what can be wrong with that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from experiments.spec import PPO, DPOSettings, PPOThenDPO, RunSpec, Start, evaluation_updates, start_of, start_point
from runner.planning.problems import Problem


def label_of(run: RunSpec) -> str:
    """How an arm x seed is called."""
    return f"{run.arm.name}/seed{run.seed}"


def label_of_start(run: RunSpec) -> str | None:
    """The label of the arm x seed that a run starts from. None if that is the base."""
    start = start_of(run.arm)
    return f"{start.arm}/seed{run.seed}" if start else None


def start_problems(runs: Sequence[RunSpec]) -> list[Problem]:
    """What is wrong with the arms that start from another."""
    by_label = {label_of(run): run for run in runs}
    return [Problem(label, what) for label, run in by_label.items() for what in _problems(run, by_label)]


def _problems(run: RunSpec, by_label: Mapping[str, RunSpec]) -> Iterator[str]:
    start, label = start_of(run.arm), label_of_start(run)
    if start is None or label is None:
        return
    key, first = f"arm.start.arm={start.arm}", by_label.get(label)
    from_base = sorted({other.arm.name for other in by_label.values() if start_of(other.arm) is None})
    valid = f"; arms of this sweep that are trained from the base: {', '.join(from_base) or 'none'}"
    if first is None:
        yield f"{key}: this sweep has no arm {start.arm} with seed {run.seed}{valid}"
    elif start_of(first.arm) is not None:
        yield f"{key}: {_chain(run, by_label)}, but an arm can only start from one that is trained from the base{valid}"
    elif isinstance(run.arm, PPOThenDPO) and not isinstance(first.arm, PPO):
        yield f"{key}: {start.arm} is trained with {first.arm.algorithm}, and {run.arm.algorithm} needs a ppo arm"
    elif isinstance(run.arm, PPOThenDPO):
        yield from _budget_problems(run, run.arm, start, first)


def _chain(run: RunSpec, by_label: Mapping[str, RunSpec]) -> str:
    """Who starts from whom, to the first that comes again or starts from nobody in the sweep."""
    names, label = [run.arm.name], label_of_start(run)
    while label and label in by_label and len(names) == len(set(names)):
        names.append(by_label[label].arm.name)
        label = label_of_start(by_label[label])
    circle = ": a circle" if len(names) > len(set(names)) else ""
    return f"{names[0]} starts from {', which starts from '.join(names[1:])}{circle}"


def _budget_problems(run: RunSpec, arm: DPOSettings, start: Start, first: RunSpec) -> Iterator[str]:
    """What the first stage leaves of the budget has to make whole steps, and enough of them for the points after it."""
    if not isinstance(first.arm, PPO):
        return
    total, num_points = run.budget.num_prompts, run.budget.num_evaluation_points
    updates = evaluation_updates(total // first.arm.prompts_per_step, num_points)
    point = start_point(start, num_points)
    rest = total - updates[point - 1] * first.arm.prompts_per_step
    if rest % arm.pairs_per_step:
        yield (
            f"arm.start.share={start.share:g} leaves {rest} of budget.num_prompts={total}, which is not a multiple of "
            f"arm.pairs_per_step={arm.pairs_per_step}"
        )
    elif rest // arm.pairs_per_step < num_points - 1 - point:
        yield (
            f"arm.start.share={start.share:g} leaves {rest // arm.pairs_per_step} steps for "
            f"{num_points - 1 - point} evaluation points; lower arm.pairs_per_step={arm.pairs_per_step}"
        )
