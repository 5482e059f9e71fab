"""Collapse seen while training: the ledger's own metrics between two evaluation points.

A row is one update (PPO) or step (DPO). A detector fires where the mean over the rows since the last point is beyond
its threshold, and says "watch" where a single row is; spikes are single rows by nature. These numbers have no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.collapse.readings import (
    CollapseRules,
    Detection,
    Detector,
    Reading,
    Status,
    detection,
    judge_rows,
    not_assessable,
    worst_seed,
)
from analysis.ledger import Ledger
from analysis.scores import curve
from analysis.stability.over_time import Measured
from analysis.statistics.bootstrap import FloatArray, Resamples, mean_estimate

SINGLE_ROW = "a single row is beyond the threshold, their mean is not"

CLIPPED = Detector("clip_fraction", "Clipped tokens", "PPO: tokens whose ratio was clipped, mean since the last point")
CRITIC = Detector("explained_variance", "Explained variance", "PPO: of returns by the value head; 0 is a constant's")
REWARD_STD = Detector("reward_std", "Spread of rewards", "PPO: SD over rollouts, percent of the first rollouts'")
UPDATE_KL = Detector("update_kl", "Spike of the update's KL", "PPO: largest row over the run's median")
DISPLACED = Detector(
    "chosen_drop", "Chosen responses less likely", "DPO: fall of their log-probability, percent of the reference's size"
)
BELOW = Detector(
    "below_reference", "Chosen below the reference", "DPO: points in a row with a mean chosen reward below 0"
)
SATURATED = Detector(
    "saturated", "Saturated accuracy", "DPO: accuracy in training, held against the measure since the last point"
)
GRADIENT = Detector("gradient_spike", "Gradient spike", "largest gradient norm over the run's median")
NOT_FINITE = Detector("not_finite", "Not finite", "optimizer steps skipped for their gradient, and losses not finite")
OF_PPO, OF_DPO = (CLIPPED, CRITIC, REWARD_STD, UPDATE_KL), (DISPLACED, BELOW, SATURATED)
OF_OTHERS = {"ppo": OF_DPO, "dpo": OF_PPO, "ppo_then_dpo": OF_PPO, "interpolation": (*OF_PPO, *OF_DPO)}


@dataclass(frozen=True)
class RunRows:
    """Training rows of one run, and which of them lie between two evaluation points.

    Attributes:
        columns: every metric as recorded, NaN where a row lacks it or was not finite.
        after: number of the evaluation point that each row comes before (or at); the base's is 0.
    """

    seed: int
    columns: dict[str, FloatArray]
    after: npt.NDArray[np.intp]

    @classmethod
    def of(cls, ledger: Ledger, label: str, seed: int) -> RunRows:
        """Read one run; a point without a row of its own ends where the run does."""
        metrics = ledger.metrics
        rows = metrics[(metrics["label"] == label) & (metrics["phase"] == "train")]
        marks = metrics[(metrics["label"] == f"{label}/evaluation") & (metrics["phase"] == "evaluation")]
        numbers = marks.reindex(columns=["point", "prompts_seen"]).dropna().to_numpy(np.float64)
        seen = {int(point): float(prompts) for point, prompts in numbers}
        bounds = [0.0, *(seen.get(point, np.inf) for point in range(1, ledger.final_point + 1))]
        columns = {str(name): rows[name].to_numpy(np.float64) for name in rows.columns if "/" in str(name)}
        when = rows["prompts_seen"].to_numpy(np.float64) if "prompts_seen" in rows else np.empty(0)
        return cls(seed, columns, np.searchsorted(bounds, when))

    def column(self, name: str) -> FloatArray:
        """All finite values of a metric."""
        values = self.columns.get(name, np.empty(0))
        return values[np.isfinite(values)]

    def between(self, name: str, point: int) -> FloatArray:
        """Its finite values between the last point and this one."""
        values = self.columns.get(name, np.empty(0))
        return values[np.isfinite(values) & (self.after == point)] if len(values) else values

    def num_between(self, point: int) -> int:
        """How many rows there are between the last point and this one."""
        return int((self.after == point).sum())


Look = Callable[[RunRows, int], Reading | None]


class TrainingDetectors:
    """All detectors of one arm's training metrics, over its evaluation points."""

    def __init__(self, ledger: Ledger, arm: str, resamples: Resamples, rules: CollapseRules) -> None:
        self.algorithm, self.rules = ledger.algorithm(arm), rules
        self.points = list(range(1, ledger.final_point + 1))
        runs = sorted((run for run in ledger.runs if run.arm == arm), key=lambda run: run.seed)
        self.runs = [RunRows.of(ledger, run.label, run.seed) for run in runs]
        self.knobs: Mapping[str, Any] = next(
            item.get("knobs", {}) for item in ledger.plan["arms"] if item["arm"] == arm
        )
        curve_SCP = curve(ledger, ledger.measure, arm)
        self.measure_steps = {  # (seed, point) -> the step of the measure since the last point
            (run.seed, point): mean_estimate(step[None], resamples, "share")
            for run, curve_CP in zip(self.runs, curve_SCP, strict=True)
            for point, step in enumerate(np.diff(curve_CP, axis=0), start=1)
        }

    def all(self) -> Iterator[Detection]:
        """Every detector; those of another algorithm are not assessable. A staged arm's own training is DPO's."""
        rules, theirs = self.rules, OF_OTHERS[self.algorithm]
        looks: list[tuple[Detector, Look, bool]] = [
            (CLIPPED, self._mean_of("ppo/clip_fraction", 100 * rules.max_clip_fraction, True, 100), True),
            (CRITIC, self._mean_of("ppo/explained_variance", rules.min_explained_variance, False), False),
            (REWARD_STD, self._reward_std, False),
            (UPDATE_KL, self._spike_of("ppo/approx_kl", rules.min_update_kl_spike), True),
            (DISPLACED, self._displaced, True),
            (BELOW, self._below_reference, True),
            (SATURATED, self._saturated, True),
            (GRADIENT, self._spike_of("train/gradient_norm", 0.0), True),
            (NOT_FINITE, self._not_finite, True),
        ]
        for detector, look, above in looks:
            if detector in theirs:
                other = "PPO" if detector in OF_PPO else "DPO"
                yield not_assessable(detector, self.points, f"of {other} only")
            else:
                yield detection(detector, [self._worst(look, point, above) for point in self.points])

    def _worst(self, look: Look, point: int, above: bool) -> Reading:
        found = [reading for run in self.runs if (reading := look(run, point)) is not None]
        if not found:
            return Reading(point, None, None, None, "not assessable", "the ledger has no such rows up to this point")
        return worst_seed(found, above)

    # ------------------------------------------------------------------------------------------------------- the looks
    def _mean_of(self, name: str, threshold: float, above: bool, scale: float = 1.0) -> Look:
        unit = "percent" if scale != 1 else "plain"

        def look(run: RunRows, point: int) -> Reading | None:
            values = scale * run.between(name, point)
            return _by_rows(run, point, values, threshold, above, unit) if len(values) else None

        return look

    def _reward_std(self, run: RunRows, point: int) -> Reading | None:
        values, first = run.between("ppo/score_std", point), run.column("ppo/score_std")[:1]
        if not len(values) or first[0] <= 0:
            return None
        return _by_rows(run, point, 100 * values / first[0], 100 * self.rules.min_reward_std_ratio, False, "percent")

    def _spike_of(self, name: str, minimum: float) -> Look:
        def look(run: RunRows, point: int) -> Reading | None:
            values = run.between(name, point)
            median = float(np.median(run.column(name))) if len(values) else 0.0
            if median <= 0:
                return None
            highest = float(values.max())
            times, threshold = highest / median, self.rules.max_spike
            fired = times > threshold and highest > minimum
            return _reading(run, point, times, threshold, "fired" if fired else "ok", "times the median")

        return look

    def _displaced(self, run: RunRows, point: int) -> Reading | None:
        """Likelihood displacement (Razin et al. 2024, arXiv:2410.08847), from reward = beta (log pi - log pi_ref)."""
        beta = self.knobs.get("beta")
        reward, logp = (run.between(f"dpo/chosen_{what}", point) for what in ("reward", "logp"))
        margin = run.between("dpo/reward_margin", point)
        if not beta or not len(margin) or not len(reward) == len(logp) == len(margin):
            return None
        gain = reward / beta
        fall = -100 * gain / np.abs(logp - gain)
        reading = _by_rows(run, point, fall, 100 * self.rules.max_chosen_drop, True, "percent")
        if reading.status == "fired" and margin.mean() <= 0:
            return _reading(
                run, point, float(fall.mean()), 100 * self.rules.max_chosen_drop, "watch", "percent",
                "less likely, but the margin does not grow",
            )  # fmt: skip
        return reading

    def _below_reference(self, run: RunRows, point: int) -> Reading | None:
        means = [run.between("dpo/chosen_reward", earlier) for earlier in range(1, point + 1)]
        if not len(means[-1]):
            return None
        below = [len(values) > 0 and values.mean() < 0 for values in means]
        in_a_row = next((count for count, under in enumerate(reversed(below)) if not under), len(below))
        limit = self.rules.max_points_below_reference
        return _reading(run, point, in_a_row, limit, "fired" if in_a_row > limit else "ok", "count")

    def _saturated(self, run: RunRows, point: int) -> Reading | None:
        """Fires if the measure is shown to fall; that it is not shown to rise may be a small evaluation's fault."""
        values, threshold = 100 * run.between("dpo/accuracy", point), 100 * self.rules.max_accuracy
        if not len(values):
            return None
        step, mean = self.measure_steps[run.seed, point], float(values.mean())
        if mean <= threshold:
            return _reading(run, point, mean, threshold, "ok", "percent")
        if step.high < 0:
            return _reading(run, point, mean, threshold, "fired", "percent", "saturated, and the measure falls")
        if step.low > 0:
            return _reading(run, point, mean, threshold, "ok", "percent", "saturated, but the measure still rises")
        return _reading(
            run, point, mean, threshold, "watch", "percent", "saturated, and the measure is not shown to rise"
        )

    def _not_finite(self, run: RunRows, point: int) -> Reading | None:
        """A number that is not finite is null in the ledger, and so missing here."""
        num_rows, losses = run.num_between(point), run.between("train/loss", point)
        if not num_rows or not len(run.column("train/loss")):
            return None
        steps = [run.between("train/skipped_steps", earlier) for earlier in range(1, point + 1)]
        so_far = [float(values.max()) if len(values) else 0.0 for values in steps]
        count = num_rows - len(losses) + so_far[-1] - max([0.0, *so_far[:-1]])
        return _reading(run, point, count, 0, "fired" if count > 0 else "ok", "count")


def _by_rows(run: RunRows, point: int, values: FloatArray, threshold: float, above: bool, unit: str) -> Reading:
    extreme = float(values.max() if above else values.min())
    status = judge_rows(float(values.mean()), extreme, threshold, above)
    return _reading(run, point, float(values.mean()), threshold, status, unit, SINGLE_ROW if status == "watch" else "")


def _reading(
    run: RunRows, point: int, value: float, threshold: float, status: Status, unit: str, why: str = ""
) -> Reading:
    return Reading(point, run.seed, Measured(value, unit), Measured(threshold, unit), status, why)


def flags(ledger: Ledger, arm: str) -> dict[str, tuple[int, int]]:
    """What training itself flagged (ledger columns flag/…): rows with the flag up, and rows in all."""
    labels = [run.label for run in ledger.runs if run.arm == arm]
    rows = ledger.metrics[ledger.metrics["label"].isin(labels) & (ledger.metrics["phase"] == "train")]
    return {
        str(name).removeprefix("flag/"): (int((rows[name] > 0).sum()), int(rows[name].notna().sum()))
        for name in rows.columns
        if str(name).startswith("flag/") and rows[name].notna().any()
    }
