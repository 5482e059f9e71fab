"""Can a simple classifier tell two models' responses apart, and by what? (classifier two-sample test).

Lopez-Paz & Oquab 2017, arXiv:1610.06545. The classifier never sees a prompt that it is tested on. AUC 0.5: it cannot.

Shapes: S seeds, P prompts, N responses of a side, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from analysis.statistics.bootstrap import FloatArray
from analysis.style.corpus import LINE_BREAK, MARK_NAMES, BoolArray, Corpus, IntArray, Tokens
from analysis.style.lexical import most_frequent
from analysis.style.scripts import unfit
from analysis.style.surface import DENSITY, FEATURES

NUM_FOLDS = 5
NUM_WORDS = 50  # most frequent words whose rates are features
OWN_MARKS = [at for at, mark in enumerate(MARK_NAMES) if mark not in {"!", "?", LINE_BREAK}]  # those are in FEATURES
MAX_SCORE = 5.0  # standardised features are clipped, so that one odd response does not bend the classifier
PENALTY_C = 0.1  # inverse strength of the ridge penalty, on standardised features
MAX_NAMED = 8
SAME = 0.9  # correlation within the sides from which on two features are one to a reader


@dataclass(frozen=True)
class Moved:
    """One feature by which two sides are told apart.

    Attributes:
        direction: such as "more list items".
        ours, theirs: means over responses, in `unit`.
    """

    direction: str
    unit: str
    ours: float
    theirs: float


@dataclass(frozen=True)
class Separation:
    """How well two sides are told apart, as one number for each prompt.

    Attributes:
        auc_SP: mean over prompts is the AUC of each seed: the chance that a response of ours gets the higher score.
        swap_SP: mean over prompts is AUC - 1/2, and swapping the sides of a prompt turns the sign of its number.
        moved: the features that the classifier leans on most, the weightiest first.
    """

    auc_SP: FloatArray
    swap_SP: FloatArray
    moved: tuple[Moved, ...]


def separate(ours: Corpus, theirs: Corpus) -> Separation | None:
    """Tell two corpora on the same prompts apart; None with fewer than two prompts a fold.

    One classifier sees all seeds. Each seed is compared with the other side's same one, or with its only one.
    """
    if ours.num_prompts < 2 * NUM_FOLDS:
        return None
    labels, units, values = named_features(ours, theirs)
    split = ours.num_seeds * len(ours.prompt_N)
    is_ours = np.arange(len(values)) < split
    prompt = np.tile(ours.prompt_N, ours.num_seeds + theirs.num_seeds)
    score = held_out_scores(values, is_ours, prompt)
    one, two = (part.reshape(-1, len(ours.prompt_N)) for part in (score[:split], score[split:]))
    pairs = [(one[seed], two[seed % theirs.num_seeds]) for seed in range(ours.num_seeds)]
    return Separation(
        np.stack([auc_contributions(*pair, ours.prompt_N) for pair in pairs]),
        np.stack([rank_differences(*pair, ours.prompt_N) for pair in pairs]),
        heaviest(labels, units, values, is_ours),
    )


# ------------------------------------------------------------------------------------------------------------- features
def named_features(ours: Corpus, theirs: Corpus) -> tuple[list[str], list[str], FloatArray]:
    """Surface features, rates of punctuation and of the words most frequent on both sides: labels, units, values.

    Without the features that do not fit the script of either side.
    """
    fitting = [at for at, feature in enumerate(FEATURES) if not unfit(feature.fits, ours.scripts, theirs.scripts)]
    tokens = [*ours.tokens, *theirs.tokens]
    frequent = most_frequent(np.concatenate([side.word_T for side in tokens]), NUM_WORDS)
    rates = np.concatenate([word_rates(side, frequent) for side in tokens])
    surface, marks = (
        np.concatenate([one.reshape(-1, one.shape[2]), two.reshape(-1, two.shape[2])])
        for one, two in (
            (ours.surface_SNF[:, :, fitting], theirs.surface_SNF[:, :, fitting]),
            (ours.marks_SNC[:, :, OWN_MARKS], theirs.marks_SNC[:, :, OWN_MARKS]),
        )
    )
    lengths = np.concatenate([side.lengths for side in tokens])[:, None]
    values = np.column_stack([surface, 100 * marks / lengths, rates])
    labels = [FEATURES[at].label for at in fitting]
    labels += [
        f"of the mark {mark}" if len(mark) == 1 else f"of any {mark}" for mark in (MARK_NAMES[at] for at in OWN_MARKS)
    ]
    labels += [f"of the word “{ours.vocabulary.word(number)}”" for number in frequent]
    units = [FEATURES[at].unit for at in fitting] + [DENSITY] * (values.shape[1] - len(fitting))
    varying = np.flatnonzero(values.std(axis=0) > 0)
    return [labels[at] for at in varying], [units[at] for at in varying], values[:, varying]


def word_rates(tokens: Tokens, numbers: IntArray) -> FloatArray:
    """How often each of these words occurs, per 100 words of each response. `[N, len(numbers)]`."""
    column = np.full(max(int(tokens.word_T.max(initial=0)), int(numbers.max(initial=0))) + 1, len(numbers))
    column[numbers] = np.arange(len(numbers))
    width = len(numbers) + 1
    cells = tokens.row_T * width + column[tokens.word_T]
    counts = np.bincount(cells, minlength=tokens.num_rows * width).reshape(-1, width)[:, :-1]
    rates: FloatArray = 100 * counts / tokens.lengths[:, None]
    return rates


# ----------------------------------------------------------------------------------------------------------- classifier
def held_out_scores(values_NF: FloatArray, is_ours_N: BoolArray, prompt_N: IntArray) -> FloatArray:
    """Probability of being ours for each response, from a classifier fitted on the other folds' prompts."""
    scores = np.zeros(len(values_NF))
    for fit, held_out in GroupKFold(NUM_FOLDS).split(values_NF, groups=prompt_N):
        scale = Scale.of(values_NF[fit])
        model = _classifier().fit(scale.apply(values_NF[fit]), is_ours_N[fit])
        scores[held_out] = model.predict_proba(scale.apply(values_NF[held_out]))[:, 1]
    return scores


def heaviest(labels: list[str], units: list[str], values_NF: FloatArray, is_ours_N: BoolArray) -> tuple[Moved, ...]:
    """The features that move the classifier's score most: weight times difference of the two sides' means.

    Negative products are left out: such a weight only corrects another feature and would mislead a reader.
    """
    scale = Scale.of(values_NF)
    standard = scale.apply(values_NF)
    weights = _classifier().fit(standard, is_ours_N).coef_[0]
    moves = weights * (standard[is_ours_N].mean(axis=0) - standard[~is_ours_N].mean(axis=0))
    ours, theirs = values_NF[is_ours_N].mean(axis=0), values_NF[~is_ours_N].mean(axis=0)
    named = unlike([int(at) for at in np.argsort(-moves, kind="stable") if moves[at] > 0], standard, is_ours_N)
    return tuple(
        Moved(
            f"{'more' if ours[at] > theirs[at] else 'fewer'} {labels[at]}",
            units[at],
            round(float(ours[at]), 6),
            round(float(theirs[at]), 6),
        )
        for at in named
    )


def unlike(candidates: list[int], standard_NF: FloatArray, is_ours_N: BoolArray) -> list[int]:
    """The first few candidates that do not go with an earlier one on either side (such as characters with words)."""
    within = standard_NF.copy()
    for side in (is_ours_N, ~is_ours_N):
        within[side] -= within[side].mean(axis=0)
    length = np.linalg.norm(within, axis=0)
    within /= np.where(length > 1e-9, length, 1.0)
    chosen: list[int] = []
    for at in candidates:
        if len(chosen) == MAX_NAMED:
            break
        if all(abs(float(within[:, at] @ within[:, other])) < SAME for other in chosen):
            chosen.append(at)
    return chosen


@dataclass(frozen=True)
class Scale:
    """Centre and spread of each feature on the fitted responses."""

    mean_F: FloatArray
    sd_F: FloatArray

    @classmethod
    def of(cls, values_NF: FloatArray) -> Scale:
        """A feature that does not vary keeps its unit."""
        sd = values_NF.std(axis=0)
        return cls(values_NF.mean(axis=0), np.where(sd > 0, sd, 1.0))

    def apply(self, values_NF: FloatArray) -> FloatArray:
        """Standardised and clipped."""
        return np.asarray(np.clip((values_NF - self.mean_F) / self.sd_F, -MAX_SCORE, MAX_SCORE))


def _classifier() -> LogisticRegression:
    return LogisticRegression(C=PENALTY_C, class_weight="balanced", max_iter=200)


# ------------------------------------------------------------------------------------------------------------------ AUC
def auc_contributions(ours_N: FloatArray, theirs_N: FloatArray, prompt_N: IntArray) -> FloatArray:
    """One number for each prompt whose mean is the AUC and whose spread is its sampling error, `[P]`.

    The structural components of DeLong et al. 1988, summed over each prompt's responses (Obuchowski 1997), for sides
    with equally many responses to each prompt.
    """
    above = _share_below(ours_N, theirs_N)
    under = 1 - _share_below(theirs_N, ours_N)
    weight_N = len(np.unique(prompt_N)) / len(prompt_N)
    return np.bincount(prompt_N, weights=weight_N * (above + under - above.mean())).astype(np.float64)


def _share_below(values: FloatArray, others: FloatArray) -> FloatArray:
    """Share of `others` under each value, equal ones counted half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    share: FloatArray = below / (2 * len(ordered))
    return share


def rank_differences(ours_N: FloatArray, theirs_N: FloatArray, prompt_N: IntArray) -> FloatArray:
    """One number for each prompt: mean is AUC - 1/2, and swapping a prompt's sides turns its sign. `[P]`.

    AUC - 1/2 = (mean rank of ours - mean rank of theirs) / 2n for n responses a side, and swaps leave all ranks as
    they are (Mann & Whitney 1947).
    """
    ranks = rankdata(np.concatenate([ours_N, theirs_N]))
    n = len(ours_N)
    weight_N = len(np.unique(prompt_N)) / n
    return np.bincount(prompt_N, weights=weight_N * (ranks[:n] - ranks[n:]) / (2 * n)).astype(np.float64)
