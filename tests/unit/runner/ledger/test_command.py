import subprocess

import pytest

from runner.ledger.command import as_typed, changed, hydra_text, recorded

HOSTILE = [
    "model.path=/a b/é=(1)[x],{y}",
    'it\'s "quoted" \\ $(touch pwned) `touch pwned` !! *',
    "two\nlines\tand \x1b[31mcolour\x07",
    "hidden \u202e\u200b\u00a0 text",
    "'\\\x01",
    "~/x",
    "",
    "#not a comment",
    "caf\u0065\u0301",
    "not \udcff UTF-8",
]


def test_a_shell_reads_back_every_word_as_it_was() -> None:
    shown = as_typed(["printf", r"%s\0", *HOSTILE])
    read = subprocess.run(["bash", "-c", shown], capture_output=True, check=True)

    assert shown.isprintable()
    assert read.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == HOSTILE


@pytest.mark.parametrize(
    ("word", "shown"),
    [("seed=0,1", "seed=0,1"), ("a b", "'a b'"), ("é", "'é'"), ("a\nb", r"$'a\x0ab'"), ("\x1b'", r"$'\x1b\x27'")],
)
def test_words_are_shown_as_plainly_as_possible(word: str, shown: str) -> None:
    assert as_typed([word]) == shown


def test_a_changed_key_is_given_once() -> None:
    arguments = ("+sweep=a", "seed=1", "++seed=2", "seeds=3", "+seed@here=4", "--config-dir", "seed")

    assert changed(arguments, {"seed": "0,1"}) == ("+sweep=a", "seeds=3", "--config-dir", "seed", "seed=0,1")


def test_what_is_recorded_starts_the_sweep_and_sets_no_environment() -> None:
    assert recorded(["+sweep=a", "--plan", "+hydra.job.env_set.KEY=secret", "name=x"]) == ("+sweep=a", "name=x")


@pytest.mark.parametrize(("text", "value"), [("mine_2", "mine_2"), ("20261130_2", "'20261130_2'"), ("1e5", "'1e5'")])
def test_a_name_that_looks_like_a_number_is_quoted_for_hydra(text: str, value: str) -> None:
    assert hydra_text(text) == value
