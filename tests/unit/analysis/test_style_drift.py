from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from analysis import style_drift
from analysis.statistics import Resamples


def named(drifts):
    return {item.measure: item for item in drifts}


def test_jensen_shannon_by_hand():
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): JSD = (log2(4/3) + 1/2 log2(2/3) + 1/2 log2 2) / 2
    by_hand = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5) / 2
    assert style_drift.jensen_shannon(np.array([2.0, 0.0]), np.array([5.0, 5.0])) == pytest.approx(np.sqrt(by_hand))
    assert style_drift.jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 7.0])) == 1.0
    assert style_drift.jensen_shannon(np.array([3.0, 1.0]), np.array([6.0, 2.0])) == 0.0


def test_jensen_shannon_agrees_with_scipy():
    p, q = np.random.default_rng(0).integers(0, 9, size=(2, 50)).astype(float)
    assert style_drift.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2))


def test_bootstrap_distances_equal_recounting_the_drawn_prompts():
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(0, 5, size=(2, 6, 20)).astype(float)
    drawn = generator.integers(6, size=6)
    weights = np.bincount(drawn, minlength=6)[None] / 6
    recounted = jensenshannon(ours[drawn].sum(axis=0), theirs[drawn].sum(axis=0), base=2)
    assert style_drift.distance_draws(ours, theirs, weights)[0] == pytest.approx(recounted)


def test_distinct_is_cut_to_equal_length():
    tokens = ["a", "b", "a", "b"]
    assert style_drift.distinct(tokens, 4, 1) == 0.5
    assert style_drift.distinct(tokens, 2, 1) == 1.0
    assert style_drift.distinct(tokens, 4, 2) == pytest.approx(2 / 3)
    assert style_drift.distinct(["a"], 1, 2) == 1.0


def test_longer_text_of_the_same_kind_does_not_lose_distinctness(make_ledger, resamples_for, synthetic):
    """Raw distinct-1 falls with length; the length-matched one must not."""
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.0,), num_words=30)}, num_prompts=60)
    drift = named(style_drift.assess(ledger, "dpo", resamples_for(ledger)))
    assert drift["length"].reading == style_drift.ABOVE
    assert drift["words"].change.value == pytest.approx(5, abs=1.5)
    assert drift["distinct_1"].reading == style_drift.NOT_ABOVE


def test_repetition_by_hand():
    assert style_drift.repeated_share(list("abcdabcd")) == pytest.approx(1 / 5)
    assert style_drift.repeated_share(list("abc")) == 0


def test_words_survive_markup_and_emptiness():
    assert style_drift.words("It's <b>GREAT</b>, 10/10!") == ["it's", "b", "great", "b", "10", "10"]
    assert style_drift.words(" ...\n") == [style_drift.EMPTY]


def test_looping_arm_exceeds_the_floor_and_says_so(make_ledger, resamples_for, synthetic):
    def loop(rows):
        return rows.assign(response="so good so good so good so good so good")

    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), edit=loop)}, num_prompts=30)
    drift = named(style_drift.assess(ledger, "ppo", resamples_for(ledger)))
    assert drift["loop_share"].change.value == 100.0
    for measure in ("loop_share", "repeated_4grams", "distinct_1", "unigram_jsd"):
        assert drift[measure].reading == style_drift.ABOVE
    assert drift["unigram_jsd"].ratio.value > 5


def test_twin_of_the_base_does_not_drift(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), twin=True, kl=0.0)}, num_prompts=40)
    resamples = resamples_for(ledger)
    for item in style_drift.assess(ledger, "ppo", resamples):
        assert item.reading == style_drift.NOT_ABOVE
    word_choice = named(style_drift.assess(ledger, "ppo", resamples))["unigram_jsd"]
    assert word_choice.change.value == pytest.approx(word_choice.base_vs_base.value)  # stream 1 against stream 2
    assert word_choice.change.value > 0
    assert style_drift.divergence(ledger, "ppo", resamples).per_response.value == 0


def test_floor_is_what_the_base_shows_against_itself():
    resamples = Resamples.draw(np.random.default_rng(0), 200, 1, num_resamples=4000)
    differences = np.random.default_rng(1).normal(size=200)
    assert style_drift.paired_floor(differences, resamples) == pytest.approx(1.96 / np.sqrt(200), rel=0.12)


def test_distance_floor_ignores_which_set_is_called_first():
    one, two = np.random.default_rng(2).poisson(1.0, size=(2, 40, 30)).astype(float)
    resamples = Resamples.draw(np.random.default_rng(3), 40, 1)
    floor = style_drift.distance_floor(one, two, resamples)
    assert floor == pytest.approx(style_drift.distance_floor(two, one, resamples), rel=0.05)
    assert style_drift.jensen_shannon(one.sum(axis=0), two.sum(axis=0)) < 1.3 * floor


def test_kl_is_the_mean_log_ratio_in_nats(make_ledger, resamples_for):
    ledger = make_ledger()
    kl = style_drift.divergence(ledger, "ppo", resamples_for(ledger))
    ratio = ledger.numbers("ppo", "logp_policy") - ledger.numbers("ppo", "logp_base")
    assert kl.per_response.value == pytest.approx(ratio.mean())
    assert kl.per_token.value == pytest.approx(ratio.sum() / ledger.numbers("ppo", "num_tokens").sum())
    assert kl.per_response.low <= kl.per_response.value <= kl.per_response.high
