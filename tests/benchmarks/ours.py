"""Our side of every measurement, through the same functions that a job calls."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.artifacts import ranking
from experiments.artifacts.ranking import RankedPrompt
from experiments.inputs.models import load_base, with_policy
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.model_spec import Model
from experiments.sampling.batch import PAD_ID
from experiments.sampling.logprobs import total_logprobs
from experiments.sampling.sampler import common_uniforms, sample
from experiments.spec import DPO, PPO, ArmJobSpec
from experiments.stages import run_stage
from tests.benchmarks import probe
from tests.benchmarks.inputs import Silent, conf, data, lora


def model(folder: Path, dtype: str) -> Model:
    """The prepared model with the default adapter."""
    return Model(path=str(folder / "model"), revision=None, dtype=dtype, lora=lora())  # type: ignore[arg-type]


def arm_job(folder: Path, arm: PPO | DPO, dtype: str, new_tokens: int, num_prompts: int) -> ArmJobSpec:
    """The job of one arm."""
    return ArmJobSpec(
        model=model(folder, dtype),
        data=data(new_tokens),
        arm=arm,
        comparisons="best_worst",
        seed=0,
        num_prompts=num_prompts,
        num_points=2,
    )


def ppo(folder: Path, cache_dir: Path, a: dict[str, Any]) -> None:
    """One PPO update per repeat, after one to warm up."""
    from experiments.arms.ppo import PPOTrainer

    arm = PPO(
        **{**conf("arm/ppo.yaml"), "num_epochs": a["num_epochs"], "prompts_per_update": a["num_prompts"]}
        | {"kl_coefficient": a["kl_coefficient"], "learning_rate": a["learning_rate"]}
    )
    spec = arm_job(folder, arm, a["dtype"], a["new_tokens"], a["num_prompts"])
    trainer = PPOTrainer(spec, arm, folder / "ranking", folder / "reward", cache_dir, Meter())
    roll_outs, updates = [], []
    for update in range(1, 2 + a["repeats"]):
        start = probe.now()
        rollouts = trainer.roll_out(trainer.prompts_of(update), update)
        middle = probe.now()
        trainer.update(rollouts, update)
        roll_outs.append(middle - start)
        updates.append(probe.now() - middle)
    seconds = [first + second for first, second in zip(roll_outs, updates, strict=True)]
    probe.emit(
        seconds[1:],
        a["num_prompts"],
        {"roll out": roll_outs[1:], "update": updates[1:]},
        warm_up_seconds=seconds[0],
        policy_dtypes=probe.dtypes(trainer.policy),
        response_tokens=trainer.meter.tokens_generated / trainer.meter.prompts_seen,
    )


def dpo(folder: Path, cache_dir: Path, a: dict[str, Any]) -> None:
    """All steps, the reference's log-probs and the set-up included.

    The reference is scored with the ranking data and serves every arm after that; here one arm pays for all of it.
    """
    from experiments.arms import dpo as arms_dpo

    arm = DPO(**{**conf("arm/dpo.yaml"), "learning_rate": a["learning_rate"], "pairs_per_step": a["pairs_per_step"]})
    num_pairs = a["num_steps"] * a["pairs_per_step"]
    spec = arm_job(folder, arm, a["dtype"], 32, num_pairs)
    ranked = ranking.load(folder / "ranking")[: a["num_distinct_pairs"]]
    base = load_base(spec.model, cache_dir)
    start = probe.now()
    ranked = with_reference(ranked, base)
    reference_seconds = probe.now() - start
    del base
    with tempfile.TemporaryDirectory() as scratch:
        start = probe.now()
        trainer = arms_dpo.make_trainer(spec, ranked, cache_dir, Path(scratch))
        middle = probe.now()
        trainer.train()
        end = probe.now()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    stages = {"reference": [reference_seconds], "set up": [middle - start], "train": [end - middle]}
    seconds = [reference_seconds + end - start]
    probe.emit(seconds, num_pairs, stages, losses=losses, policy_dtypes=probe.dtypes(trainer.model))


def with_reference(ranked: list[RankedPrompt], base: Any) -> list[RankedPrompt]:
    """The log-probs of both responses under the base, as `ranking.build` computes them."""
    prompt_ids = [prompt.prompt_ids for prompt in ranked for _ in prompt.response_ids]
    response_ids = [ids for prompt in ranked for ids in prompt.response_ids]
    logps = total_logprobs(base, prompt_ids, response_ids, temperature=1.0, pad_id=PAD_ID)
    return [replace(p, reference_logp=logps[2 * index : 2 * index + 2]) for index, p in enumerate(ranked)]


def sampler(folder: Path, cache_dir: Path, a: dict[str, Any]) -> None:
    """Responses of the policy with its adapter on."""
    spec = model(folder, a["dtype"])
    tokens, policy = Tokens.load(spec, cache_dir), with_policy(load_base(spec, cache_dir), spec.lora, 0)
    prompts = json.loads((folder / "prompts.json").read_text())[: a["rows"]]

    def draw(repeat: int, new_tokens: int) -> int:
        names = [str(row) for row in range(len(prompts))]
        responses = sample(
            policy,
            prompts,
            common_uniforms(0, repeat, names, new_tokens),
            temperature=1.0,
            eos_ids=tokens.eos_ids,
            rows_per_batch=len(prompts),
        )
        return sum(len(response.token_ids) for response in responses)

    draw(0, 4)
    seconds, tokens = [], 0
    for repeat in range(1, 1 + a["repeats"]):
        start = probe.now()
        tokens = draw(repeat, a["new_tokens"])
        seconds.append(probe.now() - start)
    probe.emit(seconds, tokens, {}, policy_dtypes=probe.dtypes(policy))


def arm(folder: Path, cache_dir: Path, a: dict[str, Any]) -> None:
    """A whole arm as the runner starts it, for its peak memory."""
    settings = conf(f"arm/{a['algorithm']}.yaml")
    chosen = PPO(**settings) if a["algorithm"] == "ppo" else DPO(**settings)
    spec = arm_job(folder, chosen, a["dtype"], conf("data/movie_reviews.yaml")["max_new_tokens"], a["num_prompts"])
    needs = {"ranking_data": folder / "ranking", "reward_model": folder / "reward", "gold": folder / "gold"}
    with tempfile.TemporaryDirectory() as scratch:
        start = probe.now()
        run_stage("arm", spec, needs, Path(scratch), cache_dir, Silent())
    probe.emit([probe.now() - start], a["num_prompts"], {})
