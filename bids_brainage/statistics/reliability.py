"""Agreement of repeated scans in which the brain cannot have aged."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.result import Stat, defined, undefined

Array = NDArray[np.float64]

Z95 = 1.959963984540054
"""97.5 % point of the normal distribution."""

LEAST_PAIRS = 10
"""Fewest people scanned twice whose measurement error is put in words or held against a person's
change: of 10 its 95 % limits are 0.7 and 1.8 times the error itself, of 2 0.4 and 32 times."""

NO_PAIRS = 'no participant with all scans of the set'
FEW = 'needs at least 2 participants'


def complete_rows(scores: ArrayLike) -> Array:
    """Drop the participants (rows) that miss a scan (column)."""
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f'expected (participants, scans >= 2), got shape {x.shape}')
    return x[np.isfinite(x).all(axis=1)]


def mean_squares(scores: ArrayLike) -> tuple[float, float, float]:
    """Two-way mean squares of complete scores, shape (n, k).

    Returns
    -------
    between, scans, residual : float
        Between participants, between scans, and residual, in years².

    Raises
    ------
    ValueError
        With fewer than two complete participants.

    Examples
    --------
    >>> mean_squares([[1, 2], [3, 6]])
    (9.0, 4.0, 1.0)
    """
    x = complete_rows(scores)
    n, k = x.shape
    if n < 2:
        raise ValueError(FEW)
    grand = x.mean()
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    between = k * float(np.sum((rows - grand) ** 2)) / (n - 1)
    scans = n * float(np.sum((columns - grand) ** 2)) / (k - 1)
    rest = x - rows[:, None] - columns[None, :] + grand
    return between, scans, float(np.sum(rest**2)) / ((n - 1) * (k - 1))


def icc_3_1(scores: ArrayLike, level: float = 0.95) -> Stat:
    """Intraclass correlation ICC(3,1), consistency of single scans, with its limits.

    A constant shift between the scans does not lower it.  Limits by the F method of
    Shrout & Fleiss (1979, doi:10.1037/0033-2909.86.2.420) and McGraw & Wong (1996,
    doi:10.1037/1082-989X.1.1.30), case C,1.

    Parameters
    ----------
    scores : (n, k) array
        Predicted ages, participants by scans; rows with a missing scan are dropped.
    level : float
        Confidence level.

    Examples
    --------
    >>> round(icc_3_1([[1, 2], [3, 6]]).get(), 3)  # (9 - 1) / (9 + 1)
    0.8
    """
    from scipy.stats import f

    x = complete_rows(scores)
    n, k = x.shape
    if n < 2:
        return undefined(FEW)
    between, _, rest = mean_squares(x)
    if between + (k - 1) * rest == 0:
        return undefined('all predictions are equal')
    stat = defined((between - rest) / (between + (k - 1) * rest))
    if rest == 0:
        return Stat(stat.value, 'no limits: the scans agree without residual')
    ratio, df1, df2 = between / rest, n - 1, (n - 1) * (k - 1)
    tail = (1 + level) / 2
    low = ratio / float(f.ppf(tail, df1, df2))
    high = ratio * float(f.ppf(tail, df2, df1))
    return stat.with_limits((low - 1) / (low + k - 1), (high - 1) / (high + k - 1))


def icc_2_1(scores: ArrayLike, level: float = 0.95) -> Stat:
    """Intraclass correlation ICC(2,1), absolute agreement of single scans, with its limits.

    A constant shift between the scans lowers it.  Limits as in :func:`icc_3_1`, case A,1.

    Parameters
    ----------
    scores : (n, k) array
        Predicted ages, participants by scans; rows with a missing scan are dropped.
    level : float
        Confidence level.

    Examples
    --------
    >>> round(icc_2_1([[1, 2], [3, 6]]).get(), 3)  # (9 - 1) / (9 + 1 + 2 * (4 - 1) / 2)
    0.615
    """
    from scipy.stats import f

    x = complete_rows(scores)
    n, k = x.shape
    if n < 2:
        return undefined(FEW)
    between, scans, rest = mean_squares(x)
    bottom = between + (k - 1) * rest + k * (scans - rest) / n
    if bottom == 0:
        return undefined('all predictions are equal')
    icc = (between - rest) / bottom
    if rest == 0 or icc >= 1:
        return Stat(icc, 'no limits: the scans agree without residual')
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    top = (a * scans + b * rest) ** 2
    df = top / ((a * scans) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1)))
    tail = (1 + level) / 2
    f_low, f_high = float(f.ppf(tail, n - 1, df)), float(f.ppf(tail, df, n - 1))
    mixed = k * scans + (k * n - k - n) * rest
    low = n * (between - f_low * rest) / (f_low * mixed + n * between)
    high = n * (f_high * between - rest) / (mixed + n * f_high * between)
    return defined(icc).with_limits(low, high)


def reliability_word(icc: float) -> str:
    """Name an ICC: poor, moderate, good or excellent (Koo & Li 2016 limits 0.5, 0.75, 0.9).

    Examples
    --------
    >>> reliability_word(0.9), reliability_word(0.91)
    ('good', 'excellent')
    """
    if icc < 0.5:
        return 'poor'
    if icc < 0.75:
        return 'moderate'
    return 'good' if icc <= 0.9 else 'excellent'


def sigma_scan(scores: ArrayLike, ddof: int = 1) -> Stat:
    """Mean over participants of the within-participant SD of their scans, years.

    Parameters
    ----------
    scores : (n, k) array
        Predicted ages.
    ddof : int
        1 (``sigma_scan``) or 0 (``sigma_scan_pop``); for two scans |d|/√2 or |d|/2.

    Examples
    --------
    >>> round(sigma_scan([[60, 62], [70, 73]]).get(), 3)  # (2 + 3) / 2 / sqrt(2)
    1.768
    """
    x = complete_rows(scores)
    return defined(x.std(axis=1, ddof=ddof).mean()) if len(x) else undefined(NO_PAIRS)


def sigma_seed(scores: ArrayLike) -> Stat:
    """Mean over scans of the SD over re-trainings of one model, years.

    This is what Dular & Špiclin (2024) call σ(y'_scan); it says nothing about repeated scans.

    Parameters
    ----------
    scores : (n_scans, n_trainings) array
        Predicted ages.

    Examples
    --------
    >>> round(sigma_seed([[60, 62], [50, 54]]).get(), 3)  # (2 + 4) / 2 / sqrt(2)
    2.121
    """
    x = complete_rows(scores)
    if not len(x):
        return undefined('no scan with a prediction of every training')
    return defined(x.std(axis=1, ddof=1).mean())


def differences(scores: ArrayLike) -> dict[str, Stat]:
    """Mean, SD and 95 % limits of agreement of first minus last scan (Bland & Altman 1986).

    Parameters
    ----------
    scores : (n, k) array
        Predicted ages in order of acquisition.

    Returns
    -------
    dict of str to Stat
        ``mu_d`` (positive: the first scan looks older), ``sigma_d`` (ddof 1), ``loa_low``,
        ``loa_high`` (``mu_d ∓ 1.96·sigma_d``); all in years.

    Examples
    --------
    >>> limits = differences([[60, 61], [70, 73]])  # -1 and -3 years: SD of sqrt(2)
    >>> [round(limits[name].get(), 2) for name in ('mu_d', 'loa_low', 'loa_high')]
    [-2.0, -4.77, 0.77]
    """
    x = complete_rows(scores)
    if not len(x):
        return dict.fromkeys(('mu_d', 'sigma_d', 'loa_low', 'loa_high'), undefined(NO_PAIRS))
    d = x[:, 0] - x[:, -1]
    if len(d) < 2:
        few = undefined(FEW)
        return {'mu_d': defined(d.mean()), 'sigma_d': few, 'loa_low': few, 'loa_high': few}
    spread = float(d.std(ddof=1))
    return {
        'mu_d': defined(d.mean()),
        'sigma_d': defined(spread),
        'loa_low': defined(d.mean() - Z95 * spread),
        'loa_high': defined(d.mean() + Z95 * spread),
    }


def measurement_error(scores: ArrayLike, level: float = 0.95) -> dict[str, Stat]:
    """Error of one scan and what a change must exceed to be seen.

    Parameters
    ----------
    scores : (n, k) array
        Predicted ages.
    level : float
        Confidence level of ``sem`` and ``sdc95``, whose limits are those of a variance
        (chi-square).

    Returns
    -------
    dict of str to Stat
        ``sem``: √(residual mean square), years, which for two scans is ``sigma_d/√2``;
        ``sdc95``: smallest detectable change ``1.96·√2·sem``, years;
        ``cv_percent``: root mean square of each participant's SD over their mean, percent;
        ``ms_between``, ``ms_residual``: mean squares of :func:`mean_squares`, years².

    Examples
    --------
    >>> stats = measurement_error([[1, 2], [3, 6]])  # residual mean square 1
    >>> stats['sem'].get(), round(stats['sdc95'].get(), 3)
    (1.0, 2.772)
    """
    x = complete_rows(scores)
    if len(x) < 2:
        names = ('sem', 'sdc95', 'cv_percent', 'ms_between', 'ms_residual')
        return dict.fromkeys(names, undefined(FEW))
    between, _, residual = mean_squares(x)
    sem = _with_variance_limits(float(np.sqrt(residual)), (len(x) - 1) * (x.shape[1] - 1), level)
    means = x.mean(axis=1)
    cv = undefined('a mean prediction is not positive')
    if (means > 0).all():
        cv = defined(100 * np.sqrt(np.mean((x.std(axis=1, ddof=1) / means) ** 2)))
    return {
        'sem': sem,
        'sdc95': _times(Z95 * float(np.sqrt(2)), sem),
        'cv_percent': cv,
        'ms_between': defined(between),
        'ms_residual': defined(residual),
    }


def _with_variance_limits(sd: float, df: int, level: float) -> Stat:
    """Give a standard deviation the limits of normal errors."""
    from scipy.stats import chi2

    if sd == 0:
        return Stat(0.0, 'no limits: the scans agree without residual')
    low, high = (sd * float(np.sqrt(df / chi2.ppf((1 + s * level) / 2, df))) for s in (1, -1))
    return defined(sd).with_limits(low, high)


def _times(factor: float, stat: Stat) -> Stat:
    """Multiply a statistic and its limits."""
    value = defined(factor * stat.get())
    if stat.low is None or stat.high is None:
        return Stat(value.value, stat.reason)
    return value.with_limits(factor * stat.low, factor * stat.high)


def median_interval(days: ArrayLike) -> Stat:
    """Median time between the scans in days; missing intervals are left out, not zero.

    Examples
    --------
    >>> median_interval([10, float('nan'), 30]).get()
    20.0
    """
    known = np.asarray(days, dtype=np.float64)
    known = known[np.isfinite(known)]
    return defined(np.median(known)) if known.size else undefined('interval unknown')


def reliability(scores: ArrayLike, days: ArrayLike, level: float = 0.95) -> dict[str, Stat]:
    """Compute all test–retest statistics of one set of scans.

    Parameters
    ----------
    scores : (n, k) array
        Predicted ages in order of acquisition, years.
    days : (n,) array
        Days between first and last scan; NaN if unknown.
    level : float
        Confidence level of the intraclass correlations and of the measurement error.
    """
    x = np.asarray(scores, dtype=np.float64)
    keep = np.isfinite(x).all(axis=1)
    return {
        'icc_3_1': icc_3_1(x, level),
        'icc_2_1': icc_2_1(x, level),
        'sigma_scan': sigma_scan(x),
        'sigma_scan_pop': sigma_scan(x, ddof=0),
        **differences(x),
        **measurement_error(x, level),
        'median_interval_days': median_interval(np.asarray(days, dtype=np.float64)[keep]),
    }
