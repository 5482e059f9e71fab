"""The gold scorer: the known truth of the controlled experiment, fitted on labelled texts that no other part sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from experiments.errors import InputError
from experiments.intervals import share_with_exact_interval
from experiments.meter import Meter
from experiments.records import Recorder
from experiments.tasks.sentiment import SentimentMeasure
from experiments.tasks.sentiment.scorers import GoldScorer, vectorizer
from experiments.tasks.sentiment.texts import labelled_texts, row_counts

WINDOW_WORDS = 40  # about as long as a prompt with its response, so gold is fitted on what it will judge
MAX_WINDOWS_PER_TEXT = 4
HELD_OUT_FRACTION = 0.1
ACCURACY = "measure/held_out_accuracy"


def build_measure(settings: SentimentMeasure, folder: Path, recorder: Recorder) -> None:
    """Fit gold on snippets of labelled texts and record its accuracy on snippets of texts held out.

    Raises:
        InputError: the texts cannot be used, or gold is not clearly better than always giving the commoner label.
    """
    meter = Meter()
    recorder.progress("fit the gold scorer", 0, 1, "classifier")
    texts = labelled_texts(settings.path, settings.seed, settings.split_words, "gold", settings.gold.num_texts)
    rows = row_counts(settings.path)
    print(f"data.path={settings.path}: {rows.sentence()}", flush=True)
    num_held_out = max(1, round(HELD_OUT_FRACTION * len(texts)))
    held_out, training = _snippets(texts.head(num_held_out)), _snippets(texts.iloc[num_held_out:])
    scorer = _fit(settings, training)
    held_out["right"] = (np.array(scorer.score(list(held_out["text"]))) > 0.5) == (held_out["label"] == 1)
    by_text = held_out.groupby("number")["right"].agg(["sum", "size"])
    accuracy = share_with_exact_interval(ACCURACY, by_text["sum"].tolist(), by_text["size"].tolist())
    commoner = float(held_out["label"].value_counts(normalize=True).max())
    counts = {
        "measure/num_texts": len(texts),
        "measure/num_held_out_snippets": len(held_out),
        "measure/num_held_out_texts": num_held_out,
        "measure/commoner_label_share": commoner,
    }
    recorder.metrics("artifact", accuracy | counts | rows.metrics(), meter.axes())
    _refuse_a_guess(settings, accuracy, commoner, num_held_out)
    scorer.save(folder)
    recorder.progress("fit the gold scorer", 1, 1, "classifier")


def _fit(settings: SentimentMeasure, training: pd.DataFrame) -> GoldScorer:
    if training["label"].nunique() < 2:
        raise InputError(
            f"data.path={settings.path}: the texts that the gold scorer is fitted on do not have both labels; "
            "use a file with more labelled texts"
        )
    model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=200)
    model.fit(vectorizer(settings.gold).transform(training["text"]), training["label"])
    return GoldScorer(settings.gold, model.coef_[0].astype(np.float32), float(model.intercept_[0]))


def _refuse_a_guess(settings: SentimentMeasure, accuracy: dict[str, float], commoner: float, num_texts: int) -> None:
    """Gold decides everything, so it must know more than which label is the commoner one."""
    low, high = accuracy[f"{ACCURACY}_low"], accuracy[f"{ACCURACY}_high"]
    if low <= commoner:
        raise InputError(
            f"data.path={settings.path}: the gold scorer is right on {accuracy[ACCURACY]:.1%} of what it never saw "
            f"(95 % interval {low:.1%} to {high:.1%}, snippets of {num_texts:,} held-out texts), but always giving the "
            f"commoner label would be right on {commoner:.1%}, and the interval must lie above that; check the labels, "
            "use more texts (data.gold.num_texts) or other n-grams (data.gold.analyzer, data.gold.max_ngram)"
        )


def _snippets(texts: pd.DataFrame) -> pd.DataFrame:
    """Consecutive windows of `WINDOW_WORDS` words, with the number and the label of their text."""
    rows = []
    for number, (text, label) in enumerate(zip(texts["text"], texts["label"], strict=True)):
        words = text.split()
        starts = range(0, len(words), WINDOW_WORDS)[:MAX_WINDOWS_PER_TEXT]
        rows += [(" ".join(words[start : start + WINDOW_WORDS]), label, number) for start in starts]
    return pd.DataFrame(rows, columns=["text", "label", "number"])
