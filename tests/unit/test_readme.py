"""What README.md and every other page tell people to type and to open is there. Pages are found, not listed."""

from __future__ import annotations

import argparse
import re
import shlex
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from analysis.__main__ import main as analysis_main
from runner.__main__ import compose
from runner.planning.problems import schema_keys

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MADE_HERE = {"runs", "cache", "build", "dist"}  # and what begins with a dot
TOPS = [top for top in ROOT.iterdir() if top.is_dir() and top.name[0] != "." and top.name not in MADE_HERE]
PAGES = sorted([*ROOT.glob("*.md"), *(page for top in TOPS for page in top.rglob("*.md"))])
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
A_HASH = "0" * 64  # in place of the word HASH
KEYS = set(schema_keys())
TESTS: dict[str, list[str]] = defaultdict(list)  # name of a file of tests -> the texts of all files of that name
for file in (ROOT / "tests").rglob("test_*.py"):
    TESTS[file.name].append(file.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def found(pattern: str) -> list[tuple[str, str]]:
    """Every different match of a pattern with one group, with the page that it first stands on."""
    places: dict[str, str] = {}
    for page, text in TEXTS.items():
        for match in re.findall(pattern, text, flags=re.MULTILINE):
            places.setdefault(match, name_of(page))
    return [(page, match) for match, page in places.items()]


# In blocks of commands, without what the environment is set to, without remarks and without --plan; each once
TYPED = {
    re.sub(r"^([A-Z_]+=\S+ )+|^\.venv/bin/| --plan\b", "", line.split(" #")[0].strip()): name_of(page)
    for page, text in TEXTS.items()
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    for line in block.splitlines()
}


def typed(start: str) -> list[tuple[str, str]]:
    """The page and the rest of every command that starts so."""
    return [(page, command.removeprefix(start)) for command, page in TYPED.items() if command.startswith(start)]


def anchor(heading: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 7_000


def test_every_page_can_be_reached_from_readme() -> None:
    reached, new = set(), {README}
    while new:
        reached |= new
        links = {(page.parent / link).resolve() for page in new for link in re.findall(r"\]\(([^)#:]+)", TEXTS[page])}
        new = {link for link in links if link.suffix == ".md"} - reached

    assert reached == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", TEXTS[page]):
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        if heading:
            assert heading in map(anchor, re.findall(r"^#+ (.*)$", TEXTS[target], flags=re.MULTILINE)), link


@pytest.mark.parametrize(("page", "target"), found(r"(?:^|`)make ([a-z-]+)"))
def test_make_targets_exist(page: str, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(("page", "module"), found(r"python -m ([a-z_.]+[a-z_])"))
def test_modules_exist(page: str, module: str) -> None:
    assert find_spec(module)


@pytest.mark.parametrize(("page", "path"), found(r"python -m pytest [^`\n]*?((?:tests/[\w/.]+ ?)+)"))
def test_paths_of_tests_exist(page: str, path: str) -> None:
    assert all((ROOT / one).exists() for one in path.split())


@pytest.mark.parametrize(("page", "command"), typed("python -m runner "))
def test_sweeps_compose(page: str, command: str) -> None:
    one_arm = [] if "+arm=" in command else ["+arm=ppo"]  # the rest of the command is the same for all arms

    assert compose(shlex.split(command) + one_arm)


@pytest.mark.parametrize(("page", "command"), typed("python -m analysis "))
def test_commands_of_the_analysis_parse(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
        return argparse.Namespace(run=lambda _: 0) if parse(parser, words) else argparse.Namespace()

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)

    assert analysis_main(shlex.split(command.replace("HASH", A_HASH))) == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_choices_and_keys_in_sentences_exist(page: Path) -> None:
    words = [word for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", TEXTS[page]) for word in code.split()]
    for key, is_set, value in (word.lstrip("+").partition("=") for word in words):
        if is_set and (ROOT / "conf" / key).is_dir() and value.isidentifier():
            assert (ROOT / "conf" / key / f"{value}.yaml").exists(), f"{key}={value}"
        elif key.partition(".")[0] in KEYS and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key):
            assert key in KEYS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_tests_exist(page: Path) -> None:
    for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", TEXTS[page]):
        assert any(f"def {name}(" in text for text in TESTS[file]), f"{file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_that_a_page_cites_exists(page: Path) -> None:
    for file, names in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", TEXTS[page]):
        code = (ROOT / "experiments" / file).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"(def|class) {name}\b|^{name}\b", code, flags=re.MULTILINE), f"{file}: {name}"
