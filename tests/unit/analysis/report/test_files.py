from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.signoff import sign, verify
from runner.ledger.reader import newest_report
from runner.ledger.reports import report_problems

VIEWS = ("report.md", "report.html")
ALL = ("report.json", "ledger_manifest.json", *VIEWS)


def sign_by_ada(folder: Path) -> None:
    sign(folder, name="Ada", role="reviewer", decision="approve", note="")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def original(tmp_path_factory, write_sweep):
    sweep = write_sweep(tmp_path_factory.mktemp("signed") / "sweep")
    assert main(["report", str(sweep.folder)]) == 0
    sign_by_ada(sweep.folder / "report")
    return sweep


@pytest.fixture
def signed(original, tmp_path):
    sweep = copy.copy(original)
    sweep.folder = shutil.copytree(original.folder, tmp_path / "sweep")
    return sweep


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "de_DE.UTF-8"])
def test_pages_come_out_of_the_json_byte_for_byte_in_another_process(signed, tmp_path, locale):
    """Other hash seed, locale, time zone, folder and drawing habits of the person who does it."""
    report = signed.folder / "report"
    habits = tmp_path / "matplotlibrc"
    habits.write_text("font.size: 20\nlines.linewidth: 9\nsvg.fonttype: path\n")
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("report.json", "signatures.jsonl"):
        shutil.copy(report / name, alone)
    environment = {
        "PATH": os.environ["PATH"], "PYTHONHASHSEED": "99", "TZ": "Asia/Kathmandu", "LC_ALL": locale,
        "MATPLOTLIBRC": str(habits), "HOME": str(tmp_path),
    }  # fmt: skip
    command = [sys.executable, "-m", "analysis", "report", "--from-json", str(alone / "report.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(alone / name) for name in VIEWS]
    for name in VIEWS:
        assert (alone / name).read_bytes() == (report / name).read_bytes()


def test_pages_take_the_name_of_the_json(signed, tmp_path):
    shutil.copy(signed.folder / "report/report.json", tmp_path / "mine.json")
    assert main(["report", "--from-json", str(tmp_path / "mine.json")]) == 0
    assert "Nobody has signed" in (tmp_path / "mine.md").read_text(encoding="utf-8")
    assert "Nobody has signed" in (tmp_path / "mine.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no report with schema"),
        ('{"schema": 1}', "no report with schema 2"),
        ('{"schema": 2}', "sweep: field required"),
        ('{"schema": 2, "x": NaN}', "NaN is no finite number"),
        ("[" * 100_000, "not valid JSON"),
        (None, "No such file"),
    ],
)
def test_what_is_no_report_is_one_line_and_exit_code_2(tmp_path, capsys, content, message):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", "--from-json", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "report.html").exists()


def test_a_page_is_not_taken_for_the_json(signed, capsys):
    before = contents(signed.folder / "report")
    assert main(["report", "--from-json", str(signed.folder / "report/report.md")]) == 2
    assert "no JSON file" in capsys.readouterr().err
    assert contents(signed.folder / "report") == before


@pytest.mark.parametrize("arguments", [[], ["RUNS_DIR", "--from-json", "x.json"]])
def test_report_wants_a_sweep_or_a_json(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["report", *arguments])
    assert stopped.value.code == 2


def test_nothing_of_the_time_or_the_place_is_in_the_json(signed):
    text = (signed.folder / "report/report.json").read_text(encoding="utf-8")
    assert str(signed.folder.parent) not in text
    assert os.uname().nodename not in text


# --------------------------------------------------------------------------------------------------- numbered folders
def test_an_unsigned_report_is_replaced(make_sweep):
    sweep = make_sweep()
    assert main(["report", str(sweep.folder)]) == 0
    before = contents(sweep.folder / "report")
    sweep.edit("dpo/seed0/status.json", state="failed", error="boom")
    assert main(["report", str(sweep.folder)]) == 0
    assert contents(sweep.folder / "report")["report.json"] != before["report.json"]
    assert newest_report(sweep.folder) == sweep.folder / "report"


def test_a_signed_report_that_comes_out_the_same_is_left_alone(signed, capsys):
    report = signed.folder / "report"
    before, times = contents(report), {path: path.stat().st_mtime_ns for path in report.iterdir()}
    assert main(["report", str(signed.folder)]) == 0
    assert contents(report) == before
    assert {path: path.stat().st_mtime_ns for path in report.iterdir() if path.name[0] != "."} == {
        path: time for path, time in times.items() if path.name[0] != "."
    }
    assert "is signed and says the same; nothing was written" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ledger_manifest.json", *VIEWS])
def test_a_signed_report_gets_its_lost_files_again(signed, capsys, name):
    """What was signed, report.json and its ledger, is not touched: the others follow from them."""
    report = signed.folder / "report"
    before = contents(report)
    (report / name).write_bytes(before[name][:100])
    assert len(report_problems(signed.folder)) == 1
    assert main(["report", str(signed.folder)]) == 0
    assert contents(report) == before
    assert report_problems(signed.folder) == []
    assert "is signed and says the same" in capsys.readouterr().out


def test_a_report_is_the_one_of_now_only_while_its_ledger_is(signed):
    assert report_problems(signed.folder) == []
    signed.edit("dpo/seed0/status.json", state="failed", error="boom")
    (problem,) = report_problems(signed.folder)
    assert "was made from another ledger: dpo/seed0/" in problem
    assert main(["report", str(signed.folder)]) == 0
    assert newest_report(signed.folder).name == "report-2"
    assert report_problems(signed.folder) == []
    signed.edit("dpo/seed0/status.json", state="finished", error=None)
    assert "report-2 was made from another ledger" in report_problems(signed.folder)[0]


def test_a_report_that_differs_from_a_signed_one_goes_to_the_next_folder(signed, capsys):
    report = signed.folder / "report"
    before = contents(report)
    signed.edit("dpo/seed0/status.json", state="failed", error="boom")
    for number in (2, 3):
        assert main(["report", str(signed.folder)]) == 0
        new = signed.folder / f"report-{number}"
        out = capsys.readouterr().out
        assert "is signed and stays as it is; this report differs from it" in out
        assert str(new / "report.html") in out
        assert newest_report(signed.folder) == new
        assert set(ALL) <= set(contents(new))
        sign_by_ada(new)
        assert verify(new).problems == ()
        signed.edit("dpo/seed0/status.json", state="failed", error=f"boom {number}")
    assert contents(report) == before
    assert not list(signed.folder.glob(".report*"))


def test_an_unsigned_numbered_report_is_replaced(signed):
    signed.edit("dpo/seed0/status.json", state="failed", error="boom")
    assert main(["report", str(signed.folder)]) == 0
    signed.edit("dpo/seed0/status.json", state="failed", error="bang")
    assert main(["report", str(signed.folder)]) == 0
    assert not (signed.folder / "report-3").exists()
    assert "bang" in (signed.folder / "report-2/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["report.json", "signatures.jsonl"])
def test_a_signed_report_that_was_tampered_with_is_not_mended_over(signed, name):
    """Not even a damaged record is taken for none."""
    report = signed.folder / "report"
    (report / name).write_bytes((report / name).read_bytes()[:-10])
    signed.edit("dpo/seed0/status.json", state="failed", error="boom")
    before = contents(report)
    assert main(["report", str(signed.folder)]) == 0
    assert contents(report) == before
    assert (signed.folder / "report-2/report.json").is_file()
    assert report_problems(signed.folder) == []


def test_two_rebuilds_at_once_make_one_new_report(signed, forked):
    signed.edit("dpo/seed0/status.json", state="failed", error="boom")
    command = [*forked, "-m", "analysis", "report", str(signed.folder)]
    builders = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [builder.wait() for builder in builders] == [0, 0]
    assert sorted(path.name for path in signed.folder.glob("*report*")) == ["report", "report-2"]
    sign_by_ada(signed.folder / "report-2")


def test_a_report_folder_that_is_a_link_is_refused(make_sweep, tmp_path, capsys):
    sweep = make_sweep()
    (tmp_path / "elsewhere").mkdir()
    (sweep.folder / "report").symlink_to(tmp_path / "elsewhere")
    assert main(["report", str(sweep.folder)]) == 2
    assert "symbolic link" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []
