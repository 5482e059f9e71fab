"""Texts that Hydra's grammar reads as something else: what a person is told to write has to work."""

import shlex

import pytest

from experiments.errors import InputError
from experiments.spec import RunSpec
from runner.__main__ import compose
from runner.planning.overrides import misread, quoted

SWEEP = ["+sweep=smoke", "+arm=dpo"]
KEYS = ["runs_dir", "cache_dir", "model.path", "model.revision", "data.path", "evaluation.embedder"]
PATHS = ["/data/lr=3e-4", "/data/run (1)", "/data/a,b", "/données/é", "~/runs;#1", "/it's [x]"]
WORDS = ["1_0.5", ".5", "nan", "True", "-inf", '/a"b\\"c']
TEXTS = ["/a b/c:d@e+f%g*h?|$i\\j", "0x1", "007", "a-1.5", "nano", "x"]


def value_of(run: RunSpec, key: str) -> object:
    value: object = run
    for part in key.lstrip("+").split("."):
        value = getattr(value, part)
    return value


def written_instead(override: str) -> str:
    """The override that a shell makes of the words at the end of the refusal."""
    (line,) = misread([override])
    (argument,) = shlex.split(line.partition("write it like this: ")[2])
    return argument


def test_a_misread_text_is_refused_with_the_words_to_write() -> None:
    with pytest.raises(InputError) as caught:
        compose([*SWEEP, "name=20261130", "data.path=/a=b"])

    assert (
        """name=20261130: Hydra does not read this value as one text; write it like this: 'name="20261130"'"""
        in str(caught.value)
    )
    assert """write it like this: 'data.path="/a=b"'""" in str(caught.value)


@pytest.mark.parametrize(("values", "plus"), [(PATHS, ""), (WORDS, "++")], ids=["paths", "words"])
def test_the_words_to_write_work_as_they_stand(values: list[str], plus: str) -> None:
    given = dict(zip(KEYS, values, strict=True)) | {"name": "20261130"}
    (run,) = compose([*SWEEP, *(written_instead(f"{plus}{key}={value}") for key, value in given.items())])

    assert {key: value_of(run, key) for key in given} == given


def test_what_hydra_takes_for_a_text_is_left_alone() -> None:
    given = dict(zip(KEYS, TEXTS, strict=True))
    (run,) = compose([*SWEEP, 'name="2026"', *(f"{key}={value}" for key, value in given.items())])

    assert {key: value_of(run, key) for key in given} == given
    assert run.name == "2026"


def test_values_that_are_no_plain_texts_are_hydras() -> None:
    hydras = ["seed=0,1", "+arm=ppo,dpo", "evaluation.embedder=null", "name=${budget.num_prompts}", "runs_dir=/a\\,b"]

    assert list(misread(hydras)) == []


def test_a_quoted_text_is_that_text() -> None:
    given = dict(zip(KEYS, ["a", "\\", "\\\\", '"', 'a\\"', "é(),='"], strict=True))
    (run,) = compose([*SWEEP, *(f"{key}={quoted(value)}" for key, value in given.items())])

    assert {key: value_of(run, key) for key in given} == given
