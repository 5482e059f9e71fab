import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from runner.planning.plan import Plan
from runner.watching.display import (
    Display,
    Row,
    clean,
    duration,
    live_table,
    log_tail,
    progress_text,
    summary_line,
)
from runner.watching.estimate import Left

AGAIN = "python -m runner +sweep=smoke"
STATUS = {
    "stage": "updates",
    "done": 5,
    "total": 16,
    "unit": "updates",
    "counted_from": {"done": 1, "seconds": 10.0},
    "counted_to": 70.0,
    "seconds": 70.0,
    "latest": {"ppo/kl": 1.2345, "ppo/score_mean": None, "ppo/gold_mean": 0.61},
}


def display() -> tuple[Display, io.StringIO]:
    output = io.StringIO()
    return Display(Console(file=output, width=200, highlight=False, markup=False)), output


def test_progress_says_stage_speed_and_numbers() -> None:
    text = progress_text(STATUS)

    assert text == "updates 5/16 updates, 4.0 updates/min, ppo/kl 1.23, ppo/gold_mean 0.61"


def test_progress_shows_the_flags_that_are_up() -> None:
    text = progress_text(STATUS | {"flags": {"entropy_collapse": 3, "kl_jump": 1}})

    assert "FLAG entropy collapse (3x), FLAG kl jump (1x)" in text


def test_progress_makes_no_guess_before_it_has_seen_anything_happen() -> None:
    assert "/min" not in progress_text(STATUS | {"done": 1})
    assert progress_text({}) == "starting"


def test_a_stage_is_announced_and_then_reported_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, output = display()
    moment = 0.0
    monkeypatch.setattr("runner.watching.display.time.monotonic", lambda: moment)
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


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, ""), (0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7384, "2 h 03 min")]
)
def test_duration(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_the_end_names_what_failed_with_its_reason_its_log_and_how_to_repeat_it(planned: Callable[..., Plan]) -> None:
    plan = planned("runs_dir=odd name")
    plan = replace(plan, jobs=tuple(replace(job, folder=plan.folder / "odd name" / job.label) for job in plan.jobs))
    failed = next(job for job in plan.jobs if job.label == "ppo/seed0")
    failed.folder.mkdir(parents=True)
    (failed.folder / "log.txt").write_text("first\n\x1b]0;owned\x07 last\n")
    results = {job.label: Row(job.label, "finished", seconds=65) for job in plan.jobs}
    results["ppo/seed0"] = Row("ppo/seed0", "failed", "ValueError: \x1b[31mno luck", 3.2)
    results["ppo/seed0/evaluation"] = Row("ppo/seed0/evaluation", "skipped", "ppo/seed0 did not finish")
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
    shown.summary(plan, {job.label: Row(job.label, "finished") for job in plan.jobs}, AGAIN)

    assert "headline of report-2" in output.getvalue()
    assert str(plan.folder / "report-2" / "report.html") in output.getvalue().replace("\n", "")


def test_offline_runs_are_pointed_out_until_they_are_uploaded(planned: Callable[..., Plan]) -> None:
    plan = planned()
    run = plan.folder / "ppo" / "seed0" / "wandb" / "offline-run-1"
    run.mkdir(parents=True)
    results = {job.label: Row(job.label, "finished") for job in plan.jobs}
    shown, output = display()
    shown.summary(plan, results, AGAIN)
    assert "wandb sync" in output.getvalue()
    assert str(plan.folder) in output.getvalue()

    (run / "run-1.wandb.synced").touch()
    shown, output = display()
    shown.summary(plan, results, AGAIN)
    assert "wandb sync" not in output.getvalue()


# ------------------------------------------------------------------------------------------------------- the live table
ROWS = [
    Row("measure", "finished", seconds=10),
    *(Row(f"a_long_arm_name_{number}/seed0", "running", "PPO 3/16 updates \x1b[2J", 65, 3700.0) for number in range(9)),
    Row("dpo/seed0", "failed", "ValueError: no luck"),
    *(Row(f"waiting/seed{number}", "waiting") for number in range(40)),
]


@pytest.mark.parametrize(("width", "height"), [(40, 10), (20, 3), (80, 24), (300, 100)])
def test_the_live_table_fits_its_terminal(width: int, height: int) -> None:
    console = Console(width=width, height=height, file=io.StringIO(), highlight=False)
    table = live_table(ROWS, summary_line(ROWS, Left(90.0, at_least=False)), width, height)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()

    assert max(len(line) for line in lines) <= width
    assert len(lines) <= max(4, height)
    assert "\x1b" not in captured.get()


def test_the_live_table_shows_what_has_something_to_say() -> None:
    console = Console(width=120, height=50, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        console.print(live_table(ROWS, summary_line(ROWS, Left(90.0, at_least=True)), 120, 50))
    text = captured.get()

    assert "1 min 05 s  PPO 3/16 updates" in text
    assert "1 h 01 min" in text
    assert "no luck" in text
    assert "waiting/seed" not in text
    assert text.splitlines()[-1].rstrip() == (
        "at least 1 min 30 s left; 1 of 51 finished, 9 running, 1 failed, 40 waiting"
    )


def test_without_a_terminal_there_are_plain_lines_and_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 0.0
    monkeypatch.setattr("runner.watching.display.time.monotonic", lambda: moment)
    shown, output = display()
    with shown.watching():
        for moment in (0.0, 5.0, 61.0):
            shown.show([Row.of_status("ppo/seed0", {**STATUS, "done": 5 + int(moment)})], "0 of 1 finished")
    lines = [line.split(None, 1)[1] for line in output.getvalue().splitlines()]

    assert [line.split()[0] for line in lines] == ["ppo/seed0", "ppo/seed0", "sweep"]
    assert "2 min 45 s left" in lines[0]
    assert "\x1b" not in output.getvalue()


def test_in_a_terminal_the_table_is_redrawn_and_taken_away() -> None:
    output = io.StringIO()
    console = Console(
        file=output, force_terminal=True, width=40, height=12, highlight=False, _environ={"TERM": "xterm"}
    )
    shown = Display(console)
    with shown.watching():
        shown.show(ROWS, "first look")
        shown.event("measure", "finished")
        shown.show(ROWS, "second look")
    shown.say("the end")

    text = output.getvalue()
    assert "first look" in text
    assert "second look" in text
    assert "\x1b[2K" in text  # lines are erased, …
    assert "\x1b[2J" not in text  # … and nothing else that a job may have asked for
    assert text.rstrip().endswith("the end")


def test_a_dumb_terminal_gets_plain_lines() -> None:
    output = io.StringIO()
    shown = Display(Console(file=output, force_terminal=True, width=80, _environ={"TERM": "dumb"}))
    with shown.watching():
        shown.show([Row.of_status("ppo/seed0", STATUS)], "")

    assert "\x1b" not in output.getvalue()


def test_the_end_fits_a_narrow_terminal(planned: Callable[..., Plan]) -> None:
    plan = planned()
    output = io.StringIO()
    results = {job.label: Row(job.label, "skipped", "reward_model did not finish") for job in plan.jobs}
    Display(Console(file=output, width=40, highlight=False)).summary(plan, results, AGAIN)
    table = output.getvalue().partition("all that is missing")[0]

    assert max(len(line) for line in table.splitlines()) <= 40
    assert "…" not in table  # folded, not cut
