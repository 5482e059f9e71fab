"""What the README tells people to type and to open is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make")])
def test_make_targets_exist(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "choice", sorted({word for c in COMMANDS for word in shlex.split(c) if re.match(r"\+?[a-z]\w*=", word)})
)
def test_choices_of_a_group_exist(choice: str) -> None:
    group, _, name = choice.lstrip("+").partition("=")
    if (ROOT / "conf" / group).is_dir():
        assert (ROOT / "conf" / group / f"{name}.yaml").exists()
    else:
        assert group in (ROOT / "conf" / "config.yaml").read_text()


ALGORITHMS = ROOT / "experiments" / "algorithms" / "README.md"
FAULTS = ROOT / "runner" / "FAULTS.md"
NAMED_TESTS = sorted(
    {test for page in (ALGORITHMS, FAULTS) for test in re.findall(r"`(test_\w+\.py)::(\w+)`", page.read_text("utf-8"))}
)


@pytest.mark.parametrize(("file", "name"), NAMED_TESTS, ids="::".join)
def test_the_tests_that_guard_the_algorithms_and_try_the_faults_exist(file: str, name: str) -> None:
    assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file))


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", ALGORITHMS.read_text(encoding="utf-8")))))
def test_links_of_the_algorithms_page_lead_to_files(link: str) -> None:
    assert (ALGORITHMS.parent / link).exists()
