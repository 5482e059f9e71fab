"""What goes wrong in training, seen while it happens: a flag is a ledger column, 1 where it is up.

The thresholds are this project's judgement, wide enough that a healthy arm stays silent (`all_truncated` apart, where a
task asks for just so many tokens); a flag asks for a look at the curve, it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

WINDOW = 8  # rows that a moving mean is taken over
History = Sequence[Mapping[str, float]]  # rows of one arm so far, the newest last


def ppo_flags(history: History) -> dict[str, float]:
    """PPO's flags after the newest row of `history`."""
    first, row = history[0], history[-1]
    before = history[-2] if len(history) > 1 else row
    return _columns(
        entropy_collapse=row["ppo/entropy"] < 0.3 * first["ppo/entropy"],
        kl_jump=row["ppo/kl_per_token"] > max(2 * before["ppo/kl_per_token"], before["ppo/kl_per_token"] + 0.25),
        clip_fraction=row["ppo/clip_fraction"] > 0.3,
        critic_worse_than_a_constant=row["ppo/explained_variance"] < 0,
        all_truncated=len(history) > 2 and all(past["ppo/eos_fraction"] == 0 for past in history[-3:]),
        constant_reward=row["ppo/score_std"] < 1e-6,
        sampler_gap=row["ppo/sampler_gap"] > 0.05,
        non_finite_gradient=_has_skipped(history),
    )


def dpo_flags(history: History) -> dict[str, float]:
    """DPO's flags after the newest row of `history`.

    Likelihood displacement (Razin et al. 2024, arXiv:2410.08847): the chosen responses, too, grow less likely, while
    the margin grows.
    """
    full = len(history) >= 2 * WINDOW
    return _columns(
        likelihood_displacement=full
        and _mean(history[-WINDOW:], "dpo/chosen_reward") < min(0.0, _mean(history[:WINDOW], "dpo/chosen_reward"))
        and _mean(history[-WINDOW:], "dpo/reward_margin") > _mean(history[:WINDOW], "dpo/reward_margin"),
        saturated_accuracy=full and _mean(history[-WINDOW:], "dpo/accuracy") > 0.98,
        non_finite_gradient=_has_skipped(history),
    )


class Watch:
    """Keeps as much of an arm's rows as its flags look at."""

    def __init__(self, flags: Callable[[History], dict[str, float]]) -> None:
        self._flags = flags
        self.rows: list[dict[str, float]] = []

    def with_flags(self, values: Mapping[str, float]) -> dict[str, float]:
        """A row and its flags."""
        self.rows.append(dict(values))
        del self.rows[WINDOW:-WINDOW]  # what came first, and what came last
        return {**values, **self._flags(self.rows)}


def _has_skipped(history: History) -> bool:
    """Whether an optimizer step of the newest row was skipped."""
    before = history[-2]["train/skipped_steps"] if len(history) > 1 else 0
    return history[-1]["train/skipped_steps"] > before


def _mean(rows: History, name: str) -> float:
    return fmean(row[name] for row in rows)


def _columns(**flags: bool) -> dict[str, float]:
    return {f"flag/{name}": float(up) for name, up in flags.items()}
