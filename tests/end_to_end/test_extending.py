"""`experiments/EXTENDING.md`, followed to the letter in a copy of the project: its blocks, its commands, its report."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "experiments" / "EXTENDING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^```(?:python|yaml|jinja)\n(?:#|\{#) ([\w/.]+)(?:, before: (.+?))?(?: #\})?\n(.*?)^```$", PAGE, re.M | re.S
)
COMMANDS = [shlex.split(command) for command in re.findall(r"^```bash\npython -m runner (.*)\n```$", PAGE, re.M)]
TABLED = {
    name.replace("NAME", "toy") for name in re.findall(r"`([\w/.]+)`", "".join(re.findall(r"^\|.*$", PAGE, re.M)))
}
COPIED = ("analysis", "conf", "experiments", "runner", "tests/chaos")


def write(root: Path, file: str, before: str, content: str) -> None:
    path = root / file
    if not before:
        assert not path.exists(), f"{file} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if line.strip() == before]
    assert len(places) == 1, f"{file} has the line {before!r} {len(places)} times"
    gap = "\n\n" if content.startswith("class ") else ""
    path.write_text("".join([*lines[: places[0]], content, gap, *lines[places[0] :]]), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with everything that the page adds."""
    root = tmp_path_factory.mktemp("extended")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, root / folder)  # with the compiled files: their sources keep their times
    for name in ("pyproject.toml", "tests/chaos/__init__.py"):
        shutil.copy2(ROOT / name, root / name)
    for block in BLOCKS:
        write(root, *block)
    return root


def run(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=project, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sweep(project: Path, forked_runner: tuple[str, ...]) -> Path:
    """The folder of the page's last command, finished."""
    run(project, *forked_runner[1:], *COMMANDS[-1], f"runs_dir={project}/runs", f"cache_dir={project}/cache")
    return project / "runs" / "toy"


@pytest.fixture(scope="module")
def report(sweep: Path) -> dict[str, Any]:
    return json.loads((sweep / "report" / "report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_table_names_every_file_of_the_blocks() -> None:
    tabled = {*TABLED, "experiments/tasks/toy/__init__.py", "experiments/tasks/toy/work.py"}

    assert {file for file, _, _ in BLOCKS} <= tabled
    assert len(BLOCKS) == len(re.findall(r"^```(?!bash)\w+$", PAGE, re.M))


def test_the_blocks_are_in_the_projects_style(project: Path) -> None:
    files = sorted({file for file, _, _ in BLOCKS if file.endswith(".py")})

    run(project, "-m", "ruff", "check", "--no-cache", *files)
    run(project, "-m", "ruff", "format", "--no-cache", "--check", *files)


def test_the_commands_compose(project: Path) -> None:
    code = (
        "import json, sys; from runner.__main__ import compose; print(*map(len, map(compose, json.loads(sys.argv[1]))))"
    )
    plain = [[word for word in words if word != "--plan"] for words in COMMANDS]

    assert run(project, "-c", code, json.dumps(plain)).split() == ["2", "3", "3", "3", "2"]


def test_the_sweep_trains_compares_and_reports_everything_new(report: dict[str, Any]) -> None:
    assert report["missing"] == report["missing_judges"] == []
    assert [arm["arm"] for arm in report["arms"]] == ["ppo", "toy"]
    assert "toy/accuracy" in report["arms"][1]["health"]
    assert [card["name"] for card in report["scores"]] == list(report["judges"]) == ["letters", "words", "proxy"]
    assert [judge["name"] for judge in report["asked_judges"]] == ["toy"]
    assert ("toy", "ppo") in {(pair["arm"], pair["opponent"]) for pair in report["head_to_head"]}


def test_the_report_says_what_the_reward_is(report: dict[str, Any]) -> None:
    meaning = {card["name"]: card["meaning"] for card in report["scores"]}["proxy"]

    assert meaning.startswith("how near the text is to the wanted length")
    assert report["arms"][0]["comparisons"] == "none, through the reward model"


def test_both_pages_of_the_report_have_the_section(sweep: Path, report: dict[str, Any]) -> None:
    line = f"toy reaches {report['arms'][1]['measure']['value']:.1f} points"

    for page in ("report.html", "report.md"):
        text = (sweep / "report" / page).read_text(encoding="utf-8")
        assert "What the toy says" in text
        assert line in text


def test_ppo_was_paid_by_the_function(sweep: Path) -> None:
    """The proxy of every response is the function's value, on the scale of the base's ranking samples."""
    rows = pd.read_parquet(max((sweep / "ppo/seed0/evaluation/samples").glob("*.parquet")))
    scale = json.loads(next((sweep.parents[1] / "cache/artifacts/reward_model").glob("*/text_reward.json")).read_text())
    value = -(rows["response"].str.len() - 20).abs()

    assert rows["score/proxy"].tolist() == pytest.approx(
        ((value - scale["mean"]) / scale["standard_deviation"]).tolist()
    )
    assert rows["score/words"].tolist() == rows["response"].str.split().str.len().tolist()
