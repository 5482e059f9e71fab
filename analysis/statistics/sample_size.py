"""What would settle an open question: how many prompts, which seeds, and the command that runs them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.statistics.bootstrap import Estimate, FloatArray
from runner.ledger.command import RUNNER, as_typed, changed

MANY_UNITS = 5000  # an interval that needs more prompts than this is hardly worth waiting for
NAME_DIGITS, MAX_NAME_LENGTH = 6, 64  # of a sweep's identity in a name; characters of a sweep's name


@dataclass(frozen=True)
class NextRun:
    """One thing to do, and why."""

    why: str
    command: str


def units_needed(estimate: Estimate, threshold: float, wider: float = 1.0) -> int | None:
    """Prompts (or what else was resampled) at which the interval would just clear the threshold, value unchanged.

    None if the value lies so near to the threshold that more than `MANY_UNITS` would be needed: a number of them
    would promise too much.

    Args:
        estimate: with its interval.
        threshold: in its unit.
        wider: see `statistics.bootstrap.simultaneous`, if the value has to stand a correction.
    """
    half_width = wider * (estimate.high - estimate.low) / 2
    needed = scaled(estimate.n, half_width, abs(estimate.value - threshold))
    return max(estimate.n, math.ceil(needed)) if needed <= MANY_UNITS else None


def scaled(count: int, half_width: float, distance: float) -> float:
    """How many units would shrink a half-width to the distance, n (half-width / distance)^2; infinite at distance 0."""
    return count * (half_width / distance) ** 2 if distance > 0 else math.inf


def seed_share(values_SP: FloatArray) -> float | None:
    """Share of the variance of the overall mean that comes from the seeds, 0 to 1; None below two seeds.

    Seeds and prompts are crossed random effects. The mean squares of seeds, prompts and residual estimate the three
    components (Searle, Casella & McCulloch 1992, section 4.4), negative ones counted as zero.
    """
    num_seeds, num_prompts = values_SP.shape
    if num_seeds < 2 or num_prompts < 2:
        return None
    by_seed, by_prompt = values_SP.mean(axis=1), values_SP.mean(axis=0)
    residual = values_SP - by_seed[:, None] - by_prompt + values_SP.mean()
    noise = float((residual**2).sum()) / ((num_seeds - 1) * (num_prompts - 1))
    of_seeds = max(0.0, float(by_seed.var(ddof=1)) - noise / num_prompts) / num_seeds
    of_prompts = max(0.0, float(by_prompt.var(ddof=1)) - noise / num_seeds) / num_prompts
    total = of_seeds + of_prompts + noise / (num_seeds * num_prompts)
    return of_seeds / total if total > 0 else 0.0


def next_seed_count(num_seeds: int, looks: Sequence[int]) -> int | None:
    """The next of the registered looks, None at their end: adding seeds until something shows is no method."""
    return next((look for look in sorted(looks) if look > num_seeds), None)


def runner_command(arguments: Sequence[str], changes: Mapping[str, str] | None = None) -> str:
    """The sweep again, with some keys changed, as typed into a shell; "" if nobody knows how it was started.

    Args:
        arguments: what it was started with.
        changes: key -> value, in Hydra's grammar.
    """
    return as_typed((*RUNNER, *changed(arguments, changes or {}))) if arguments else ""


def free_name(sweep: str, num_prompts: int, identity: str) -> str:
    """A name for a sweep with more prompts, whose folder cannot hold another specification's results.

    Args:
        sweep: the name of this one.
        num_prompts: of the other.
        identity: hash of all that this one's report depends on.
    """
    end = f"_{num_prompts}" + (f"_{identity[:NAME_DIGITS]}" if identity else "")
    return sweep[: MAX_NAME_LENGTH - len(end)] + end
