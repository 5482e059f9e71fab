from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.ledger.load import load_ledger
from analysis.win_rates import at_equal_style as style_control
from analysis.win_rates import compare
from analysis.win_rates.at_equal_style import FEATURES, control, style_features


def length_hacker(synthetic, num_words):
    rng = np.random.default_rng(3)

    def by_length(rows):
        gold = np.log1p(rows["response"].str.len()) + 0.15 * rng.standard_normal(len(rows))
        return rows.assign(**{"score/gold": 1 / (1 + np.exp(-(gold - 5)))})

    return synthetic.Arm("ppo", (0.0,), num_words=num_words, edit=by_length)


def run(ledger, resamples, arm="ppo", opponent="base"):
    return control(ledger, arm, opponent, "gold", style_features(ledger), resamples, np.random.default_rng(0))


def test_features_by_hand():
    text = "# Title\n- one **bold**\n2. two\n```\n- not a list\n```"
    length, headers, items, bold = style_control._features(np.array([text], dtype=object))[0]
    assert length == pytest.approx(np.log(1 + len(text)))
    # outside the code block: "#", "Title", "-", "one", "**bold**", "2.", "two" are seven words
    assert (headers, items, bold) == pytest.approx((1 / 8, 2 / 8, 1 / 8))
    assert style_control._features(np.array([""], dtype=object))[0] == pytest.approx([0, 0, 0, 0])


def test_twin_is_even_and_pays_no_premium(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), twin=True)})
    found = run(ledger, resamples_for(ledger))
    assert (found.rates.controlled.low, found.rates.controlled.value, found.rates.controlled.high) == (50, 50, 50)
    assert found.rates.style_premium.value == 0
    assert found.rates.overlap == 1
    assert found.features == ("length",)


def test_gain_by_length_alone_shows_as_style_premium(make_sweep, resamples_for, synthetic):
    """Gold is a noisy function of the length for arm and base, and the arm writes an eighth longer."""
    by_length = length_hacker(synthetic, 27)
    sweep = make_sweep({"ppo": by_length}, num_prompts=150)
    sweep.base = by_length.edit(sweep.base)
    sweep.samples("shared/base_evaluation", 0, both_streams(sweep.base))
    ledger = load_ledger(sweep.folder)
    resamples = resamples_for(ledger)
    raw, found = compare(ledger, "ppo", "base", "gold", resamples).estimate, run(ledger, resamples)
    assert raw.value > 60
    assert abs(found.rates.controlled.value - 50) < (raw.value - 50) / 2
    assert found.rates.style_premium.low > 0
    assert found.rates.style_premium.value == pytest.approx(raw.value - found.rates.controlled.value)
    assert found.rates.controlled.low < 50 < found.rates.controlled.high


def both_streams(rows):
    return pd.concat([rows, rows.assign(stream=2)])


def test_gain_without_a_change_of_style_stays(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.2,))}, num_prompts=80)
    found = run(ledger, resamples_for(ledger))
    assert found.rates.controlled.low > 50
    assert found.rates.style_premium.low < 0 < found.rates.style_premium.high
    assert found.num_refits == 400


def test_lengths_that_do_not_overlap_are_not_identified(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.2,), num_words=5)}, num_prompts=40)
    found = run(ledger, resamples_for(ledger))
    assert not found.rates.identified
    assert style_control.identified_rate(found) is None


def test_markup_counts_where_it_occurs(make_ledger, resamples_for, synthetic):
    def embolden(rows):
        marked = ["**bold** " + text if k % 3 == 0 else text for k, text in enumerate(rows["response"])]
        return rows.assign(response=marked)

    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.1,), edit=embolden)}, num_prompts=40)
    assert run(ledger, resamples_for(ledger)).features == ("length", "bold passages")
    assert len(FEATURES) == 4


def test_pairs_use_their_common_seeds_and_mirror(make_sweep, resamples_for):
    sweep = make_sweep(seeds=(0, 1, 2), num_prompts=30)
    sweep.edit("dpo/seed1/status.json", state="failed")
    ledger = load_ledger(sweep.folder)
    resamples = resamples_for(ledger)
    forward, backward = run(ledger, resamples, "ppo", "dpo"), run(ledger, resamples, "dpo", "ppo")
    assert forward.rates.controlled.num_seeds == 2
    assert forward.rates.controlled.value + backward.rates.controlled.value == pytest.approx(100)


def test_without_preferences_there_is_nothing_to_control(make_ledger, resamples_for, monkeypatch):
    ledger = make_ledger()
    monkeypatch.setattr(style_control, "preferences", lambda *_: np.full((1, 12, 2), np.nan))
    assert run(ledger, resamples_for(ledger)) is None


def test_missing_preferences_are_left_out(make_ledger, resamples_for, monkeypatch):
    ledger = make_ledger(num_prompts=40)
    scores = np.tile([1.0, np.nan, 0.0, 1.0], 20).reshape(1, 40, 2)
    monkeypatch.setattr(style_control, "preferences", lambda *_: scores)
    found = run(ledger, resamples_for(ledger))
    assert found.rates.controlled.value + found.rates.style_premium.value == pytest.approx(200 / 3)
