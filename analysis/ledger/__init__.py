"""What a report is made from: the finished runs of a sweep, their samples, their metrics and their judges.

Filled by `analysis.ledger.load`, which refuses what cannot be compared; here everything is known to fit together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.ledger.conditions import differences
from analysis.ledger.manifest import Manifest, manifest_of
from analysis.statistics.bootstrap import FloatArray
from experiments.records import SCORE_PREFIX, Role, ScoreCard
from experiments.rules import Rules

BASE = "base"
STREAM = 1  # the common random numbers that every arm and the base share
FLOOR_STREAM = 2  # the base's second, disjoint set
FURTHER_STREAM = 3  # the base's further samples, for best-of-n
OF_SAMPLES: tuple[Role, ...] = ("measure", "secondary", "training_reward")  # roles of what scores every sample

PREFERENCE_COLUMNS = (
    "arm", "opponent", "seed", "prompt_id", "sample_id", "score", "ours_first", "ours_second", "note",
)  # fmt: skip


class LedgerError(ValueError):
    """The run folder cannot be reported on. The message says why, for people."""


@dataclass(frozen=True)
class Run:
    """One trained arm x seed that was evaluated to its end."""

    arm: str
    algorithm: str
    seed: int
    label: str
    folder: Path
    evaluation: Path


ContestKind = Literal["arm_against_base", "plain_against_plain", "staged_against_plain"]


class Contest(NamedTuple):
    """Two sides that the sweep compares; "plain" is an arm that was trained from the base."""

    arm: str
    opponent: str
    kind: ContestKind


@dataclass(frozen=True)
class Missing:
    """A run of the plan that the report has to do without."""

    run: str
    reason: str


@dataclass(frozen=True)
class RuleChange:
    """A rule that was another one before training."""

    key: str
    registered: Any
    in_use: Any


@dataclass(frozen=True)
class AskedJudge:
    """A judge that was asked about the final models, beyond the scores that every sample has.

    Attributes:
        name: "endpoint" or "reward_model".
        settings: of ``conf/judge/``.
        relation: to the training reward: "INDEPENDENT", "SAME FAMILY" or "IS THE TRAINING REWARD".
        evidence: what the relation rests on.
        numbers: the last value of each of its metrics.
        contests: (arm, opponent) -> one row per pair of responses, columns of `PREFERENCE_COLUMNS`.
    """

    name: str
    settings: dict[str, Any]
    relation: str
    evidence: str
    numbers: dict[str, float]
    contests: dict[tuple[str, str], pd.DataFrame] = field(repr=False)


@dataclass(frozen=True)
class Ledger:
    """Everything a report is made from.

    Attributes:
        plan: plan.json.
        rules: those in use.
        runs: the finished arms x seeds, in the plan's order.
        missing: the others.
        samples: one row per response: arm, algorithm, seed, point, the columns of
            `experiments.records.SAMPLE_COLUMNS` and one of each score; the base is arm "base", point 0.
        metrics: one row per line of any metrics.jsonl: label and kind of the job, then the line's own keys.
        ranking: the samples that the arms learned from, the same columns; None in sweeps that did not
            record them.
        specs: spec.json by job label.
        provenance: provenance.json by job label.
        folder: of the sweep.
        judges: those that were asked beyond the scores in the samples, by name.
        missing_judges: the others of the plan.
        embeddings: one row per response of the final models and of the base: arm, seed, prompt_id, sample_id, stream
            and embedding, an array; None in sweeps that chose no embedder.
    """

    plan: dict[str, Any]
    rules: Rules
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]
    samples: pd.DataFrame
    metrics: pd.DataFrame
    specs: Mapping[str, dict[str, Any]]
    provenance: Mapping[str, dict[str, Any]]
    folder: Path
    ranking: pd.DataFrame | None = None
    judges: Mapping[str, AskedJudge] = field(default_factory=dict)
    missing_judges: tuple[Missing, ...] = ()
    embeddings: pd.DataFrame | None = field(default=None, repr=False)
    _arrays: dict[tuple[Any, ...], npt.NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def manifest(self) -> Manifest:
        """The files that all this was read from, with their hashes."""
        return manifest_of(self.folder, self.plan)

    @property
    def embedder(self) -> str:
        """What made `embeddings`: its folder's name or hub id, and which version of it."""
        base = self.specs["base_evaluation"]
        path, version = Path(base["spec"]["evaluation"]["embedder"]), base["inputs"]["embedder"]
        return f"{path.name}, {version[:19]}" if version.startswith("sha256:") else version.removeprefix("hub:")

    @property
    def arms(self) -> list[str]:
        """Arms with at least one finished seed, in the plan's order."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    @cached_property
    def prompt_ids(self) -> list[str]:
        """The shared evaluation prompts, in the order of every array's prompt axis."""
        return sorted(self.samples["prompt_id"].unique())

    @cached_property
    def _positions(self) -> Mapping[Any, Any]:
        """(arm, point, stream) -> rows of `samples`, which are sorted by seed, prompt and sample."""
        return self.samples.groupby(["arm", "point", "stream"], sort=False).indices

    @cached_property
    def scores(self) -> tuple[ScoreCard, ...]:
        """Cards of what scores every sample: the measure first, the training reward last."""
        return cards_of(self.plan["scores"])

    @property
    def measure(self) -> ScoreCard:
        """What measures how good a response is."""
        return self.scores[0]

    @cached_property
    def training_reward(self) -> ScoreCard | None:
        """What PPO maximises; None if the sweep has none, or not every sample was scored by it."""
        card = self.scores[-1]
        complete = card.role == "training_reward" and self.samples[SCORE_PREFIX + card.name].notna().all()
        return card if complete else None

    @property
    def secondary(self) -> tuple[ScoreCard, ...]:
        """Further scores of every sample, which no training saw."""
        return tuple(card for card in self.scores if card.role == "secondary")

    def score(self, name: str) -> ScoreCard | None:
        """The card of what scores every sample under this name, or None."""
        return next((card for card in self.scores if card.name == name), None)

    @property
    def final_point(self) -> int:
        """The evaluation point of the final models."""
        return int(self.samples["point"].max())

    @property
    def changed_rules(self) -> list[RuleChange]:
        """What is judged by other rules than those registered before training."""
        registered = self.plan["registered_rules"]["values"]
        return [RuleChange(*change) for change in differences(registered, self.plan["rules"])]

    def algorithm(self, arm: str) -> str:
        """The algorithm of a finished arm."""
        return next(run.algorithm for run in self.runs if run.arm == arm)

    def described(self, algorithm: str) -> Mapping[str, Any]:
        """What plan.json says of an algorithm; nothing of one that it does not describe."""
        found: dict[str, Any] = self.plan["algorithms"].get(algorithm, {})
        return found

    def label(self, algorithm: str) -> str:
        """An algorithm's name for people."""
        return str(self.described(algorithm).get("label", algorithm))

    def is_staged(self, arm: str) -> bool:
        """Whether a finished arm starts from another arm's checkpoint."""
        return bool(self.described(self.algorithm(arm)).get("staged", False))

    @cached_property
    def contests(self) -> list[Contest]:
        """Those of the sweep whose sides have finished, in its order."""
        there = {BASE, *self.arms}
        pairs = [(str(item["arm"]), str(item["opponent"])) for item in self.plan["contests"]]
        return [Contest(*pair, self._kind(*pair)) for pair in pairs if there.issuperset(pair)]

    def between_plain_arms(self) -> list[tuple[str, str]]:
        """The contests of arms that were both trained from the base."""
        return [(item.arm, item.opponent) for item in self.contests if item.kind == "plain_against_plain"]

    def _kind(self, arm: str, opponent: str) -> ContestKind:
        if opponent == BASE:
            return "arm_against_base"
        return "staged_against_plain" if self.is_staged(arm) or self.is_staged(opponent) else "plain_against_plain"

    def seeds(self, arm: str) -> list[int]:
        """The finished seeds of an arm."""
        return sorted(run.seed for run in self.runs if run.arm == arm)

    def common_seeds(self, arm: str, opponent: str) -> list[int]:
        """Seeds that both have finished; the base goes with every seed."""
        if opponent == BASE:
            return self.seeds(arm)
        return sorted(set(self.seeds(arm)) & set(self.seeds(opponent)))

    @property
    def planned_judges(self) -> list[str]:
        """Names of the judges that were to be asked, whether they have finished or not."""
        return [*self.judges, *(item.run.rpartition("/")[2] for item in self.missing_judges)]

    def array(
        self, arm: str, column: str, point: int | None = None, stream: int = STREAM, seeds: Sequence[int] | None = None
    ) -> npt.NDArray[Any]:
        """One column as `[S, P, M]`: finished seeds, prompts, samples. The base has one "seed" and only point 0.

        Args:
            arm: an arm, or "base".
            column: of `samples`; a score's is known to `analysis.scores`.
            point: evaluation point; the final one if not given. Point 0 of any arm is the base.
            stream: which common random numbers.
            seeds: leave out the other seeds.
        """
        point = self.final_point if point is None else point
        if arm == BASE or point == 0:
            arm, point = BASE, 0
        key = (arm, column, point, stream)
        if key not in self._arrays:
            values = self.samples[column].take(self._positions[arm, point, stream]).to_numpy()
            num_seeds = 1 if arm == BASE else len(self.seeds(arm))
            self._arrays[key] = values.reshape(num_seeds, len(self.prompt_ids), -1)
        values = self._arrays[key]
        if seeds is None or arm == BASE:
            return values
        return values[[self.seeds(arm).index(seed) for seed in seeds]]

    def numbers(
        self, arm: str, column: str, point: int | None = None, stream: int = STREAM, seeds: Sequence[int] | None = None
    ) -> FloatArray:
        """`array` of a numeric column."""
        return self.array(arm, column, point, stream, seeds).astype(np.float64)

    def curve(self, arm: str, column: str) -> FloatArray:
        """Mean over samples of a numeric column at every evaluation point, the base first, `[S, C, P]`."""
        num_seeds = len(self.seeds(arm))
        base_SP = np.repeat(self.numbers(BASE, column).mean(axis=2), num_seeds, axis=0)
        later = [self.numbers(arm, column, point).mean(axis=2) for point in range(1, self.final_point + 1)]
        return np.stack([base_SP, *later], axis=1)

    def spent(self, arm: str, columns: Sequence[str]) -> list[float | None]:
        """Sum of some shared axes at every evaluation point, mean over seeds; None if one was not recorded.

        Args:
            arm: an arm; the base, point 0, has spent nothing.
            columns: of `experiments.records.Axes`.
        """
        labels = [f"{run.label}/evaluation" for run in self.runs if run.arm == arm]
        rows = self.metrics[self.metrics["label"].isin(labels) & (self.metrics["phase"] == "evaluation")]
        points = (rows[rows["point"] == point] for point in range(1, self.final_point + 1))
        return [0.0, *(_mean_sum(here, columns) for here in points)]

    def preferences(self, judge: str, arm: str, opponent: str) -> FloatArray | None:
        """What a judge of `judges` made of two final models: `[S, P, M]`, or None if it was not asked about them.

        1 if it prefers the arm, 0 if the opponent, quarters between; NaN if a verdict is missing. S are the
        seeds that both have, P all evaluation prompts, M the judged samples of a prompt, which may be fewer than there
        are.
        """
        contests = self.judges[judge].contests
        for pair, sign in (((arm, opponent), 1.0), ((opponent, arm), -1.0)):
            if pair in contests:
                rows = contests[pair]
                seeds = self.common_seeds(arm, opponent)
                return self._by_sample(rows.assign(value=0.5 + sign * (rows["score"] - 0.5)), seeds)
        return None

    def swap_agreement(self, judge: str, arm: str, opponent: str) -> FloatArray | None:
        """1 if both orders of a pair name the same response or a tie, 0 if not; NaN if one has no verdict."""
        rows = self.judges[judge].contests.get((arm, opponent))
        if rows is None:
            return None
        mirrored = rows["ours_first"].map({"A": "B", "B": "A", "tie": "tie"})
        known = mirrored.notna() & rows["ours_second"].isin(["A", "B", "tie"])
        agrees = (mirrored == rows["ours_second"]).where(known).astype("float64")
        return self._by_sample(rows.assign(value=agrees), self.common_seeds(arm, opponent))

    def _by_sample(self, rows: pd.DataFrame, seeds: Sequence[int]) -> FloatArray:
        """The column `value` as `[S, P, M]`, of these seeds."""
        rows, num_samples = rows[rows["seed"].isin(seeds)], int(rows["sample_id"].max()) + 1
        values = np.full((len(seeds), len(self.prompt_ids), num_samples), np.nan)
        of_prompt = pd.Index(self.prompt_ids).get_indexer(pd.Index(rows["prompt_id"]))
        values[np.searchsorted(seeds, rows["seed"]), of_prompt, rows["sample_id"]] = rows["value"]
        return values


def cards_of(scores: Sequence[Mapping[str, Any]]) -> tuple[ScoreCard, ...]:
    """Of plan.json: what scores every sample, the measure first, the training reward last."""
    cards = [ScoreCard(**card) for card in scores]
    return tuple(card for role in OF_SAMPLES for card in cards if card.role == role)


def _mean_sum(rows: pd.DataFrame, columns: Sequence[str]) -> float | None:
    """Mean over rows of the sum of the columns, or None if one is missing."""
    if rows.empty or not all(name in rows and rows[name].notna().all() for name in columns):
        return None
    return float(rows[list(columns)].sum(axis=1).mean())
