"""How two files of texts differ in style from a base's, whatever tool made them: the report's section for files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis.elsewhere.outputs import Outputs, OutputsError, align, halves, read_outputs
from analysis.report.build import plain
from analysis.report.cells import Cell, Table
from analysis.report.sections import style_drift
from analysis.statistics.bootstrap import CONFIDENCE_LEVEL, NUM_RESAMPLES, Resamples
from analysis.style import drift, scripts
from analysis.style.corpus import Corpus, IntArray, Vocabulary, read_corpus
from analysis.style.drift import Reference
from analysis.text import all_visible, visible
from experiments.rules import StyleRules

SEED = 0  # of the bootstrap; the same files give the same numbers
FLOORS = {
    "second set": "the base's two files against each other",
    "split half": "every second response of the base to a prompt against the others",
    "swaps": "random swaps of each file's responses with the base's. This floor is weaker: the base has only one "
    "response to a prompt; give a second file of it with --base-again",
}


def compare(one: Path, two: Path, base: Path, base_again: Path | None, rules: Path) -> dict[str, Any]:
    """The style part of a report, with the same keys, for two files instead of arms.

    Args:
        one: a file of outputs.
        two: another.
        base: what both are measured from.
        base_again: the base once more under other random numbers, for the noise floor.
        rules: a YAML file with a section `style`.

    Raises:
        OutputsError: a file cannot be used; it says which and where.
    """
    arms, bases = [read_outputs(path) for path in (one, two)], [read_outputs(base)]
    if base_again:
        bases.append(read_outputs(base_again))
    floor, sides = _base_sides(bases)
    aligned = align([*arms, *sides])
    vocabulary = Vocabulary.empty()
    corpora = [_corpus(texts, aligned.prompt_N, vocabulary) for texts in aligned.texts]
    limits = read_rules(rules)
    reference = _reference(corpora[2:], limits)
    names = _names(one, two)
    pair = (*names, corpora[0], corpora[1])
    content = {
        "level": CONFIDENCE_LEVEL,
        "num_prompts": corpora[0].num_prompts,
        "num_responses": len(aligned.prompt_N),
        "files": [_file(file, len(aligned.prompt_N) * _uses(file, sides)) for file in (*arms, *bases)],
        "arms": [_arm(name, corpus, reference) for name, corpus in zip(names, corpora[:2], strict=True)],
        "style": {
            "embedder": reference.embedder.name if reference.embedder else None,
            "rules": limits.model_dump(),
            "floor": FLOORS[floor],
            "script": scripts.note(*(corpus.scripts for corpus in corpora)),
            "pairs": plain(drift.tell_apart([pair], reference.resamples, limits)),
        },
    }
    safe: dict[str, Any] = all_visible(content)
    return safe


def read_rules(path: Path) -> StyleRules:
    """The section `style` of a file of rules.

    Raises:
        OutputsError: it has none, or other keys.
    """
    try:
        return StyleRules.from_json(yaml.safe_load(path.read_text(encoding="utf-8"))["style"], "style")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise OutputsError(f"{visible(str(path))}: no usable rules for style ({visible(str(error))})") from None


def _base_sides(bases: list[Outputs]) -> tuple[str, list[Outputs]]:
    """Which floor is possible, and the base's side or two sides."""
    if len(bases) == 2:
        return "second set", bases
    split = halves(bases[0])
    return ("split half", list(split)) if split else ("swaps", bases)


def _uses(file: Outputs, sides: list[Outputs]) -> int:
    """How many sides a file fills: two if the base is split."""
    return max(1, sum(side.name == file.name for side in sides)) if len(sides) == 2 else 1


def _corpus(texts: list[str], prompt_N: IntArray, vocabulary: Vocabulary) -> Corpus:
    return read_corpus(np.array([texts], dtype=object), prompt_N, {}, vocabulary)


def _reference(sides: list[Corpus], rules: StyleRules) -> Reference:
    rng = np.random.default_rng(SEED)
    resamples = Resamples.draw(rng, sides[0].num_prompts, 1, NUM_RESAMPLES)
    return Reference(sides[0], sides[1] if len(sides) == 2 else None, resamples, rules, rng)


def _names(*paths: Path) -> tuple[str, str]:
    """File names without their ends, or A and B if those are the same."""
    one, two = (re.sub(r"(\.jsonl?)?(\.gz)?$", "", path.name) for path in paths)
    return (one, two) if one and two and one != two else ("A", "B")


def _file(file: Outputs, num_used: int) -> dict[str, Any]:
    """What became of a file's rows."""
    total = sum(map(len, file.responses.values()))
    return {
        "file": file.name,
        "num_used": num_used,
        "num_left_out": total - num_used,
        "num_missing": file.num_missing,
        "num_malformed": file.num_malformed,
    }


def _arm(name: str, corpus: Corpus, reference: Reference) -> dict[str, Any]:
    found = drift.style_drift(corpus, reference)
    return {"arm": name, "style_drift": plain(found.measures), "style_moved": plain(found.moved)}


# ---------------------------------------------------------------------------------------------------------------- text
def render_comparison(content: dict[str, Any]) -> str:
    """For a terminal: what was read, how the style moved in words, and the tables."""
    unseen = style_drift.unseen(content)
    parts = [
        "\n".join(_file_in_words(file) for file in content["files"]),
        f"{content['num_responses']} responses each to {content['num_prompts']} prompts.",
        f"Noise floor: {content['style']['floor']}.",
        "\n".join(f"- {sentence}" for sentence in style_drift.in_words(content)),
        _text_table(style_drift.distributions(content)),
        _text_table(style_drift.surface(content)),
        f"In no response of any file: {unseen}." if unseen else "",
        style_drift.rule(content),
    ]
    return "\n\n".join(part for part in parts if part)


def _file_in_words(file: dict[str, Any]) -> str:
    notes = {
        "num_left_out": "left out (a prompt that not all files have, or more responses to it than the others)",
        "num_missing": "without a prompt or an output",
        "num_malformed": "malformed",
    }
    found = [f"{file[key]} {text}" for key, text in notes.items() if file[key]]
    return ", ".join([f"{file['file']}: {file['num_used']} responses used", *found])


def _text_table(content: Table) -> str:
    """Columns between bars, each as wide as its widest cell."""
    lines = [[content.corner or "measure", *content.columns]]
    lines += [[row.label, *(_text_cell(item) for item in row.cells)] for row in content.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([content.caption, "", texts[0], rule, *texts[1:]])


def _text_cell(item: Cell) -> str:
    parts = (item.main, f"[{item.interval}]" if item.interval else "", item.remark)
    return " ".join(" ".join(part.split()) for part in parts if part)
