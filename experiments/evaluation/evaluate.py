"""The shared evaluation: the same prompts, random numbers, decoding and judges for the base and every arm's points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from peft import PeftModel

from experiments.artifacts.text_reward import attach
from experiments.evaluation.embedder import SentenceEncoder
from experiments.inputs import adapters as checkpoints
from experiments.inputs.models import load_base, precision, reference, with_policy
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.records import SAMPLES_FILE, Axes, Recorder, SampleRow, from_record
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import total_logprobs
from experiments.sampling.sampler import Response, common_uniforms, sample
from experiments.spec import BaseEvaluationJobSpec, EvaluationJobSpec
from experiments.tasks import task_of
from experiments.tasks.task import Prompt


class Evaluator:
    """A base with two adapters (the evaluated policy and the reward model), and the evaluation prompts."""

    def __init__(self, spec: EvaluationJobSpec, measure_folder: Path, reward_folder: Path, cache_dir: Path) -> None:
        self.spec = spec
        self.tokens = Tokens.load(spec.model, cache_dir)
        self.policy: PeftModel = with_policy(load_base(spec.model, cache_dir), spec.model.lora, seed=0)
        self.reward = attach(self.policy, spec.model, reward_folder, self.tokens.eos_ids)
        self.task = task_of(spec.data)
        self.scorers = self.task.work.scorers(measure_folder)
        self.encoder = SentenceEncoder.load(spec.evaluation.embedder) if spec.evaluation.embedder else None
        self.ask(spec.samples_per_prompt)
        self.drawn, self.to_draw = 0, len(self.rows)  # responses, over all calls of `evaluate`

    def ask(self, samples_per_prompt: int) -> None:
        """Choose how many responses `evaluate` draws for each prompt."""
        self.rows: list[tuple[Prompt, int]] = [
            (prompt, index)
            for prompt in self.task.work.prompts(self.spec.data, "evaluation", self.spec.num_prompts)
            for index in range(samples_per_prompt)
        ]
        self.prompt_ids = [self.tokens.prompt_ids(prompt.text) for prompt, _ in self.rows]

    def load_adapter(self, weights: Path) -> None:
        """Make a saved adapter the policy. Until this is called, the policy is the base."""
        checkpoints.load(self.policy, weights)

    def evaluate(self, stream: int, recorder: Recorder, stage: str, is_base: bool = False) -> list[SampleRow]:
        """Sample every row with the common random numbers of `stream`, and score it. The base's KL is 0."""
        data = self.spec.data
        recorder.progress(stage, self.drawn, self.to_draw, "responses")
        names = [f"{prompt.prompt_id}/{index}" for prompt, index in self.rows]
        responses = sample(
            self.policy,
            self.prompt_ids,
            common_uniforms(self.spec.evaluation.seed, stream, names, data.max_new_tokens),
            temperature=data.temperature,
            eos_ids=self.tokens.eos_ids,
            rows_per_batch=self.spec.evaluation.rows_per_batch,
            on_batch=lambda done: recorder.progress(stage, self.drawn + done, self.to_draw, "responses"),
        )
        self.drawn += len(self.rows)
        return self._rows(responses, stream, is_base)

    def embed(self, point: int, rows: Sequence[SampleRow], recorder: Recorder) -> None:
        """Record embeddings of the responses, without their prompts, if an embedder was chosen."""
        if self.encoder:
            texts = [row["response"] for row in rows]
            recorder.embeddings(point, rows, self.encoder.embed(texts, self.spec.evaluation.rows_per_batch))

    def _rows(self, responses: Sequence[Response], stream: int, is_base: bool) -> list[SampleRow]:
        response_ids = [response.token_ids for response in responses]
        logp_policy = self._logps_under_the_policy(responses)
        logp_base = logp_policy if is_base else self._logps_under_the_base(response_ids)
        texts = self.tokens.response_texts(self.prompt_ids, response_ids)
        render = self.task.work.render
        whole = [render(prompt.text, text) for (prompt, _), text in zip(self.rows, texts, strict=True)]
        rewards = self.reward.score_all(self.prompt_ids, response_ids, whole)
        scores = self.task.score_all(self.scorers, whole, rewards)
        return [
            SampleRow(
                prompt_id=prompt.prompt_id,
                sample_id=index,
                stream=stream,
                prompt=prompt.text,
                response=texts[i],
                num_tokens=len(responses[i].token_ids),
                finish_reason=responses[i].finish_reason,
                logp_policy=logp_policy[i],
                logp_base=logp_base[i],
                scores=scores[i],
            )
            for i, (prompt, index) in enumerate(self.rows)
        ]

    def _logps_under_the_policy(self, responses: Sequence[Response]) -> list[float]:
        """The sampler's log-probs in float32 or more, because a pass gives the same numbers; otherwise those of a pass.

        In half precision the two are rounded differently. KL is the difference of two log-probs, so both come from the
        same kind of pass. On 1,024 responses of SmolLM2-135M in bfloat16 the sampler gave 0.045 ± 0.019 nats a response
        more than a pass (95 % interval), under the base and under trained policies alike.
        """
        if self.policy.dtype == precision(self.policy.dtype):
            return [sum(response.logps) for response in responses]
        return self._pass([response.token_ids for response in responses])

    def _logps_under_the_base(self, response_ids: Sequence[Sequence[int]]) -> list[float]:
        with reference(self.policy):
            return self._pass(response_ids)

    def _pass(self, response_ids: Sequence[Sequence[int]]) -> list[float]:
        """Log-prob of each row's response under the model with its active adapters, nats."""
        return total_logprobs(
            self.policy,
            self.prompt_ids,
            response_ids,
            temperature=self.spec.data.temperature,
            pad_id=PAD_ID,
        )


def evaluate_base(
    spec: BaseEvaluationJobSpec, needs: Mapping[str, Path], _: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Evaluate the base, which is point 0 of every arm.

    It is sampled with two sets of random numbers, because base against base is the noise floor of every distance. The
    further samples, from a third set, show how good the best of several responses is before any training.
    """
    meter = Meter()
    evaluator = Evaluator(spec, needs["measure"], needs["reward_model"], cache_dir)
    evaluator.to_draw = (2 * spec.samples_per_prompt + spec.further_samples_per_prompt) * spec.num_prompts
    rows = [evaluator.evaluate(stream, recorder, f"base, random numbers {stream}", is_base=True) for stream in (1, 2)]
    if spec.further_samples_per_prompt:
        evaluator.ask(spec.further_samples_per_prompt)
        rows.append(evaluator.evaluate(3, recorder, "base, further samples", is_base=True))
    everything = [row for some in rows for row in some]
    recorder.samples(0, everything)
    evaluator.embed(0, [*rows[0], *rows[1]], recorder)
    meter.tokens_generated = sum(row["num_tokens"] for row in everything)
    recorder.metrics("evaluation", summarise(rows[0]), Axes(), point=0)
    recorder.metrics("artifact", {}, meter.axes())


def evaluate_arm(
    spec: EvaluationJobSpec, needs: Mapping[str, Path], _: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Evaluate every saved adapter of an arm. A row's axes are the arm's cost up to that point, not the evaluation's.

    Points inherited from another arm are copied from that arm's evaluation, the need `start_evaluation`.
    """
    evaluator = Evaluator(spec, needs["measure"], needs["reward_model"], cache_dir)
    arm_folder, start_evaluation = needs["arm"], needs.get("start_evaluation")
    points, num_inherited = checkpoints.points(arm_folder), checkpoints.inherited_points(arm_folder)
    evaluator.to_draw *= len(points) - num_inherited
    for point in points:
        if start_evaluation and point <= num_inherited:
            records: list[Any] = pd.read_parquet(start_evaluation / SAMPLES_FILE.format(point=point)).to_dict("records")
            rows = list(map(from_record, records))
        else:
            evaluator.load_adapter(checkpoints.weights_file(arm_folder, point))
            rows = evaluator.evaluate(1, recorder, f"point {point} of {points[-1]}")
        recorder.samples(point, rows)
        if point == points[-1]:
            evaluator.embed(point, rows, recorder)
        recorder.metrics("evaluation", summarise(rows), checkpoints.load_axes(arm_folder, point), point=point)


def summarise(rows: Sequence[SampleRow]) -> dict[str, float]:
    """Means over responses. KL is the k1 estimate, summed over a response's tokens (and also per token), nats."""
    kl: list[Any] = [row["logp_policy"] - row["logp_base"] for row in rows]
    tokens = sum(row["num_tokens"] for row in rows)
    return {
        **{
            f"evaluation/{name}_mean": sum(row["scores"][name] for row in rows) / len(rows)
            for name in rows[0]["scores"]
        },
        "evaluation/kl": sum(kl) / len(rows),
        "evaluation/kl_per_token": sum(kl) / tokens,
        "evaluation/response_tokens": tokens / len(rows),
        "evaluation/eos_fraction": sum(row["finish_reason"] == "eos" for row in rows) / len(rows),
    }
