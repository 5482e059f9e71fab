"""Win rates of comparisons that another tool judged: one row per file, raw and length-controlled, each file alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.elsewhere.annotations import AnnotationError, Annotations, read_annotations
from analysis.statistics.bootstrap import NUM_RESAMPLES, Estimate, FloatArray, multinomial_weights
from analysis.statistics.controlled_win_rate import controlled_win_rate
from analysis.text import visible

SEED = 0  # the same for every file, so that a file's numbers do not depend on the others
DECIMALS = 4  # of a percent
MAX_REPEATED = 0.2  # share of a model's responses that may be the same text
MAX_NAME = 40  # characters of a model's name in the table

Interval = tuple[float, float]


@dataclass(frozen=True)
class FileWinRate:
    """What one file says. Rates, intervals, premium and effect in percent (points).

    Attributes:
        file: where it was read from.
        generator: the model that is measured.
        baseline: the model that it is compared with.
        n: comparisons used.
        num_prompts: different prompts among them, the unit of the bootstrap.
        num_missing: comparisons without a preference, left out.
        num_malformed: comparisons that could not be read, left out.
        win_rate: mean preference for the model.
        win_rate_ci95: 95 % interval, bootstrap over prompts.
        lc_win_rate: win rate if both wrote at the same length.
        lc_win_rate_ci95: 95 % interval, refitted in every resample; it spans both extremes of a large length effect.
        identified: whether `lc_win_rate` rests on comparisons of about equal length rather than on extrapolation.
        overlap: share of comparisons whose lengths differ by at most half a standard deviation of the difference.
        style_premium: win_rate − lc_win_rate: what length alone seems to bring.
        style_premium_ci95: 95 % interval.
        length_ratio: mean characters of the model's responses over those of the baseline's.
        mde: smallest true effect on the win rate that so many prompts would show in four of five repetitions.
        flags: reasons to distrust the file. `repeated_responses`: the model says the same whatever the prompt.
            `weakly_identified`: preferences go with length more than judges are known to care, so how
            much of that is length is not known.
    """

    file: str
    generator: str
    baseline: str
    n: int
    num_prompts: int
    num_missing: int
    num_malformed: int
    win_rate: float
    win_rate_ci95: Interval
    lc_win_rate: float
    lc_win_rate_ci95: Interval
    identified: bool
    overlap: float
    style_premium: float
    style_premium_ci95: Interval
    length_ratio: float
    mde: float
    flags: tuple[str, ...]


def win_rates(paths: Sequence[Path], format_name: str) -> list[FileWinRate]:
    """One result per file, in the given order.

    Raises:
        AnnotationError: any file cannot be used; all such files are named.
    """
    read: list[tuple[Path, Annotations]] = []
    errors: list[str] = []
    for path in paths:
        try:
            read.append((path, read_annotations(path, format_name)))
        except AnnotationError as error:
            errors.append(str(error))
    if errors:
        raise AnnotationError("; ".join(dict.fromkeys(errors)))
    return [measure(annotations, str(path)) for path, annotations in read]


def measure(annotations: Annotations, file: str, num_resamples: int = NUM_RESAMPLES) -> FileWinRate:
    """Raw and length-controlled win rate of one file."""
    ours, theirs = annotations.characters_N, annotations.baseline_characters_N
    style_NF, covariate_ND = features(annotations)
    rng = np.random.default_rng(SEED)
    rates = controlled_win_rate(
        annotations.preference_N,
        annotations.prompt_N,
        style_NF,
        covariate_ND,
        weights_BP=multinomial_weights(rng, annotations.num_prompts, num_resamples),
        rng=rng,
    )
    identified = rates.identified and not repeats(annotations)
    flags = {"repeated_responses": repeats(annotations), "weakly_identified": identified and rates.held}
    return FileWinRate(
        file=file,
        generator=annotations.generator,
        baseline=annotations.baseline,
        n=len(ours),
        num_prompts=annotations.num_prompts,
        num_missing=annotations.num_missing,
        num_malformed=annotations.num_malformed,
        win_rate=_rounded(rates.raw.value),
        win_rate_ci95=_interval(rates.raw),
        lc_win_rate=_rounded(rates.controlled.value),
        lc_win_rate_ci95=_interval(rates.controlled),
        identified=identified,
        overlap=_rounded(rates.overlap),
        style_premium=_rounded(rates.style_premium.value),
        style_premium_ci95=_interval(rates.style_premium),
        length_ratio=round(float(ours.sum() / max(1.0, theirs.sum())), DECIMALS),
        mde=_rounded(rates.raw.minimum_detectable_effect),
        flags=tuple(flag for flag, raised in flags.items() if raised),
    )


def features(annotations: Annotations) -> tuple[FloatArray, FloatArray]:
    """The difference in characters, and what stands in for the difficulty of the prompt, `[N, 1]` each.

    That is the baseline's log length. If the model says the same whatever the prompt, it is `[N, 0]`: then its length
    relative to the baseline is nothing but the baseline's length, and the two effects cannot be told apart.
    """
    ours, theirs = annotations.characters_N, annotations.baseline_characters_N
    covariate_N1 = np.log1p(theirs)[:, None]
    return (ours - theirs)[:, None], covariate_N1[:, :0] if repeats(annotations) else covariate_N1


def repeats(annotations: Annotations) -> bool:
    """Whether the model says the same too often."""
    return annotations.repeated_share > MAX_REPEATED


def render_table(results: Sequence[FileWinRate]) -> str:
    """A table for a terminal; whatever stands in the files is made visible first."""
    header = ["generator", "n", "win rate %", "length-controlled %", "premium", "length", "MDE", "notes"]
    table = [header, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _cells(result: FileWinRate) -> list[str]:
    return [
        visible(" ".join(result.generator.split()))[:MAX_NAME],
        str(result.n),
        _with_interval(result.win_rate, result.win_rate_ci95),
        _with_interval(result.lc_win_rate, result.lc_win_rate_ci95),
        f"{result.style_premium:+.1f}",
        f"{result.length_ratio:.2f}x",
        f"{result.mde:.1f}",
        ", ".join(_notes(result)),
    ]


def _notes(result: FileWinRate) -> list[str]:
    notes = [] if result.identified else ["controlled rate not identified"]
    notes += [flag.replace("_", " ") for flag in result.flags]
    counts = {"missing": result.num_missing, "malformed": result.num_malformed}
    return notes + [f"{count} {what}" for what, count in counts.items() if count]


def _with_interval(value: float, interval: Interval) -> str:
    return f"{value:5.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def _rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # no minus before a zero


def _interval(estimate: Estimate) -> Interval:
    return _rounded(estimate.low), _rounded(estimate.high)
