from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.inputs.models import load_base, load_tokenizer
from experiments.sampling.batch import make_batch
from experiments.sampling.logprobs import entropy, log_distribution, response_logps, total_logps
from experiments.sampling.sampler import Response, common_uniforms, draw, sample
from experiments.spec import Model

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [5, 5], [70, 71, 72, 73]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny: Model, cache_dir: Path) -> Any:
    return load_base(tiny, cache_dir)


@pytest.fixture(scope="module")
def eos_id(tiny: Model, cache_dir: Path) -> int:
    return int(load_tokenizer(tiny, cache_dir).eos_token_id)


def run(
    base: Any, prompts: list[list[int]], uniforms: torch.Tensor, eos_id: int, rows_per_batch: int = 64
) -> list[Response]:
    return sample(base, prompts, uniforms, temperature=0.7, eos_id=eos_id, rows_per_batch=rows_per_batch)


def uniforms(num_rows: int, num_steps: int = 10, seed: int = 0) -> torch.Tensor:
    return common_uniforms(seed, 1, [str(row) for row in range(num_rows)], num_steps)


class EndsEarly:
    """A base whose end-of-sequence logit is raised, so that rows end at different steps."""

    def __init__(self, base: Any, eos_id: int, bonus: float) -> None:
        self.base, self.eos_id, self.bonus = base, eos_id, bonus
        self.device, self.config, self.dtype = base.device, base.config, base.dtype

    def __call__(self, **inputs: Any) -> Any:
        logits = self.base(**inputs).logits.clone()
        logits[..., self.eos_id] += self.bonus
        return SimpleNamespace(logits=logits)


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
    def test_a_row_does_not_depend_on_its_batch_in_float32(self, base: Any, eos_id: int) -> None:
        numbers = uniforms(len(PROMPTS))
        together = run(base, PROMPTS, numbers, eos_id)
        alone = run(base, PROMPTS, numbers, eos_id, rows_per_batch=1)
        reordered = run(base, PROMPTS[::-1], numbers.flip(0), eos_id, rows_per_batch=2)[::-1]
        assert [r.token_ids for r in together] == [r.token_ids for r in alone] == [r.token_ids for r in reordered]

    def test_rows_that_end_leave_the_batch_and_change_nothing(self, base: Any, eos_id: int) -> None:
        model = EndsEarly(base, eos_id, bonus=2.5)
        numbers = uniforms(len(PROMPTS))
        together = run(model, PROMPTS, numbers, eos_id)
        alone = run(model, PROMPTS, numbers, eos_id, rows_per_batch=1)
        assert {r.finish_reason for r in together} == {"eos", "length"}
        assert len({len(r.token_ids) for r in together}) > 2
        assert [r.token_ids for r in together] == [r.token_ids for r in alone]

    def test_an_ended_row_keeps_its_end_of_sequence_token_and_nothing_after(self, base: Any, eos_id: int) -> None:
        for response in run(EndsEarly(base, eos_id, 4.0), PROMPTS, uniforms(len(PROMPTS)), eos_id):
            assert eos_id not in response.token_ids[:-1]
            assert (response.token_ids[-1] == eos_id) == (response.finish_reason == "eos")
            assert len(response.logps) == len(response.token_ids) <= 10

    def test_log_probs_are_those_of_a_second_pass(self, base: Any, eos_id: int) -> None:
        responses = run(base, PROMPTS, uniforms(len(PROMPTS)), eos_id)
        totals = total_logps(base, PROMPTS, responses, temperature=0.7, pad_id=eos_id, rows_per_batch=2)
        assert totals == pytest.approx([sum(r.logps) for r in responses], abs=1e-4)

    def test_the_same_numbers_give_the_same_samples_and_others_give_others(self, base: Any, eos_id: int) -> None:
        first, again = (run(base, PROMPTS, uniforms(len(PROMPTS)), eos_id) for _ in range(2))
        other = run(base, PROMPTS, uniforms(len(PROMPTS), seed=1), eos_id)
        assert first == again
        assert [r.token_ids for r in first] != [r.token_ids for r in other]

    def test_progress_counts_rows(self, base: Any, eos_id: int) -> None:
        done: list[int] = []
        sample(base, PROMPTS, uniforms(5), temperature=1.0, eos_id=eos_id, rows_per_batch=2, on_batch=done.append)
        assert done == [2, 4, 5]


def test_uniforms_depend_on_the_row_and_the_stream_not_on_the_company() -> None:
    both = common_uniforms(0, 1, ["a", "b"], 5)
    assert torch.equal(both[1:], common_uniforms(0, 1, ["b"], 5))
    assert not torch.equal(both[0], common_uniforms(0, 2, ["a"], 5)[0])
    assert ((both >= 0) & (both < 1)).all()


class TestLogProbs:
    responses = ([20, 21, 22], [23], [24, 25], [26, 27, 28, 29], [30])

    def test_padding_and_batching_do_not_matter(self, base: Any) -> None:
        base = base.double()
        try:
            together = make_batch(PROMPTS, self.responses, pad_id=0, device=CPU, width=9)
            logp = response_logps(base, together, 1.0) * together.response_mask
            for row, (prompt, response) in enumerate(zip(PROMPTS, self.responses, strict=True)):
                alone = make_batch([prompt], [response], pad_id=3, device=CPU)
                torch.testing.assert_close(
                    logp[row, : len(response)], response_logps(base, alone, 1.0)[0], rtol=1e-12, atol=1e-12
                )
        finally:
            base.float()

    def test_pad_equal_to_eos_is_the_same_as_any_other_pad(self, base: Any, eos_id: int) -> None:
        ended = [[*r, eos_id] for r in self.responses]
        logps = []
        for pad in (eos_id, 0):
            batch = make_batch(PROMPTS, ended, pad, CPU)
            assert batch.response_mask.sum().item() == sum(map(len, ended))
            logps.append(response_logps(base, batch, 1.0) * batch.response_mask)
        assert torch.equal(*logps)

    def test_entropy_of_a_uniform_distribution_is_log_v(self) -> None:
        logp = torch.full((1, 2, 7), 1 / 7).log()
        torch.testing.assert_close(entropy(logp), torch.full((1, 2), 7.0).log())

    def test_temperature_divides_the_logits(self, base: Any) -> None:
        batch = make_batch(PROMPTS, self.responses, 0, CPU)
        hot = log_distribution(base, batch, 2.0)
        expected = torch.log_softmax(log_distribution(base, batch, 1.0) / 2, dim=-1)
        torch.testing.assert_close(hot, expected)
