from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis import scores
from analysis import win_rates as win_rate
from analysis.decision import gates
from analysis.ledger import Ledger
from analysis.statistics.bootstrap import Resamples
from analysis.style import drift
from analysis.style import sweep as style_drift
from analysis.style.corpus import Corpus, Vocabulary, read_corpus
from analysis.style.drift import DRIFTED, NOT_ASSESSABLE, WITHIN, Drift, Reference, StyleDrift
from experiments.rules import DecisionRules, StyleRules

GATE_RULES = DecisionRules(
    min_win_rate_percent=50,
    min_gain_base_sd=0,
    max_style_auc=0.9,
    max_cost_ratio=10,
    max_num_evaluation_prompts=10_000,
)
RULES = StyleRules(significance_level=0.05, min_effect_base_sd=0.2, min_distance_times_floor=1.2, min_auc=0.6)


@pytest.fixture
def style_of() -> Callable[[Ledger], style_drift.SweepStyle]:
    def make(ledger: Ledger) -> style_drift.SweepStyle:
        seeds = max(len(ledger.seeds(arm)) for arm in ledger.arms)
        return style_drift.SweepStyle(ledger, Resamples.draw(np.random.default_rng(0), len(ledger.prompt_ids), seeds))

    return make


def named(found: StyleDrift) -> dict[str, Drift]:
    return {item.measure: item for item in found.measures}


def edited(synthetic, change: Callable[[str], str], algorithm: str = "ppo"):
    """An arm with the base's distribution of texts, each changed by a rule."""

    def edit(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(response=[change(text) for text in rows["response"]])

    return synthetic.Arm(algorithm, (0.0,), edit=edit)


# ----------------------------------------------------------------------------------------------------------- in a sweep
def test_longer_text_of_the_same_kind_does_not_lose_distinctness(make_ledger, style_of, synthetic):
    """Raw distinct-1 falls with length; the length-matched one must not."""
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.0,), num_words=30)}, num_prompts=60)
    found = named(style_of(ledger).drifts["dpo"])
    assert found["length"].reading == DRIFTED
    assert found["words"].change.value == pytest.approx(5, abs=1.5)
    for measure in ("distinct_1", "per_input_ead", "across_input_ead"):
        assert found[measure].reading == WITHIN


def test_looping_arm_exceeds_the_floor_and_says_so(make_ledger, style_of, synthetic):
    ledger = make_ledger(
        {"ppo": edited(synthetic, lambda _: "so good so good so good so good so good")}, num_prompts=30
    )
    found = style_of(ledger).drifts["ppo"]
    assert named(found)["loop_share"].change.value == 100.0
    collapsed = (
        "separability", "loop_share", "repeated_4grams", "distinct_1", "unigram_jsd", "bigram_jsd", "per_input_ead",
        "across_input_ead", "opening_entropy", "top_openings", "meaning_distance",
    )  # fmt: skip
    for measure in collapsed:
        assert named(found)[measure].reading == DRIFTED, measure
    assert named(found)["opening_entropy"].ours.value == 0
    assert named(found)["unigram_jsd"].ratio.value > 5


def test_style_shifter_is_found_and_what_it_changed_is_named(make_ledger, style_of, synthetic):
    """All capitals, a list, longer, and a word that the base does not use."""

    def shift(text: str) -> str:
        text = text.replace("the", "however")
        return f"- {text.upper()}\n- {text}"

    ledger = make_ledger({"ppo": edited(synthetic, shift), "dpo": synthetic.Arm("dpo", (0.0,))}, num_prompts=60)
    style = style_of(ledger)
    found = style.drifts["ppo"]
    assert found.auc.change.value > 0.95
    for measure in ("separability", "capitals", "list_items", "words", "unigram_jsd", "punctuation_jsd"):
        assert named(found)[measure].reading == DRIFTED, measure
    directions = " ".join(item.direction for item in found.moved)
    assert "more words in capitals" in directions
    assert "however" in directions
    assert "list items" in directions or "line breaks" in directions or "the mark -" in directions
    assert "more words" in directions
    assert DRIFTED not in {item.reading for item in style.drifts["dpo"].measures}
    pair = style.pairs()[0]
    assert (pair.one, pair.two, pair.told_apart) == ("ppo", "dpo", True)
    assert "more words in capitals" in [item.direction for item in pair.moved]


def test_sweep_in_chinese_has_no_english_measures_and_its_lexicon_gives_no_verdict(make_ledger, style_of, chinese):
    ledger = make_ledger({"ppo": chinese.Arm("ppo", (0.0,)), "dpo": chinese.Arm("dpo", (0.0,))}, num_prompts=60)
    style = style_of(ledger)
    found = named(style.drifts["ppo"])
    for measure in ("vader", "readability", "hedges", "capitals", "function_word_jsd"):
        assert found[measure].reading == "not assessable for this script: 100 % of the words are Chinese or Japanese"
        assert found[measure].p is None
    assert found["separability"].change is not None
    assert found["words"].reading == found["distinct_2"].reading == WITHIN
    assert style.context()["script"].startswith("Words in Chinese or Japanese have no spaces")
    rates = win_rate.compare_all(ledger, style.resamples)
    lexicon, gold = rates["ppo", "base", "vader"], rates["ppo", "base", "gold"]
    assert lexicon.blocked == "not assessable for this script: 100 % of the words are Chinese or Japanese"
    assert gold.blocked is None
    gate = gates.gates_of(gates.Measurements(lexicon, None, None, None, None, None, None), GATE_RULES)[0]
    assert (gate.name, gate.reply) == ("Win rate", "not assessable")


def test_lexicon_still_judges_an_english_sweep(make_ledger, resamples_for):
    ledger = make_ledger()
    assert win_rate.compare_all(ledger, resamples_for(ledger))["ppo", "base", "vader"].blocked is None


@pytest.fixture
def chinese(synthetic, monkeypatch):
    """The synthetic sweep with Chinese words."""
    monkeypatch.setattr(synthetic, "GOOD", ("精彩", "动人", "出色", "可爱", "真诚", "迷人"))
    monkeypatch.setattr(synthetic, "BAD", ("沉闷", "糟糕", "无聊", "笨拙", "吵闹", "乏味"))
    monkeypatch.setattr(synthetic, "PLAIN", ("电影", "故事", "人物", "场景", "我们", "看了", "一部", "还有", "城市"))
    return synthetic


def test_synonyms_are_a_drift_of_words_and_not_of_length(make_ledger, style_of, synthetic):
    ledger = make_ledger({"ppo": edited(synthetic, lambda text: text.replace("film", "movie"))}, num_prompts=60)
    found = named(style_of(ledger).drifts["ppo"])
    assert found["unigram_jsd"].reading == DRIFTED
    assert found["words"].reading == found["list_items"].reading == WITHIN


def test_copy_of_the_base_does_not_drift(make_ledger, style_of, synthetic):
    """Under common random numbers an unchanged arm equals the base exactly."""
    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), twin=True, kl=0.0)}, num_prompts=40)
    found = style_of(ledger).drifts["ppo"]
    assessed = [item for item in found.measures if item.change is not None]
    assert {item.measure for item in found.measures} - {item.measure for item in assessed} == {"per_input_ead_good"}
    assert {item.reading for item in assessed} == {WITHIN}
    assert found.moved == ()
    for item in assessed:
        if item.ours is None:  # a distance is taken from stream 2, where the base itself would show as much
            assert item.change.value == pytest.approx(item.base_vs_base.value)
        else:
            assert item.change.value == 0
            assert item.p == 1.0


def test_kl_is_the_mean_log_ratio_in_nats(make_ledger, resamples_for):
    ledger = make_ledger()
    kl = scores.divergence(ledger, "ppo", resamples_for(ledger))
    ratio = ledger.numbers("ppo", "logp_policy") - ledger.numbers("ppo", "logp_base")
    assert kl.per_response.value == pytest.approx(ratio.mean())
    assert kl.per_token.value == pytest.approx(ratio.sum() / ledger.numbers("ppo", "num_tokens").sum())
    assert kl.per_response.low <= kl.per_response.value <= kl.per_response.high


def test_one_sample_a_prompt_leaves_out_what_needs_two(make_ledger, style_of):
    found = named(style_of(make_ledger(num_prompts=20, num_samples=1)).drifts["ppo"])
    for measure in ("per_input_ead", "per_input_ead_good"):
        assert found[measure].change is None
        assert found[measure].reading.startswith(NOT_ASSESSABLE)
    assert found["separability"].change is not None


def test_few_prompts_claim_nothing(make_ledger, style_of, synthetic):
    ledger = make_ledger({"ppo": edited(synthetic, str.upper)}, num_prompts=4)
    found = named(style_of(ledger).drifts["ppo"])
    assert found["capitals"].reading.startswith(f"{NOT_ASSESSABLE}: 4 prompts")
    assert found["separability"].reading.startswith(NOT_ASSESSABLE)


def test_three_seeds_and_pairs_over_common_seeds(make_ledger, style_of, synthetic):
    arms = {"ppo": synthetic.Arm("ppo", (0.3,)), "dpo": synthetic.Arm("dpo", (0.3,))}
    style = style_of(make_ledger(arms, num_prompts=20, seeds=(0, 1, 2)))
    found = style.drifts["ppo"]
    assert {item.change.num_seeds for item in found.measures if item.change} == {3}
    assert style.context()["pairs"][0]["auc"]["num_seeds"] == 3


def test_good_responses_alone_can_keep_their_variety(make_ledger, style_of, synthetic):
    """Bad responses that all read the same lower the variety of all, not of the good ones."""

    def junk(rows: pd.DataFrame) -> pd.DataFrame:
        is_bad = rows["sample_id"] >= 4
        return rows.assign(
            response=rows["response"].where(~is_bad, "bad bad bad bad bad bad bad bad"),
            **{"score/gold": rows["score/gold"].where(~is_bad, 0.0) + np.where(is_bad, 0.0, 1.0)},
        )

    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), edit=junk)}, num_prompts=60, num_samples=8)
    found = named(style_of(ledger).drifts["ppo"])
    assert found["per_input_ead"].reading == DRIFTED
    assert found["per_input_ead"].change.value < 0
    assert found["per_input_ead_good"].reading == WITHIN


def test_variety_across_prompts_is_counted_among_good_responses_too(make_ledger, style_of, synthetic):
    """The first response to each prompt reads the same everywhere and is bad; the good ones are the base's own."""

    def junk(rows: pd.DataFrame) -> pd.DataFrame:
        is_bad = rows["sample_id"] == 0
        return rows.assign(
            response=rows["response"].where(~is_bad, "bad bad bad bad bad bad bad bad"),
            **{"score/gold": rows["score/gold"].where(~is_bad, 0.0)},
        )

    ledger = make_ledger({"ppo": synthetic.Arm("ppo", (0.0,), twin=True, edit=junk)}, num_prompts=60, num_samples=4)
    found = named(style_of(ledger).drifts["ppo"])
    assert found["across_input_ead"].reading == DRIFTED
    assert found["across_input_ead"].change.value < 0
    assert found["across_input_ead_good"].reading == WITHIN
    assert found["across_input_ead_good"].change is not None


# --------------------------------------------------------------------------------------------------------- false alarms
def corpus(texts: list[str], prompts: np.ndarray, vocabulary: Vocabulary) -> Corpus:
    return read_corpus(np.array([texts], dtype=object), prompts, {}, vocabulary)


def bootstrapped_twins(num_twins: int, rng: np.random.Generator) -> list[list[str]]:
    """What alarmed for each of many twins of one base: other draws from the same pool of each prompt's responses."""
    words = np.array(["the", "a", "I", "you", "film", "GREAT", "plain", "maybe", "very", "town", "people", "old", "no"])
    pools = [
        [
            " ".join(rng.choice(words, size=rng.integers(4, 24))) + str(rng.choice([".", "!", "?", ",\n- ok", ""]))
            for _ in range(12)
        ]
        for _ in range(40)
    ]
    prompts, vocabulary, alarms = np.repeat(np.arange(40), 2), Vocabulary.empty(), []
    for _ in range(num_twins):
        drawn = np.array([[pool[at] for at in rng.permutation(12)[:6]] for pool in pools], dtype=object)
        base, again, twin = (
            corpus(list(drawn[:, start : start + 2].ravel()), prompts, vocabulary) for start in (0, 2, 4)
        )
        reference = Reference(base, again, Resamples.draw(rng, 40, 1), RULES, rng)
        found = drift.style_drift(twin, reference)
        alarms.append([item.measure for item in found.measures if item.reading == DRIFTED])
    return alarms


def test_twins_of_the_base_stay_within_the_floor():
    assert sum(map(bool, bootstrapped_twins(12, np.random.default_rng(0)))) <= 2


@pytest.mark.slow
def test_of_200_twins_at_most_one_in_twenty_alarms():
    """Over all measures together. Last seen: 5 of 200, each by a single measure."""
    assert sum(map(bool, bootstrapped_twins(200, np.random.default_rng(1)))) <= 10
