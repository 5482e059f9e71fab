"""The reward-model judge: it scores every response alone, and of two responses prefers the higher score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from experiments.artifacts.reward_scorer import RewardScorer
from experiments.errors import InputError
from experiments.evaluation.judging.independence import Origin, folder_origin
from experiments.evaluation.judging.judgement import Judgement, preference_row
from experiments.evaluation.judging.pairs import BASE, KEYS, STREAM, Pair
from experiments.inputs import planned
from experiments.inputs.fingerprint import JUDGE, is_our_reward_model, our_reward_model_base
from experiments.inputs.model_files import local_folder
from experiments.inputs.models import device, load_base, with_policy
from experiments.inputs.tokens import Tokens
from experiments.intervals import with_interval
from experiments.judge_spec import RewardModelJudge
from experiments.records import SCORE_PREFIX, Recorder
from experiments.seeding import numpy_generator
from experiments.tasks.task import TRAINING_REWARD, Task

Scores = NDArray[np.float64]
Scorer = Callable[[Sequence[str], Sequence[str]], list[float]]  # prompts, responses -> scores
ROWS_PER_CALL = 64  # responses between two reports of progress


def origin(judge: RewardModelJudge) -> Origin:
    """Its origin, as far as its folder tells."""
    return folder_origin(local_folder(judge.path, JUDGE), judge.path.partition("@")[0])


def judge_pairs(
    judge: RewardModelJudge,
    pairs: Sequence[Pair],
    cache_dir: Path,
    recorder: Recorder,
    task: Task,
    samples: Mapping[str, pd.DataFrame],
) -> Judgement:
    """Score the samples of every model once, and compare.

    Args:
        judge: the weights, and what counts as a tie.
        pairs: made of the samples.
        cache_dir: folder of converted models.
        recorder: for progress.
        task: whose responses they are.
        samples: role of an evaluation, or "base" -> its final samples.

    Raises:
        InputError: the folder holds no usable reward model.
    """
    score = load_scorer(judge, task, cache_dir)
    texts = sorted({(pair.prompt, text) for pair in pairs for text in (pair.ours, pair.theirs)})
    scores: dict[tuple[str, str], float] = {}
    for start in range(0, len(texts), ROWS_PER_CALL):
        part = texts[start : start + ROWS_PER_CALL]
        prompts, responses = zip(*part, strict=True)
        scores |= dict(zip(part, score(prompts, responses), strict=True))
        recorder.progress("score with the judge", len(scores), len(texts), "responses")
    planned.compare("judge")
    base = samples[BASE]
    of_base = np.array([scores[key] for key in zip(base["prompt"], base["response"], strict=True)])
    band = judge.tie_band * float(of_base.std())
    rows = [
        preference_row(pair, preference(scores[pair.prompt, pair.ours], scores[pair.prompt, pair.theirs], band))
        for pair in pairs
    ]
    return Judgement(rows, _correlations(task, base, of_base), {"tie_band": band})


def preference(ours: float, theirs: float, band: float) -> float:
    """1 if ours is higher by `band` or more, 0 if it is lower by as much, else 1/2; NaN if a score is not finite."""
    difference = ours - theirs
    if not np.isfinite(difference):
        return float("nan")
    return 0.5 if difference == 0 or abs(difference) < band else float(difference > 0)


def load_scorer(judge: RewardModelJudge, task: Task, cache_dir: Path) -> Scorer:
    """A function that scores texts, by one of our own reward models or a sequence classifier with one output."""
    folder = local_folder(judge.path, JUDGE)
    return (
        _our_scorer(judge, folder, cache_dir)
        if is_our_reward_model(folder)
        else _classifier_scorer(judge, task, folder)
    )


def _our_scorer(judge: RewardModelJudge, folder: Path, cache_dir: Path) -> Scorer:
    if judge.chat_template:
        raise InputError("judge.reward_model.chat_template=true: reward models of ours are trained on plain text")
    model = our_reward_model_base(judge.path)
    tokens = Tokens.load(model, cache_dir)
    policy = with_policy(load_base(model, cache_dir), model.lora, seed=0)
    scorer = RewardScorer.attach(policy, model, folder, tokens.eos_ids)

    def score(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        response_ids = [tokens.response_ids(*texts) for texts in zip(prompts, responses, strict=True)]
        nothing = tokens.eos_ids[:1]  # for an empty response, because a pass needs a token
        return scorer.score_all(list(map(tokens.prompt_ids, prompts)), [ids or nothing for ids in response_ids])

    return score


def _classifier_scorer(judge: RewardModelJudge, task: Task, folder: Path) -> Scorer:
    where = f"{JUDGE}={judge.path}"
    num_outputs = AutoConfig.from_pretrained(folder, trust_remote_code=False).num_labels
    if num_outputs != 1:
        raise InputError(f"{where}: it has {num_outputs} outputs; a reward model has one")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    model, info = loaded
    if info["missing_keys"]:
        raise InputError(f"{where}: its files lack {', '.join(sorted(info['missing_keys']))}: it was never trained")
    if judge.chat_template and not tokenizer.chat_template:
        raise InputError(f"{where}: chat_template=true, but its tokenizer has none")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.eval().to(device())

    @torch.no_grad()
    def score(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        texts = [
            _text(judge, task, tokenizer, prompt, response) for prompt, response in zip(prompts, responses, strict=True)
        ]
        batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=not judge.chat_template)
        logits = model(input_ids=batch["input_ids"].to(device()), attention_mask=batch["attention_mask"].to(device()))
        return [float(value) for value in logits.logits[:, 0].double().tolist()]

    return score


def _text(judge: RewardModelJudge, task: Task, tokenizer: Any, prompt: str, response: str) -> str:
    if not judge.chat_template:
        return task.work.render(prompt, response)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def _correlations(task: Task, base: pd.DataFrame, scores: Scores) -> dict[str, float]:
    """Rank correlation with measure and training reward on the base's samples: similar judges make similar errors."""
    values: dict[str, float] = {}
    prompts = base.reset_index()[KEYS[0]]
    groups = [np.flatnonzero(prompts == prompt) for prompt in prompts.unique()]
    for other in (task.measure, TRAINING_REWARD.name):
        theirs = base[SCORE_PREFIX + other].to_numpy(np.float64)

        def statistic(chosen: NDArray[np.intp], theirs: Scores = theirs) -> float:
            rows = np.concatenate([groups[group] for group in chosen])
            return rank_correlation(scores[rows], theirs[rows])

        name = f"judge/{other}_correlation"
        if np.isfinite(rank_correlation(scores, theirs)):
            values |= with_interval(name, len(groups), statistic, numpy_generator(STREAM, name))
    return values


def rank_correlation(ours: Scores, theirs: Scores) -> float:
    """Spearman's rank correlation; NaN if one side is constant or not finite."""
    if any(not np.isfinite(side).all() or np.ptp(side) == 0 for side in (ours, theirs)):
        return float("nan")
    return float(spearmanr(ours, theirs).statistic)
