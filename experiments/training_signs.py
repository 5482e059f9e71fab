"""Signs that training goes wrong: one table for the flags raised during training and for the report.

A flag is a ledger column ``flag/NAME``, 1 if the sign shows. The report counts the recorded flags and evaluates no
metric a second time, so the two cannot disagree. Imports no torch, because the analysis imports the table.

Most thresholds are this project's own choice. They are wide enough that a healthy arm raises no flag; the exception is
`all_truncated` in a task whose responses always fill the limit. Of two earlier thresholds the better founded was kept:

saturated_accuracy        0.95, not 0.98: the value that was registered with the rules. The report also looks at the
                          measure. So a flag too early costs one look at a curve; a flag too late costs the arm.
likelihood_displacement   The definition of Razin et al. 2024 (arXiv:2410.08847): the chosen responses grow less likely
                          while the margin grows. The other threshold, a fall by 20 % of the reference's
                          log-probability, has no source.
constant_reward           A tenth of the first rollouts' spread, not 10⁻⁶ alone: what counts as no spread depends on
                          the reward's scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

WINDOW = 8  # rows of a moving mean
PREFIX = "flag/"  # of a sign's column
History = Sequence[Mapping[str, float]]  # rows of one arm: the first ones, and the last ones up to now


@dataclass(frozen=True)
class Sign:
    """One sign that training goes wrong.

    Attributes:
        name: its column is `PREFIX` + name.
        label, meaning: for people; the meaning says when the sign shows.
        shows: whether the sign shows in the newest row of a history.
        in_samples: whether the report also measures it on the evaluation samples, with an interval.
    """

    name: str
    label: str
    meaning: str
    shows: Callable[[History], bool]
    in_samples: bool = False


def raised(signs: Sequence[Sign], history: History) -> dict[str, float]:
    """The columns of `signs` in the newest row of `history`."""
    return {PREFIX + sign.name: float(sign.shows(history)) for sign in signs}


def _above(metric: str, threshold: float) -> Callable[[History], bool]:
    return lambda history: history[-1][metric] > threshold


def _below(metric: str, threshold: float) -> Callable[[History], bool]:
    return lambda history: history[-1][metric] < threshold


def _entropy_collapsed(history: History) -> bool:
    return history[-1]["ppo/entropy"] < 0.3 * history[0]["ppo/entropy"]


def _kl_jumped(history: History) -> bool:
    now, before = (row["ppo/kl_per_token"] for row in (history[-1], history[-2] if len(history) > 1 else history[-1]))
    return now > max(2 * before, before + 0.25)


def _never_ends(history: History) -> bool:
    return len(history) > 2 and all(row["ppo/eos_fraction"] == 0 for row in history[-3:])


def _reward_is_constant(history: History) -> bool:
    return history[-1]["ppo/score_std"] < max(0.1 * history[0]["ppo/score_std"], 1e-6)


def _is_displaced(history: History) -> bool:
    if len(history) < 2 * WINDOW:
        return False
    (reward, first_reward), (margin, first_margin) = (
        (_mean(history[-WINDOW:], name), _mean(history[:WINDOW], name)) for name in ("/chosen_reward", "/reward_margin")
    )
    return reward < min(0.0, first_reward) and margin > first_margin


def _is_saturated(history: History) -> bool:
    return len(history) >= 2 * WINDOW and _mean(history[-WINDOW:], "dpo/accuracy") > 0.95


def _is_not_finite(history: History) -> bool:
    """A step of the newest row was skipped for its gradient, or the loss is no number."""
    before = history[-2]["train/skipped_steps"] if len(history) > 1 else 0
    return history[-1]["train/skipped_steps"] > before or not math.isfinite(history[-1].get("train/loss", 0.0))


def _mean(rows: History, name: str) -> float:
    """Mean of the metric whose name ends with `name`: every algorithm has its own prefix."""
    return fmean(next(value for column, value in row.items() if column.endswith(name)) for row in rows)


NOT_FINITE = Sign(
    "non_finite_gradient", "Not finite", "an optimizer step skipped for its gradient, or a loss not finite",
    _is_not_finite,
)  # fmt: skip
SATURATED = Sign(
    "saturated_accuracy", "Saturated accuracy", f"DPO: accuracy above 0.95, mean of {WINDOW} rows", _is_saturated
)
PPO_SIGNS = (
    Sign("entropy_collapse", "Entropy in training", "PPO: below 0.3 of the first row's", _entropy_collapsed, True),
    Sign("kl_jump", "KL jump in training", "PPO: per token, doubled and up by 0.25 nats in a row", _kl_jumped, True),
    Sign("clip_fraction", "Clipped tokens", "PPO: above 30 % of tokens", _above("ppo/clip_fraction", 0.3)),
    Sign(
        "critic_worse_than_a_constant", "Explained variance", "PPO: of returns by the value head, below a constant's 0",
        _below("ppo/explained_variance", 0.0),
    ),
    Sign("all_truncated", "No response ends", "PPO: none in three rows running", _never_ends, True),
    Sign(
        "constant_reward", "Spread of rewards", "PPO: SD over rollouts, below a tenth of the first ones'",
        _reward_is_constant,
    ),
    Sign(
        "sampler_gap", "Sampler gap", "PPO: log-probs of sampling and of training differ by over 0.05 nats",
        _above("ppo/sampler_gap", 0.05),
    ),
    NOT_FINITE,
)  # fmt: skip
DISPLACED = Sign(
    "likelihood_displacement", "Chosen responses less likely",
    f"pairs: chosen reward fell below 0 while the margin grew, means of {WINDOW} rows", _is_displaced,
)  # fmt: skip
DPO_SIGNS = (
    DISPLACED,
    SATURATED,
    NOT_FINITE,
)  # fmt: skip
SIGNS = tuple(dict.fromkeys((*PPO_SIGNS, *DPO_SIGNS)))  # all, in the order in which the report shows them
