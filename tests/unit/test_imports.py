"""Who may import whom. The rules stand in one table each, and are checked against every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("experiments", "runner", "analysis")
FILES = sorted(path.relative_to(ROOT) for package in OURS for path in (ROOT / package).rglob("*.py"))

# Package of ours -> what of ours it may import beside itself.
ARROWS = {"experiments": (), "runner": ("experiments",), "analysis": ("runner.ledger", "experiments.foreign")}
# Heavy or foreign package -> where it may be imported.
PLACES = {
    "hydra": ("runner/__main__.py",),
    "omegaconf": ("runner/__main__.py",),
    "wandb": ("runner/trackers/",),
    "trackio": ("runner/trackers/",),
    "ray": ("runner/engines/",),
    "submitit": ("runner/engines/",),
    "torch": ("experiments/",),
    "transformers": ("experiments/",),
    "trl": ("experiments/",),
    "peft": ("experiments/",),
}
NEVER = ("hydra._internal", "hydra.core.plugins")  # not public


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_arrows_between_our_packages(path: Path) -> None:
    own = path.parts[0]
    allowed = (own, *ARROWS[own])
    ours = [module for module in imported(path) if module.partition(".")[0] in OURS]

    assert [module for module in ours if not any(is_below(module, package) for package in allowed)] == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    strays = [
        module
        for module in imported(path)
        for package, places in PLACES.items()
        if is_below(module, package) and not any(str(path).startswith(place) for place in places)
    ]
    private = [module for module in imported(path) for package in NEVER if is_below(module, package)]

    assert strays + private == []


def test_the_rules_see_what_they_forbid() -> None:
    """A rule that finds nothing anywhere may simply be blind."""
    seen = {module.partition(".")[0] for path in FILES for module in imported(path)}

    assert {"hydra", "wandb", "torch", "experiments", "runner"} <= seen
