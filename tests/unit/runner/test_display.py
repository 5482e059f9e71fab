import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from runner.display import Display, Result, clean, duration, log_tail, progress_text
from runner.plan import Plan

AGAIN = "python -m runner +sweep=smoke"
STATUS = {
    "stage": "updates",
    "done": 5,
    "total": 16,
    "unit": "updates",
    "latest": {"ppo/kl": 1.2345, "ppo/score_mean": None, "ppo/gold_mean": 0.61},
}


def display() -> tuple[Display, io.StringIO]:
    output = io.StringIO()
    return Display(Console(file=output, width=200, highlight=False, markup=False)), output


def test_progress_says_stage_speed_numbers_and_time_left() -> None:
    text = progress_text(STATUS, done=4, seconds=60)

    assert text == "updates 5/16 updates, 4.0 updates/min, ppo/kl 1.23, ppo/gold_mean 0.61, 2 min 45 s left"


def test_progress_shows_the_flags_that_are_up() -> None:
    text = progress_text(STATUS | {"flags": {"entropy_collapse": 3, "kl_jump": 1}}, done=4, seconds=60)

    assert "FLAG entropy collapse (3x), FLAG kl jump (1x)" in text


def test_progress_makes_no_guess_before_it_has_seen_anything_happen() -> None:
    assert "left" not in progress_text(STATUS, done=0, seconds=0.0)


def test_a_stage_is_announced_and_then_reported_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, output = display()
    moment = 0.0
    monkeypatch.setattr("runner.display.time.monotonic", lambda: moment)
    for done in range(100):
        moment = done * 0.5
        shown.progress("ppo/seed0", {**STATUS, "done": done, "total": 100})
    shown.progress("ppo/seed0", {**STATUS, "stage": "saving", "done": 0})

    lines = output.getvalue().splitlines()
    assert len(lines) == 1 + 4 + 1  # the stage, every ten of fifty seconds, the next stage
    assert "saving" in lines[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", " [31mred [0m"),
        ("two\nlines\r", "two lines "),
        ("a\u202eb", "a b"),
        ("x" * 999, "x" * 300),
    ],
)
def test_hostile_text_becomes_one_plain_line(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_markup_of_a_name_is_shown_and_not_obeyed() -> None:
    shown, output = display()
    shown.event("[bold]name[/bold]", "[red]text[/red]")

    assert "[bold]name[/bold]" in output.getvalue()
    assert "[red]text[/red]" in output.getvalue()


def test_log_tail_is_short_and_survives_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"".join(b"line %d \xff\n\n" % number for number in range(100)))

    assert log_tail(path)[-1].startswith("line 99")
    assert len(log_tail(path)) == 8
    assert log_tail(tmp_path / "none") == []


@pytest.mark.parametrize(("seconds", "expected"), [(None, ""), (0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s")])
def test_duration(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_end_names_what_failed_with_its_reason_its_log_and_how_to_repeat_it(planned: Callable[..., Plan]) -> None:
    plan = planned("runs_dir=odd name")
    plan = replace(plan, jobs=tuple(replace(job, folder=plan.folder / "odd name" / job.label) for job in plan.jobs))
    failed = next(job for job in plan.jobs if job.label == "ppo/seed0")
    failed.folder.mkdir(parents=True)
    (failed.folder / "log.txt").write_text("first\n\x1b]0;owned\x07 last\n")
    results = {job.label: Result("finished", seconds=65) for job in plan.jobs}
    results["ppo/seed0"] = Result("failed", "ValueError: \x1b[31mno luck", 3.2)
    results["ppo/seed0/evaluation"] = Result("skipped", "ppo/seed0 did not finish")
    shown, output = display()
    shown.summary(plan, results, AGAIN)
    text = output.getvalue()

    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["dpo/seed0"] == ["finished", "1", "min", "05", "s"]
    assert rows["ppo/seed0/evaluation"] == ["skipped", "ppo/seed0", "did", "not", "finish"]
    assert "ppo/seed0 failed: ValueError:  [31mno luck" in text
    assert text.count("ppo/seed0/evaluation") == 1  # skipped, which is no failure
    assert "    first\n     ]0;owned  last\n" in text
    assert f"python -m runner.job '{failed.folder}'" in text
    assert f"all that is missing: {AGAIN}" in text
    assert not {"\x1b", "\x07"} & set(text)


def test_the_newest_report_is_pointed_out(planned: Callable[..., Plan]) -> None:
    plan = planned()
    for name in ("report", "report-2"):
        (plan.folder / name).mkdir(parents=True)
        (plan.folder / name / "report.json").write_text(f'{{"headline": "headline of {name}"}}')
    shown, output = display()
    shown.summary(plan, {job.label: Result("finished") for job in plan.jobs}, AGAIN)

    assert "headline of report-2" in output.getvalue()
    assert str(plan.folder / "report-2" / "report.html") in output.getvalue().replace("\n", "")


def test_offline_runs_are_pointed_out_until_they_are_uploaded(planned: Callable[..., Plan]) -> None:
    plan = planned()
    run = plan.folder / "ppo" / "seed0" / "wandb" / "offline-run-1"
    run.mkdir(parents=True)
    results = {job.label: Result("finished") for job in plan.jobs}
    shown, output = display()
    shown.summary(plan, results, AGAIN)
    assert "wandb sync" in output.getvalue()
    assert str(plan.folder) in output.getvalue()

    (run / "run-1.wandb.synced").touch()
    shown, output = display()
    shown.summary(plan, results, AGAIN)
    assert "wandb sync" not in output.getvalue()
