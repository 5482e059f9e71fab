"""The pages about clusters explain every key of their engine and name its extra. Their commands: test_readme.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[4]
PAGES = {kind: (ROOT / "runner" / "engines" / f"{kind.upper()}.md").read_text() for kind in ("ray", "slurm")}


@pytest.mark.parametrize("kind", PAGES)
def test_every_key_is_explained(kind: str) -> None:
    keys = set(yaml.safe_load((ROOT / "conf" / "engine" / f"{kind}.yaml").read_text()))
    explained = set(re.findall(r"`engine\.(\w+)`", PAGES[kind]))

    assert explained == keys - {"kind", "artifacts_in_one_process"}


@pytest.mark.parametrize("kind", PAGES)
def test_the_extra_is_declared(kind: str) -> None:
    assert f"-e '.[{kind}]'" in PAGES[kind]
    assert re.search(rf"^{kind} = ", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
