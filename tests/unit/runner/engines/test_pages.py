"""What the pages about clusters tell people to type is valid, and every key of the engine is explained there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from runner.__main__ import compose

ROOT = Path(__file__).parents[4]
PAGES = {kind: (ROOT / "runner" / "engines" / f"{kind.upper()}.md").read_text() for kind in ("ray", "slurm")}
COMMANDS = [
    (kind, match[1]) for kind, page in PAGES.items() for match in re.finditer(r"python -m runner (\+[^#\n]*)", page)
]


@pytest.mark.parametrize(("kind", "command"), COMMANDS)
def test_commands_compose(kind: str, command: str) -> None:
    runs = compose([word for word in shlex.split(command) if word != "--plan"])

    assert runs[0].engine.kind == kind


@pytest.mark.parametrize("kind", PAGES)
def test_every_key_is_explained(kind: str) -> None:
    keys = set(yaml.safe_load((ROOT / "conf" / "engine" / f"{kind}.yaml").read_text()))
    explained = set(re.findall(r"`engine\.(\w+)`", PAGES[kind]))

    assert explained == keys - {"kind", "artifacts_in_one_process"}


@pytest.mark.parametrize("kind", PAGES)
def test_the_extra_is_declared(kind: str) -> None:
    assert f"-e '.[{kind}]'" in PAGES[kind]
    assert re.search(rf"^{kind} = ", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
