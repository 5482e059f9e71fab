from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import get_peft_model

from experiments.inputs.layers import fuse_layers
from experiments.inputs.lora import lora_config, low_rank
from experiments.inputs.models import load_base
from experiments.inputs.tokens import Tokens
from experiments.model_spec import Lora, Model
from experiments.sampling import sampler
from experiments.sampling.batch import length_groups, make_batch
from experiments.sampling.decoders import LibraryDecoder, LlamaDecoder, make_decoder
from experiments.sampling.logprobs import response_logprobs, total_logprobs
from experiments.sampling.sampler import Response, common_uniforms, draw, sample

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [5, 5], [70, 71, 72, 73]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny: Model, cache_dir: Path) -> Any:
    return load_base(tiny, cache_dir)


@pytest.fixture(scope="module")
def eos_id(tiny: Model, cache_dir: Path) -> int:
    return Tokens.load(tiny, cache_dir).eos_ids[0]


def run(
    base: Any, prompts: list[list[int]], uniforms: torch.Tensor, eos_id: int, rows_per_batch: int = 64
) -> list[Response]:
    return sample(base, prompts, uniforms, temperature=0.7, eos_ids=[eos_id], rows_per_batch=rows_per_batch)


def uniforms(num_rows: int, num_steps: int = 10, seed: int = 0) -> torch.Tensor:
    return common_uniforms(seed, 1, [str(row) for row in range(num_rows)], num_steps)


def ends_early(base: Any, eos_id: int, bonus: float) -> Any:
    """A copy whose head favours the end-of-sequence token, so that rows end at different steps."""
    model = copy.deepcopy(base)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size), requires_grad=False)
    model.lm_head.bias[eos_id] = bonus
    return model


class TestDraw:
    def test_takes_the_first_token_whose_cumulative_probability_exceeds_the_number(self) -> None:
        logits = torch.log(torch.tensor([[0.2, 0.3, 0.5]])).repeat(6, 1)
        token, logp = draw(logits, torch.tensor([0.0, 0.19, 0.21, 0.49, 0.51, 0.9999999]), temperature=1.0)
        assert token.tolist() == [0, 0, 1, 1, 2, 2]
        torch.testing.assert_close(logp.exp(), torch.tensor([0.2, 0.2, 0.3, 0.3, 0.5, 0.5]))

    def test_never_draws_a_token_without_probability(self) -> None:
        logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).repeat(2, 1)
        token, _ = draw(logits, torch.tensor([0.0, 1.0 - 2**-24]), temperature=1.0)
        assert token.tolist() == [1, 1]

    def test_frequencies_match_the_tempered_distribution(self) -> None:
        logits, n = torch.tensor([0.3, -1.0, 2.0, 0.0]), 40_000
        token, _ = draw(logits.repeat(n, 1), torch.rand(n, generator=torch.Generator().manual_seed(0)), temperature=1.5)
        observed = torch.bincount(token, minlength=4) / n
        torch.testing.assert_close(observed, torch.softmax(logits / 1.5, 0), atol=0.01, rtol=0)


class TestSample:
    @pytest.mark.parametrize("name", ["Qwen3ForCausalLM", "GPTNeoXForCausalLM"])
    def test_models_that_the_library_decodes_are_sampled_in_several_batches(self, name: str) -> None:
        model = tiny_model(name) if name == "Qwen3ForCausalLM" else tiny_neox()
        assert isinstance(make_decoder(model), LibraryDecoder)
        numbers = uniforms(len(PROMPTS))
        together = run(model, PROMPTS, numbers, 79)
        assert [r.token_ids for r in together] == [r.token_ids for r in run(model, PROMPTS, numbers, 79, 2)]
        assert [r.token_ids for r in together] == [r.token_ids for r in run(model, PROMPTS, numbers, 79, 1)]

    @pytest.mark.parametrize("num_steps", [1, 4, 8])
    def test_no_step_is_taken_after_the_last(self, base: Any, eos_id: int, num_steps: int) -> None:
        """Not even to prepare one: on a GPU it would write beyond the cache."""
        model = ends_early(base, eos_id, 3.0)
        for response in run(model, PROMPTS, uniforms(len(PROMPTS), num_steps), eos_id):
            assert len(response.token_ids) <= num_steps

    def test_a_row_does_not_depend_on_its_batch_in_float32(self, base: Any, eos_id: int) -> None:
        numbers = uniforms(len(PROMPTS))
        together = run(base, PROMPTS, numbers, eos_id)
        alone = run(base, PROMPTS, numbers, eos_id, rows_per_batch=1)
        reordered = run(base, PROMPTS[::-1], numbers.flip(0), eos_id, rows_per_batch=2)[::-1]
        assert [r.token_ids for r in together] == [r.token_ids for r in alone] == [r.token_ids for r in reordered]

    def test_rows_that_end_leave_the_batch_and_change_nothing(self, base: Any, eos_id: int) -> None:
        model = ends_early(base, eos_id, bonus=2.5)
        numbers = uniforms(len(PROMPTS))
        together = run(model, PROMPTS, numbers, eos_id)
        alone = run(model, PROMPTS, numbers, eos_id, rows_per_batch=1)
        assert {r.finish_reason for r in together} == {"eos", "length"}
        assert len({len(r.token_ids) for r in together}) > 2
        assert [r.token_ids for r in together] == [r.token_ids for r in alone]

    def test_an_ended_row_keeps_its_end_of_sequence_token_and_nothing_after(self, base: Any, eos_id: int) -> None:
        for response in run(ends_early(base, eos_id, 4.0), PROMPTS, uniforms(len(PROMPTS)), eos_id):
            assert eos_id not in response.token_ids[:-1]
            assert (response.token_ids[-1] == eos_id) == (response.finish_reason == "eos")
            assert len(response.logps) == len(response.token_ids) <= 10

    def test_any_of_several_ends_ends_a_row(self, base: Any, eos_id: int) -> None:
        """With the same numbers the tokens are the same up to the first end."""
        model, numbers = ends_early(base, eos_id, 2.0), uniforms(len(PROMPTS), 12)
        model.lm_head.bias[7] = 2.0
        ends = {eos_id, 7}
        endless = sample(model, PROMPTS, numbers, temperature=0.7, eos_ids=[], rows_per_batch=64)
        responses = sample(model, PROMPTS, numbers, temperature=0.7, eos_ids=sorted(ends), rows_per_batch=64)
        assert {r.token_ids[-1] for r in responses if r.finish_reason == "eos"} == ends
        for response, all_tokens in zip(responses, (r.token_ids for r in endless), strict=True):
            end = next((place for place, token in enumerate(all_tokens) if token in ends), len(all_tokens))
            assert response.token_ids == all_tokens[: end + 1]
            assert (response.finish_reason == "eos") == (end < len(all_tokens))

    def test_log_probs_are_those_of_a_second_pass(self, base: Any, eos_id: int) -> None:
        responses = run(base, PROMPTS, uniforms(len(PROMPTS)), eos_id)
        totals = total_logprobs(base, PROMPTS, [r.token_ids for r in responses], temperature=0.7, pad_id=eos_id)
        assert totals == pytest.approx([sum(r.logps) for r in responses], abs=1e-4)

    def test_the_same_numbers_give_the_same_samples_and_others_give_others(self, base: Any, eos_id: int) -> None:
        first, again = (run(base, PROMPTS, uniforms(len(PROMPTS)), eos_id) for _ in range(2))
        other = run(base, PROMPTS, uniforms(len(PROMPTS), seed=1), eos_id)
        assert first == again
        assert [r.token_ids for r in first] != [r.token_ids for r in other]

    def test_progress_counts_rows(self, base: Any, eos_id: int) -> None:
        done: list[int] = []
        sample(base, PROMPTS, uniforms(5), temperature=1.0, eos_ids=[eos_id], rows_per_batch=2, on_batch=done.append)
        assert done == [2, 4, 5]


def test_uniforms_depend_on_the_row_and_the_stream_not_on_the_company() -> None:
    both = common_uniforms(0, 1, ["a", "b"], 5)
    assert torch.equal(both[1:], common_uniforms(0, 1, ["b"], 5))
    assert not torch.equal(both[0], common_uniforms(0, 2, ["a"], 5)[0])
    assert ((both >= 0) & (both < 1)).all()


def test_no_uniform_number_reaches_1_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    class Edge:
        def random(self, count: int) -> Any:
            return np.full(count, 1 - 2**-40)

    monkeypatch.setattr(sampler, "numpy_generator", lambda *_: Edge())
    assert (common_uniforms(0, 1, ["a"], 3) < 1).all()


class TestDecoders:
    """The fused decoder against the library's forward pass, on every kind of model and adapter it claims to know."""

    @pytest.fixture(params=["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"])
    def family(self, request: pytest.FixtureRequest) -> Any:
        return tiny_model(request.param)

    @pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_both_decoders_give_the_same_hidden_states(self, family: Any, targets: Any, dtype: torch.dtype) -> None:
        model = adapted(family.to(dtype), targets)
        fast, slow = LlamaDecoder(model), LibraryDecoder(model)
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
        with torch.inference_mode():
            pairs = [(d.prefill(PROMPTS, 6), d) for d in (fast, slow)]
            torch.testing.assert_close(pairs[0][0], pairs[1][0], rtol=tolerance, atol=tolerance)
            for step in range(6):
                if step == 3:  # rows leave
                    for decoder in (fast, slow):
                        decoder.keep(torch.tensor([0, 2, 4]))
                tokens = torch.arange(5 if step < 3 else 3) + step
                torch.testing.assert_close(fast.step(tokens), slow.step(tokens), rtol=tolerance, atol=tolerance)

    def test_a_model_it_does_not_know_is_decoded_by_the_library(self) -> None:
        assert isinstance(make_decoder(tiny_model("Qwen3ForCausalLM")), LibraryDecoder)
        sliding = tiny_model("MistralForCausalLM", sliding_window=4)
        assert isinstance(make_decoder(sliding), LibraryDecoder)

    def test_adapters_that_are_not_our_layers_are_not_overlooked(self) -> None:
        config = lora_config(Lora(rank=4, alpha=8, target_modules="all-linear"))
        config._custom_modules = None
        assert isinstance(make_decoder(get_peft_model(tiny_model("LlamaForCausalLM"), config)), LibraryDecoder)

    def test_merging_leaves_the_base_untouched_to_the_last_bit(self, family: Any, eos_id: int) -> None:
        model = adapted(family, "all-linear")
        before = {name: p.clone() for name, p in model.named_parameters()}
        run(model, PROMPTS, uniforms(len(PROMPTS)), eos_id)
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())

    def test_on_a_bfloat16_base_a_small_update_is_not_rounded_away(self) -> None:
        """Merged, an update below half a step of bfloat16's grid would vanish."""
        model = adapted(tiny_model("LlamaForCausalLM").to(torch.bfloat16), "all-linear", scale=5e-5)
        with torch.inference_mode():
            tuned = LlamaDecoder(model).prefill(PROMPTS, 1)
            layer = model.get_base_model().model.layers[0].mlp.up_proj
            a_RI, b_OR = low_rank(layer)
            merged = (layer.weight + b_OR @ a_RI).to(torch.bfloat16)
            with model.disable_adapter():
                base = LlamaDecoder(model).prefill(PROMPTS, 1)
        assert (merged != layer.weight).float().mean() < 0.5
        assert not torch.equal(tuned, base)


class TestLogProbs:
    responses = ([20, 21, 22], [23], [24, 25], [26, 27, 28, 29], [30])

    @pytest.mark.parametrize("packed", [True, False])
    def test_are_those_of_the_models_own_logits(self, base: Any, packed: bool) -> None:
        batch = make_batch(PROMPTS, self.responses, 0, CPU, packed=packed)
        found = response_logprobs(base, batch, 0.7)
        for row, (prompt, response) in enumerate(zip(PROMPTS, self.responses, strict=True)):
            with torch.no_grad():
                logits = base(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1] / 0.7
            expected = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(response)[:, None])[:, 0]
            torch.testing.assert_close(found.logp_BT[row, : len(response)], expected, rtol=1e-4, atol=1e-5)
        assert (found.logp_BT[batch.response_mask == 0] == 0).all()
        assert (found.entropy_BT[batch.response_mask == 0] == 0).all()

    @pytest.mark.parametrize("packed", [True, False])
    def test_neither_padding_nor_what_shares_a_row_matters(self, base: Any, packed: bool) -> None:
        model = copy.deepcopy(base).double()
        prompts = [*PROMPTS, *PROMPTS]  # a prompt's two responses follow one another in its row
        responses = [*self.responses, *([token + 1 for token in ids] for ids in self.responses)]
        batch = make_batch(prompts, responses, pad_id=0, device=CPU, packed=packed)
        assert (batch.attention_mask.ndim == 4) == packed
        assert (len(batch.input_ids) < len(prompts)) == packed
        logp = response_logprobs(model, batch, 1.0).logp_BT
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            lone = make_batch([prompt], [response], pad_id=3, device=CPU, packed=packed)
            alone = response_logprobs(model, lone, 1.0).logp_BT[0]
            torch.testing.assert_close(logp[row, : len(response)], alone, rtol=1e-12, atol=1e-12)

    def test_pad_equal_to_eos_is_the_same_as_any_other_pad(self, base: Any, eos_id: int) -> None:
        ended = [[*r, eos_id] for r in self.responses]
        batches = [make_batch(PROMPTS, ended, pad, CPU, packed=True) for pad in (eos_id, 0)]
        assert all(batch.response_mask.sum().item() == sum(map(len, ended)) for batch in batches)
        assert torch.equal(*(response_logprobs(base, batch, 1.0).logp_BT for batch in batches))

    def test_totals_come_in_the_order_given(self, base: Any) -> None:
        together = total_logprobs(base, PROMPTS, self.responses, temperature=1.0, pad_id=0)
        alone = [
            total_logprobs(base, [p], [r], temperature=1.0, pad_id=0)[0]
            for p, r in zip(PROMPTS, self.responses, strict=True)
        ]
        assert together == pytest.approx(alone, abs=1e-4)


def texts_of(prompt_lengths: Sequence[int], response_lengths: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Different prompts, and responses, of given lengths."""
    prompts = [[number + 1] * length for number, length in enumerate(prompt_lengths)]
    return prompts, [[7] * length for length in response_lengths]


@pytest.mark.parametrize("packed", [True, False])
class TestLengthGroups:
    def test_every_response_once_and_no_group_above_the_budget(self, packed: bool) -> None:
        prompts, responses = texts_of([3, 9, 4, 4, 8, 2, 5], [10, 2, 30, 10, 11, 1, 29])
        groups = length_groups(prompts, responses, 45, packed=packed)
        assert sorted(row for group in groups for row in group) == list(range(7))
        for group in groups:
            batch = make_batch(*([ids[i] for i in group] for ids in (prompts, responses)), 0, CPU, packed=packed)
            assert batch.input_ids.numel() <= 45
        assert len(groups) < 7

    def test_a_text_longer_than_the_budget_is_a_group_of_its_own(self, packed: bool) -> None:
        assert length_groups(*texts_of([1, 1], [100, 1]), 10, packed=packed) == [[1], [0]]

    def test_groups_are_of_equal_size(self, packed: bool) -> None:
        groups = length_groups(*texts_of([8] * 32, [28] * 32), 1024, packed=packed)
        assert [len(group) for group in groups] == [16, 16]


class TestPacking:
    def test_a_prompt_is_read_once_for_its_responses(self) -> None:
        prompts, responses = [[1, 2, 3, 4, 5, 6]] * 3 + [[8, 9]], [[20] * 10, [21] * 10, [22] * 10, [23] * 34]
        batch = make_batch(prompts, responses, 0, CPU, packed=True)
        assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, *[20] * 10, *[21] * 10, *[22] * 10], [8, 9, *[23] * 34]]
        assert batch.position_ids[0].tolist() == [*range(6), *[*range(6, 16)] * 3]
        assert batch.num_tokens == 3 * 16 + 36

    def test_long_responses_to_one_prompt_are_not_put_into_one_row(self) -> None:
        batch = make_batch([[1]] * 4, [[20] * 2000] * 4, 0, CPU, packed=True)
        assert batch.input_ids.shape == (4, 2001)

    def test_responses_to_one_prompt_part_where_the_budget_asks_for_it(self) -> None:
        prompts, responses = [[1, 2]] * 4, [[20] * 8] * 4
        assert length_groups(prompts, responses, 34, packed=True) == [[0, 1, 2, 3]]
        assert length_groups(prompts, responses, 20, packed=True) == [[0, 1], [2, 3]]
        assert length_groups(prompts, responses, 5, packed=True) == [[0], [1], [2], [3]]

    def test_a_response_sees_its_prompt_and_itself_alone(self) -> None:
        batch = make_batch([[1, 2], [1, 2], [3]], [[20], [21], [22]], 0, CPU, packed=True)
        assert batch.input_ids.tolist() == [[1, 2, 20, 21, 3, 22]]
        seen = batch.attention_mask[0, 0].int().tolist()
        assert seen == [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 0, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1, 1],
        ]

    def test_a_text_without_tokens_has_the_state_of_its_prompt(self) -> None:
        batch = make_batch([[1, 2], [3]], [[], [20, 21]], 0, CPU, packed=True)
        assert batch.input_ids.tolist() == [[3, 20, 21, 1, 2]]
        assert batch.states.tolist() == [[4, 4, 4], [0, 1, 2]]
        assert batch.response_mask.tolist() == [[0, 0], [1, 1]]


def tiny_model(name: str, **settings: Any) -> Any:
    base_class = getattr(transformers, name)
    config = base_class.config_class(
        vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    model = base_class(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases start at 1 and 0, where much would go unnoticed
            parameter.data += 0.1 * torch.randn_like(parameter)
    fuse_layers(model)
    return model


def tiny_neox() -> Any:
    config = transformers.GPTNeoXConfig(
        vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.GPTNeoXForCausalLM(config).eval().requires_grad_(False)


def adapted(model: Any, targets: Any, scale: float = 0.2) -> Any:
    tuned = get_peft_model(model, lora_config(Lora(rank=4, alpha=8, target_modules="all-linear")))
    if targets != "all-linear":
        tuned = get_peft_model(tuned.unload(), lora_config_for(targets))
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    return tuned.eval()


def lora_config_for(targets: list[str]) -> Any:
    config = lora_config(Lora(rank=4, alpha=8, target_modules="all-linear"))
    config.target_modules = set(targets)
    return config
