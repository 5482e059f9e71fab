"""Who may import whom. The rules stand in one table each, and are checked against every file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("experiments", "runner", "analysis")
FILES = sorted(path.relative_to(ROOT) for package in OURS for path in (ROOT / package).rglob("*.py"))

# What the analysis shares with experiments; none of HEAVY is loaded with it.
LIGHT = ("experiments.foreign", "experiments.records", "experiments.rules", "experiments.training_signs")
# Package of ours -> what of ours it may import beside itself.
ARROWS = {"experiments": (), "runner": ("experiments",), "analysis": ("runner.ledger", *LIGHT)}
HEAVY = ("torch", "transformers", "trl", "peft", "pandas", "numpy", "scipy", "hydra", "wandb")
# Inside a package, a room (a folder, or a file at the top) imports only from rooms on the lines above its own.
ORDER = {
    "experiments": (
        "errors strict foreign collector passes seeding records training_signs algorithms intervals",
        "catalogue rules model_spec judge_spec meter",
        "inputs",
        "tasks",
        "reward_spec",
        "rewards",
        "spec",
        "sampling",
        "artifacts",
        "arms",
        "evaluation",
        "positions stages",
        "model_check",
    ),
    "runner": (
        "ledger",
        "terminal trackers planning engines",
        "watching working",
        "driving",
        "status job",
        "stop __main__",
    ),
    "analysis": (
        "text statistics",
        "answers",
        "ledger",
        "scores",
        "style",
        "win_rates stability",
        "over_optimisation collapse",
        "questions",
        "decision",
        "report",
        "signoff elsewhere",
        "__main__",
    ),
}
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


def room(module: str) -> str:
    """The second part of a module's name: the folder or file at the top of its package."""
    return module.split(".")[1] if "." in module else "__init__"


def tier(package: str, name: str) -> int:
    """The line that a room stands on."""
    return next(number for number, names in enumerate(ORDER[package]) if name in names.split())


@pytest.mark.parametrize("path", [path for path in FILES if len(path.parts) > 2 or path.stem != "__init__"], ids=str)
def test_arrows_between_rooms(path: Path) -> None:
    package, own = path.parts[0], room(".".join(path.with_suffix("").parts))
    others = {room(module) for module in imported(path) if module.partition(".")[0] == package} - {own}
    inside = {name for name in others if (ROOT / package / name).is_dir() or (ROOT / package / f"{name}.py").exists()}

    assert [name for name in sorted(inside) if tier(package, name) >= tier(package, own)] == []


def test_every_room_has_a_place() -> None:
    """And every place a room."""
    for package, tiers in ORDER.items():
        rooms = {room(".".join(path.with_suffix("").parts)) for path in FILES if path.parts[0] == package} - {
            "__init__"
        }
        assert sorted(rooms) == sorted(name for names in tiers for name in names.split())


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


@pytest.mark.parametrize("module", LIGHT)
def test_what_the_analysis_shares_with_experiments_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_rules_see_what_they_forbid() -> None:
    """A rule that finds nothing anywhere may simply be blind."""
    seen = {module.partition(".")[0] for path in FILES for module in imported(path)}

    assert {"hydra", "wandb", "torch", "experiments", "runner"} <= seen
