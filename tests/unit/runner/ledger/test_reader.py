import json
from pathlib import Path

import pytest

from runner.ledger.integrity import fingerprints
from runner.ledger.reader import is_finished, newest_report, read_json, read_metrics, read_status, sample_files


def test_a_torn_last_line_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": ')

    assert read_metrics(tmp_path) == [{"a": 1}, {"a": 2}]


def test_a_last_line_that_only_lacks_its_newline_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a": 2}')

    assert read_metrics(tmp_path) == [{"a": 1}, {"a": 2}]


def test_damage_before_the_last_line_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')

    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_metrics(tmp_path)


def test_a_folder_without_a_ledger_is_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    assert read_status(tmp_path) is None
    assert sample_files(tmp_path) == {}


def test_finished_means_finished_as_this(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "finished", "identity": "abc"}')

    assert is_finished(tmp_path, "abc")
    assert not is_finished(tmp_path, "other")


def test_samples_are_ordered_by_point(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("point_10", "point_2", "point_x", ".point_3"):
        (tmp_path / "samples" / f"{name}.parquet").touch()

    assert list(sample_files(tmp_path)) == [2, 10]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("[1]")

    with pytest.raises(ValueError, match=r"plan\.json holds no JSON object"):
        read_json(path)


def test_the_newest_report_has_the_highest_number(tmp_path: Path) -> None:
    assert newest_report(tmp_path) == tmp_path / "report"
    for name in ("report", "report-2", "report-10", "report-9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}")
    (tmp_path / "report-11").mkdir()  # holds no report
    (tmp_path / "report-12").symlink_to(tmp_path / "report-2")
    for name in ("report-0", "report-02", "report-x", "my-report-13"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}")

    assert newest_report(tmp_path) == tmp_path / "report-10"


@pytest.mark.parametrize("content", ['{"state": 3}', '{"done": "many"}', '{"counted_from": [1]}', '{"files": 1}', "[]"])
def test_a_status_with_odd_types_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content)

    assert read_status(tmp_path) is None


def test_a_finished_job_whose_files_are_damaged_has_not_finished(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    status = {"state": "finished", "identity": "abc", "files": fingerprints(tmp_path)}
    (tmp_path / "status.json").write_text(json.dumps(status))
    assert is_finished(tmp_path, "abc")

    (tmp_path / "metrics.jsonl").write_text('{"loss"')
    assert not is_finished(tmp_path, "abc")
