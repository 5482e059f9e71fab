from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from experiments.artifacts import ranking
from experiments.artifacts.ranking import RankedPrompt
from experiments.artifacts.reward_scorer import RewardScorer
from experiments.errors import InputError
from experiments.inputs.models import REWARD, load_base, prepare_model, reference, with_policy
from experiments.inputs.tokens import Tokens
from experiments.model_spec import Model
from experiments.sampling.batch import make_batch
from experiments.sampling.logprobs import total_logprobs
from experiments.spec import MeasureJobSpec, RankingJobSpec, RewardModel, RewardModelJobSpec
from experiments.stages import run_stage
from experiments.tasks.sentiment import Gold, SentimentData, SentimentMeasure
from experiments.tasks.sentiment.scorers import GoldScorer, vader_scores
from experiments.tasks.sentiment.texts import labelled_texts


def ranked(gold: list[float]) -> RankedPrompt:
    ids = [[10 + i] for i in range(len(gold))]
    return RankedPrompt("id", "prompt", [1, 2], ids, [False] * len(gold), gold, [-1.0] * len(gold))


class TestGold:
    def test_tells_good_reviews_from_bad_ones_it_never_saw(
        self, data: SentimentData, tmp_path: Path, recorder: Any
    ) -> None:
        gold = data.gold.model_copy(update={"analyzer": "word", "num_texts": 3000})
        spec = MeasureJobSpec(
            measure=SentimentMeasure(task="sentiment", path=data.path, seed=0, split_words=4, gold=gold)
        )
        run_stage("measure", spec, {}, tmp_path, tmp_path, recorder)
        unseen = labelled_texts(data.path, 0, 4, "evaluation", 300)
        right = (np.array(GoldScorer.load(tmp_path).score(list(unseen["text"]))) > 0.5) == (unseen["label"] == 1)
        assert right.mean() > 0.75
        assert recorder.values("measure/held_out_accuracy")[0] > 0.65
        assert recorder.values("measure/held_out_accuracy_low")[0] > recorder.values("measure/commoner_label_share")[0]

    @pytest.mark.parametrize("kind", ["a coin", "twins"])
    def test_a_guess_does_not_decide(self, tmp_path: Path, recorder: Any, kind: str) -> None:
        """Labels that the texts do not tell, and pairs of texts that differ in their label and nothing else."""
        random, path = np.random.default_rng(0), tmp_path / "texts.jsonl"
        words = [" ".join(random.choice(["film", "long", "warm", "tale", "dull"], 12)) for _ in range(300)]
        twins = [(f"{text} {i} {end}", end) for i, text in enumerate(words) for end in (0, 1)]
        coin = [(text[:-2], int(random.integers(2))) for text, _ in twins[::2]]
        rows = coin if kind == "a coin" else [(text[:-1] + "ab"[random.integers(2)], label) for text, label in twins]
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
        gold = Gold(num_texts=1000, analyzer="word", max_ngram=2)
        spec = MeasureJobSpec(
            measure=SentimentMeasure(task="sentiment", path=str(path), seed=0, split_words=4, gold=gold)
        )
        with pytest.raises(InputError) as refused:
            run_stage("measure", spec, {}, tmp_path, tmp_path, recorder)

        accuracy, low = (recorder.values(f"measure/held_out_accuracy{end}")[0] for end in ("", "_low"))
        share = recorder.values("measure/commoner_label_share")[0]
        assert low <= share
        said = str(refused.value)
        assert f"right on {accuracy:.1%} of what it never saw (95 % interval {low:.1%} to " in said
        assert f"commoner label would be right on {share:.1%}" in said
        assert not (tmp_path / "gold.json").exists()

    def test_scores_are_probabilities_of_any_text(self, artifacts: dict[str, Path]) -> None:
        scores = GoldScorer.load(artifacts["measure"]).score(["", "good", "\x00\x1b[31m�" * 50, "a" * 10_000])
        assert all(0 <= score <= 1 for score in scores)

    def test_nothing_is_pickled(self, artifacts: dict[str, Path]) -> None:
        assert {file.suffix for file in artifacts["measure"].iterdir()} == {".safetensors", ".json"}


def test_vader_reads_sentiment_on_its_scale() -> None:
    good, bad, none = vader_scores(["A wonderful, great film.", "A terrible, awful film.", "The film."])
    assert -1 <= bad < none == 0 < good <= 1


class TestComparisons:
    def test_all_pairs_point_from_the_better_to_the_worse(self) -> None:
        assert ranked([0.2, 0.9, 0.5]).comparisons("all") == [(1, 0), (2, 0), (1, 2)]

    def test_best_against_worst_is_one_pair(self) -> None:
        assert ranked([0.2, 0.9, 0.1, 0.5]).comparisons("best_worst") == [(1, 2)]

    def test_ties_make_no_comparison(self) -> None:
        assert ranked([0.5, 0.5, 0.7]).comparisons("all") == [(2, 0), (2, 1)]
        assert ranked([0.5, 0.5]).comparisons("all") == ranked([0.5, 0.5]).comparisons("best_worst") == []


class TestRankingData:
    def test_holds_the_samples_of_every_prompt_with_their_gold(
        self, artifacts: dict[str, Path], data: SentimentData
    ) -> None:
        found = ranking.load(artifacts["ranking_data"])
        gold = GoldScorer.load(artifacts["measure"])
        assert len(found) == 12
        assert all(len(prompt.response_ids) == len(prompt.score) == data.samples_per_prompt for prompt in found)
        assert all(len(ids) <= data.max_new_tokens for prompt in found for ids in prompt.response_ids)
        assert len({tuple(ids) for prompt in found for ids in prompt.response_ids}) > 40
        assert gold.score([found[0].prompt])[0] != found[0].score[0]

    def test_the_same_specification_gives_the_same_samples(
        self,
        artifacts: dict[str, Path],
        tiny: Model,
        data: SentimentData,
        cache_dir: Path,
        tmp_path: Path,
        recorder: Any,
    ) -> None:
        run_stage(
            "ranking_data",
            RankingJobSpec(model=tiny, data=data, num_ranking_prompts=12),
            artifacts,
            tmp_path,
            cache_dir,
            recorder,
        )
        folders = (tmp_path, artifacts["ranking_data"])
        pd.testing.assert_frame_equal(*(pd.read_parquet(folder / ranking.FILE) for folder in folders))

    def test_the_pairs_of_dpo_have_log_probs_under_the_base(self, artifacts: dict[str, Path]) -> None:
        for prompt in ranking.load(artifacts["ranking_data"]):
            used = {index for pair in prompt.comparisons("best_worst") for index in pair}
            assert all((prompt.reference_logp[index] < 0) for index in used)

    def test_the_ledger_keeps_each_sample_with_its_probability_under_the_base(
        self,
        artifacts: dict[str, Path],
        tiny: Model,
        data: SentimentData,
        cache_dir: Path,
        tmp_path: Path,
        recorder: Any,
    ) -> None:
        spec = RankingJobSpec(model=tiny, data=data, num_ranking_prompts=12)
        run_stage("ranking_data", spec, artifacts, tmp_path, cache_dir, recorder)
        rows, kept = recorder.sample_rows[0], pd.read_parquet(tmp_path / ranking.FILE)
        assert [row["scores"]["gold"] for row in rows] == kept["score"].tolist()
        assert [row["num_tokens"] for row in rows] == kept["response_ids"].str.len().tolist()
        prompt_ids, response_ids = (kept[name].map(list).tolist() for name in ("prompt_ids", "response_ids"))
        passed = total_logprobs(
            load_base(tiny, cache_dir), prompt_ids, response_ids, temperature=data.temperature, pad_id=0
        )
        assert [row["logp_base"] for row in rows] == pytest.approx(passed, abs=1e-3)

    def test_the_text_of_a_sample_leaves_its_end_of_sequence_token_out(self) -> None:
        prompt = RankedPrompt("id", "prompt", [1], [[5, 9], [6, 7]], [True, False], [0.1, 0.2], [-1.0, -2.0])
        assert prompt.text_ids == [[5], [6, 7]]


class TestRewardModel:
    @pytest.fixture
    def scorer(self, artifacts: dict[str, Path], tiny: Model, cache_dir: Path) -> RewardScorer:
        eos_ids = Tokens.load(tiny, cache_dir).eos_ids
        policy = with_policy(load_base(tiny, cache_dir), tiny.lora, seed=0)
        return RewardScorer.attach(policy, tiny, artifacts["reward_model"], eos_ids)

    def test_scores_as_the_trained_classifier_does(
        self, scorer: RewardScorer, artifacts: dict[str, Path], tiny: Model, cache_dir: Path
    ) -> None:
        """The adapter moves from a sequence classifier to a causal model; the scores must not."""
        base = AutoModelForSequenceClassification.from_pretrained(prepare_model(tiny, cache_dir), num_labels=1)
        classifier = PeftModel.from_pretrained(base, artifacts["reward_model"] / "adapter").eval()
        prompts, responses = [[5, 6, 7], [8]], [[20, 21], [30, 31, 32]]
        raw = []
        for prompt, response in zip(prompts, responses, strict=True):
            with torch.no_grad():
                backbone = classifier.get_base_model()
                hidden = backbone.base_model(input_ids=torch.tensor([prompt + response])).last_hidden_state
                raw.append(backbone.score(hidden)[0, len(prompt) :, 0].mean().item())
        first, second = scorer.score_all(prompts, responses)
        scale = json.loads((artifacts["reward_model"] / "scale.json").read_text())
        expected = [(value - scale["mean"]) / scale["standard_deviation"] for value in raw]
        assert [first, second] == pytest.approx(expected, abs=1e-4)

    def test_an_end_of_sequence_token_does_not_change_the_score(self, scorer: RewardScorer) -> None:
        without, with_eos = scorer.score_all([[5, 6], [5, 6]], [[20, 21], [20, 21, int(scorer.eos_ids[0])]])
        assert with_eos == pytest.approx(without, abs=1e-5)

    def test_an_empty_text_scores_as_the_bases_mean(self, scorer: RewardScorer) -> None:
        assert scorer.score_all([[5, 6]], [scorer.eos_ids.tolist()]) == [0.0]

    def test_the_score_of_a_prefix_is_that_of_the_shorter_text(self, scorer: RewardScorer) -> None:
        batch = make_batch([[5, 6]], [[20, 21, 22]], 0, torch.device("cpu"), packed=True)
        prefixes = scorer.prefix_scores(batch, scorer.features(batch))[0].tolist()
        shorter = scorer.score_all([[5, 6]] * 3, [[20], [20, 21], [20, 21, 22]])
        assert prefixes == pytest.approx([0.0, *shorter], abs=1e-5)

    def test_scores_of_the_base_have_mean_0_and_deviation_1_on_held_out_samples(
        self, scorer: RewardScorer, artifacts: dict[str, Path]
    ) -> None:
        held_out = ranking.load(artifacts["ranking_data"])[:3]
        scores = [s for p in held_out for s in scorer.score_all([p.prompt_ids] * len(p.text_ids), p.text_ids)]
        assert np.mean(scores) == pytest.approx(0, abs=1e-3)
        assert np.std(scores) == pytest.approx(1, abs=1e-3)

    def test_learns_its_training_comparisons(
        self, artifacts: dict[str, Path], tiny: Model, cache_dir: Path, tmp_path: Path, recorder: Any
    ) -> None:
        settings = RewardModel(learning_rate=1e-2, num_epochs=30, comparisons_per_step=12, held_out_fraction=0.25)
        spec = RewardModelJobSpec(task="sentiment", model=tiny, reward_model=settings, comparisons="all", seed=0)
        run_stage("reward_model", spec, artifacts, tmp_path, cache_dir, recorder)
        losses = recorder.values("reward_model/loss")
        assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
        assert np.mean(losses[-5:]) < 0.4
        low, value, high = (recorder.values(f"reward_model/held_out_accuracy{end}")[0] for end in ("_low", "", "_high"))
        assert low <= value <= high

    def test_roles_do_not_leak_into_one_another(self, scorer: RewardScorer) -> None:
        policy, ids = scorer.model, torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad(), reference(policy):
            before = policy(ids).logits
        scorer.features(make_batch([[5, 6]], [[7, 8]], 0, torch.device("cpu"), packed=True))
        trainable = [name for name, p in policy.named_parameters() if p.requires_grad]
        assert trainable
        assert not any(REWARD in name for name in trainable)
        with torch.no_grad():
            assert torch.equal(policy(ids).logits, before)  # a fresh policy is the base
