"""Collapse seen while training: the flags that training raised, and spikes, which only a whole run shows.

A row is one update or step. A flag's detector fires if it was up in most rows since the last evaluation point. It is
inconclusive if it was up in any. What a flag means is in `experiments.training_signs`, once for the live flag and for
the report; an arm whose training records no such flag is not assessed. These numbers have no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.answers import Reply
from analysis.collapse.readings import Detection, Detector, Reading, detection, worst_seed
from analysis.ledger import Ledger
from analysis.scores import curve
from analysis.stability.over_time import Measured
from analysis.statistics.bootstrap import FloatArray, Resamples, mean_estimate
from experiments.rules import CollapseRules
from experiments.training_signs import PREFIX, SATURATED, SIGNS, Sign

MAX_SHARE_OF_ROWS = 50  # percent of the rows since the last point, beyond which a flag's detector fires

UPDATE_KL = Detector("update_kl", "Spike of the update's KL", "PPO: largest row over the run's median")
BELOW = Detector(
    "below_reference", "Chosen below the reference", "DPO: points in a row with a mean chosen reward below 0"
)
GRADIENT = Detector("gradient_spike", "Gradient spike", "largest gradient norm over the run's median")
NO_ROWS = "the ledger has no such rows up to this point"


@dataclass(frozen=True)
class RunRows:
    """Training rows of one run, and which of them lie between two evaluation points.

    Attributes:
        columns: every metric as recorded, NaN if a row lacks it or was not finite.
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


Look = Callable[[RunRows, int], Reading | None]


class TrainingDetectors:
    """All detectors of one arm's training metrics, over its evaluation points."""

    def __init__(self, ledger: Ledger, arm: str, resamples: Resamples, rules: CollapseRules) -> None:
        self.rules = rules
        self.points = list(range(1, ledger.final_point + 1))
        runs = sorted((run for run in ledger.runs if run.arm == arm), key=lambda run: run.seed)
        self.runs = [RunRows.of(ledger, run.label, run.seed) for run in runs]
        curve_SCP = curve(ledger, ledger.measure, arm)
        self.measure_steps = {  # (seed, point) -> the step of the measure since the last point
            (run.seed, point): mean_estimate(step[None], resamples, "share")
            for run, curve_CP in zip(self.runs, curve_SCP, strict=True)
            for point, step in enumerate(np.diff(curve_CP, axis=0), start=1)
        }

    def all(self) -> Iterator[Detection]:
        """Every detector but those of signs that `SampleDetectors` measures, with an interval, in the responses."""
        for sign in (sign for sign in SIGNS if not sign.in_samples):
            detector = Detector(sign.name, sign.label, f"{sign.meaning}; percent of the rows since the last point")
            yield self._detect(detector, self._held_against_the_measure if sign is SATURATED else self._flag_of(sign))
        yield self._detect(UPDATE_KL, self._spike_of("ppo/approx_kl", self.rules.min_update_kl_spike))
        yield self._detect(BELOW, self._below_reference)
        yield self._detect(GRADIENT, self._spike_of("train/gradient_norm", 0.0))

    def _detect(self, detector: Detector, look: Look) -> Detection:
        return detection(detector, [self._worst(look, point) for point in self.points])

    def _worst(self, look: Look, point: int) -> Reading:
        found = [reading for run in self.runs if (reading := look(run, point)) is not None]
        return worst_seed(found, above=True) if found else Reading(point, None, None, None, "not assessable", NO_ROWS)

    # ------------------------------------------------------------------------------------------------------- the looks
    @staticmethod
    def _flag_of(sign: Sign) -> Look:
        def look(run: RunRows, point: int) -> Reading | None:
            values = 100 * run.between(PREFIX + sign.name, point)
            if not len(values):
                return None
            share = float(values.mean())
            reply: Reply = "yes" if share > MAX_SHARE_OF_ROWS else "inconclusive" if share > 0 else "no"
            return _reading(run, point, share, MAX_SHARE_OF_ROWS, reply, "percent")

        return look

    def _held_against_the_measure(self, run: RunRows, point: int) -> Reading | None:
        """Fires only if the measure is shown to fall; that no rise is shown may be a small evaluation's fault."""
        reading = self._flag_of(SATURATED)(run, point)
        if reading is None or reading.reply == "no":
            return reading
        step = self.measure_steps[run.seed, point]
        if step.high < 0:
            return replace(reading, why="saturated, and the measure falls")
        if step.low > 0:
            return replace(reading, reply="no", why="saturated, but the measure still rises")
        return replace(reading, reply="inconclusive", why="saturated, and the measure is not shown to rise")

    def _spike_of(self, name: str, minimum: float) -> Look:
        def look(run: RunRows, point: int) -> Reading | None:
            values = run.between(name, point)
            median = float(np.median(run.column(name))) if len(values) else 0.0
            if median <= 0:
                return None
            highest = float(values.max())
            times, threshold = highest / median, self.rules.max_spike
            fired = times > threshold and highest > minimum
            return _reading(run, point, times, threshold, "yes" if fired else "no", "times the median")

        return look

    def _below_reference(self, run: RunRows, point: int) -> Reading | None:
        means = [run.between("dpo/chosen_reward", earlier) for earlier in range(1, point + 1)]
        if not len(means[-1]):
            return None
        below = [len(values) > 0 and values.mean() < 0 for values in means]
        in_a_row = next((count for count, under in enumerate(reversed(below)) if not under), len(below))
        limit = self.rules.max_points_below_reference
        return _reading(run, point, in_a_row, limit, "yes" if in_a_row > limit else "no", "count")


def _reading(run: RunRows, point: int, value: float, threshold: float, reply: Reply, unit: str) -> Reading:
    return Reading(point, run.seed, Measured(value, unit), Measured(threshold, unit), reply, "")


def flags(ledger: Ledger, arm: str) -> dict[str, tuple[int, int]]:
    """What training itself flagged (ledger columns flag/…): rows with the flag up, and rows in all."""
    labels = [run.label for run in ledger.runs if run.arm == arm]
    rows = ledger.metrics[ledger.metrics["label"].isin(labels) & (ledger.metrics["phase"] == "train")]
    return {
        str(name).removeprefix(PREFIX): (int((rows[name] > 0).sum()), int(rows[name].notna().sum()))
        for name in rows.columns
        if str(name).startswith(PREFIX) and rows[name].notna().any()
    }
