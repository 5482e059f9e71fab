"""The gold scorer: the known truth of the controlled experiment, fitted on labelled texts that no other part sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from experiments.artifacts.intervals import share, with_interval
from experiments.evaluation.scorers import GoldScorer, vectorizer
from experiments.inputs.texts import labelled_texts
from experiments.meter import Meter
from experiments.records import Recorder
from experiments.seeding import numpy_generator
from experiments.spec import GoldJobSpec

WINDOW_WORDS = 40  # about as long as a prompt with its response, so gold is fitted on what it will judge
MAX_WINDOWS_PER_TEXT = 4
HELD_OUT_FRACTION = 0.1


def build(spec: GoldJobSpec, folder: Path, recorder: Recorder) -> None:
    """Fit gold on snippets of labelled texts and record its accuracy on snippets of texts held out."""
    meter = Meter()
    recorder.progress("fit the gold scorer", 0, 1, "classifier")
    texts = labelled_texts(spec.data_path, spec.data_seed, spec.split_words, "gold", spec.gold.num_texts)
    num_held_out = max(1, round(HELD_OUT_FRACTION * len(texts)))
    held_out, training = _snippets(texts.head(num_held_out)), _snippets(texts.iloc[num_held_out:])
    model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=200)
    model.fit(vectorizer(spec.gold).transform(training["text"]), training["label"])
    scorer = GoldScorer(spec.gold, model.coef_[0].astype(np.float32), float(model.intercept_[0]))
    scorer.save(folder)
    held_out["right"] = (np.array(scorer.score(list(held_out["text"]))) > 0.5) == (held_out["label"] == 1)
    by_text = held_out.groupby("number")["right"].agg(["sum", "size"])
    accuracy = with_interval(
        "gold/held_out_accuracy",
        len(by_text),
        share(by_text["sum"].tolist(), by_text["size"].tolist()),
        numpy_generator(spec.data_seed, "accuracy"),
    )
    counts = {"gold/num_texts": len(texts), "gold/num_held_out_snippets": len(held_out)}
    recorder.metrics("artifact", accuracy | counts, meter.axes())
    recorder.progress("fit the gold scorer", 1, 1, "classifier")


def _snippets(texts: pd.DataFrame) -> pd.DataFrame:
    """Consecutive windows of `WINDOW_WORDS` words, with the number and the label of their text."""
    rows = []
    for number, (text, label) in enumerate(zip(texts["text"], texts["label"], strict=True)):
        words = text.split()
        starts = range(0, len(words), WINDOW_WORDS)[:MAX_WINDOWS_PER_TEXT]
        rows += [(" ".join(words[start : start + WINDOW_WORDS]), label, number) for start in starts]
    return pd.DataFrame(rows, columns=["text", "label", "number"])
