from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest

from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger

EVALUATION, ARM, STATUS = "dpo/seed0/evaluation/spec.json", "dpo/seed0/spec.json", "dpo/seed0/status.json"
OTHER = "f" * 64


def change(sweep, path, *keys, value):
    """Set a nested key of a JSON file."""
    file = sweep.folder / path
    content = json.loads(file.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    file.write_text(json.dumps(content))


def test_arrays_line_up_by_prompt_and_sample(make_sweep):
    sweep = make_sweep(num_prompts=5, num_samples=3)
    ledger = load_ledger(sweep.folder)
    gold = ledger.numbers("ppo", "score/gold", 1)
    assert gold.shape == (1, 5, 3)
    rows = pd.read_parquet(sweep.folder / "ppo/seed0/evaluation/samples/point_1.parquet")
    one = rows[(rows["prompt_id"] == ledger.prompt_ids[2]) & (rows["sample_id"] == 1)]
    assert gold[0, 2, 1] == one["score/gold"].item()


def test_order_of_rows_in_the_file_does_not_matter(make_sweep):
    sweep = make_sweep()
    before = load_ledger(sweep.folder).numbers("ppo", "score/gold")
    path = sweep.folder / "ppo/seed0/evaluation/samples/point_2.parquet"
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path)
    assert np.array_equal(before, load_ledger(sweep.folder).numbers("ppo", "score/gold"))


def test_point_zero_of_an_arm_is_the_base_and_streams_are_kept_apart(make_ledger):
    ledger = make_ledger()
    assert np.array_equal(ledger.array("ppo", "score/gold", 0), ledger.array("base", "score/gold"))
    assert not np.array_equal(ledger.array("base", "score/gold"), ledger.array("base", "score/gold", stream=2))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"state": "failed", "error": "out of memory"}, "training failed (out of memory)"),
        ({"state": "running"}, "training has not finished"),
        ({"state": "stopped", "error": "on request"}, "training was stopped (on request)"),
        ({"state": "skipped", "error": "gold did not finish"}, "training was skipped (gold did not finish)"),
    ],
)
def test_unfinished_arm_is_listed_and_left_out(make_sweep, status, words):
    sweep = make_sweep()
    sweep.edit("dpo/seed0/status.json", **status)
    ledger = load_ledger(sweep.folder)
    assert ledger.arms == ["ppo"]
    assert [item.run for item in ledger.missing] == ["dpo/seed0"]
    assert ledger.missing[0].reason == words


def test_no_finished_arm_is_an_error_that_lists_them(make_sweep):
    sweep = make_sweep()
    for arm in ("ppo", "dpo"):
        sweep.edit(f"{arm}/seed0/evaluation/status.json", state="interrupted")
    with pytest.raises(LedgerError, match=r"ppo/seed0 evaluation was interrupted; dpo/seed0 evaluation"):
        load_ledger(sweep.folder)


def test_base_evaluation_is_needed(make_sweep):
    sweep = make_sweep()
    sweep.edit("shared/base_evaluation/status.json", state="running")
    with pytest.raises(LedgerError, match="base model's own evaluation"):
        load_ledger(sweep.folder)


@pytest.mark.parametrize(
    ("path", "keys", "value", "message"),
    [
        (
            EVALUATION,
            ("spec", "evaluation", "seed"),
            5,
            "dpo/seed0: evaluated with evaluation.seed = 5, the base with 1",
        ),
        (EVALUATION, ("spec", "model", "dtype"), "float32", "model.dtype"),
        (EVALUATION, ("spec", "num_prompts"), 99, "num_prompts = 99"),
        (EVALUATION, ("needs", "measure", "identity"), OTHER, "another measure"),
        (ARM, ("inputs", "base_model"), OTHER, "dpo/seed0: trained with another base_model (ffffffffffff)"),
        (ARM, ("spec", "num_prompts"), 1024, "dpo/seed0: trained with num_prompts = 1024, ppo/seed0 with 512"),
        (ARM, ("needs", "ranking_data", "identity"), OTHER, "another ranking_data"),
        (STATUS, ("identity",), OTHER, "dpo/seed0: status.json belongs to another specification"),
        (ARM, ("identity",), OTHER, "dpo/seed0: the folder belongs to another specification than plan.json"),
    ],
)
def test_mismatched_runs_are_refused_by_name(make_sweep, path, keys, value, message):
    sweep = make_sweep()
    change(sweep, path, *keys, value=value)
    with pytest.raises(LedgerError, match=re.escape(message)):
        load_ledger(sweep.folder)


def test_different_seed_lists_are_refused(make_sweep):
    sweep = make_sweep(seeds=(0, 1))
    plan = json.loads((sweep.folder / "plan.json").read_text())
    sweep.edit("plan.json", arms=plan["arms"][:-1])
    with pytest.raises(LedgerError, match=r"dpo: planned with seeds \[0\], ppo with \[0, 1\]"):
        load_ledger(sweep.folder)


def test_different_prompts_are_refused(make_sweep, synthetic):
    def drop_one(rows):
        return rows.iloc[1:]

    sweep = make_sweep({"ppo": synthetic.Arm("ppo", (0.1,)), "dpo": synthetic.Arm("dpo", (0.1,), edit=drop_one)})
    with pytest.raises(LedgerError, match="dpo/seed0: other prompts or samples at evaluation point 1"):
        load_ledger(sweep.folder)


def test_pickle_in_place_of_parquet_is_refused_not_loaded(make_sweep):
    sweep = make_sweep()
    (sweep.folder / "ppo/seed0/evaluation/samples/point_1.parquet").write_bytes(pickle.dumps({"gold": [1]}))
    with pytest.raises(LedgerError, match="cannot be read as Parquet"):
        load_ledger(sweep.folder)


def test_scores_that_are_not_numbers_are_refused(make_sweep, synthetic):
    sweep = make_sweep(
        {"ppo": synthetic.Arm("ppo", (0.1,), edit=lambda rows: rows.assign(**{"score/gold": float("nan")}))}
    )
    with pytest.raises(LedgerError, match="score/gold that are missing or not finite"):
        load_ledger(sweep.folder)


def test_missing_file_of_a_finished_point_is_an_error(make_sweep):
    sweep = make_sweep()
    (sweep.folder / "ppo/seed0/evaluation/samples/point_2.parquet").unlink()
    with pytest.raises(LedgerError, match="without samples of evaluation point 2"):
        load_ledger(sweep.folder)


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc"])
def test_paths_must_stay_inside_the_run_folder(make_sweep, folder):
    sweep = make_sweep()
    change(sweep, "plan.json", "arms", 0, "folder", value=folder)
    with pytest.raises(LedgerError, match="outside the run folder"):
        load_ledger(sweep.folder)


def test_not_a_sweep_folder(tmp_path):
    with pytest.raises(LedgerError, match=r"no plan\.json"):
        load_ledger(tmp_path)


def test_an_arm_may_not_be_called_base(make_sweep, synthetic):
    sweep = make_sweep({"base": synthetic.Arm("ppo", (0.1,))})
    with pytest.raises(LedgerError, match="called 'base'"):
        load_ledger(sweep.folder)


def test_further_samples_of_the_base_are_not_held_against_the_arms(make_sweep):
    ledger = load_ledger(make_sweep(num_prompts=5).folder)
    assert ledger.numbers("base", "score/gold", stream=3).shape == (1, 5, 4)
    assert len(ledger.ranking) == 40 * 4


def test_further_samples_must_be_equally_many(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "shared/base_evaluation/samples/point_0.parquet"
    pd.read_parquet(path).iloc[:-1].to_parquet(path)
    with pytest.raises(LedgerError, match="further samples are not equally many"):
        load_ledger(sweep.folder)


def test_ranking_data_must_be_whole(make_sweep):
    sweep = make_sweep()
    path = sweep.folder / "shared/ranking_data/samples/point_0.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(LedgerError, match="ranking_data: prompts have different numbers of samples"):
        load_ledger(sweep.folder)


def test_sweep_without_either_has_none(make_sweep):
    ledger = load_ledger(make_sweep(further_samples=0).folder)
    assert ledger.ranking is None
    assert set(ledger.samples["stream"]) == {1, 2}
