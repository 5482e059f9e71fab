"""How far a model's style moved from the base's, measure by measure, beside how far the base moves from itself.

Three sides answer the same prompts. `base` and `ours` share random numbers (if the texts come from a sweep); `again`
is the base once more with others. Means are compared with `base`, response by response. Distances of distributions are
taken from `again`, because common random numbers would make an unchanged model look closer than chance.

Shapes: S seeds, P prompts, N responses, V columns, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analysis.statistics.bootstrap import (
    CONFIDENCE_LEVEL,
    Estimate,
    FloatArray,
    Resamples,
    holm,
    mean_estimate,
    recentred_estimate,
)
from analysis.style import semantic, separability
from analysis.style.corpus import Corpus
from analysis.style.lexical import Tables
from analysis.style.measures import (
    DISTANCES,
    MEANING,
    PAIRED,
    PAIRED_FEATURES,
    SEPARABILITY,
    WORD_CHOICE,
    Distance,
    NotAssessableError,
    Paired,
    discrepancy,
)
from analysis.style.scripts import Scripts, unfit
from analysis.style.swaps import (
    Between,
    drawn_distances,
    flipped_means,
    paired_floor,
    prompts_needed,
    swap_p,
    swapped_distances,
)
from experiments.rules import StyleRules

DRIFTED, WITHIN = "drifted", "within the floor"
NOT_ASSESSABLE = "not assessable"
MIN_PROMPTS = 10  # with a value, below which a measure over part of the prompts is withheld


@dataclass(frozen=True)
class Drift:
    """One measure of one arm.

    Attributes:
        measure, group, label, meaning: what is measured, for code and for people.
        ours, base: the two means; None for a distance, which has no value of its own for either side.
        change: arm minus base, or the distance between them; None if the measure cannot be taken.
        base_vs_base: the same number for the base's two sets of random numbers; None if there is only one.
        floor: what the base shows against itself in 95 % of random swaps of the two sets, prompt by prompt, in the unit
            of the change. With only one set: what arm and base show in swaps of theirs, which is a weaker floor.
        ratio: size of the change over the floor; None if the floor is zero.
        effect: the change over the SD of the base's responses (Cohen's d with the base as reference); for a distance
            the same as `ratio`, for the separability its AUC.
        p: share of random swaps of arm and base, prompt by prompt, with a change at least as large.
        p_holm: p corrected for the number of measures of this arm (Holm 1979).
        reading: DRIFTED, WITHIN, or NOT_ASSESSABLE with the reason.
    """

    measure: str
    group: str
    label: str
    meaning: str
    ours: Estimate | None = None
    base: Estimate | None = None
    change: Estimate | None = None
    base_vs_base: Estimate | None = None
    floor: float | None = None
    ratio: Estimate | None = None
    effect: Estimate | None = None
    p: float | None = None
    p_holm: float | None = None
    reading: str = WITHIN


@dataclass(frozen=True)
class StyleDrift:
    """All measures of one arm, and how its responses are told from the base's."""

    measures: tuple[Drift, ...]
    moved: tuple[separability.Moved, ...]

    @property
    def auc(self) -> Drift:
        """The headline."""
        return self.measures[0]


# ------------------------------------------------------------------------------------------------------------- the base
@dataclass(frozen=True)
class SelfDistance:
    """What the base's two sets of random numbers show against each other."""

    value: Estimate
    floor: float


@dataclass(frozen=True)
class Reference:
    """What every arm is measured against. Whatever does not depend on the arm is computed once.

    Attributes:
        base: the base's responses.
        again: the base's other responses, or None if there is only one set.
        embedder: None for the default, which is fitted on the base's responses.
        rng: for the random features of the discrepancy.
        scores: measures of the responses' further scores.
    """

    base: Corpus
    again: Corpus | None
    resamples: Resamples
    rules: StyleRules
    rng: np.random.Generator
    given_embedder: semantic.Embedder | None = None
    scores: tuple[Paired, ...] = ()

    @property
    def other(self) -> Corpus:
        """The base's responses that distances are taken from."""
        return self.again or self.base

    @property
    def scripts(self) -> tuple[Scripts, ...]:
        """Of the words of the base's one or two sets."""
        return tuple(side.scripts for side in (self.base, self.again) if side)

    @cached_property
    def embedder(self) -> semantic.Embedder | None:
        """The given one, or TF-IDF; None if the base says too little to fit one."""
        if self.given_embedder:
            return self.given_embedder
        sides = [self.base, *([self.again] if self.again else [])]
        texts = [str(text) for side in sides for text in side.texts_SN[0]]
        return semantic.tfidf_embedder(texts, np.tile(self.base.prompt_N, len(sides)))

    def embed(self, corpus: Corpus) -> FloatArray:
        """Rows `[S, N, D]`."""
        if self.embedder is None:
            raise ValueError("asked for embeddings without an embedder")
        rows = [self.embedder.embed([str(text) for text in texts], corpus.prompt_N) for texts in corpus.texts_SN]
        return np.stack(rows)

    @cached_property
    def base_rows(self) -> FloatArray:
        """Embeddings of the base's responses, `[N, D]`."""
        return np.asarray(self.embed(self.base)[0])

    @cached_property
    def other_rows(self) -> FloatArray:
        """Embeddings of the base's other responses, `[N, D]`."""
        return np.asarray(self.embed(self.other)[0])

    @cached_property
    def random_features(self) -> semantic.RandomFeatures:
        """Of the Gaussian kernel on the embeddings."""
        both = np.concatenate([self.base_rows, self.other_rows])
        return semantic.RandomFeatures.draw(both.shape[1], semantic.median_distance(both, self.rng), self.rng)

    @cached_property
    def self_distances(self) -> dict[str, SelfDistance]:
        """What the base's two sets show of each distance; empty if there is only one."""
        if self.again is None:
            return {}
        tables = {measure.name: measure.tables(self.base, self.again)[0] for measure in DISTANCES}
        metrics = {measure.name: measure.metric for measure in DISTANCES}
        if self.embedder:
            sides = ((self.base_rows, self.base.prompt_N), (self.other_rows, self.base.prompt_N))
            one, two = (self.random_features.per_prompt(*side) for side in sides)
            tables[MEANING_DISTANCE], metrics[MEANING_DISTANCE] = (one, two), discrepancy
        return {name: _self_distance(pair, metrics[name], self.resamples) for name, pair in tables.items()}

    @cached_property
    def separation(self) -> separability.Separation | None:
        """The base's two sets told apart: the floor of the separability."""
        return separability.separate(self.base, self.again) if self.again else None


def style_drift(ours: Corpus, reference: Reference) -> StyleDrift:
    """All measures of one model against the base."""
    separation = separability.separate(ours, reference.other)
    rows = reference.embed(ours) if reference.embedder else None
    paired = (*PAIRED, *reference.scores, *PAIRED_FEATURES)
    measures = [
        _separability(separation, reference),
        _semantic_shift(rows, ours, reference),
        _semantic_distance(rows, ours, reference),
        *(_distance(measure, ours, reference) for measure in DISTANCES),
        *(_paired(measure, ours, reference) for measure in paired if measure.needs in {"", *ours.columns}),
    ]
    measures = judge(measures, ours.num_prompts, reference.rules)
    moved = separation.moved if separation and measures[0].reading == DRIFTED else ()
    return StyleDrift(tuple(measures), moved)


def judge(measures: Sequence[Drift], num_prompts: int, rules: StyleRules) -> list[Drift]:
    """Correct for the number of measures and say which drifted.

    DRIFTED: over the floor, significant after Holm's correction, its interval without zero, and large enough by rule.
    """
    tested = [item for item in measures if item.p is not None]
    adjusted = dict(zip((item.measure for item in tested), holm([float(item.p or 0) for item in tested]), strict=True))
    corrected = [replace(item, p_holm=adjusted.get(item.measure)) for item in measures]
    return [
        item
        if item.p_holm is None
        else replace(item, reading=_reading(item, item.p_holm, num_prompts, len(tested), rules))
        for item in corrected
    ]


def _reading(item: Drift, p_holm: float, num_prompts: int, num_measures: int, rules: StyleRules) -> str:
    needed = prompts_needed(num_measures, rules.significance_level)
    if num_prompts < needed:
        return f"{NOT_ASSESSABLE}: {num_prompts} prompts, no change could be significant with under {needed}"
    return DRIFTED if p_holm <= rules.significance_level and _is_large(item, rules) else WITHIN


def _is_large(item: Drift, rules: StyleRules) -> bool:
    """Over the floor and over the declared effect, with an interval that excludes no change."""
    if item.change is None or item.floor is None:
        return False
    neutral = 0.5 if item.group == SEPARABILITY else 0.0
    if abs(item.change.value) <= item.floor or not item.change.excludes(neutral):
        return False
    if item.effect is None:
        return True  # the base shows nothing of it
    threshold = {
        "base SD": rules.min_effect_base_sd,
        "times the floor": rules.min_distance_times_floor,
        "AUC": rules.min_auc,
    }[item.effect.unit]
    return abs(item.effect.value) >= threshold


def _missing(measure: str, group: str, label: str, meaning: str, reason: str) -> Drift:
    reading = reason if reason.startswith(NOT_ASSESSABLE) else f"{NOT_ASSESSABLE}: {reason}"
    return Drift(measure, group, label, meaning, reading=reading)


# -------------------------------------------------------------------------------------------------- one kind of measure
def _paired(measure: Paired, ours: Corpus, reference: Reference) -> Drift:
    base, again = reference.base, reference.again
    names = (measure.name, measure.group, measure.label, measure.meaning)
    wrong_script = unfit(measure.fits, ours.scripts, *reference.scripts)
    if wrong_script:
        return _missing(*names, wrong_script)
    try:
        sides = [measure.value(ours, base), measure.value(base, ours)]
        selves = [measure.value(base, again), measure.value(again, base)] if again else []
    except NotAssessableError as reason:
        return _missing(*names, str(reason))
    sd = _spread(sides[1], sides[0])
    by_prompt = [_to_prompts(values, base) for values in (*sides, *selves)]
    return _paired_drift(names, measure.unit, by_prompt, sd, reference.resamples)


def _to_prompts(values: FloatArray, corpus: Corpus) -> FloatArray:
    return values if values.shape[1] == corpus.num_prompts else corpus.per_prompt(values)


def _spread(base: FloatArray, ours: FloatArray) -> float:
    """SD of the base's values; if they are all the same, of both sides' together."""
    sd = float(np.nanstd(base)) if np.isfinite(base).any() else 0.0
    both = np.concatenate([base.ravel(), ours.ravel()])
    return sd if sd > 1e-9 else float(np.nanstd(both)) if np.isfinite(both).any() else 0.0


def _paired_drift(
    names: tuple[str, str, str, str], unit: str, by_prompt: list[FloatArray], sd: float, resamples: Resamples
) -> Drift:
    """From the values `[S, P]` of ours, base and, if there is one, of the base's two sets.

    Prompts without a value on any side are left out.
    """
    kept_P = np.all([np.isfinite(values).all(axis=0) for values in by_prompt], axis=0)
    if kept_P.sum() < min(MIN_PROMPTS, len(kept_P)):
        return _missing(*names, f"only {int(kept_P.sum())} prompts with enough responses on both sides")
    if not kept_P.all():
        by_prompt, resamples = [values[:, kept_P] for values in by_prompt], resamples.of_prompts(kept_P)
    ours_SP, base_SP, *selves = by_prompt
    change_SP = ours_SP - base_SP
    self_SP = selves[0] - selves[1] if selves else None
    change = mean_estimate(change_SP, resamples, unit)
    floor = paired_floor((change_SP if self_SP is None else self_SP).mean(axis=0), resamples)
    swapped = np.abs(flipped_means(change_SP.mean(axis=0), resamples))
    return Drift(
        *names,
        ours=mean_estimate(ours_SP, resamples, unit),
        base=mean_estimate(base_SP, resamples, unit),
        change=change,
        base_vs_base=None if self_SP is None else mean_estimate(self_SP, resamples, unit),
        floor=floor,
        ratio=_times_floor(change, floor),
        effect=mean_estimate(change_SP / sd, resamples, "base SD") if sd > 0 else None,
        p=swap_p(abs(float(change_SP.mean())), swapped),
    )


def _times_floor(change: Estimate, floor: float) -> Estimate | None:
    """The size of a signed change over the floor; its interval begins at 0 if that of the change contains 0."""
    if floor <= 0:
        return None
    ends = sorted(abs(bound) / floor for bound in (change.low, change.high))
    low = ends[0] if change.excludes(0) else 0.0
    spread = change.standard_error / floor
    return replace(
        change, value=abs(change.value) / floor, low=low, high=ends[1], standard_error=spread, unit="times the floor"
    )


def _distance(measure: Distance, ours: Corpus, reference: Reference) -> Drift:
    names = (measure.name, WORD_CHOICE, measure.label, measure.meaning)
    wrong_script = unfit(measure.fits, ours.scripts, *reference.scripts)
    if wrong_script:
        return _missing(*names, wrong_script)
    return _distance_drift(names, measure.tables(ours, reference.other), measure.metric, reference)


def _distance_drift(
    names: tuple[str, str, str, str],
    tables: list[Tables],
    metric: Callable[[FloatArray, FloatArray], Between],
    reference: Reference,
) -> Drift:
    """From a pair of tables `[P, V]` for each seed."""
    resamples, n, num_seeds = reference.resamples, len(tables[0][0]), len(tables)
    value = float(np.mean([_whole_distance(pair, metric) for pair in tables]))
    swapped = np.mean([swapped_distances(*pair, metric(*pair), resamples) for pair in tables], axis=0)
    per_seed = [drawn_distances(*pair, metric(*pair), resamples) for pair in tables]
    draws = resamples.average_seeds(np.stack(per_seed, axis=1))
    own = reference.self_distances.get(names[0])
    floor = own.floor if own else float(np.quantile(swapped, CONFIDENCE_LEVEL))
    ratio = None
    if floor > 0:
        ratio = recentred_estimate(value / floor, draws / floor, "times the floor", n, num_seeds, minimum=0)
    return Drift(
        *names,
        change=recentred_estimate(value, draws, "distance", n, num_seeds, minimum=0),
        base_vs_base=own.value if own else None,
        floor=floor,
        ratio=ratio,
        effect=ratio,
        p=swap_p(value, swapped),
    )


def _self_distance(
    pair: Tables, metric: Callable[[FloatArray, FloatArray], Between], resamples: Resamples
) -> SelfDistance:
    draws = drawn_distances(*pair, metric(*pair), resamples)
    value = recentred_estimate(_whole_distance(pair, metric), draws, "distance", len(pair[0]), minimum=0)
    swapped = swapped_distances(*pair, metric(*pair), resamples)
    return SelfDistance(value, float(np.quantile(swapped, CONFIDENCE_LEVEL)))


def _whole_distance(pair: Tables, metric: Callable[[FloatArray, FloatArray], Between]) -> float:
    return float(metric(*pair)(pair[0].sum(axis=0), pair[1].sum(axis=0)))


# ------------------------------------------------------------------------------------------------------------ semantics
MEANING_DISTANCE = "meaning_distance"
NO_EMBEDDER = "the base's responses share too few words to fit an embedding"


def _semantic_shift(rows_SND: FloatArray | None, ours: Corpus, reference: Reference) -> Drift:
    """1 - cos to the base's other responses: ours minus the base's own, so that other random numbers cancel."""
    names = (
        "semantic_shift", MEANING, "Semantic shift",
        "1 − cosine to the base’s response to the same prompt, minus the base’s own: does it say something else?",
    )  # fmt: skip
    if rows_SND is None:
        return _missing(*names, NO_EMBEDDER)
    if reference.again is None:
        return _missing(*names, "needs a second set of the base's responses")
    sides = [
        np.stack([semantic.cosine_distance(rows, reference.other_rows) for rows in side])
        for side in (rows_SND, reference.base_rows[None])
    ]
    by_prompt = [ours.per_prompt(values) for values in sides]
    return _paired_drift(names, "cosine", by_prompt, _spread(sides[1], sides[0]), reference.resamples)


def _semantic_distance(rows_SND: FloatArray | None, ours: Corpus, reference: Reference) -> Drift:
    names = (
        MEANING_DISTANCE, MEANING, "Distance of meanings",
        "maximum mean discrepancy of the embeddings, Gaussian kernel, 0 same",
    )  # fmt: skip
    if rows_SND is None:
        return _missing(*names, NO_EMBEDDER)
    theirs = reference.random_features.per_prompt(reference.other_rows, ours.prompt_N)
    tables = [(reference.random_features.per_prompt(rows, ours.prompt_N), theirs) for rows in rows_SND]
    return _distance_drift(names, tables, discrepancy, reference)


# --------------------------------------------------------------------------------------------------------- separability
def _separability(separation: separability.Separation | None, reference: Reference) -> Drift:
    """The AUC; told apart more often than the base's two sets are, or it is no drift."""
    names = (
        "separability", SEPARABILITY, "Told apart from the base",
        "AUC of a classifier on style features, on prompts it has not seen; 0.5 same style, 1 never mistaken",
    )  # fmt: skip
    if separation is None:
        return _missing(*names, f"needs {2 * separability.NUM_FOLDS} prompts")
    own, resamples = reference.separation, reference.resamples
    auc, floor, p = auc_test(separation, resamples)
    if own:
        _, floor, _ = auc_test(own, resamples)
    return Drift(
        *names,
        change=auc,
        base_vs_base=mean_estimate(own.auc_SP, resamples, "AUC") if own else None,
        floor=floor,
        effect=auc,
        p=p,
    )


def auc_test(separation: separability.Separation, resamples: Resamples) -> tuple[Estimate, float, float]:
    """The AUC, what it stays under in 95 % of random swaps of the sides, and the share of swaps that reach it."""
    swapped = flipped_means(separation.swap_SP.mean(axis=0), resamples)
    auc = mean_estimate(separation.auc_SP, resamples, "AUC")
    return auc, 0.5 + float(np.quantile(swapped, CONFIDENCE_LEVEL)), swap_p(auc.value - 0.5, swapped)


@dataclass(frozen=True)
class Apart:
    """Two arms told apart.

    Attributes:
        auc: 0.5 if they cannot be.
        p: share of random swaps of the two, prompt by prompt, with an AUC as high.
        p_holm: corrected for the number of pairs.
        told_apart: significant and at least the AUC that the rules ask for.
        moved: how the first writes, seen from the second.
    """

    one: str
    two: str
    auc: Estimate
    p: float
    p_holm: float
    told_apart: bool
    moved: tuple[separability.Moved, ...]


def tell_apart(
    pairs: Sequence[tuple[str, str, Corpus, Corpus]], resamples: Resamples, rules: StyleRules
) -> list[Apart]:
    """Each pair of arms, corrected for their number; pairs with too few prompts are left out."""
    found = [(one, two, separability.separate(first, second)) for one, two, first, second in pairs]
    tested = [(one, two, item, *auc_test(item, resamples)) for one, two, item in found if item]
    adjusted = holm([p for *_, p in tested])
    results = []
    for (one, two, item, auc, _, p), p_holm in zip(tested, adjusted, strict=True):
        told = p_holm <= rules.significance_level and auc.value >= rules.min_auc and auc.excludes(0.5)
        results.append(Apart(one, two, auc, p, p_holm, told, item.moved if told else ()))
    return results
