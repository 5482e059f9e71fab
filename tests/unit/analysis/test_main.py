from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from analysis.__main__ import main

FILES = ("report.html", "report.md", "report.json")


def test_report_writes_three_files_and_prints_the_headline(make_sweep, capsys):
    sweep = make_sweep()
    assert main(["report", str(sweep.folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    report = json.loads((sweep.folder / "report/report.json").read_text())
    names = {path.name for path in (sweep.folder / "report").iterdir() if not path.name.startswith(".")}
    assert names == {*FILES, "ledger_manifest.json"}
    assert out[-1] == report["headline"]
    assert all(any(name in line for line in out) for name in FILES)


def test_same_ledger_gives_the_same_bytes_wherever_it_lies(make_sweep, tmp_path):
    """In another process with another hash seed and number of threads too: no set order, no time, no path in them."""
    sweep = make_sweep(seeds=(0, 1, 2))
    moved = shutil.copytree(sweep.folder, tmp_path / "moved")
    assert main(["report", str(sweep.folder)]) == 0
    command = [sys.executable, "-m", "analysis", "report", str(moved)]
    other = {"PYTHONHASHSEED": "17", "PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    subprocess.run(command, check=True, capture_output=True, env=other)
    for name in FILES:
        assert (sweep.folder / "report" / name).read_bytes() == (moved / "report" / name).read_bytes()


@pytest.mark.parametrize("folder", ["missing", "."])
def test_bad_folder_is_one_line_and_exit_code_2(tmp_path, capsys, folder):
    assert main(["report", str(tmp_path / folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "plan.json" in error


def test_mismatch_is_told_and_nothing_is_written(make_sweep, capsys):
    sweep = make_sweep()
    spec = json.loads((sweep.folder / "dpo/seed0/spec.json").read_text())
    sweep.edit("dpo/seed0/spec.json", spec={**spec["spec"], "num_prompts": 9})
    assert main(["report", str(sweep.folder)]) == 2
    assert "dpo/seed0: trained with num_prompts = 9" in capsys.readouterr().err
    assert not (sweep.folder / "report").exists()


def test_the_report_of_what_finished_says_on_top_what_is_missing(make_sweep, synthetic):
    """An arm that failed, one whose evaluation was skipped, a judge that was stopped; read from the pages."""
    names = ("ppo", "dpo", "ppo_failed", "dpo_skipped")
    sweep = make_sweep({name: synthetic.Arm(name[:3], (0.1, 0.2)) for name in names})
    sweep.edit("ppo_failed/seed0/status.json", state="failed", error="killed by SIGKILL <b>\x1b[31m")
    sweep.edit("dpo_skipped/seed0/evaluation/status.json", state="skipped", error="reward_model did not finish")
    plan = json.loads((sweep.folder / "plan.json").read_text())
    judge = {"label": "judges/endpoint", "kind": "judgement", "folder": "judges/endpoint", "identity": "x", "needs": []}
    sweep.edit("plan.json", jobs=[*plan["jobs"], judge])
    (sweep.folder / "judges/endpoint").mkdir(parents=True)
    sweep.json(sweep.folder / "judges/endpoint/status.json", {"state": "stopped", "error": "on request"})
    assert main(["report", str(sweep.folder)]) == 0

    html, markdown = ((sweep.folder / "report" / name).read_text() for name in ("report.html", "report.md"))
    for page, top in ((html, html.index("Appendices")), (markdown, markdown.index("<details>"))):
        banner = page[page.index("Missing from this report") : top]
        assert "training failed (killed by SIGKILL" in banner
        assert "evaluation was skipped (reward" in banner
        assert "was stopped (on request)" in banner
        assert "SIGKILL <b>" not in page
        assert "\x1b" not in page
    assert [run["arm"] for run in json.loads((sweep.folder / "report/report.json").read_text())["arms"]] == [
        "ppo",
        "dpo",
    ]


WIN_RATE_KEYS = {
    *("generator", "n", "win_rate", "win_rate_ci95", "lc_win_rate", "lc_win_rate_ci95", "identified"),
    *("style_premium", "length_ratio", "mde", "num_missing", "num_malformed", "flags"),
}


def test_winrate_prints_a_list_in_the_order_of_the_files(tmp_path, annotation_row, capsys):
    for name in ("b", "a"):
        rows = [annotation_row(number, generator_2=name) for number in range(30)]
        (tmp_path / name).write_text(json.dumps(rows))
    command = ["winrate", str(tmp_path / "b"), str(tmp_path / "a"), "--format", "alpaca_eval"]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [entry["generator"] for entry in printed] == ["b", "a"]
    assert all(entry.keys() >= WIN_RATE_KEYS for entry in printed)
    assert main(command) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["generator", "b", "a"]


@pytest.mark.parametrize(
    ("content", "format_name", "message"),
    [
        ("[]", "arena", "unknown format 'arena'; known: alpaca_eval"),
        (None, "alpaca_eval", "No such file"),
        ("not json\x1b[2J", "alpaca_eval", "not JSON"),
        ('[{"instruction": "x"}]', "alpaca_eval", "no comparison has generator_1"),
    ],
)
def test_winrate_of_a_bad_file_is_one_line_and_exit_code_2(tmp_path, capsys, content, format_name, message):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    assert main(["winrate", str(path), "--format", format_name, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_analysis_loads_neither_torch_nor_transformers_nor_hydra():
    code = "import sys, analysis.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert {"torch", "transformers", "hydra", "wandb"}.isdisjoint(loaded)


def test_reader_that_leaves_early_is_no_error():
    read, written = os.pipe()
    os.close(read)  # nobody reads, as after `| head` has ended
    ended = subprocess.run([sys.executable, "-m", "analysis", "--help"], stdout=written, stderr=subprocess.PIPE)
    os.close(written)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")
