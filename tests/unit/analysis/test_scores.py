from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import scores
from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.render import render_html
from analysis.win_rates import compare

ROOT = Path(__file__).parents[3]
WIRED_IN = re.compile(r"\b(gold|proxy|vader|sentiment)\b", re.IGNORECASE)


def test_a_report_of_another_measure_speaks_of_no_other_score(make_sweep: Callable[..., Any], synthetic: Any) -> None:
    """No training reward, no secondary score: everything that needs one says so or is left out."""
    helpfulness = [synthetic.card("helpfulness", "measure", "how helpful a response is")]
    sweep = make_sweep(scores=helpfulness, num_prompts=40)
    report = build_report(load_ledger(sweep.folder))
    report["rules"] = {}  # the names of thresholds are the sweep's
    assert report["arms"][0]["audit"]["detectors"][0]["why"] == "the sweep has no reward model"
    assert report["decision"]["final"]["second_judge"] is None
    assert "helpfulness/ppo" in report["summary"]
    for text in (json.dumps(report), render_html(report), render_markdown(report)):
        assert "helpfulness" in text
        assert set(WIRED_IN.findall(text)) == set()


def test_the_analysis_does_not_know_the_score_of_a_task() -> None:
    files = [path for kind in ("py", "j2", "css") for path in (ROOT / "analysis").rglob(f"*.{kind}")]
    assert len(files) > 100
    assert [path.name for path in files if "gold" in path.read_text(encoding="utf-8").lower()] == []


def test_a_secondary_score_of_which_lower_is_better_wins_by_being_lower(
    make_sweep: Callable[..., Any], synthetic: Any, resamples_for: Any
) -> None:
    cards = [synthetic.card("gold", "measure", "x"), synthetic.card("toxicity", "secondary", "y")]
    sweep, rates = make_sweep(scores=cards, num_prompts=20), []
    for direction in ("higher is better", "lower is better"):
        cards[1]["direction"] = direction
        sweep.edit("plan.json", scores=cards)
        ledger = load_ledger(sweep.folder)
        rates.append(compare(ledger, "ppo", "base", "toxicity", resamples_for(ledger)).estimate.value)
    assert rates[0] > 50
    assert sum(rates) == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "secondary"}, "exactly one must have the role measure"),
        ({"role": "verdict"}, r"plan\.scores\.0\.role: input should be"),
        ({"name": "vader"}, "no name may stand twice"),
        ({"direction": "lower is better"}, "has the score gold of which lower is better"),
        ({"unit": 1}, r"plan\.scores\.0\.unit: input should be"),
    ],
)
def test_cards_that_do_not_say_what_measures_are_refused(
    make_sweep: Callable[..., Any], synthetic: Any, change: dict[str, Any], words: str
) -> None:
    sweep = make_sweep()
    sweep.edit("plan.json", scores=[{**synthetic.SENTIMENT[0], **change}, *synthetic.SENTIMENT[1:]])
    with pytest.raises(LedgerError, match=words):
        load_ledger(sweep.folder)


def test_differences_are_in_hundredths_and_paired(make_ledger: Callable[..., Any], resamples_for: Any) -> None:
    ledger = make_ledger()
    ours, base = (scores.values(ledger, ledger.measure, arm) for arm in ("ppo", "base"))
    found = scores.measure_difference(ledger, "ppo", resamples_for(ledger))
    assert found.value == pytest.approx(100 * np.mean(ours - base))
