"""A knob exists only if it is read: every field of the schema is used as an attribute somewhere outside the schema."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from experiments import judge_spec, model_spec, rules, spec
from experiments.tasks import sentiment, task
from runner.planning.problems import schema_keys

ROOT = Path(__file__).parents[2]
MODELS = [
    value
    for module in (judge_spec, model_spec, rules, spec, task, sentiment)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, BaseModel)
    if value is not judge_spec.Judges  # `configured` reads every field of it
]
FIELDS = sorted({(model.__name__, name) for model in MODELS for name in model.model_fields if model is not BaseModel})
SOURCES = [
    path
    for package in ("experiments", "runner", "analysis")
    for path in (ROOT / package).rglob("*.py")
    if path.name not in {"spec.py", "rules.py", "judge_spec.py"}
]
GROUP_FILES = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/*.yaml"))


def attributes() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    sections = {  # of the rules, which the analysis asks for by name: ledger.rules("confidence", …)
        str(node.args[0].value)
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "rules"
        and isinstance(node.args[0], ast.Constant)
    }
    return sections | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


READ = attributes()


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_every_field_is_read(model: str, field: str) -> None:
    assert field in READ, f"no code reads {model}.{field}: use it or remove it"


def flat_keys(value: Any, prefix: str) -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [key for name, inner in value.items() for key in flat_keys(inner, f"{prefix}.{name}")]


@pytest.mark.parametrize("path", GROUP_FILES, ids=str)
def test_every_key_of_conf_is_in_the_schema(path: Path) -> None:
    text = (ROOT / "conf" / path).read_text(encoding="utf-8")
    content = {key: value for key, value in yaml.safe_load(text).items() if key not in {"defaults", "hydra"}}
    prefix = "" if "@package _global_" in text else f"{path.parent}."
    keys = [key for name, value in content.items() for key in flat_keys(value, f"{prefix}{name}")]

    assert [key for key in keys if key not in schema_keys()] == []
