"""What a job tells the ledger: the row types, the shared axes and the `Recorder` protocol. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, cast, get_origin, get_type_hints

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLES_FILE = "samples/point_{point}.parquet"  # in an evaluation's folder: what the ledger makes of `samples`
ADAPTER_FOLDER = "adapters/point_{point}"  # in an arm's folder
RESUME_FOLDER = "resume"  # in a job's folder: what it goes on from; while it is there, earlier rows and files count


@dataclass(frozen=True)
class Axes:
    """What had been spent when a row was written. One spelling for PPO, DPO and every shared job."""

    prompts_seen: int = 0  # prompt presentations in training
    tokens_generated: int = 0  # response tokens sampled
    tokens_trained: int = 0  # tokens (prompt and response) that went through a backward pass
    optimizer_steps: int = 0
    wall_seconds: float = 0.0  # since the job began to work, start-up and model loading included
    device_seconds: float = 0.0  # wall seconds x devices (GPUs, or CPU threads where there is none)
    peak_memory_bytes: int = 0  # of the device: GPU memory, or resident memory of the process on the CPU

    def then(self, later: Axes) -> Axes:
        """What one job and then another have spent together."""
        sums = {field.name: getattr(self, field.name) + getattr(later, field.name) for field in fields(self)}
        return Axes(**sums | {"peak_memory_bytes": max(self.peak_memory_bytes, later.peak_memory_bytes)})


Role = Literal["measure", "training_reward", "secondary", "judge"]


@dataclass(frozen=True)
class ScoreCard:
    """What a number that scores a response means. plan.json carries the cards; the analysis knows no score by name."""

    name: str  # its column among the samples is "score/" + name
    role: Role  # the measure tells how good a response is; the training reward is what PPO maximises
    unit: str  # of a difference, as people read it
    direction: Literal["higher is better", "lower is better"]
    meaning: str  # what one value says, in a sentence
    independence: str  # of what was trained on: what it shares with the training reward, in a sentence


class SampleRow(TypedDict):
    """One response of one model on the shared evaluation set (or of the base in the ranking data)."""

    prompt_id: str  # hash of the prompt's text
    sample_id: int  # 0 .. samples_per_prompt - 1
    stream: int  # the common random numbers that drew it: 1; the base's 2 (noise floor), 3 (further), 0 (ranking data)
    prompt: str
    response: str
    num_tokens: int  # response tokens, the end-of-sequence token included
    finish_reason: Literal["eos", "length"]
    logp_policy: float  # nats, summed over the response's tokens
    logp_base: float  # nats, the same tokens under the base (NaN in the pairs of a staged arm)
    scores: Mapping[str, float]  # name of each score card, judges apart -> its score (NaN if there is none)


class PreferenceRow(TypedDict):
    """What a judge made of two responses to one prompt: the final arm's and its opponent's."""

    arm: str
    opponent: str  # an arm, or "base"
    seed: int  # of the arm, and of the opponent unless it is the base
    prompt_id: str
    sample_id: int
    score: float  # 1 the arm's response is preferred, 0 the opponent's, 0.5 neither; NaN missing
    ours_first: str  # verdict with the arm's response as A: "A", "B", "tie", or "" where there is none
    ours_second: str  # verdict with the arm's response as B
    note: str  # why the score is missing, or was given without asking; else ""


def _columns(row: type) -> dict[str, type]:
    """The fields of a row that are one value each -> str, int or float."""
    hints = get_type_hints(row)
    return {name: str if get_origin(kind) is Literal else kind for name, kind in hints.items() if name != "scores"}


SAMPLE_COLUMNS: Mapping[str, type] = _columns(SampleRow)  # of the ledger's sample tables; the score columns follow
PREFERENCE_COLUMNS: Mapping[str, type] = _columns(PreferenceRow)
SCORE_PREFIX = "score/"  # + a card's name: the column of that score


def to_record(row: SampleRow) -> dict[str, Any]:
    """A sample as one line of the ledger's table."""
    scores = {SCORE_PREFIX + name: score for name, score in row["scores"].items()}
    return {name: value for name, value in row.items() if name != "scores"} | scores


def from_record(record: Mapping[str, Any]) -> SampleRow:
    """The sample that `to_record` made a line of."""
    scores = {name.removeprefix(SCORE_PREFIX): score for name, score in record.items() if name.startswith(SCORE_PREFIX)}
    return cast(SampleRow, {name: record[name] for name in SAMPLE_COLUMNS} | {"scores": scores})


Phase = Literal["artifact", "train", "evaluation"]


class Recorder(Protocol):
    """What a job may say. The runner implements it (ledger first, trackers second); tests pass a list."""

    def metrics(self, phase: Phase, values: Mapping[str, float], axes: Axes, point: int | None = None) -> None:
        """Append one row. `point` is the evaluation point (0 = base), for evaluation rows only."""

    def rewind(self, num_rows: int) -> None:
        """Forget the metrics rows after the first `num_rows`: the job goes on from a checkpoint that is older."""

    def samples(self, point: int, rows: Sequence[SampleRow]) -> None:
        """Keep the samples of one evaluation point."""

    def embeddings(self, point: int, rows: Sequence[SampleRow], vectors: NDArray[np.float16]) -> None:
        """Keep an embedding of each response of an evaluation point, `[rows, dimensions]`."""

    def preferences(self, rows: Sequence[PreferenceRow]) -> None:
        """Keep what a judge made of all pairs."""

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        """Say how far the job is: `done` of `total` `unit`s of `stage`."""
