"""The judge's job on evaluations that were written by hand, and by real models."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from experiments.errors import InputError
from experiments.evaluation.judging import reward_model
from experiments.evaluation.judging.pairs import contests, final_samples, make_pairs
from experiments.inputs.fingerprint import reward_model_fingerprint
from experiments.inputs.models import prepare_model
from experiments.judge_spec import EndpointJudge, RewardModelJudge
from experiments.model_spec import Model
from experiments.spec import Contest, JudgedRun, JudgementJobSpec
from experiments.stages import run_stage
from experiments.tasks.sentiment import TASK

RUNS = tuple(JudgedRun(arm=arm, seed=seed) for arm in ("ppo", "dpo") for seed in (0, 1))
CONTESTS = (Contest(arm="ppo", opponent="dpo"), Contest(arm="ppo", opponent="failed"))


def write_samples(folder: Path, point: int, length: int, num_prompts: int = 3) -> Path:
    """Responses of `length` words; stream 2 must never be judged."""
    rows = [
        {
            "prompt_id": f"p{prompt}",
            "sample_id": sample,
            "stream": stream,
            "prompt": f"The film {prompt}",
            "response": " ".join(["word"] * length) if stream == 1 else "never",
            "score/gold": 0.1 * prompt + 0.01 * sample,
            "score/proxy": 0.2 * prompt - 0.05 * sample,
        }
        for stream in (1, 2)
        for prompt in reversed(range(num_prompts))
        for sample in (1, 0)
    ]
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / "samples" / f"point_{point}.parquet")
    return folder


@pytest.fixture
def needs(tmp_path: Path, artifacts: dict[str, Path]) -> dict[str, Path]:
    """PPO writes the longest responses, the base the shortest."""
    folders = {"base_evaluation": write_samples(tmp_path / "base", 0, 2), "reward_model": artifacts["reward_model"]}
    for run in RUNS:
        folder = write_samples(tmp_path / run.role, 2, 1)
        folders[run.role] = write_samples(folder, 10, 6 if run.arm == "ppo" else 4)  # the last point is not "2"
    return folders


@pytest.fixture
def run_judge(
    needs: dict[str, Path], tiny: Model, tmp_path: Path, cache_dir: Path, recorder: Any
) -> Callable[..., list[Any]]:
    def run(judge: EndpointJudge | RewardModelJudge, without: tuple[str, ...] = ()) -> list[Any]:
        spec = JudgementJobSpec(task="sentiment", model=tiny, judge=judge, runs=RUNS, contests=CONTESTS)
        folder = tmp_path / "judge"
        folder.mkdir(exist_ok=True)
        there = {role: path for role, path in needs.items() if role not in without}
        run_stage(
            "judgement", spec, there, folder, cache_dir if isinstance(judge, RewardModelJudge) else tmp_path, recorder
        )
        return recorder.preference_rows  # type: ignore[no-any-return]

    return run


def test_every_arm_meets_the_base_and_its_opponents_of_the_same_seed_that_finished() -> None:
    met = [(c.arm.arm, c.arm.seed, c.opponent.arm if c.opponent else "base") for c in contests(RUNS, CONTESTS)]

    assert met == [
        ("ppo", 0, "base"),
        ("ppo", 1, "base"),
        ("dpo", 0, "base"),
        ("dpo", 1, "base"),
        ("ppo", 0, "dpo"),
        ("ppo", 1, "dpo"),
    ]


def test_pairs_come_prompt_by_prompt_and_within_the_limit_on_samples(needs: dict[str, Path]) -> None:
    folders = {"base": needs["base_evaluation"], **{run.role: needs[run.role] for run in RUNS}}
    pairs = make_pairs({role: final_samples(path, 1) for role, path in folders.items()}, RUNS, CONTESTS)

    assert [(pair.prompt_id, pair.sample_id) for pair in pairs] == [(f"p{i}", 0) for i in range(3) for _ in range(6)]
    assert {(pair.arm, len(pair.ours.split())) for pair in pairs} == {("ppo", 6), ("dpo", 4)}
    assert {(pair.opponent, len(pair.theirs.split())) for pair in pairs} == {("base", 2), ("dpo", 4)}


def test_an_endpoint_judges_what_finished(
    run_judge: Callable[..., list[Any]], endpoint_judge: Any, chat_server: Any, recorder: Any, tmp_path: Path
) -> None:
    rows = run_judge(endpoint_judge(max_samples_per_prompt=2), without=("dpo/seed1/evaluation",))

    assert len(rows) == 3 * 2 * 4  # prompts x samples x (three arms against the base, one PPO against DPO)
    assert {row["score"] for row in rows} == {1.0}
    assert {(row["arm"], row["opponent"], row["seed"]) for row in rows} == {
        ("ppo", "base", 0),
        ("ppo", "base", 1),
        ("dpo", "base", 0),
        ("ppo", "dpo", 0),
    }
    assert recorder.values("judge/num_pairs") == [24]
    assert recorder.values("judge/num_missing") == [0]
    assert recorder.values("judge/preference_ppo_vs_dpo") == [1.0]
    facts = json.loads((tmp_path / "judge" / "judge.json").read_text())
    assert facts["relation"] == "INDEPENDENT"
    assert facts["currency"] == "EUR"


def test_missing_verdicts_are_counted_by_reason(
    run_judge: Callable[..., list[Any]], endpoint_judge: Any, chat_server: Any, chat: Any, recorder: Any
) -> None:
    chat_server.judge = lambda asked: chat.Reply("perhaps" if asked.blocks["TEXT"].endswith("1") else "tie")
    rows = run_judge(endpoint_judge())

    assert sum(math.isnan(row["score"]) for row in rows) == 6
    assert recorder.values("judge/num_missing") == recorder.values("judge/num_missing_no_verdict") == [6]


def test_evaluations_of_other_prompts_are_refused(
    run_judge: Callable[..., list[Any]], endpoint_judge: Any, needs: dict[str, Path]
) -> None:
    write_samples(needs["ppo/seed0/evaluation"], 10, 6, num_prompts=2)

    with pytest.raises(InputError, match="ppo/seed0/evaluation: other prompts or samples"):
        run_judge(endpoint_judge())


# ------------------------------------------------------------------------------------------------------- reward models
@pytest.fixture
def classifier(tiny: Model, cache_dir: Path, tmp_path: Path) -> Path:
    """A random sequence classifier with one output, of another shape than the base."""
    folder = tmp_path / "classifier"
    base = prepare_model(tiny, cache_dir)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig.from_pretrained(base)
    config.num_labels, config.num_hidden_layers, config.hidden_size = 1, 1, 16
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def settings(path: Path, **changes: Any) -> RewardModelJudge:
    defaults = {"path": str(path), "chat_template": False, "max_samples_per_prompt": 2, "tie_band": 0.1}
    return RewardModelJudge.model_validate(defaults | changes)


@pytest.mark.parametrize(
    ("ours", "theirs", "band", "expected"),
    [(1.0, 0.0, 0.5, 1.0), (0.0, 1.0, 0.5, 0.0), (0.4, 0.0, 0.5, 0.5), (0.5, 0.0, 0.5, 1.0), (2.0, 2.0, 0.0, 0.5)],
)
def test_the_tie_band_by_hand(ours: float, theirs: float, band: float, expected: float) -> None:
    assert reward_model.preference(ours, theirs, band) == expected


def test_a_score_that_is_no_number_is_missing() -> None:
    assert math.isnan(reward_model.preference(float("nan"), 0.0, 0.1))
    assert math.isnan(reward_model.preference(float("inf"), float("inf"), 0.1))


def test_a_classifier_scores_texts_alone_as_it_does_in_a_batch(classifier: Path, cache_dir: Path) -> None:
    score = reward_model.load_scorer(settings(classifier), TASK, cache_dir)
    prompts, responses = ["a b", "the film", "x"], [" c", " was long and winding", ""]
    alone = [score([prompt], [response])[0] for prompt, response in zip(prompts, responses, strict=True)]

    assert score(prompts, responses) == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == 3


def test_a_classifier_judges_and_is_compared_with_the_training_reward(
    classifier: Path, run_judge: Callable[..., list[Any]], recorder: Any, tmp_path: Path, cache_dir: Path
) -> None:
    rows = run_judge(settings(classifier, tie_band=0.0))
    score = reward_model.load_scorer(settings(classifier), TASK, cache_dir)
    row = next(row for row in rows if (row["arm"], row["opponent"], row["prompt_id"]) == ("ppo", "dpo", "p1"))
    ours, theirs = score(["The film 1"] * 2, ["word word word word word word", "word word word word"])

    assert row["score"] == float(ours > theirs)
    assert {row["ours_first"] for row in rows} == {""}
    assert json.loads((tmp_path / "judge" / "judge.json").read_text())["relation"] == "INDEPENDENT"
    (correlation,) = recorder.values("judge/proxy_correlation")
    assert -1 <= recorder.values("judge/proxy_correlation_low")[0] <= correlation <= 1


def test_the_training_reward_as_a_judge_is_labelled_so(
    artifacts: dict[str, Path], tiny: Model, run_judge: Callable[..., list[Any]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifacts["reward_model"], copy)
    spec = {"task": "sentiment", "model": tiny.model_dump(), "comparisons": "all", "seed": 0}
    spec["reward_model"] = {
        "learning_rate": 1e-3,
        "num_epochs": 2,
        "comparisons_per_step": 12,
        "held_out_fraction": 0.25,
    }
    (copy / "spec.json").write_text(json.dumps({"spec": spec}))
    rows = run_judge(settings(copy))

    assert {row["score"] for row in rows} <= {0.0, 0.5, 1.0}
    assert json.loads((tmp_path / "judge" / "judge.json").read_text())["relation"] == "IS THE TRAINING REWARD"


def test_our_own_reward_model_gives_as_a_judge_the_scores_of_the_evaluation(
    artifacts: dict[str, Path], tiny: Model, tmp_path: Path, cache_dir: Path, base_evaluation_job: Any, recorder: Any
) -> None:
    run_stage("base_evaluation", base_evaluation_job, artifacts, tmp_path, cache_dir, recorder)
    copy = tmp_path / "copy"
    shutil.copytree(artifacts["reward_model"], copy)
    spec = {"task": "sentiment", "model": tiny.model_dump(), "comparisons": "all", "seed": 0}
    spec["reward_model"] = {
        "learning_rate": 1e-3,
        "num_epochs": 2,
        "comparisons_per_step": 12,
        "held_out_fraction": 0.25,
    }
    (copy / "spec.json").write_text(json.dumps({"spec": spec}))
    rows = [row for row in recorder.sample_rows[0] if row["response"].isascii() and row["response"]]
    score = reward_model.load_scorer(settings(copy), TASK, cache_dir)

    scores = score([row["prompt"] for row in rows], [row["response"] for row in rows])
    assert scores == pytest.approx([row["scores"]["proxy"] for row in rows], abs=1e-4)


def test_a_folder_that_is_no_reward_model_is_refused_and_one_that_changed_is_another(
    classifier: Path, tmp_path: Path, cache_dir: Path
) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        reward_model_fingerprint(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"judge.reward_model.path=.*no config.json"):
        reward_model_fingerprint(str(tmp_path))
    before = reward_model_fingerprint(str(classifier))
    config = json.loads((classifier / "config.json").read_text())
    (classifier / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    assert reward_model_fingerprint(str(classifier)) != before
    with pytest.raises(InputError, match="it has 2 outputs"):
        reward_model.load_scorer(settings(classifier), TASK, cache_dir)


def test_a_base_without_a_trained_head_is_refused(tiny: Model, tmp_path: Path, cache_dir: Path) -> None:
    folder = tmp_path / "base_model"
    shutil.copytree(prepare_model(tiny, cache_dir), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "score"}, "label2id": {"score": 0}}))

    with pytest.raises(InputError, match="it was never trained"):
        reward_model.load_scorer(settings(folder), TASK, cache_dir)


def test_a_chat_template_that_is_not_there_is_missed(classifier: Path, cache_dir: Path) -> None:
    with pytest.raises(InputError, match="its tokenizer has none"):
        reward_model.load_scorer(settings(classifier, chat_template=True), TASK, cache_dir)


def test_with_a_chat_template_prompt_and_response_are_turns(classifier: Path, cache_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
    tokenizer.save_pretrained(classifier)
    plain = reward_model.load_scorer(settings(classifier), TASK, cache_dir)
    chat = reward_model.load_scorer(settings(classifier, chat_template=True), TASK, cache_dir)

    assert chat(["p"], ["r"]) == pytest.approx(plain(["u:p;a:r;"], [""]))
    assert not np.allclose(chat(["p"], ["r"]), plain(["p"], ["r"]))
