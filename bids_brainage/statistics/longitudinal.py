"""How predicted age moves with time, compared with the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.accuracy import attach_limits, without_limits
from bids_brainage.statistics.bins import DECADES, MIN_BIN_N, bin_index, worst_bin
from bids_brainage.statistics.bootstrap import MIN_SUBJECTS, Bootstrap, binned_unit_sums, unit_sums
from bids_brainage.statistics.result import Stat, defined, undefined

Array = NDArray[np.float64]


def change_error(delta_age: ArrayLike, delta_predicted: ArrayLike) -> Array:
    """Return δ = Δpredicted − Δage of pairs, years; positive is faster than the calendar.

    Examples
    --------
    >>> change_error([1, 2], [1.5, 1]).tolist()
    [0.5, -1.0]
    """
    return np.asarray(delta_predicted, np.float64) - np.asarray(delta_age, np.float64)


def change_accuracy(
    baseline_age: ArrayLike,
    delta_age: ArrayLike,
    delta_predicted: ArrayLike,
    edges: Sequence[float] = DECADES,
    min_bin_n: int = MIN_BIN_N,
) -> dict[str, Stat]:
    """Summarise the error of change over pairs of visits.

    Pairs without a positive age difference or a prediction are left out.

    Parameters
    ----------
    baseline_age : (n,) array
        Age at the earlier visit, years; NaN takes part in ``mde``, ``made`` only.
    delta_age, delta_predicted : (n,) array
        Later minus earlier, years.
    edges, min_bin_n
        Bins of baseline age and the smallest one that may set ``mmade``.

    Returns
    -------
    dict of str to Stat
        ``mde`` (mean δ), ``made`` (mean |δ|), ``mmade`` and ``mmade_all`` (largest bin mean of
        |δ|), years.

    References
    ----------
    Dular & Špiclin, NeuroImage 285:120469 (2024), doi:10.1016/j.neuroimage.2023.120469.

    Examples
    --------
    >>> stats = change_accuracy([60, 70], [1, 2], [1.5, 1])  # 0.5 years too fast, 1 too slow
    >>> stats['mde'].get(), stats['made'].get()
    (-0.25, 0.75)
    """
    keep = usable_pairs(delta_age, delta_predicted)
    delta = change_error(delta_age, delta_predicted)[keep]
    if not delta.size:
        names = ('mde', 'made', 'mmade', 'mmade_all')
        return dict.fromkeys(names, undefined('no pair of visits with a positive interval'))
    worst = worst_bin(np.asarray(baseline_age, np.float64)[keep], np.abs(delta), edges, min_bin_n)
    return {
        'mde': defined(delta.mean()),
        'made': defined(np.abs(delta).mean()),
        'mmade': worst.value,
        'mmade_all': worst.value_all,
    }


def usable_pairs(delta_age: ArrayLike, delta_predicted: ArrayLike) -> NDArray[np.bool_]:
    """Mark the pairs with a positive age difference and a known change of prediction."""
    dy = np.asarray(delta_age, np.float64)
    with np.errstate(invalid='ignore'):
        return (dy > 0) & np.isfinite(dy) & np.isfinite(np.asarray(delta_predicted, np.float64))


def change_limits(
    baseline_age: ArrayLike,
    delta_age: ArrayLike,
    delta_predicted: ArrayLike,
    subjects: ArrayLike,
    bootstrap: Bootstrap,
    min_bin_n: int = MIN_BIN_N,
) -> dict[str, Stat]:
    """Compute :func:`change_accuracy` with bootstrap limits over subjects.

    Parameters
    ----------
    baseline_age, delta_age, delta_predicted : (n,) array
        Years.
    subjects : (n,) int array
        Person of each pair.
    bootstrap : Bootstrap
        Draws, seed and level.
    min_bin_n : int
        As in :func:`change_accuracy`.
    """
    stats = change_accuracy(baseline_age, delta_age, delta_predicted, min_bin_n=min_bin_n)
    keep = usable_pairs(delta_age, delta_predicted)
    codes, n_subjects = bootstrap.units(np.asarray(subjects)[keep])
    if n_subjects < MIN_SUBJECTS:
        return without_limits(stats, f'no limits with fewer than {MIN_SUBJECTS} subjects')
    delta = change_error(delta_age, delta_predicted)[keep]
    size = np.abs(delta)
    index = bin_index(np.asarray(baseline_age, np.float64)[keep], DECADES)
    n_bins = len(DECADES)
    per_bin = [binned_unit_sums(x, index, n_bins, codes) for x in (None, size)]
    base = unit_sums([np.ones_like(delta), delta, size], codes)
    sums = bootstrap.draw(np.hstack([base, *per_bin]))
    with np.errstate(invalid='ignore', divide='ignore'):
        means = sums[:, 3 + n_bins :] / sums[:, 3 : 3 + n_bins]
    means = np.where(np.isfinite(means), means, -np.inf)
    large = np.bincount(index + 1, minlength=n_bins + 1)[1:] >= max(min_bin_n, 1)
    drawn = {
        'mde': sums[:, 1] / sums[:, 0],
        'made': sums[:, 2] / sums[:, 0],
        'mmade': means[:, large].max(axis=1, initial=-np.inf),
        'mmade_all': means.max(axis=1, initial=-np.inf),
    }
    return attach_limits(stats, drawn, bootstrap)


class Slopes(NamedTuple):
    """Straight lines of single persons; arrays of shape (n_persons,), NaN if undefined.

    Attributes
    ----------
    n_sessions : int array
        Visits with a known time and prediction.
    annual_rate : array
        Slope of predicted age on time, years per year; 1 is the calendar's pace.
    gap_slope : array
        Slope of predicted minus chronological age on time, years per year.
    gap_slope_se : array
        Its standard error from the residuals; needs three visits.
    """

    n_sessions: NDArray[np.intp]
    annual_rate: Array
    gap_slope: Array
    gap_slope_se: Array


def person_slopes(person: ArrayLike, years: ArrayLike, predicted: ArrayLike, n: int) -> Slopes:
    """Fit a least-squares line of predicted age on time to every person at once.

    Time is chronological age or any clock that runs in years, so the gap's slope is the
    slope of the prediction minus one and has the same standard error.

    Parameters
    ----------
    person : (n_visits,) int array
        Codes 0..n-1.
    years : (n_visits,) array
        Time of each visit, years.
    predicted : (n_visits,) array
        Predicted age, years.
    n : int
        Number of persons.

    Examples
    --------
    >>> lines = person_slopes([0, 0, 0], [50, 51, 52], [48, 50, 52], 1)
    >>> lines.annual_rate.tolist(), lines.gap_slope.tolist()
    ([2.0], [1.0])
    """
    code = np.asarray(person)
    t = np.asarray(years, np.float64)
    p = np.asarray(predicted, np.float64)
    keep = np.isfinite(t) & np.isfinite(p)
    code, t, p = code[keep], t[keep], p[keep]
    count = np.bincount(code, minlength=n)
    safe = np.maximum(count, 1)
    t = t - (np.bincount(code, t, minlength=n) / safe)[code]
    p = p - (np.bincount(code, p, minlength=n) / safe)[code]
    stt = np.bincount(code, t * t, minlength=n)
    stp = np.bincount(code, t * p, minlength=n)
    with np.errstate(invalid='ignore', divide='ignore'):
        slope = np.where((count > 1) & (stt > 0), stp / stt, np.nan)
        rest = np.bincount(code, (p - slope[code] * t) ** 2, minlength=n)
        se = np.sqrt(rest / (count - 2) / stt)
    se = np.where((count > 2) & (stt > 0), se, np.nan)
    return Slopes(count, slope, slope - 1, se)


def reliable_change(delta: ArrayLike, sem: Stat) -> tuple[Array, Array]:
    """Compare errors of change with the error of measurement (Jacobson & Truax 1991).

    Parameters
    ----------
    delta : (n,) array
        Δpredicted − Δage, years.
    sem : Stat
        Standard error of one scan from test–retest data of the same model, years.

    Returns
    -------
    index : (n,) array
        ``delta / (√2·sem)``; NaN where undefined.
    exceeds : (n,) array
        1.0 where |index| > 1.96, 0.0 where not, NaN where undefined.

    Examples
    --------
    >>> index, exceeds = reliable_change([1.0, 4.0], Stat(1.0))
    >>> index.round(3).tolist(), exceeds.tolist()
    ([0.707, 2.828], [0.0, 1.0])
    """
    d = np.asarray(delta, np.float64)
    if not sem or sem.get() == 0:
        return np.full(d.shape, np.nan), np.full(d.shape, np.nan)
    index = d / (np.sqrt(2) * sem.get())
    return index, np.where(np.isnan(index), np.nan, (np.abs(index) > 1.959963984540054) * 1.0)
