"""The ranking data: samples of the base for each training prompt, ordered by the measure. All algorithms learn from it.

A staged arm has its own ranking data: samples of the checkpoint that it starts from, by the same sampler and measure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from experiments.inputs import adapters as checkpoints
from experiments.inputs.models import load_base, precision, with_policy
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.records import Axes, Recorder, SampleRow
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import total_logprobs
from experiments.sampling.sampler import Response, common_uniforms, sample
from experiments.spec import FreshPairsJobSpec, RankingJobSpec
from experiments.tasks import task_of
from experiments.tasks.task import Prompt

FILE, SPENT_FILE = "ranking.parquet", "spent.json"
ROWS_PER_BATCH = 128
DPO_TEMPERATURE = 1.0  # of DPO's log-probs, independent of the sampling temperature
STREAM = 0  # of the ranking data's random numbers; evaluations use other streams


@dataclass(frozen=True)
class RankedPrompt:
    """One prompt with its samples; all lists are in the order of the samples."""

    prompt_id: str
    prompt: str
    prompt_ids: list[int]
    response_ids: list[list[int]]  # with an end-of-sequence token only if the sample ended itself
    ended: list[bool]  # whether the sample ended itself
    score: list[float]  # by the task's measure
    reference_logp: list[float]  # of each response under the base at DPO_TEMPERATURE, nats; NaN if no pair needs it

    @property
    def text_ids(self) -> list[list[int]]:
        """The responses without their end-of-sequence token."""
        return [ids[:-1] if ended else ids for ids, ended in zip(self.response_ids, self.ended, strict=True)]

    def comparisons(self, which: Literal["all", "best_worst", "none"]) -> list[tuple[int, int]]:
        """(winner, loser) indices by the measure; a tie yields no comparison."""
        if which == "none":
            return []
        if which == "best_worst":
            best, worst = self.score.index(max(self.score)), self.score.index(min(self.score))
            return [(best, worst)] if self.score[best] > self.score[worst] else []
        pairs = [
            (a, b) if self.score[a] > self.score[b] else (b, a) for a, b in combinations(range(len(self.score)), 2)
        ]
        return [(winner, loser) for winner, loser in pairs if self.score[winner] > self.score[loser]]


@dataclass(frozen=True)
class Samples:
    """The samples of all prompts; all lists are in the same order, prompt by prompt."""

    rows: list[tuple[Prompt, int]]  # the prompt and the number of the sample
    prompt_ids: list[list[int]]
    responses: list[Response]
    frame: pd.DataFrame  # the table to save, without the reference's log-probs
    texts: list[str]  # the responses as text
    measure: str  # name of the score that ranks them
    scores: list[dict[str, float]]  # of each response, by the name of the card; the training reward's is NaN


def build(spec: RankingJobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder) -> None:
    """Sample the base and rank its samples by the task's measure.

    DPO's reference log-probs are the sampler's own if those are the same numbers. That holds at DPO's temperature in
    float32 or more, when sampling and scoring agree (to 8e-6 nats a token, as PPO arms measured in float32). Otherwise
    a forward pass computes them.
    """
    meter, data = Meter(), spec.data
    tokens, base = Tokens.load(spec.model, cache_dir), load_base(spec.model, cache_dir)
    samples = _sample(spec, base, tokens, needs["measure"], data.seed, "sample the base", recorder)
    frame, responses = samples.frame, samples.responses
    if data.temperature == DPO_TEMPERATURE and base.dtype == precision(base.dtype):
        frame["reference_logp"] = [math.fsum(response.logps) for response in responses]
    else:
        used = _rows_for_dpo(frame, data.comparisons)
        recorder.progress("score the pairs under the base", 0, len(used), "responses")
        frame.loc[used, "reference_logp"] = total_logprobs(
            base,
            [samples.prompt_ids[row] for row in used],
            [responses[row].token_ids for row in used],
            temperature=DPO_TEMPERATURE,
            pad_id=PAD_ID,
        )
    _save(samples, folder, meter, recorder, is_base=True)


def build_fresh(
    spec: FreshPairsJobSpec, needs: Mapping[str, Path], folder: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Sample the checkpoint that a staged arm starts from, and rank its samples by the task's measure.

    The trainer computes the reference's log-probs, because its own policy is the reference.
    """
    meter = Meter()
    tokens = Tokens.load(spec.model, cache_dir)
    policy = with_policy(load_base(spec.model, cache_dir), spec.model.lora, seed=0)
    checkpoints.load(policy, checkpoints.weights_file(needs["start"], spec.start_point))
    samples = _sample(spec, policy, tokens, needs["measure"], spec.seed, "sample the checkpoint", recorder)
    samples.frame["reference_logp"] = math.nan
    _save(samples, folder, meter, recorder, is_base=False)
    (folder / SPENT_FILE).write_text(json.dumps(asdict(meter.axes())))


def load_spent(folder: Path) -> Axes:
    """What `build_fresh` had spent."""
    return Axes(**json.loads((folder / SPENT_FILE).read_text()))


def _sample(
    spec: RankingJobSpec, model: Any, tokens: Tokens, measure_folder: Path, seed: int, stage: str, recorder: Recorder
) -> Samples:
    """Sample `model` on the training prompts, with random numbers of `seed`, and score the samples."""
    data, task = spec.data, task_of(spec.data)
    scorers, prompts = task.work.scorers(measure_folder), task.work.prompts(data, "train", spec.num_ranking_prompts)
    rows = [(prompt, index) for prompt in prompts for index in range(data.samples_per_prompt)]
    prompt_ids = [tokens.prompt_ids(prompt.text) for prompt, _ in rows]
    names = [f"{prompt.prompt_id}/{index}" for prompt, index in rows]
    responses = sample(
        model,
        prompt_ids,
        common_uniforms(seed, STREAM, names, data.max_new_tokens),
        temperature=data.temperature,
        eos_ids=tokens.eos_ids,
        rows_per_batch=ROWS_PER_BATCH,
        on_batch=lambda done: recorder.progress(stage, done, len(rows), "responses"),
    )
    texts = tokens.response_texts(prompt_ids, [response.token_ids for response in responses])
    whole = [task.work.render(prompt.text, text) for (prompt, _), text in zip(rows, texts, strict=True)]
    scores = task.score_all(scorers, whole, [math.nan] * len(whole))
    frame = pd.DataFrame(
        {
            "prompt_id": [prompt.prompt_id for prompt, _ in rows],
            "prompt": [prompt.text for prompt, _ in rows],
            "prompt_ids": prompt_ids,
            "response_ids": [response.token_ids for response in responses],
            "ended": [response.finish_reason == "eos" for response in responses],
            "score": [score[task.measure] for score in scores],
        }
    )
    return Samples(rows, prompt_ids, responses, frame, texts, task.measure, scores)


def _save(samples: Samples, folder: Path, meter: Meter, recorder: Recorder, is_base: bool) -> None:
    """Write the samples and their cost."""
    meter.tokens_generated = sum(len(response.token_ids) for response in samples.responses)
    samples.frame.to_parquet(folder / FILE)
    recorder.samples(0, _sample_rows(samples, is_base))
    recorder.metrics("artifact", _summary(load(folder), samples.frame, samples.measure), meter.axes())


def _sample_rows(samples: Samples, is_base: bool) -> list[SampleRow]:
    """The samples as ledger rows, with the base's log-probs of what the arms learn from; there is no reward yet."""
    logps = [sum(response.logps) for response in samples.responses]
    return [
        SampleRow(
            prompt_id=prompt.prompt_id,
            sample_id=index,
            stream=STREAM,
            prompt=prompt.text,
            response=samples.texts[i],
            num_tokens=len(samples.responses[i].token_ids),
            finish_reason=samples.responses[i].finish_reason,
            logp_policy=logps[i],
            logp_base=logps[i] if is_base else math.nan,
            scores=samples.scores[i],
        )
        for i, (prompt, index) in enumerate(samples.rows)
    ]


def load(folder: Path) -> list[RankedPrompt]:
    """The prompts that `build` wrote, in the same order."""
    frame = pd.read_parquet(folder / FILE)
    return [
        RankedPrompt(
            str(prompt_id),
            str(group["prompt"].iloc[0]),
            group["prompt_ids"].iloc[0].tolist(),
            [ids.tolist() for ids in group["response_ids"]],
            group["ended"].tolist(),
            group["score"].tolist(),
            group["reference_logp"].tolist(),
        )
        for prompt_id, group in frame.groupby("prompt_id", sort=False)
    ]


def _rows_for_dpo(frame: pd.DataFrame, comparisons: Literal["per_arm", "all", "best_worst"]) -> list[int]:
    """Row numbers of the samples in DPO's pairs."""
    if comparisons == "all":
        return list(range(len(frame)))
    by_prompt = frame.groupby("prompt_id", sort=False)["score"]
    return sorted({*by_prompt.idxmax(), *by_prompt.idxmin()})


def _summary(ranked: Sequence[RankedPrompt], frame: pd.DataFrame, measure: str) -> dict[str, float]:
    all_pairs = sum(len(prompt.score) * (len(prompt.score) - 1) // 2 for prompt in ranked)
    return {
        "ranking_data/num_prompts": len(ranked),
        "ranking_data/num_samples": len(frame),
        f"ranking_data/{measure}_mean": float(frame["score"].mean()),
        f"ranking_data/{measure}_spread": float(
            frame.groupby("prompt_id")["score"].agg(lambda score: score.max() - score.min()).mean()
        ),
        "ranking_data/num_ties": all_pairs - sum(len(prompt.comparisons("all")) for prompt in ranked),
    }
