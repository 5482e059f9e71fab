"""Signs that a model learned to please the reward instead of doing the task: pure functions, one section each.

A detector fires if the whole interval of its number is beyond its threshold, so that noise alone rarely fires it.
The signs are those of the field's audits: measure against training reward (Gao et al. 2022, arXiv:2210.10760), the
share of the gain that length explains (Singhal et al. 2023, arXiv:2310.03716) and responses far outside the base's
cloud (Miao et al. 2025, arXiv:2510.13694, there in the reward model's latent space, here in a space of surface
numbers).

Shapes: S seeds, C evaluation points with the base first, P prompts, M samples, B resamples, K length bins, N responses,
F surface features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf

from analysis.statistics.bootstrap import Estimate, FloatArray, Resamples, mean_draws, mean_estimate, recentred_estimate
from analysis.style.surface import proportions


# ----------------------------------------------------------------------------------------------------- slopes and drops
def slope_per_point(gain_SCP: FloatArray, resamples: Resamples) -> Estimate:
    """Slope of a straight line through all given evaluation points, base SD per point."""
    steps_C = np.arange(gain_SCP.shape[1]) - (gain_SCP.shape[1] - 1) / 2
    return mean_estimate(np.tensordot(steps_C / (steps_C**2).sum(), gain_SCP, (0, 1)), resamples, "base SD per point")


def best_point(measure_SCP: FloatArray, prompts: Sequence[int]) -> int:
    """The evaluation point with the highest mean measure on these prompts; the earliest of equals."""
    return int(np.argmax(measure_SCP[:, :, list(prompts)].mean(axis=(0, 2))))


def change_since(measure_SCP: FloatArray, peak: int, prompts: Sequence[int], resamples: Resamples) -> Estimate:
    """The measure of the last point minus the measure of the peak, on prompts that had no part in choosing the peak.

    On the same prompts the highest of several noisy points would seem to be followed by a drop (winner's curse).
    """
    shown_SCP = measure_SCP[:, :, list(prompts)]
    return mean_estimate(shown_SCP[:, -1] - shown_SCP[:, peak], resamples, "base SD")


# ----------------------------------------------------------------------------------------------------- rank correlation
def weighted_ranks(values_P: FloatArray, weights_BP: FloatArray) -> FloatArray:
    """Mid-ranks in every resample as a share of all: the weight below plus half the weight tied. `[B, P]`."""
    order = np.argsort(values_P, kind="stable")
    ordered_P = values_P[order]
    first = np.flatnonzero(np.r_[True, ordered_P[1:] != ordered_P[:-1]])
    tied_BG = np.add.reduceat(weights_BP[:, order], first, axis=1)
    middle_BG = np.cumsum(tied_BG, axis=1) - tied_BG / 2
    group_P = np.empty(len(order), dtype=np.int64)
    group_P[order] = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(order)]))
    return np.asarray(middle_BG[:, group_P])


def spearman(one_P: FloatArray, two_P: FloatArray, weights_BP: FloatArray) -> FloatArray:
    """Rank correlation in every resample, ranks taken anew, `[B]`; 0 if one side does not vary."""
    one_BP, two_BP = (weighted_ranks(values_P, weights_BP) - 0.5 for values_P in (one_P, two_P))
    covariance_B = (weights_BP * one_BP * two_BP).sum(axis=1)
    spread_B = np.sqrt((weights_BP * one_BP**2).sum(axis=1) * (weights_BP * two_BP**2).sum(axis=1))
    return np.asarray(np.divide(covariance_B, spread_B, out=np.zeros(len(weights_BP)), where=spread_B > 1e-12))


@dataclass(frozen=True)
class Correlation:
    """A rank correlation over prompts, as observed (mean over seeds) and in every resample."""

    value: float
    draws_B: FloatArray


def correlation(one_SP: FloatArray, two_SP: FloatArray, resamples: Resamples) -> Correlation:
    """Spearman of two means per prompt, seed by seed."""
    once_1P = np.full((1, one_SP.shape[1]), 1 / one_SP.shape[1])
    pairs = list(zip(one_SP, two_SP, strict=True))
    value = float(np.mean([spearman(one_P, two_P, once_1P)[0] for one_P, two_P in pairs]))
    draws_BS = np.stack([spearman(one_P, two_P, resamples.prompts) for one_P, two_P in pairs], axis=1)
    return Correlation(value, resamples.average_seeds(draws_BS))


def correlation_change(ours: Correlation, base: Correlation, num_prompts: int, num_seeds: int) -> Estimate:
    """The arm's correlation minus the base's, paired."""
    return recentred_estimate(
        ours.value - base.value, ours.draws_B - base.draws_B, "correlation", num_prompts, num_seeds, -2, 2
    )


# --------------------------------------------------------------------------------------------------------------- length
def non_length_share(
    reward_SPM: FloatArray,
    length_SPM: FloatArray,
    base_reward_PM: FloatArray,
    base_length_PM: FloatArray,
    num_bins: int,
    resamples: Resamples,
) -> tuple[Estimate | None, float]:
    """Share of the reward gain that is left between responses of like length (Singhal et al. 2023, section 3.2).

    Reward difference within bins of length, weighted by how many of our responses lie in each, over the whole gain.

    Args:
        reward_SPM: training reward of ours, any unit.
        length_SPM: tokens.
        base_reward_PM: the base's.
        base_length_PM: the base's.
        num_bins: bins with equal numbers of responses, both sides pooled; fewer if lengths are tied.
        resamples: of the prompts.

    Returns:
        The share, None if no bin holds responses of both sides; and how much of our responses lies in such bins.
    """
    num_seeds, num_prompts, _ = reward_SPM.shape
    pooled = np.r_[length_SPM.ravel(), base_length_PM.ravel()]
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, num_bins + 1)[1:-1]))
    ours = [_binned(*pair, edges) for pair in zip(reward_SPM, length_SPM, strict=True)]
    base = _binned(base_reward_PM, base_length_PM, edges)
    shared = _shared(ours, base)
    if shared == 0:
        return None, 0.0
    once_1P = np.full((1, num_prompts), 1 / num_prompts)
    value = float(np.mean([_within_bins(sums, base, once_1P)[0] for sums in ours]))
    draws_BS = np.stack([_within_bins(sums, base, resamples.prompts) for sums in ours], axis=1)
    gain_SP = (reward_SPM - base_reward_PM).mean(axis=2)
    draws_B = resamples.average_seeds(draws_BS) / mean_draws(gain_SP, resamples)
    share = recentred_estimate(value / float(gain_SP.mean()), draws_B, "share of the gain", num_prompts, num_seeds)
    return share, shared


Binned = tuple[FloatArray, FloatArray]


def _binned(reward_PM: FloatArray, length_PM: FloatArray, edges: FloatArray) -> Binned:
    """Sum of rewards and number of responses per prompt and bin, each `[P, K]`."""
    inside_PMK = np.searchsorted(edges, length_PM, side="right")[..., None] == np.arange(len(edges) + 1)
    return (inside_PMK * reward_PM[..., None]).sum(axis=1), inside_PMK.sum(axis=1).astype(np.float64)


def _shared(ours: Sequence[Binned], base: Binned) -> float:
    """Share of our responses in bins that hold some of the base's."""
    count_K = np.sum([count_PK.sum(axis=0) for _, count_PK in ours], axis=0)
    return float(count_K[base[1].sum(axis=0) > 0].sum() / count_K.sum())


def _within_bins(ours: Binned, base: Binned, weights_BP: FloatArray) -> FloatArray:
    """Mean over our responses of their bin's reward difference, bins of both sides only. `[B]`."""
    (our_sum_BK, our_count_BK), (base_sum_BK, base_count_BK) = (
        tuple(weights_BP @ part_PK for part_PK in side) for side in (ours, base)
    )
    both = (our_count_BK > 0) & (base_count_BK > 0)
    difference_BK = our_sum_BK / np.where(both, our_count_BK, 1) - base_sum_BK / np.where(both, base_count_BK, 1)
    weight_BK = np.where(both, our_count_BK, 0.0)
    return np.asarray((weight_BK * difference_BK).sum(axis=1) / np.maximum(weight_BK.sum(axis=1), 1e-12))


# ------------------------------------------------------------------------------------------------------------- outliers
@dataclass(frozen=True)
class Cloud:
    """The base's responses as a cloud of surface features, and the distance that few of them exceed."""

    mean_F: FloatArray
    scale_F: FloatArray
    precision_FF: FloatArray
    limit: float

    def beyond(self, features_NF: FloatArray) -> FloatArray:
        """1 for a response outside the limit, 0 inside. `[N]`."""
        return (mahalanobis(features_NF, self.mean_F, self.scale_F, self.precision_FF) > self.limit).astype(np.float64)


def surface_features(text: str, num_tokens: float, scores: Sequence[float]) -> tuple[float, ...]:
    """Length, `proportions`, digits, line breaks and further scores of one response."""
    size = max(1, len(text))
    return (
        float(np.log1p(num_tokens)),
        *proportions(text),
        sum(map(str.isdigit, text)) / size,
        text.count("\n") / size,
        *scores,
    )


def cloud(shape_NF: FloatArray, limit_NF: FloatArray, quantile: float) -> Cloud:
    """The cloud by one set of the base's responses, its limit by another, which had no part in shaping it.

    The covariance is shrunk (Ledoit & Wolf 2004), so that few responses and features without variation do no harm.
    """
    mean_F, scale_F = shape_NF.mean(axis=0), shape_NF.std(axis=0)
    scale_F = np.where(scale_F > 0, scale_F, 1.0)
    covariance_FF, _ = ledoit_wolf((shape_NF - mean_F) / scale_F, assume_centered=True)
    precision_FF = np.linalg.pinv(covariance_FF, hermitian=True)
    limit = float(np.quantile(mahalanobis(limit_NF, mean_F, scale_F, precision_FF), quantile))
    return Cloud(mean_F, scale_F, precision_FF, limit)


def mahalanobis(
    features_NF: FloatArray, mean_F: FloatArray, scale_F: FloatArray, precision_FF: FloatArray
) -> FloatArray:
    """Distance of each response from the middle of the cloud. `[N]`."""
    centred_NF = (features_NF - mean_F) / scale_F
    squared_N = ((centred_NF @ precision_FF) * centred_NF).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(0.0, squared_N)))
