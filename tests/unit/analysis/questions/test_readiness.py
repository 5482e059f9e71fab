from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis.ledger.load import load_ledger
from analysis.questions import readiness
from analysis.questions.readiness import Finding, RankedSamples
from analysis.statistics.bootstrap import Estimate, multinomial_weights
from experiments.rules import ReadinessRules


@pytest.fixture
def rules(synthetic):
    return ReadinessRules(**synthetic.RULES["readiness"])


def weights(num_prompts):
    return multinomial_weights(np.random.default_rng(0), num_prompts, 400)


def estimate(low, high, n=100):
    return Estimate((low + high) / 2, low, high, (high - low) / 4, "share", n)


class TestBestOfN:
    def test_by_hand(self):
        values = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
        assert readiness.best_of_n(values, 1) == pytest.approx([2, 5])
        assert readiness.best_of_n(values, 2) == pytest.approx([(3 + 3 + 2) / 3, 5])  # pairs 3-1, 3-2, 1-2
        assert readiness.best_of_n(values, 3) == pytest.approx([3, 5])

    @pytest.mark.parametrize("n", [1, 2, 4, 7, 8])
    def test_is_the_mean_over_all_subsets(self, n):
        values = np.random.default_rng(1).normal(size=(3, 8)).round(1)  # with ties
        subsets = list(combinations(range(8), n))
        best = [np.mean([row[list(subset)].max() for subset in subsets]) for row in values]
        hit = [np.mean([row[list(subset)].max() >= 0.5 for subset in subsets]) for row in values]
        assert readiness.best_of_n(values, n) == pytest.approx(best)
        assert readiness.reach_of_n(values, n, 0.5) == pytest.approx(hit)

    def test_reach_by_hand(self):
        values = np.array([[0.9, 0.1, 0.2, 0.3], [0.1, 0.1, 0.1, 0.1], [0.8, 0.8, 0.8, 0.1]])
        assert readiness.reach_of_n(values, 2, 0.8) == pytest.approx([1 / 2, 0, 1])

    def test_more_samples_than_needed_do_not_move_the_expectation(self):
        values = np.random.default_rng(2).normal(size=(20_000, 8))
        assert readiness.best_of_n(values, 2).mean() == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)


class TestRankCorrelation:
    def test_value_is_spearmans_with_ties(self):
        rng = np.random.default_rng(3)
        one = rng.integers(0, 5, size=(30, 4)).astype(float)
        two = one + rng.normal(size=one.shape)
        found = readiness.rank_correlation(one, two, weights(30))
        assert found.value == pytest.approx(spearmanr(one.ravel(), two.ravel()).statistic)
        assert found.low < found.value < found.high

    def test_a_constant_has_no_order(self):
        found = readiness.rank_correlation(np.ones((5, 2)), np.arange(10.0).reshape(5, 2), weights(5))
        assert (found.value, found.low, found.high) == (0, 0, 0)

    def test_size_forgets_the_sign(self):
        assert readiness.size(Estimate(-0.5, -0.6, -0.3, 0.1, "plain", 9)).low == 0.3
        around_zero = readiness.size(Estimate(-0.1, -0.3, 0.1, 0.1, "plain", 9))
        assert (around_zero.value, around_zero.low, around_zero.high) == (0.1, 0, 0.3)


@pytest.mark.parametrize(
    ("low", "high", "vote"), [(0.01, 0.09, "DPO"), (0.05, 0.15, "neutral"), (0.12, 0.2, "neutral"), (0.3, 0.4, "PPO")]
)
def test_vote_between_two_thresholds(low, high, vote):
    assert readiness.vote_between(estimate(low, high), for_dpo=0.1, for_ppo=0.25) == vote
    mirrored = estimate(1 - high, 1 - low)
    assert readiness.vote_between(mirrored, for_dpo=0.9, for_ppo=0.75) == vote


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (("DPO", "DPO", "neutral", "neutral", "neutral"), "DPO"),
        (("neutral", "neutral", "DPO", "DPO", "neutral"), "DPO"),
        (("neutral", "DPO", "neutral", "neutral", "neutral"), "neutral"),  # one is not enough
        (("PPO", "DPO", "DPO", "DPO", "DPO"), "neutral"),  # U1 is against it
        (("PPO", "DPO", "PPO", "PPO", "neutral"), "neutral"),  # U2 is against it
        (("DPO", "DPO", "PPO", "PPO", "neutral"), "DPO"),  # U3 and U4 may be
        (("PPO", "neutral", "neutral", "PPO", "DPO"), "PPO"),
        (("neither", "DPO", "neutral", "DPO", "DPO"), "neutral"),  # well-behaved and on support, but never good
    ],
)
def test_verdict(votes, expected):
    named = dict(zip(("U1", "U2", "U3", "U4", "U5"), votes, strict=True))
    assert readiness.verdict(named, min_votes=2) == expected


@pytest.mark.parametrize(
    ("gain", "reach", "rise", "vote", "word"),
    [
        ((2, 3), (0.8, 0.9), (0.1, 0.2), "DPO", "in the distribution"),
        ((2, 3), (0.4, 0.6), (0.1, 0.2), "PPO", "exploring pays"),
        ((2, 3), (0.0, 0.1), (0.0, 0.0), "neither", "demonstrations"),  # nothing reached, no sign that it would be
        ((0.1, 0.3), (0.0, 0.1), (0.1, 0.2), "neither", "demonstrations"),
        ((2, 3), (0.6, 0.8), (0.1, 0.2), "neutral", "between"),
        ((0.1, 0.3), (0.4, 0.6), (0.1, 0.2), "neutral", "between"),
    ],
)
def test_vote_of_headroom(rules, gain, reach, rise, vote, word):
    found = readiness.headroom_vote(estimate(*gain), estimate(*reach), estimate(*rise), rules)
    assert found[0] == vote
    assert word in found[1]


def test_headroom_needs_enough_samples(rules):
    finding = readiness.headroom(None, 0.1, weights(5), rules)
    assert finding.vote == "neutral"
    assert [item.number for item in finding.evidence] == [None, None]
    assert "fewer than 8 samples" in finding.evidence[0].reading


class TestCoverage:
    def ranked(self, surprise):
        """60 prompts with four samples; the best by gold surprises the base by this many nats per token more."""
        rng = np.random.default_rng(4)
        nll, gold = 2 + 0.2 * rng.normal(size=(60, 4)), rng.random((60, 4))
        nll[np.arange(60), gold.argmax(axis=1)] += surprise
        return RankedSamples(nll, gold)

    def test_samples_of_the_base_are_on_support(self, rules):
        finding = readiness.coverage(self.ranked(0.0), weights(60), rules)
        gap, share = (item.number for item in finding.evidence)
        assert finding.vote == "DPO"
        assert gap.low < 0 < gap.high
        assert share.low <= 0.05 <= share.high

    def test_foreign_responses_are_not(self, rules):
        finding = readiness.coverage(self.ranked(2.0), weights(60), rules)
        assert finding.vote == "PPO"
        assert finding.evidence[0].number.value == pytest.approx(1.5, abs=0.1)  # a quarter of the samples is itself

    @pytest.mark.parametrize("surprise", [-0.8, -3.0])
    def test_responses_likelier_than_the_bases_own_samples_are_no_case_for_dpo(self, rules, surprise):
        finding = readiness.coverage(self.ranked(surprise), weights(60), rules)
        assert finding.evidence[0].number.high < -rules.small_coverage_gap_nats
        assert finding.vote == "neutral"
        assert "likelier than the base's own samples" in finding.evidence[0].reading
        assert "Open for want of data" not in readiness.answer([finding], 2).would_change

    def test_gap_around_minus_the_small_threshold_is_open(self, rules):
        small = rules.small_coverage_gap_nats
        share = estimate(0.0, 0.1)
        assert readiness.coverage_vote(estimate(-small - 0.1, -small + 0.1), share, rules)[0] == "neutral"
        assert readiness.coverage_vote(estimate(-small + 0.01, small - 0.01), share, rules)[0] == "DPO"

    def test_off_support_share_outweighs_a_negative_gap(self, rules):
        assert readiness.coverage_vote(estimate(-2, -1), estimate(0.6, 0.8), rules)[0] == "PPO"

    def test_by_hand(self, rules):
        ranked = RankedSamples(np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[0.1, 0.9], [0.9, 0.1]]))
        gap = readiness.coverage(ranked, weights(2), rules).evidence[0].number
        assert gap.value == pytest.approx((1 + 0) / 2)

    def test_base_that_knows_the_preference(self, rules):
        assert readiness.implicit_ranking(self.ranked(-1.0), weights(60), rules).vote == "DPO"

    def test_base_that_has_it_the_wrong_way_round(self, rules):
        finding = readiness.implicit_ranking(self.ranked(1.0), weights(60), rules)
        assert finding.vote == "PPO"
        assert finding.evidence[0].number.value < 0.1

    def test_a_tie_of_likelihoods_counts_half(self, rules):
        ranked = RankedSamples(np.array([[1.0, 2.0], [2.0, 2.0]]), np.array([[0.9, 0.1], [0.9, 0.1]]))
        assert readiness.implicit_ranking(ranked, weights(2), rules).evidence[0].number.value == 0.75


LOOP = "a very good film a very good film"


@pytest.mark.parametrize(
    ("texts", "cut", "counts", "rate", "vote"),
    [
        (["fine", "good"], [True, True], False, 0.0, "DPO"),
        (["fine", "good"], [True, True], True, 1.0, "PPO"),
        ([" ", "good"], [False, False], False, 0.5, "PPO"),
        ([LOOP, LOOP], [False, True], True, 1.0, "PPO"),
    ],
)
def test_misbehaviour_by_rules(rules, texts, cut, counts, rate, vote):
    ruled = rules.model_copy(update={"cut_is_misbehaviour": counts})
    finding = readiness.misbehaviour(np.array([texts] * 30, dtype=object), np.array([cut] * 30), weights(30), ruled)
    assert (finding.evidence[0].number.value, finding.vote) == (rate, vote)
    assert "not seen by these rules: refusals" in finding.evidence[0].reading


@pytest.mark.parametrize(
    ("accuracy", "gold", "length", "vote", "readings"),
    [
        ((0.7, 0.8), (0.7, 0.8), (0.1, 0.2), "neutral", ["met", "met", "met"]),
        ((0.5, 0.6), (0.7, 0.8), (0.1, 0.2), "DPO", ["not met", "met", "met"]),
        ((0.6, 0.7), (0.3, 0.5), (0.5, 0.6), "DPO", ["inconclusive", "not met", "not met"]),
    ],
)
def test_reward_model_can_only_speak_against_ppo(rules, accuracy, gold, length, vote, readings):
    finding = readiness.reward_model(estimate(*accuracy), estimate(*gold), estimate(*length), rules)
    assert finding.vote == vote
    assert [item.reading for item in finding.evidence] == readings


def test_sweep_without_reward_model_has_no_vote_from_it(rules):
    finding = readiness.reward_model(None, None, None, rules)
    assert finding.vote == "neutral"
    assert all(item.reading.startswith("not assessable") for item in finding.evidence)


class TestAnswer:
    def finding(self, key, vote, turns_at=()):
        evidence = readiness.Evidence(key, "", estimate(0.4, 0.6), "", "reading")
        return Finding(key, vote, (evidence,), turns_at)

    def test_yes_names_the_votes(self):
        found = readiness.answer(
            [self.finding("U1", "DPO"), self.finding("U2", "DPO"), self.finding("U3", "neutral")], 2
        )
        assert found.reply == "yes"
        assert found.sentence.endswith("(for DPO: headroom (U1), coverage (U2); neutral: implicit ranking (U3)).")
        assert [item.reading for item in found.evidence] == ["votes DPO: reading"] * 2 + ["no vote: reading"]

    def test_no_is_ppos_case(self):
        found = readiness.answer([self.finding("U1", "PPO"), self.finding("U4", "PPO")], 2)
        assert (found.reply, found.sentence[:6]) == ("no", "Unruly")

    def test_open_votes_say_how_many_prompts_would_settle_them(self):
        # 0.5 ± 0.1 against 0.55: twice the distance, so four times the prompts
        found = readiness.answer([self.finding("U3", "neutral", ((0.55, 0.65),))], 2)
        assert found.reply == "inconclusive"
        assert "U3, about 400 in place of 100" in found.would_change

    def test_base_without_good_answers_is_a_case_for_neither(self):
        found = readiness.answer(
            [self.finding("U1", "neither"), self.finding("U2", "DPO"), self.finding("U4", "DPO")], 2
        )
        assert found.reply == "inconclusive"
        assert found.sentence.startswith("A case for neither yet")

    def test_disagreement_of_the_decisive_two_is_not_a_matter_of_data(self):
        found = readiness.answer([self.finding("U1", "PPO"), self.finding("U2", "DPO")], 1)
        assert found.reply == "inconclusive"
        assert "Headroom (U1) and coverage (U2) disagree, which no further sample settles" in found.would_change


class TestFromALedger:
    def answer_of(self, ledger, resamples_for):
        return readiness.readiness_of(ledger, resamples_for(ledger), np.random.default_rng(0))

    def test_every_number_is_measured(self, make_ledger, resamples_for):
        found = self.answer_of(make_ledger(num_prompts=40), resamples_for)
        assert len(found.evidence) == 9
        for item in found.evidence:
            assert item.number.low <= item.number.value <= item.number.high

    def test_all_samples_of_the_base_are_used(self, make_ledger):
        gold = readiness.base_samples(make_ledger(num_prompts=5), "num_tokens")
        assert gold.shape == (5, 2 + 2 + 4)

    def test_older_sweep_says_what_it_lacks(self, make_sweep, resamples_for):
        ledger = load_ledger(make_sweep(further_samples=0).folder)
        found = self.answer_of(ledger, resamples_for)
        absent = [item.name[:2] for item in found.evidence if item.number is None]
        assert absent == ["U1", "U1", "U2", "U2", "U3"]
        assert "Not measured in this sweep" in found.would_change

    def test_surprise_is_per_token(self, make_sweep):
        sweep = make_sweep()
        path = sweep.folder / "shared/ranking_data/samples/point_0.parquet"
        rows = pd.read_parquet(path).sample(frac=1, random_state=0)
        rows.assign(logp_base=-3.0 * rows["num_tokens"]).to_parquet(path)
        assert readiness.ranked_samples(load_ledger(sweep.folder)).nll == pytest.approx(np.full((40, 4), 3.0))

    @pytest.mark.parametrize(("tied", "num_prompts"), [(1, 39), (40, None)])
    def test_prompts_without_an_order_make_no_pair(self, make_sweep, tied, num_prompts):
        sweep = make_sweep()
        path = sweep.folder / "shared/ranking_data/samples/point_0.parquet"
        rows = pd.read_parquet(path)
        rows.loc[rows["prompt_id"].isin(rows["prompt_id"].unique()[:tied]), "score/gold"] = 0.5
        rows.to_parquet(path)
        ranked = readiness.ranked_samples(load_ledger(sweep.folder))
        assert (ranked and len(ranked.measure)) == num_prompts
