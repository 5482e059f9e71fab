"""Tokenizers of every kind, built here: what a prompt becomes, how a response reads behind it, and where it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from experiments.arms.ppo import PPOTrainer
from experiments.artifacts import ranking
from experiments.artifacts.reward_scorer import RewardScorer
from experiments.errors import InputError
from experiments.evaluation.judging import reward_model
from experiments.inputs.models import load_base, with_policy
from experiments.inputs.tokens import Tokens
from experiments.judge_spec import RewardModelJudge
from experiments.meter import Meter
from experiments.model_spec import Model
from experiments.spec import PPO, RankingJobSpec, RewardModel, RewardModelJobSpec
from experiments.stages import run_stage
from experiments.tasks.sentiment import TASK, SentimentData
from experiments.tasks.sentiment.scorers import GoldScorer, vader_scores

UNKNOWN = "<unk>"
SPECIAL = [UNKNOWN, "<s>", "</s>"]
WORDS = ["The", "film", "was", "great", "fun", "it", "'", "s", ".", "play", "ing"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TURN = "<turn>"  # a second end, not registered as special


def llama(*, appends_eos: bool = False) -> Tokenizer:
    """Llama 1 and 2: a space goes in front of a text and is taken away again; unknown characters are bytes."""
    vocabulary = [*SPECIAL, *BYTES, *("▁" + word for word in WORDS), *WORDS, "▁"]
    model = models.BPE(numbered(vocabulary), [], byte_fallback=True, unk_token=UNKNOWN, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_template(tokenizer, "<s> $A </s>" if appends_eos else "<s> $A")


def metaspace(scheme: str) -> Tokenizer:
    """Mistral, Phi-3, T5: the same by a pre-tokenizer of its own."""
    vocabulary = [*SPECIAL, *("▁" + word for word in WORDS), *WORDS, TURN]
    tokenizer = Tokenizer(models.WordLevel(numbered(vocabulary), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return with_template(tokenizer, "$A")


def word_piece() -> Tokenizer:
    """BERT: lower case, parts of words, [SEP] behind a text; clean-up takes spaces away when it decodes."""
    vocabulary = [*SPECIAL, *map(str.lower, WORDS), "##ing"]
    tokenizer = Tokenizer(models.WordPiece(numbered(vocabulary), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return with_template(tokenizer, "<s> $A </s>")


def byte_level() -> Tokenizer:
    """GPT-2: a text is the sum of its tokens."""
    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(numbered(vocabulary), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return with_template(tokenizer, "$A")


def with_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    tokenizer.add_special_tokens(SPECIAL)
    specials = [(token, number) for number, token in enumerate(SPECIAL)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    return tokenizer


def numbered(vocabulary: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}


@pytest.fixture
def tokens(tmp_path: Path, tiny: Model) -> Any:
    """Tokens of a model without weights: its files say what is given here."""

    def make(
        tokenizer: Tokenizer,
        config_eos: Any = None,
        generation_eos: Any = None,
        vocab_size: int | None = None,
        **options: Any,
    ) -> Tokens:
        write_tokenizer(tokenizer, tmp_path, **options)
        size = vocab_size or tokenizer.get_vocab_size()
        stated = {"model_type": "llama", "vocab_size": size, "eos_token_id": config_eos}
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in stated.items() if v is not None}))
        if generation_eos is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation_eos}))
        return Tokens.load(tiny.model_copy(update={"path": str(tmp_path)}), tmp_path)

    return make


def write_tokenizer(tokenizer: Tokenizer, folder: Path, **options: Any) -> None:
    defaults = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": UNKNOWN}
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **defaults | options)
    wrapped.save_pretrained(folder)


def whole(tokens: Tokens, prompt: str, *response: str) -> str:
    """The prompt and what is read behind it; the response is given token by token."""
    ids = tokens.tokenizer.convert_tokens_to_ids(list(response))
    return prompt + tokens.response_texts([tokens.prompt_ids(prompt)], [ids])[0]


class TestResponseTexts:
    @pytest.mark.parametrize(
        ("tokenizer", "great"),
        [
            (llama(), "▁great"),
            (llama(appends_eos=True), "▁great"),
            (metaspace("first"), "▁great"),
            (metaspace("always"), "▁great"),
            (metaspace("never"), "▁great"),
            (word_piece(), "great"),
        ],
    )
    def test_the_space_between_prompt_and_response_stays(self, tokens: Any, tokenizer: Tokenizer, great: str) -> None:
        text = whole(tokens(tokenizer), "The film was", great, "</s>")
        assert text == "The film was great"
        assert vader_scores([text]) == pytest.approx([0.6249])  # of "The film wasgreat" it is 0

    def test_a_word_goes_on_without_a_space(self, tokens: Any) -> None:
        assert whole(tokens(llama()), "The film was play", "ing", "▁.") == "The film was playing ."

    def test_a_part_of_a_word_is_glued_to_the_prompt(self, tokens: Any) -> None:
        assert whole(tokens(word_piece()), "it was play", "##ing", ".") == "it was playing."

    def test_where_clean_up_takes_a_space_of_the_prompt_the_cut_is_behind_its_last_token(self, tokens: Any) -> None:
        """The whole reads "it's great", of which the prompt's text "it '" is no beginning."""
        bert = tokens(word_piece(), clean_up_tokenization_spaces=True)
        assert whole(bert, "it '", "s", "great", ".") == "it 's great."

    @pytest.mark.parametrize(("prompt", "last"), [("The film é", 2), ("The film X", 1), ("The film 電", 3)])
    def test_bytes_that_make_no_character_with_the_prompts_last_bytes_count_as_the_responses_own(
        self, tokens: Any, prompt: str, last: int
    ) -> None:
        """All bytes of the run then read as replacement characters, those of the prompt too."""
        llama_tokens = tokens(llama())
        ids = llama_tokens.prompt_ids(prompt)
        assert llama_tokens.tokenizer.decode([*ids, 3 + 0x80]).count("\ufffd") == last + 1
        assert whole(llama_tokens, prompt, "<0x80>", "▁fun") == prompt + "\ufffd fun"

    def test_bytes_that_make_a_character_read_as_it(self, tokens: Any) -> None:
        assert whole(tokens(llama()), "The film X", "<0xC3>", "<0xA9>", "▁fun") == "The film Xé fun"

    def test_with_byte_level_tokens_a_response_reads_as_it_does_alone(self, tokens: Any) -> None:
        gpt2 = tokens(byte_level())
        generator = torch.Generator().manual_seed(0)
        prompts = [gpt2.prompt_ids(text) for text in ("The film was", "Ça va 😀", "電影")]
        responses = torch.randint(3, 259, (300, 8), generator=generator).tolist()
        alone = [gpt2.tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]
        assert gpt2.response_texts([prompts[i % 3] for i in range(300)], responses) == alone

    def test_ends_and_special_tokens_are_no_text_also_where_an_end_is_not_registered_as_special(
        self, tokens: Any
    ) -> None:
        gemma = tokens(metaspace("always"), generation_eos=[2, metaspace("always").token_to_id(TURN)])
        assert whole(gemma, "The film was", "▁fun", "<s>", "▁great", TURN) == "The film was fun great"
        assert whole(gemma, "The film was", TURN) == "The film was"

    def test_behind_a_prompt_of_unknown_words_the_space_stays_too(self, tokens: Any) -> None:
        assert whole(tokens(metaspace("always")), "Kino", "▁great") == "Kino great"


class TestPromptIds:
    @pytest.mark.parametrize(
        ("tokenizer", "expected"),
        [
            (llama(), ["<s>", "▁The", "▁film"]),
            (llama(appends_eos=True), ["<s>", "▁The", "▁film"]),
            (word_piece(), ["<s>", "the", "film"]),
            (metaspace("first"), ["▁The", "▁film"]),
            (with_template(metaspace("first"), "$A </s> <s>"), ["▁The", "▁film"]),
            (with_template(metaspace("first"), "</s> $A </s>"), ["</s>", "▁The", "▁film"]),  # OPT begins with its end
        ],
    )
    def test_what_the_tokenizer_puts_in_front_stays_and_what_it_appends_goes(
        self, tokens: Any, tokenizer: Tokenizer, expected: list[str]
    ) -> None:
        made = tokens(tokenizer)
        assert made.tokenizer.convert_ids_to_tokens(made.prompt_ids("The film")) == expected

    def test_with_add_eos_token(self, tokens: Any) -> None:
        made = tokens(metaspace("first"), add_eos_token=True, add_bos_token=True)
        assert made.tokenizer.convert_ids_to_tokens(made.prompt_ids("The film")) == ["<s>", "▁The", "▁film"]

    def test_an_end_that_is_part_of_the_text_stays(self, tokens: Any) -> None:
        made = tokens(llama(appends_eos=True))
        assert made.prompt_ids("The</s>")[-1] == 2

    @pytest.mark.parametrize("text", ["", "電影"])
    def test_a_prompt_without_a_token_is_refused(self, tokens: Any, text: str) -> None:
        vocabulary = numbered([*SPECIAL, "T", "h", "e"])  # characters that it does not know are dropped
        made = tokens(with_template(Tokenizer(models.BPE(vocabulary, [])), "<s> $A"))
        assert made.prompt_ids("The") == [1, 3, 4, 5]
        with pytest.raises(InputError, match=f"has no token for the prompt '{text}'"):
            made.prompt_ids(text)


class TestResponseIds:
    @pytest.mark.parametrize("text", [" great fun.", "ing it", "", " fun \ufffd", " Kino"])
    @pytest.mark.parametrize("tokenizer", [llama(), byte_level()], ids=["llama", "byte level"])
    def test_read_as_the_text_behind_the_prompt(self, tokens: Any, tokenizer: Tokenizer, text: str) -> None:
        made = tokens(tokenizer)
        ids = made.response_ids("The film was play", text)
        assert made.response_texts([made.prompt_ids("The film was play")], [ids]) == [text]

    def test_are_those_that_a_word_has_within_a_text(self, tokens: Any) -> None:
        made = tokens(llama(appends_eos=True))
        assert made.tokenizer.convert_ids_to_tokens(made.response_ids("The film was", " great")) == ["▁great"]


class TestEnds:
    @pytest.mark.parametrize(
        ("config_eos", "generation_eos", "expected"),
        [
            (None, None, (2,)),  # what a class has by default, and no file says, does not count
            (5, None, (2, 5)),
            ([6, 5], None, (2, 5, 6)),
            (None, [2, 7], (2, 7)),
            (2, 5, (2, 5)),
            ([5], [7, 6], (2, 5, 6, 7)),
            (50256, [2, 5, -1], (2, 5)),  # what lies outside the vocabulary cannot be sampled
        ],
    )
    def test_are_those_of_tokenizer_configuration_and_generation_configuration(
        self, tokens: Any, config_eos: Any, generation_eos: Any, expected: tuple[int, ...]
    ) -> None:
        assert tokens(metaspace("first"), config_eos, generation_eos).eos_ids == expected

    def test_may_be_named_by_the_configuration_alone(self, tokens: Any) -> None:
        made = tokens(metaspace("first"), 5, None, eos_token=None)
        assert made.eos_ids == (5,)
        assert made.tokenizer.pad_token_id is not None

    def test_that_cannot_be_sampled_are_refused_together(self, tokens: Any) -> None:
        with pytest.raises(InputError, match=r"end-of-sequence token .*found \[2, 99\], vocab_size=2"):
            tokens(metaspace("first"), 99, None, vocab_size=2)

    def test_a_generation_configuration_that_cannot_be_read_is_refused(self, tokens: Any, tmp_path: Path) -> None:
        (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2,')
        with pytest.raises(InputError, match=r"generation_config\.json cannot be read"):
            tokens(metaspace("first"))


# --------------------------------------------------------------------------------------------- all of it in every stage
@pytest.fixture(scope="module")
def awkward(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose tokenizer drops spaces and appends an end; it has two ends and samples them often."""
    folder = tmp_path_factory.mktemp("awkward")
    tokenizer = with_template(metaspace("always"), "<s> $A </s>")
    write_tokenizer(tokenizer, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    ends = [2, tokenizer.token_to_id(TURN)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return tiny.model_copy(update={"path": str(folder)})


@pytest.fixture(scope="module")
def made(
    awkward: Model, data: SentimentData, artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Folders of what the arms need, for that model."""
    cache_dir = tmp_path_factory.mktemp("awkward-cache")
    specs: dict[str, Any] = {
        "ranking_data": RankingJobSpec(model=awkward, data=data, num_ranking_prompts=12),
        "reward_model": RewardModelJobSpec(
            task="sentiment",
            model=awkward,
            reward_model=RewardModel(learning_rate=1e-3, num_epochs=1, comparisons_per_step=12, held_out_fraction=0.25),
            comparisons="all",
            seed=0,
        ),
    }
    folders, samples = {"measure": artifacts["measure"], "cache": cache_dir}, Samples()
    for kind, spec in specs.items():
        folder = cache_dir / kind
        folder.mkdir()
        run_stage(kind, spec, folders, folder, cache_dir, samples)  # type: ignore[arg-type]
        folders[kind] = folder
        (folder / "spec.json").write_text(json.dumps({"spec": spec.model_dump(mode="json")}))
    (cache_dir / "samples.json").write_text(json.dumps(samples.rows))
    return folders


class Samples:
    """A recorder that keeps the samples of a job and nothing else."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def samples(self, point: int, rows: Any) -> None:
        self.rows += rows

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def reads_as_decoded(tokens: Tokens, text: str, prompt: str, prompt_ids: list[int], response_ids: list[int]) -> bool:
    """Whether prompt and response are what the tokenizer makes of both; words that it does not know are special."""
    ids = [number for number in response_ids if number not in tokens.eos_ids]
    decoded = tokens.tokenizer.decode([*prompt_ids, *ids])
    start = tokens.tokenizer.decode(prompt_ids)
    return text == prompt + decoded.removeprefix(start).replace("<unk>", "").replace("<s>", "")


def test_ranking_data_has_whole_texts_clean_prompts_and_every_end(awkward: Model, made: Any) -> None:
    tokens, rows = Tokens.load(awkward, made["cache"]), ranking.load(made["ranking_data"])
    ids = [response for row in rows for response in row.response_ids]
    ended = [flag for row in rows for flag in row.ended]

    assert {response[-1] for response, flag in zip(ids, ended, strict=True) if flag} == set(tokens.eos_ids)
    assert all((response[-1] in tokens.eos_ids) == flag for response, flag in zip(ids, ended, strict=True))
    assert not any(set(response[:-1]) & set(tokens.eos_ids) for response in ids)
    assert not any(set(text) & set(tokens.eos_ids) for row in rows for text in row.text_ids)
    assert all(row.prompt_ids[0] == 1 and row.prompt_ids[-1] != 2 for row in rows)


def test_an_evaluation_has_whole_texts_and_counts_every_end(
    awkward: Model, made: Any, base_evaluation_job: Any, tmp_path: Path, recorder: Any
) -> None:
    spec = base_evaluation_job.model_copy(update={"model": awkward})
    run_stage("base_evaluation", spec, made, tmp_path, made["cache"], recorder)
    rows = recorder.sample_rows[0]

    assert {row["finish_reason"] for row in rows} == {"eos", "length"}
    assert 0 < recorder.values("evaluation/eos_fraction")[0] < 1
    assert not any(end in row["response"] for row in rows for end in ("</s>", TURN))
    assert any(row["response"].startswith(" ") for row in rows)
    assert [row["scores"]["vader"] for row in rows] == vader_scores([row["prompt"] + row["response"] for row in rows])
    assert all(row["num_tokens"] == 8 for row in rows if row["finish_reason"] == "length")


def test_ppo_masks_what_ends_a_response_and_gold_reads_whole_texts(
    awkward: Model, made: Any, arm_job: Any, ppo_arm: PPO
) -> None:
    spec = arm_job(ppo_arm, model=awkward)
    trainer = PPOTrainer(spec, ppo_arm, made["ranking_data"], made["reward_model"], made["cache"], Meter())
    prompts = trainer.prompts_of(1)
    rollouts = trainer.roll_out(prompts, 1)
    parts = [
        (row, batch.response_ids[place, : int(batch.response_mask[place].sum())].tolist())
        for minibatch in rollouts.minibatches
        for rows, batch in ((micro.rows, micro.batch) for micro in minibatch)
        for place, row in enumerate(rows)
    ]
    responses = dict(parts)
    ends = set(trainer.tokens.eos_ids)

    assert {responses[row][-1] for row in range(len(prompts)) if rollouts.ended_N[row]} <= ends
    assert int(rollouts.ended_N.sum()) > 0
    assert not any(set(response[:-1]) & ends for response in responses.values())
    for row, prompt in enumerate(prompts):
        assert bool(rollouts.ended_N[row]) == (responses[row][-1] in ends)
        assert int(rollouts.mask_NT[row].sum()) == len(responses[row])
        assert reads_as_decoded(trainer.tokens, rollouts.texts[row], prompt.prompt, prompt.prompt_ids, responses[row])


def test_no_end_counts_in_the_reward(awkward: Model, made: Any) -> None:
    tokens = Tokens.load(awkward, made["cache"])
    policy = with_policy(load_base(awkward, made["cache"]), awkward.lora, seed=0)
    scorer = RewardScorer.attach(policy, awkward, made["reward_model"], tokens.eos_ids)
    responses = [[5, 6], *([5, 6, end] for end in tokens.eos_ids)]
    scores = scorer.score_all([[1, 4]] * len(responses), responses)
    assert scores == pytest.approx(scores[:1] * len(scores), abs=1e-5)


def test_our_reward_model_reads_as_a_judge_what_was_sampled(awkward: Model, made: Any) -> None:
    """Its scores of texts are those of the tokens, where the text says which tokens they were."""
    tokens = Tokens.load(awkward, made["cache"])
    words = tokens.tokenizer.convert_tokens_to_ids(["▁great", "▁fun", "▁it", "▁was"])
    responses = [[words[0]], words, [*words[::-1], 2]]
    prompt = "The film was"
    settings = {"path": str(made["reward_model"]), "chat_template": False, "max_samples_per_prompt": 1, "tie_band": 0.0}
    judge = reward_model.load_scorer(RewardModelJudge.model_validate(settings), TASK, made["cache"])
    policy = with_policy(load_base(awkward, made["cache"]), awkward.lora, seed=0)
    scorer = RewardScorer.attach(policy, awkward, made["reward_model"], tokens.eos_ids)

    expected = scorer.score_all([tokens.prompt_ids(prompt)] * 3, responses)
    texts = tokens.response_texts([tokens.prompt_ids(prompt)] * 3, responses)
    assert judge([prompt] * 3, texts) == pytest.approx(expected, abs=1e-5)


def test_the_samples_of_the_ranking_data_read_as_prompt_and_response_decoded_together(
    awkward: Model, made: Any
) -> None:
    tokens, frame = Tokens.load(awkward, made["cache"]), pd.read_parquet(made["ranking_data"] / ranking.FILE)
    samples = json.loads((made["cache"] / "samples.json").read_text())
    whole = [sample["prompt"] + sample["response"] for sample in samples]

    for text, row in zip(whole, frame.to_dict("records"), strict=True):
        assert reads_as_decoded(tokens, text, row["prompt"], list(row["prompt_ids"]), list(row["response_ids"]))
    assert frame["score"].tolist() == GoldScorer.load(made["measure"]).score(whole)
    assert [sample["scores"]["vader"] for sample in samples] == vader_scores(whole)
    assert {sample["finish_reason"] for sample in samples} == {"eos", "length"}
