"""Differences of the brain-age gap between groups of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.nested import Fit, FitRefusedError, fit_ols, nested_f
from bids_brainage.statistics.result import Stat, defined, undefined

Array = NDArray[np.float64]

SMALL_FOR_Z = 30
"""Group size below which the normal approximation of the Z test deserves a warning."""


NO_G = undefined('not defined for this test')


@dataclass(frozen=True, slots=True)
class Contrast:
    """One test, as one row of a table.

    Attributes
    ----------
    test : str
        Name of the test.
    level_a, level_b : str
        What is compared; `estimate` is a minus b.
    n_a, n_b : int
        Sizes.
    estimate, statistic, p, hedges_g : Stat
        The limits of the estimate and of g are in their `low` and `high`.
    df : tuple of float
        Degrees of freedom; empty for a Z test.
    warning : str or None
        A caution for the reader.
    """

    test: str
    level_a: str
    level_b: str
    n_a: int
    n_b: int
    estimate: Stat
    statistic: Stat
    p: Stat
    df: tuple[float, ...] = ()
    hedges_g: Stat = NO_G
    warning: str | None = None


def refused(test: str, level_a: str, level_b: str, n_a: int, n_b: int, reason: str) -> Contrast:
    """Return a contrast that could not be tested, with the reason."""
    no = undefined(reason)
    return Contrast(test, level_a, level_b, n_a, n_b, no, no, no, hedges_g=no)


def _moments(values: ArrayLike) -> tuple[Array, int, float, float]:
    """Finite values with their number, mean and variance (ddof 1)."""
    x = np.asarray(values, np.float64)
    x = x[np.isfinite(x)]
    mean = float(x.mean()) if x.size else np.nan
    return x, x.size, mean, float(x.var(ddof=1)) if x.size > 1 else np.nan


def hedges_g(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Stat:
    """Standardised mean difference a − b, corrected for small samples (Hedges 1981).

    The limits are normal, with ``var = (n_a+n_b)/(n_a·n_b) + g²/(2(n_a+n_b))``.

    Parameters
    ----------
    a, b : array
        Values of two groups; NaN is left out.
    level : float
        Confidence level.

    Examples
    --------
    >>> round(hedges_g([1, 2, 3], [3, 4, 5]).get(), 3)  # -2 / 1 * (1 - 3 / 15)
    -1.6
    """
    from scipy.stats import norm

    _, n_a, m_a, v_a = _moments(a)
    _, n_b, m_b, v_b = _moments(b)
    if min(n_a, n_b) < 2:
        return undefined('a group has fewer than 2 people')
    pooled = ((n_a - 1) * v_a + (n_b - 1) * v_b) / (n_a + n_b - 2)
    if pooled == 0:
        return undefined('zero variance in both groups')
    g = (1 - 3 / (4 * (n_a + n_b) - 9)) * (m_a - m_b) / np.sqrt(pooled)
    se = np.sqrt((n_a + n_b) / (n_a * n_b) + g**2 / (2 * (n_a + n_b)))
    half = float(norm.ppf((1 + level) / 2)) * se
    return defined(g).with_limits(g - half, g + half)


def z_test(
    a: ArrayLike, b: ArrayLike, names: tuple[str, str] = ('a', 'b'), level: float = 0.95
) -> Contrast:
    """Two-sample Z test ``(m_a − m_b)/√(s_a²/n_a + s_b²/n_b)``, two-sided.

    Parameters
    ----------
    a, b : array
        Gaps of two groups, years.
    names : pair of str
        Their names.
    level : float
        Confidence level of the mean difference.

    Examples
    --------
    >>> round(z_test([1, 2, 3], [3, 4, 5]).statistic.get(), 3)  # -2 / sqrt(1/3 + 1/3)
    -2.449
    """
    from scipy.stats import norm

    _, n_a, m_a, v_a = _moments(a)
    _, n_b, m_b, v_b = _moments(b)
    if min(n_a, n_b) < 2:
        return refused('z', *names, n_a, n_b, 'a group has fewer than 2 people')
    se = float(np.sqrt(v_a / n_a + v_b / n_b))
    if se == 0:
        return refused('z', *names, n_a, n_b, 'zero variance in both groups')
    z, half = (m_a - m_b) / se, float(norm.ppf((1 + level) / 2)) * se
    warning = (
        f'fewer than {SMALL_FOR_Z} people in a group' if min(n_a, n_b) < SMALL_FOR_Z else None
    )
    return Contrast(
        'z',
        *names,
        n_a,
        n_b,
        estimate=defined(m_a - m_b).with_limits(m_a - m_b - half, m_a - m_b + half),
        statistic=defined(z),
        p=defined(2 * norm.sf(abs(z))),
        hedges_g=hedges_g(a, b, level),
        warning=warning,
    )


def welch_anova(groups: Mapping[str, ArrayLike]) -> Contrast:
    """Welch's analysis of variance of group means (Welch 1951, doi:10.2307/2332579).

    Parameters
    ----------
    groups : mapping of str to array
        Gaps by group, years; NaN is left out.

    Returns
    -------
    Contrast
        F with ``df = (K−1, (K²−1)/(3Λ))``; no estimate.

    Examples
    --------
    >>> test = welch_anova({'a': [1, 2, 3], 'b': [3, 4, 5]})  # of two groups the square of t
    >>> round(test.statistic.get(), 3), [round(df, 3) for df in test.df]
    (6.0, [1.0, 4.0])
    """
    from scipy.stats import f_oneway

    stats = {name: _moments(x) for name, x in groups.items()}
    head = ('welch_anova', ', '.join(stats), '', sum(n for _, n, _, _ in stats.values()), 0)
    k = len(stats)
    if k < 2:
        return refused(*head, 'needs at least 2 groups')
    bad = [name for name, (_, n, _, v) in stats.items() if n < 2 or v == 0]
    if bad:
        return refused(*head, f'fewer than 2 people or zero variance in: {", ".join(bad)}')
    test = f_oneway(*(x for x, _, _, _ in stats.values()), equal_var=False)
    # scipy keeps the degrees of freedom of the denominator to itself
    n, var = np.array([(n, v) for _, n, _, v in stats.values()]).T
    share = n / var / np.sum(n / var)
    df = (k**2 - 1) / (3 * float(np.sum((1 - share) ** 2 / (n - 1))))
    none = undefined('no single difference')
    return Contrast(*head, none, defined(test.statistic), defined(test.pvalue), df=(k - 1.0, df))


def games_howell(groups: Mapping[str, ArrayLike], level: float = 0.95) -> list[Contrast]:
    """All pairwise differences with unequal variances (Games & Howell 1976).

    Parameters
    ----------
    groups : mapping of str to array
        Gaps by group, years.
    level : float
        Simultaneous confidence level.

    Returns
    -------
    list of Contrast
        One per pair, first minus second; `statistic` is t, p from the studentised range of
        the groups with at least 2 people.

    Examples
    --------
    >>> (pair,) = games_howell({'a': [1, 2, 3], 'b': [3, 4, 5]})
    >>> pair.estimate.get(), round(pair.statistic.get(), 3), round(pair.p.get(), 3)
    (-2.0, -2.449, 0.07)
    """
    from scipy.stats import ttest_ind, tukey_hsd

    values = {name: _moments(x)[0] for name, x in groups.items()}
    usable = [name for name, x in values.items() if x.size > 1]
    p_values = np.empty((0, 0))
    with np.errstate(divide='ignore', invalid='ignore'):
        if len(usable) > 1:
            p_values = tukey_hsd(*(values[name] for name in usable), equal_var=False).pvalue
    rows = []
    for a, b in combinations(groups, 2):
        x, y = values[a], values[b]
        head = ('games_howell', a, b, x.size, y.size)
        if min(x.size, y.size) < 2:
            rows.append(refused(*head, 'a group has fewer than 2 people'))
        elif np.ptp(x) == np.ptp(y) == 0:
            rows.append(refused(*head, 'zero variance in both groups'))
        else:
            welch = ttest_ind(x, y, equal_var=False)
            difference = float(x.mean() - y.mean())
            se = float(np.sqrt(x.var(ddof=1) / x.size + y.var(ddof=1) / y.size))
            half = _range_quantile(level, len(usable), welch.df) / np.sqrt(2) * se
            rows.append(
                Contrast(
                    *head,
                    estimate=defined(difference).with_limits(difference - half, difference + half),
                    statistic=defined(welch.statistic),
                    p=defined(p_values[usable.index(a), usable.index(b)]),
                    df=(float(welch.df),),
                    hedges_g=hedges_g(x, y, level),
                )
            )
    return rows


def _range_quantile(level: float, k: int, df: float) -> float:
    """Quantile of the studentised range of `k` groups, as ``studentized_range.ppf``.

    Sought between the quantile of one pair and Bonferroni's, which takes a fraction of the
    time of scipy's own search (and of ``tukey_hsd(...).confidence_interval``).
    """
    from scipy.optimize import brentq
    from scipy.stats import studentized_range, t

    low, high = (np.sqrt(2) * t.isf((1 - level) / m, df) for m in (2, k * (k - 1)))
    return float(
        brentq(
            lambda q: studentized_range.cdf(q, k, df) - level, low - 1e-6, high + 1e-6, xtol=1e-8
        )
    )


def ancova(
    gap: ArrayLike,
    group: Sequence[str],
    covariates: Mapping[str, ArrayLike],
    levels: Sequence[str],
    level: float = 0.95,
) -> list[Contrast]:
    """Group differences of the gap with covariates held equal, by least squares.

    Parameters
    ----------
    gap : (n,) array
        Years; rows with a missing gap or covariate are left out.
    group : (n,) sequence of str
        Group of each row; rows of other groups than `levels` are left out.
    covariates : mapping of str to (n,) array
        Numbers; chronological age belongs here.
    levels : sequence of str
        Groups to compare; the first is the reference.
    level : float
        Confidence level.

    Returns
    -------
    list of Contrast
        The F test of the factor (``ancova``), then all pairs (``ancova_pair``), later level
        minus earlier one adjusted for the covariates.

    Examples
    --------
    >>> age = [1, 2, 3, 4, 1, 2, 3, 4]
    >>> gap = [1, 2, 3, 5, 3, 4, 5, 6]  # means of 2.75 and 4.5, the same ages
    >>> _, pair = ancova(gap, ['a'] * 4 + ['b'] * 4, {'age': age}, ['a', 'b'])
    >>> pair.level_a, pair.level_b, round(pair.estimate.get(), 3)
    ('b', 'a', 1.75)
    """
    y = np.asarray(gap, np.float64)
    names = np.asarray(group, dtype=object)
    table = {k: np.asarray(v, np.float64) for k, v in covariates.items()}
    keep = np.isfinite(y) & np.isin(names, list(levels))
    for column in table.values():
        keep &= np.isfinite(column)
    y, names = y[keep], names[keep]
    used = {k: v[keep] for k, v in table.items() if np.ptp(v[keep]) > 0} if keep.any() else {}
    sizes = {name: int(np.sum(names == name)) for name in levels}
    head = ('ancova', ', '.join(levels), '', int(y.size), 0)
    if min(sizes.values(), default=0) < 2 or len(levels) < 2:
        return [refused(*head, 'needs at least 2 groups of 2 people with all covariates')]
    dummies = {f'[{name}]': (names == name).astype(float) for name in levels[1:]}
    try:
        reduced, full = fit_ols(y, used), fit_ols(y, {**used, **dummies})
        overall = nested_f(reduced, full)
    except FitRefusedError as error:
        return [refused(*head, str(error))]
    none = undefined('no single difference')
    rows = [
        Contrast(
            *head,
            none,
            overall.f,
            overall.p,
            df=(float(overall.df_added), float(overall.df)),
        )
    ]
    rows += _ancova_pairs(full, y, names, levels, level)
    return rows


def _ancova_pairs(
    full: Fit, y: Array, names: NDArray[np.object_], levels: Sequence[str], level: float
) -> list[Contrast]:
    """All pairs of groups at equal covariates, later level minus earlier one."""
    from scipy.stats import t as student

    rows = []
    for b, a in combinations(levels, 2):
        weights = np.array([(n == f'[{a}]') * 1.0 - (n == f'[{b}]') for n in full.names])
        estimate, se, t, p = full.test(weights)
        half = float(student.ppf((1 + level) / 2, full.df)) * se
        rows.append(
            Contrast(
                'ancova_pair',
                a,
                b,
                int(np.sum(names == a)),
                int(np.sum(names == b)),
                estimate=defined(estimate).with_limits(estimate - half, estimate + half),
                statistic=defined(t, 'no residual'),
                p=defined(p),
                df=(float(full.df),),
                hedges_g=hedges_g(y[names == a], y[names == b], level),
            )
        )
    return rows


def correlation(
    gap: ArrayLike, phenotype: ArrayLike, level: float = 0.95
) -> tuple[Stat, Stat, int]:
    """Pearson correlation of gap and phenotype with Fisher limits.

    Returns
    -------
    r, p : Stat
        Two-sided p.
    n : int
        Complete pairs.

    Examples
    --------
    >>> r, p, n = correlation([1, 2, 3, 4], [1, 3, 2, 4])
    >>> round(r.get(), 3), n
    (0.8, 4)
    """
    from scipy.stats import pearsonr

    x, y = np.asarray(gap, np.float64), np.asarray(phenotype, np.float64)
    keep = np.isfinite(x) & np.isfinite(y)
    x, y, n = x[keep], y[keep], int(keep.sum())
    if n < 3:
        why = undefined('needs at least 3 people with both values')
        return why, why, n
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        why = undefined('zero variance')
        return why, why, n
    result = pearsonr(x, y)
    r = defined(result.statistic)
    if n > 3 and abs(result.statistic) < 1:
        limits = result.confidence_interval(level)
        r = r.with_limits(limits.low, limits.high)
    return r, defined(result.pvalue), n
