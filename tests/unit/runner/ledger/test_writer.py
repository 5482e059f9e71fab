import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.records import Axes, PreferenceRow, SampleRow
from runner.ledger.reader import PREFERENCES, embeddings_file, read_metrics, read_status, sample_files
from runner.ledger.tracker import Tracker
from runner.ledger.writer import LedgerRecorder, StatusFile, TornLedgerError, record_end
from runner.trackers import Guarded


def sample(**changes: object) -> SampleRow:
    row = {"prompt_id": "p", "sample_id": 0, "stream": 1, "prompt": "The", "response": " film", "num_tokens": 2}
    row |= {
        "finish_reason": "eos",
        "logp_policy": -1.5,
        "logp_base": -2.0,
        "gold": 0.5,
        "proxy": math.nan,
        "vader": 0.1,
    }
    return row | changes  # type: ignore[return-value]


class Broken(Tracker):
    """Fails at the first row."""

    def __init__(self) -> None:
        self.calls = 0

    def metrics(self, values: Mapping[str, float], axes: Axes, point: int | None) -> None:
        self.calls += 1
        raise ConnectionError("server gone\nlong story")


@pytest.fixture
def recorder(tmp_path: Path) -> LedgerRecorder:
    return LedgerRecorder(tmp_path, StatusFile(tmp_path, "abc"), Tracker())


def test_every_row_carries_the_axes_and_is_on_disk_at_once(recorder: LedgerRecorder, tmp_path: Path) -> None:
    recorder.metrics("train", {"train/loss": 0.5}, Axes(prompts_seen=32, wall_seconds=1.5))
    recorder.metrics("evaluation", {"evaluation/gold_mean": 0.7}, Axes(prompts_seen=32), point=1)

    train, evaluation = read_metrics(tmp_path)
    assert (train["phase"], train["point"], train["prompts_seen"], train["train/loss"]) == ("train", None, 32, 0.5)
    assert set(Axes.__dataclass_fields__) <= set(train)
    assert (evaluation["phase"], evaluation["point"]) == ("evaluation", 1)


def test_the_status_counts_the_rows_in_which_a_flag_was_up(recorder: LedgerRecorder, tmp_path: Path) -> None:
    for up, expected in ((1.0, {"kl_jump": 1}), (0.0, {"kl_jump": 1}), (1.0, {"kl_jump": 2})):
        recorder.metrics("train", {"flag/kl_jump": up, "flag/clip_fraction": 0.0}, Axes())
        recorder.progress("PPO", 2, 2, "updates")  # written at once
        status = read_status(tmp_path)
        assert status is not None
        assert status["flags"] == expected


def test_rewinding_forgets_later_rows_and_tells_a_new_tracker_the_earlier_ones(tmp_path: Path) -> None:
    class Kept(Tracker):
        def __init__(self) -> None:
            self.rows: list[tuple[dict[str, float], int]] = []

        def metrics(self, values: Mapping[str, float], axes: Axes, point: int | None) -> None:
            self.rows.append((dict(values), axes.prompts_seen))

    first = LedgerRecorder(tmp_path, StatusFile(tmp_path, "abc"), Tracker())
    for step in range(3):
        first.metrics("train", {"train/loss": math.nan if step == 1 else float(step)}, Axes(prompts_seen=8 * step))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"phase": "train", "torn')
    tracker = Kept()
    second = LedgerRecorder(tmp_path, StatusFile(tmp_path, "abc"), tracker)
    second.rewind(2)
    second.metrics("train", {"train/loss": 9.0}, Axes(prompts_seen=16))

    assert [row["train/loss"] for row in read_metrics(tmp_path)] == [0.0, None, 9.0]
    assert [seen for _, seen in tracker.rows] == [0, 8, 16]
    assert math.isnan(tracker.rows[1][0]["train/loss"])


def test_a_ledger_shorter_than_its_checkpoint_is_refused(recorder: LedgerRecorder, tmp_path: Path) -> None:
    recorder.metrics("train", {"train/loss": 0.5}, Axes())
    with pytest.raises(TornLedgerError, match="has 1 rows, but its checkpoint was written after 2"):
        recorder.rewind(2)
    assert len(read_metrics(tmp_path)) == 1


def test_a_number_that_is_not_finite_leaves_the_file_valid_json(recorder: LedgerRecorder, tmp_path: Path) -> None:
    recorder.metrics("train", {"train/loss": math.nan, "ppo/kl": math.inf}, Axes())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (row["train/loss"], row["ppo/kl"]) == (None, None)


def test_samples_come_back_with_their_types(recorder: LedgerRecorder, tmp_path: Path) -> None:
    recorder.samples(3, [sample(response="\x1b[31m 'quoted'\n\u2028"), sample(sample_id=1, gold=1)])

    table = pq.read_table(sample_files(tmp_path)[3])
    assert table.column("response").to_pylist()[0] == "\x1b[31m 'quoted'\n\u2028"
    assert table.column("gold").to_pylist() == [0.5, 1.0]
    assert math.isnan(table.column("proxy").to_pylist()[0])
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["point_3.parquet"]


@pytest.mark.parametrize("changes", [{"golden": 1.0}, {"gold": None}])
def test_sample_rows_with_other_columns_are_refused(recorder: LedgerRecorder, changes: dict[str, object]) -> None:
    row = sample(**changes)
    if changes.get("gold", 0) is None:
        del row["gold"]  # type: ignore[misc]

    with pytest.raises(ValueError, match="gold"):
        recorder.samples(1, [row])


def test_status_tells_stage_and_latest_numbers(recorder: LedgerRecorder, tmp_path: Path) -> None:
    recorder.metrics("train", {"ppo/kl": 1.5, "ppo/clip_fraction": 0.1}, Axes())
    recorder.progress("updates", 1, 16, "updates")

    status = read_status(tmp_path)
    assert status is not None
    assert (status["state"], status["stage"], status["done"], status["total"]) == ("running", "updates", 1, 16)
    assert status["latest"] == {"ppo/kl": 1.5}


def test_status_is_not_written_for_every_step(recorder: LedgerRecorder, tmp_path: Path) -> None:
    recorder.progress("updates", 1, 1000, "updates")
    for done in range(2, 500):
        recorder.progress("updates", done, 1000, "updates")
    assert (read_status(tmp_path) or {})["done"] == 1

    recorder.progress("updates", 1000, 1000, "updates")
    assert (read_status(tmp_path) or {})["done"] == 1000


def test_a_tracker_that_fails_is_reported_once_and_the_ledger_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken()
    recorder = LedgerRecorder(tmp_path, StatusFile(tmp_path, "abc"), Guarded(lambda: broken))
    for _ in range(3):
        recorder.metrics("train", {"train/loss": 1.0}, Axes())

    assert broken.calls == 1
    assert capsys.readouterr().err == "tracker switched off, the ledger goes on: ConnectionError: server gone\n"
    assert len(read_metrics(tmp_path)) == 3


def test_a_tracker_that_cannot_start_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Tracker:
        raise OSError("no space left")

    Guarded(fail).metrics({}, Axes(), None)

    assert "no space left" in capsys.readouterr().err


def test_preferences_are_kept_with_what_is_missing(recorder: LedgerRecorder, tmp_path: Path) -> None:
    keys = {"arm": "ppo", "opponent": "base", "seed": 0, "sample_id": 0}
    rows = [
        PreferenceRow(prompt_id="a", score=0.75, ours_first="A", ours_second="tie", note="", **keys),  # type: ignore[typeddict-item]
        PreferenceRow(prompt_id="b", score=math.nan, ours_first="", ours_second="", note="cut", **keys),  # type: ignore[typeddict-item]
    ]
    recorder.preferences(rows)
    read = pq.read_table(tmp_path / PREFERENCES).to_pylist()

    assert read[0] == rows[0]
    assert math.isnan(read[1].pop("score"))
    assert read[1]["note"] == "cut"
    with pytest.raises(ValueError, match=r"columns of PreferenceRow; too many or missing: \['note'\]"):
        recorder.preferences([{key: value for key, value in rows[0].items() if key != "note"}])  # type: ignore[list-item]


def test_embeddings_come_back_as_half_floats_with_their_sample(recorder: LedgerRecorder, tmp_path: Path) -> None:
    vectors = np.array([[0.5, -0.25, 1.0], [0.0, 0.125, 3.0]], np.float16)
    recorder.embeddings(4, [sample(), sample(prompt_id="q", sample_id=1)], vectors)
    table = pq.read_table(embeddings_file(tmp_path, 4))

    assert table.schema.field("embedding").type.value_type == pa.float16()
    assert table.to_pylist() == [
        {"prompt_id": "p", "sample_id": 0, "stream": 1, "embedding": [0.5, -0.25, 1.0]},
        {"prompt_id": "q", "sample_id": 1, "stream": 1, "embedding": [0.0, 0.125, 3.0]},
    ]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds that time.monotonic tells."""
    return lambda seconds: monkeypatch.setattr("runner.ledger.writer.time.monotonic", lambda: seconds)


def test_durations_do_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: Callable[[float], None]
) -> None:
    at(1000.0)
    status = StatusFile(tmp_path, "abc")
    at(1012.5)
    monkeypatch.setattr("runner.ledger.writer.timestamp", lambda: "1970-01-01T00:00:00.000+00:00")
    status.finish({})

    assert (read_status(tmp_path) or {})["seconds"] == 12.5


def test_the_end_of_a_killed_job_keeps_what_it_said_of_itself(tmp_path: Path) -> None:
    StatusFile(tmp_path, "abc").progress("PPO", 3, 16, "updates")
    record_end(tmp_path, "abc", "failed", "killed by SIGKILL")
    status = read_status(tmp_path) or {}
    assert (status["state"], status["error"], status["done"]) == ("failed", "killed by SIGKILL", 3)

    record_end(tmp_path, "abc", "failed", "exit code 1")
    assert (read_status(tmp_path) or {})["error"] == "killed by SIGKILL"  # the first word stands


def test_the_end_of_a_job_that_never_began_replaces_another_specifications(tmp_path: Path) -> None:
    StatusFile(tmp_path, "abc").finish({})
    record_end(tmp_path, "new", "skipped", "gold did not finish")
    status = read_status(tmp_path) or {}

    assert (status["state"], status["identity"], status["error"]) == ("skipped", "new", "gold did not finish")


def test_what_goes_on_is_counted_from_its_beginning_and_what_begins_anew_is_not(
    tmp_path: Path, at: Callable[[float], None]
) -> None:
    at(100.0)
    status = StatusFile(tmp_path, "abc")

    def after(seconds: float, stage: str, done: int, total: int) -> tuple[object, object]:
        at(100.0 + seconds)
        status.progress(stage, done, total, "responses")
        status.heartbeat()
        written = read_status(tmp_path) or {}
        return written["counted_from"], written["counted_to"]

    assert after(10, "point 1", 0, 8) == ({"done": 0, "seconds": 10.0}, 10.0)
    assert after(20, "point 1", 4, 8) == ({"done": 0, "seconds": 10.0}, 20.0)
    assert after(30, "point 2", 4, 8) == ({"done": 0, "seconds": 10.0}, 20.0)  # the count goes on, and has not moved
    assert after(40, "point 2", 8, 8) == ({"done": 0, "seconds": 10.0}, 40.0)
    assert after(50, "scores", 0, 3) == ({"done": 0, "seconds": 50.0}, 50.0)


def test_heartbeats_move_a_status_that_says_nothing_and_end_with_it(
    tmp_path: Path, at: Callable[[float], None]
) -> None:
    at(0.0)
    status = StatusFile(tmp_path, "abc")
    at(60.0)
    status.heartbeat()
    assert (read_status(tmp_path) or {})["seconds"] == 60.0

    status.end("failed", "no luck")
    at(120.0)
    status.heartbeat()
    written = read_status(tmp_path) or {}
    assert (written["state"], written["seconds"]) == ("failed", 60.0)
