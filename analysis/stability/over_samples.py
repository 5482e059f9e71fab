"""Dispersion and risk over the samples of one prompt: what one response more or less of the final model may be like.

DF and RF of Chan et al. 2020 (arXiv:1912.05663), with the prompt as the unit of resampling. Units: base SD.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, estimate_from_draws, mean_estimate

MIN_SAMPLES = 2
MIN_TAIL_RESPONSES = 80  # with fewer, the interval of the worst responses covered 89 to 90 % (analysis/coverage.md)


@dataclass(frozen=True)
class OverSamples:
    """One model. Levels are relative to the base's mean measure, so that zero is the base's ordinary response.

    Attributes:
        spread: SD over the samples of a prompt, mean over prompts (DF).
        worst_of_prompt: the worst of `num_samples` responses to a prompt, mean over prompts.
        worst_responses: mean of the worst share of all responses (RF, lower CVaR).
        too_narrow: whether the interval of the worst responses was measured to cover 90 % or less of such cases.
    """

    num_samples: int
    spread: Estimate
    worst_of_prompt: Estimate
    worst_responses: Estimate
    too_narrow: bool


def within_prompt_sd(values_SPM: FloatArray) -> FloatArray:
    """SD over the samples of one prompt, `[S, P]`."""
    return np.asarray(values_SPM.std(axis=2, ddof=1))


def lower_tail_mean(values_PM: FloatArray, weights_BP: FloatArray, share: float) -> FloatArray:
    """Mean of the lowest `share` of all responses under prompt weights (rows sum to 1): `[B]`.

    The response at the edge of the tail counts with the part of its weight that lies inside it.
    """
    num_samples = values_PM.shape[1]
    order = np.argsort(values_PM, axis=None, kind="stable")
    weights = weights_BP[:, order // num_samples] / num_samples
    reached = np.cumsum(weights, axis=1)
    inside = np.clip(share - (reached - weights), 0, weights)
    return np.asarray(inside @ values_PM.ravel()[order] / inside.sum(axis=1))


def spread_over_samples(measure_SPM: FloatArray, resamples: Resamples, tail_share: float) -> OverSamples | None:
    """Dispersion and risk over samples, or None if there is one sample a prompt.

    Args:
        measure_SPM: base SD, less the base's mean.
        resamples: of prompts and seeds.
        tail_share: of all responses that is the tail.
    """
    _, n, num_samples = measure_SPM.shape
    if num_samples < MIN_SAMPLES:
        return None
    return OverSamples(
        num_samples,
        mean_estimate(within_prompt_sd(measure_SPM), resamples, "base SD"),
        mean_estimate(measure_SPM.min(axis=2), resamples, "base SD"),
        worst_responses(measure_SPM, resamples, tail_share),
        tail_share * n * num_samples < MIN_TAIL_RESPONSES,
    )


def worst_responses(measure_SPM: FloatArray, resamples: Resamples, tail_share: float) -> Estimate:
    """Mean of the worst share of all responses, mean over seeds."""
    num_seeds, n, _ = measure_SPM.shape
    everyone = np.full((1, n), 1 / n)
    tails = [lower_tail_mean(values_PM, resamples.prompts, tail_share) for values_PM in measure_SPM]
    value = float(np.mean([lower_tail_mean(values_PM, everyone, tail_share) for values_PM in measure_SPM]))
    return estimate_from_draws(value, resamples.average_seeds(np.stack(tails, axis=1)), "base SD", n, num_seeds)
