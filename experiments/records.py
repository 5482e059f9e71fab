"""What a job writes to the ledger: the row types, the shared axes and the `Recorder` protocol. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, cast, get_origin, get_type_hints

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLES_FILE = "samples/point_{point}.parquet"  # in an evaluation's folder: the table that the ledger writes
ADAPTER_FOLDER = "adapters/point_{point}"  # in an arm's folder
RESUME_FOLDER = "resume"  # in a job's folder: the checkpoint to resume from; while it exists, earlier output is valid


@dataclass(frozen=True)
class Axes:
    """What had been spent when a row was written. PPO, DPO and every shared job use the same names."""

    prompts_seen: int = 0  # prompt presentations in training
    tokens_generated: int = 0  # response tokens sampled
    tokens_trained: int = 0  # tokens (prompt and response) in backward passes
    optimizer_steps: int = 0
    wall_seconds: float = 0.0  # since the job began, including start-up and model loading
    device_seconds: float = 0.0  # wall seconds x devices (GPUs, or CPU threads if there is no GPU)
    peak_memory_bytes: int = 0  # of the device: GPU memory, or resident memory of the process on the CPU

    def then(self, later: Axes) -> Axes:
        """What two jobs, one after the other, have spent together."""
        sums = {field.name: getattr(self, field.name) + getattr(later, field.name) for field in fields(self)}
        return Axes(**sums | {"peak_memory_bytes": max(self.peak_memory_bytes, later.peak_memory_bytes)})


Role = Literal["measure", "training_reward", "secondary", "judge"]


@dataclass(frozen=True)
class ScoreCard:
    """What a score of a response means. plan.json holds the cards; the analysis refers to no score by name."""

    name: str  # its column in the sample tables is "score/" + name
    role: Role  # the measure tells how good a response is; the training reward is what PPO maximises
    unit: str  # of a difference, for people to read
    direction: Literal["higher is better", "lower is better"]
    meaning: str  # one sentence: what a value says
    independence: str  # one sentence: what it shares with the training reward


class SampleRow(TypedDict):
    """One response of one model on the shared evaluation set (or of the base in the ranking data)."""

    prompt_id: str  # hash of the prompt's text
    sample_id: int  # 0 .. samples_per_prompt - 1
    stream: int  # of common random numbers: 1; for the base also 2 (noise floor), 3 (further), 0 (ranking data)
    prompt: str
    response: str
    num_tokens: int  # response tokens, the end-of-sequence token included
    finish_reason: Literal["eos", "length"]
    logp_policy: float  # nats, summed over the response's tokens
    logp_base: float  # nats, the same tokens under the base (NaN in the pairs of a staged arm)
    scores: Mapping[str, float]  # name of each score card, judges apart -> its score (NaN if there is none)


class PreferenceRow(TypedDict):
    """A judge's verdict on two responses to one prompt: the final arm's and its opponent's."""

    arm: str
    opponent: str  # an arm, or "base"
    seed: int  # of the arm, and of the opponent unless it is the base
    prompt_id: str
    sample_id: int
    score: float  # 1 the arm's response is preferred, 0 the opponent's, 0.5 neither; NaN missing
    ours_first: str  # verdict with the arm's response as A: "A", "B", "tie", or "" if there is none
    ours_second: str  # verdict with the arm's response as B
    note: str  # why the score is missing, or was given without asking the judge; otherwise ""


def _columns(row: type) -> dict[str, type]:
    """Name and type (str, int or float) of each field of a row that holds one value."""
    hints = get_type_hints(row)
    return {name: str if get_origin(kind) is Literal else kind for name, kind in hints.items() if name != "scores"}


SAMPLE_COLUMNS: Mapping[str, type] = _columns(SampleRow)  # of the ledger's sample tables; the score columns follow
PREFERENCE_COLUMNS: Mapping[str, type] = _columns(PreferenceRow)
SCORE_PREFIX = "score/"  # + a card's name: the column of that score


def to_record(row: SampleRow) -> dict[str, Any]:
    """A sample as one row of the ledger's table."""
    scores = {SCORE_PREFIX + name: score for name, score in row["scores"].items()}
    return {name: value for name, value in row.items() if name != "scores"} | scores


def from_record(record: Mapping[str, Any]) -> SampleRow:
    """The sample of a table row: the inverse of `to_record`."""
    scores = {name.removeprefix(SCORE_PREFIX): score for name, score in record.items() if name.startswith(SCORE_PREFIX)}
    return cast(SampleRow, {name: record[name] for name in SAMPLE_COLUMNS} | {"scores": scores})


Phase = Literal["artifact", "train", "evaluation"]


class Recorder(Protocol):
    """What a job may record. The runner implements it (ledger first, trackers second); tests pass a fake."""

    def metrics(self, phase: Phase, values: Mapping[str, float], axes: Axes, point: int | None = None) -> None:
        """Append one row. `point` is the evaluation point (0 = base), for evaluation rows only."""

    def rewind(self, num_rows: int) -> None:
        """Drop all metrics rows after the first `num_rows`: the job resumes from an older checkpoint."""

    def samples(self, point: int, rows: Sequence[SampleRow]) -> None:
        """Keep the samples of one evaluation point."""

    def embeddings(self, point: int, rows: Sequence[SampleRow], vectors: NDArray[np.float16]) -> None:
        """Keep an embedding of each response of an evaluation point, `[rows, dimensions]`."""

    def preferences(self, rows: Sequence[PreferenceRow]) -> None:
        """Keep a judge's verdicts on all pairs."""

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        """Report how far the job is: `done` of `total` `unit`s of `stage`."""
