"""How close predicted ages are to chronological ages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.bins import DECADES, MIN_BIN_N, bin_index, worst_bin
from bids_brainage.statistics.bootstrap import MIN_SUBJECTS, Bootstrap, binned_unit_sums, unit_sums
from bids_brainage.statistics.result import Stat, defined, undefined

Array = NDArray[np.float64]

ZERO_VARIANCE = 1e-12
"""Relative variance below which a resampled variable counts as constant."""


class Complete(NamedTuple):
    """Rows with a known age and prediction.

    Attributes
    ----------
    y, p : (n,) arrays
        Chronological and predicted age, years.
    keep : (n_rows,) bool array
        Which input rows they are.
    """

    y: Array
    p: Array
    keep: NDArray[np.bool_]


def complete(age: ArrayLike, predicted: ArrayLike) -> Complete:
    """Keep the rows in which age and prediction are finite, in float64."""
    y = np.asarray(age, dtype=np.float64)
    p = np.asarray(predicted, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(f'age and prediction must be equal 1-D arrays, got {y.shape}, {p.shape}')
    keep = np.isfinite(y) & np.isfinite(p)
    return Complete(y[keep], p[keep], keep)


def accuracy(
    age: ArrayLike,
    predicted: ArrayLike,
    edges: Sequence[float] = DECADES,
    min_bin_n: int = MIN_BIN_N,
) -> dict[str, Stat]:
    """Compute the accuracy of predicted ages.

    The error is predicted minus chronological age in years: positive is an over-estimate.

    Parameters
    ----------
    age, predicted : (n,) array
        Years; rows with a missing value are left out.
    edges : sequence of float
        Lower edges of the bins of mMAE.
    min_bin_n : int
        Smallest bin that may set ``mmae``.

    Returns
    -------
    dict of str to Stat
        ``mae``, ``me``, ``mse`` (years²), ``rmse``, ``r`` (Pearson), ``r2`` (1 − SSE/SST, not
        r squared, may be negative), ``sd_abs_err``, ``sd_err`` (ddof 1), ``slope`` (of the
        error on age, years per year; 0 is no age bias), ``mmae``, ``mmae_all``.

    References
    ----------
    Dular & Špiclin, NeuroImage 285:120469 (2024), doi:10.1016/j.neuroimage.2023.120469.

    Examples
    --------
    >>> stats = accuracy([20, 30, 40], [22, 29, 45])  # errors of 2, -1 and 5 years
    >>> [round(stats[name].get(), 3) for name in ('mae', 'me', 'mse')]
    [2.667, 2.0, 10.0]
    >>> stats['mmae'].reason
    'no bin holds at least 5 values'
    """
    data = complete(age, predicted)
    y, p = data.y, data.p
    error = p - y
    worst = worst_bin(y, np.abs(error), edges, min_bin_n)
    return {
        **_error_sizes(error),
        **_agreement(y, p),
        'mmae': worst.value,
        'mmae_all': worst.value_all,
    }


def _error_sizes(error: Array) -> dict[str, Stat]:
    """Means and standard deviations of the errors."""
    n = error.size
    if n == 0:
        names = ('mae', 'me', 'mse', 'rmse', 'sd_abs_err', 'sd_err')
        return dict.fromkeys(names, undefined('no row with age and prediction'))
    size = np.abs(error)
    mse = float(np.mean(error**2))
    alone = undefined('needs at least 2 values')
    return {
        'mae': defined(size.mean()),
        'me': defined(error.mean()),
        'mse': defined(mse),
        'rmse': defined(np.sqrt(mse)),
        'sd_abs_err': defined(size.std(ddof=1)) if n > 1 else alone,
        'sd_err': defined(error.std(ddof=1)) if n > 1 else alone,
    }


def _agreement(y: Array, p: Array) -> dict[str, Stat]:
    """Pearson correlation, explained variance, and slope of the error on age."""
    if y.size < 2:
        return dict.fromkeys(('r', 'r2', 'slope'), undefined('needs at least 2 values'))
    if np.ptp(y) == 0:
        return dict.fromkeys(('r', 'r2', 'slope'), undefined('age has zero variance'))
    dy, dp = y - y.mean(), p - p.mean()
    syy = float(dy @ dy)
    r = undefined('prediction has zero variance')
    if np.ptp(p) > 0:
        r = defined(np.clip(dy @ dp / np.sqrt(syy * float(dp @ dp)), -1.0, 1.0))
    return {
        'r': r,
        'r2': defined(1 - float(np.sum((p - y) ** 2)) / syy),
        'slope': defined(dy @ dp / syy - 1),
    }


def accuracy_limits(
    age: ArrayLike,
    predicted: ArrayLike,
    subjects: ArrayLike,
    bootstrap: Bootstrap,
    edges: Sequence[float] = DECADES,
    min_bin_n: int = MIN_BIN_N,
) -> dict[str, Stat]:
    """Compute :func:`accuracy` with bootstrap limits over subjects.

    Parameters
    ----------
    age, predicted : (n,) array
        Years.
    subjects : (n,) int array
        Integer code of each row's person; a person's scans are drawn together.
    bootstrap : Bootstrap
        Draws, seed and level.
    edges, min_bin_n
        As in :func:`accuracy`.  The bins of mMAE are those that qualify in the sample.

    Returns
    -------
    dict of str to Stat
        The keys of :func:`accuracy`.  Without limits, `Stat.reason` says why.
    """
    stats = accuracy(age, predicted, edges, min_bin_n)
    data = complete(age, predicted)
    codes, n_subjects = bootstrap.units(np.asarray(subjects)[data.keep])
    if n_subjects < MIN_SUBJECTS:
        return without_limits(stats, f'no limits with fewer than {MIN_SUBJECTS} subjects')
    drawn = _drawn(data.y, data.p, codes, bootstrap, edges, min_bin_n)
    return attach_limits(stats, drawn, bootstrap)


def attach_limits(
    stats: dict[str, Stat], drawn: dict[str, Array], bootstrap: Bootstrap
) -> dict[str, Stat]:
    """Give every defined statistic the limits of its resampled values."""
    result = {}
    for name, stat in stats.items():
        limits = bootstrap.limits(drawn[name]) if stat else None
        if stat and limits is None:
            stat = Stat(stat.value, 'undefined in too many bootstrap draws for limits')
        result[name] = stat.with_limits(*limits) if limits else stat
    return result


def without_limits(stats: dict[str, Stat], reason: str) -> dict[str, Stat]:
    """Say of every defined statistic why it has no limits."""
    return {k: Stat(s.value, reason) if s else s for k, s in stats.items()}


def _drawn(
    y: Array,
    p: Array,
    codes: NDArray[np.intp],
    bootstrap: Bootstrap,
    edges: Sequence[float],
    min_bin_n: int,
) -> dict[str, Array]:
    """Compute all statistics in all draws; each array has shape (draws,)."""
    error = p - y
    size = np.abs(error)
    centred = y - y.mean()
    index = bin_index(y, edges)
    count = np.bincount(index[index >= 0], minlength=len(edges))
    used = np.flatnonzero(count)
    place = np.append(np.cumsum(count > 0) - 1, -1)[index]
    base = [np.ones_like(y), size, error, error**2, centred, centred**2, centred * error]
    per_bin = [binned_unit_sums(x, place, used.size, codes) for x in (None, size)]
    sums = bootstrap.draw(np.hstack([unit_sums(base, codes), *per_bin]))
    drawn = _from_sums(*sums[:, :7].T)
    first, last = sums[:, 7 : 7 + used.size], sums[:, 7 + used.size :]
    with np.errstate(invalid='ignore', divide='ignore'):
        means = np.where(first > 0, last / first, -np.inf)
    large = count[used] >= max(min_bin_n, 1)
    drawn['mmae_all'] = _row_max(means)
    drawn['mmae'] = _row_max(means[:, large])
    return drawn


def _row_max(means: Array) -> Array:
    """Largest bin mean of each draw; NaN where no bin is occupied."""
    top = means.max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(top), top, np.nan)


def _from_sums(
    n: Array, s_abs: Array, s_e: Array, s_ee: Array, s_y: Array, s_yy: Array, s_ye: Array
) -> dict[str, Array]:
    """Turn sums (all of shape (draws,), y centred) into statistics; NaN where undefined."""
    with np.errstate(invalid='ignore', divide='ignore'):
        see = s_ee - s_e**2 / n
        syy = s_yy - s_y**2 / n
        sye = s_ye - s_y * s_e / n
        spp = see + syy + 2 * sye
        scale = np.abs(s_ee) + np.abs(s_yy)
        syy = np.where(syy > ZERO_VARIANCE * scale, syy, np.nan)
        spp = np.where(spp > ZERO_VARIANCE * scale, spp, np.nan)
        return {
            'mae': s_abs / n,
            'me': s_e / n,
            'mse': s_ee / n,
            'rmse': np.sqrt(s_ee / n),
            'sd_abs_err': np.sqrt(np.maximum(s_ee - s_abs**2 / n, 0) / (n - 1)),
            'sd_err': np.sqrt(np.maximum(see, 0) / (n - 1)),
            'r': np.clip((syy + sye) / np.sqrt(syy * spp), -1, 1),
            'r2': 1 - s_ee / syy,
            'slope': sye / syy,
        }


def subject_means(
    age: ArrayLike, predicted: ArrayLike, subjects: ArrayLike
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Average ages and predictions of each subject over the complete rows.

    Returns
    -------
    age, predicted : (n_subjects,) arrays
        Years; their difference is the mean error of the subject.
    subjects : (n_subjects,) int array
        The codes.

    Examples
    --------
    >>> age, predicted, subjects = subject_means([30, 32, 50], [34, 30, 55], [7, 7, 9])
    >>> age.tolist(), predicted.tolist(), subjects.tolist()
    ([31.0, 50.0], [32.0, 55.0], [7, 9])
    """
    data = complete(age, predicted)
    present, codes = np.unique(np.asarray(subjects)[data.keep], return_inverse=True)
    n = np.bincount(codes, minlength=present.size)
    y = np.bincount(codes, data.y, minlength=present.size) / np.maximum(n, 1)
    p = np.bincount(codes, data.p, minlength=present.size) / np.maximum(n, 1)
    return y, p, present


def interval_coverage(
    age: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    subjects: ArrayLike | None = None,
) -> Stat:
    """Share of ages inside their prediction intervals, both ends included.

    Parameters
    ----------
    age, low, high : (n,) array
        Years; rows with a missing value are left out.
    subjects : (n,) int array, optional
        Codes of persons; adds limits (:func:`wilson` with the number of people, as scans of one
        person tell little more than one of them).

    Examples
    --------
    >>> interval_coverage([20, 30, 40, 50], [18, 31, 35, 50], [22, 36, 45, 60]).get()
    0.75
    """
    y, a, b = (np.asarray(x, dtype=np.float64) for x in (age, low, high))
    keep = np.isfinite(y) & np.isfinite(a) & np.isfinite(b)
    if not keep.any():
        return undefined('no row with age and interval')
    share = float(((y >= a) & (y <= b))[keep].mean())
    if subjects is None:
        return defined(share)
    return wilson(share, np.unique(np.asarray(subjects)[keep]).size)


def wilson(share: float, n: int, level: float = 0.95) -> Stat:
    """Give a share its score limits, which are never as narrow as the share of 60 in 60.

    Parameters
    ----------
    share : float
        Between 0 and 1.
    n : int
        How many were counted.
    level : float
        Confidence level.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22:209 (1927), doi:10.1080/01621459.1927.10502953.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    return defined(share).with_limits(max(middle - half, 0.0), min(middle + half, 1.0))
