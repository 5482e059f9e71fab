"""Embeddings that a job put into the ledger: read, checked, and what the semantic shift is then measured by."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.style import sweep as style_drift

VERSION = "sha256:" + "e" * 64
KEYS = ["prompt_id", "sample_id", "stream"]


def with_embeddings(sweep, vectors):
    """Give the base and every final model a vector, `vectors` by arm, in the order of the rows of their samples."""
    places = {"base": (sweep.folder / sweep.shared["base_evaluation"], 0)}
    places |= {arm: (sweep.folder / arm / "seed0/evaluation", sweep.num_points - 1) for arm in sweep.arms}
    for arm, (folder, point) in places.items():
        spec = json.loads((folder / "spec.json").read_text())
        spec["spec"]["evaluation"] = spec["spec"]["evaluation"] | {"embedder": "/models/mini"}
        spec["inputs"] = spec["inputs"] | {"embedder": VERSION}
        (folder / "spec.json").write_text(json.dumps(spec))
        rows = pd.read_parquet(folder / f"samples/point_{point}.parquet").query("stream != 3")[KEYS]
        (folder / "embeddings").mkdir()
        rows.assign(embedding=[np.asarray(vectors[arm], np.float16)] * len(rows)).to_parquet(
            folder / f"embeddings/point_{point}.parquet", index=False
        )
    return sweep


@pytest.fixture
def sweep(make_sweep):
    """Ppo says what is orthogonal to the base, dpo says what the base says, twice as loudly."""
    return with_embeddings(make_sweep(num_prompts=20), {"base": [1, 0], "ppo": [0, 1], "dpo": [2, 0]})


def test_the_semantic_shift_is_measured_by_the_recorded_vectors(sweep, resamples_for):
    ledger = load_ledger(sweep.folder)
    style = style_drift.SweepStyle(ledger, resamples_for(ledger))
    shift = {
        arm: next(item for item in style.drifts[arm].measures if item.measure == "semantic_shift")
        for arm in ("ppo", "dpo")
    }
    assert shift["ppo"].change.value == pytest.approx(1.0)  # cosine 0, and 1 between the base's own two
    assert shift["dpo"].change.value == pytest.approx(0.0)
    assert style.context()["embedder"] == "mini, sha256:eeeeeeeeeeee"


def test_without_an_embedder_word_statistics_are_named(make_ledger, resamples_for):
    ledger = make_ledger(num_prompts=20)
    assert ledger.embeddings is None
    assert "no language model" in style_drift.SweepStyle(ledger, resamples_for(ledger)).context()["embedder"]


def test_embeddings_belong_to_the_files_that_a_report_cites(sweep):
    assert "ppo/seed0/evaluation/embeddings/point_2.parquet" in load_ledger(sweep.folder).manifest.files


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[1:], "of other responses than the samples"),
        (lambda rows: rows.assign(sample_id=rows["sample_id"] + 1), "of other responses than the samples"),
        (lambda rows: rows.drop(columns="stream"), "must have the columns prompt_id, sample_id, stream and embedding"),
        (lambda rows: rows.assign(embedding=[[np.nan, 1.0]] * len(rows)), "what is no finite number"),
        (lambda rows: rows.assign(embedding="import os"), "what is no finite number"),
        (lambda rows: rows.assign(embedding=[[1.0] * (1 + at % 2) for at in range(len(rows))]), "different lengths"),
        (lambda rows: rows.assign(embedding=[[1.0, 0.0, 0.0]] * len(rows)), "evaluations have different lengths"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(sweep, edit, message):
    path = sweep.folder / "ppo/seed0/evaluation/embeddings/point_2.parquet"
    edit(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(LedgerError, match=message):
        load_ledger(sweep.folder)


def test_missing_embeddings_are_named(sweep):
    path = sweep.folder / "ppo/seed0/evaluation/embeddings/point_2.parquet"
    path.unlink()
    with pytest.raises(LedgerError, match=r"point_2\.parquet cannot be read"):
        load_ledger(sweep.folder)


def test_another_embedder_than_the_bases_is_refused(sweep):
    path = sweep.folder / "ppo/seed0/evaluation/spec.json"
    path.write_text(path.read_text().replace(VERSION, "sha256:" + "f" * 64))
    with pytest.raises(LedgerError, match="evaluated with another embedder"):
        load_ledger(sweep.folder)
