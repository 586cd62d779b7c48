"""Least-squares models and the F test of nested ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.result import Stat, defined, undefined

Array = NDArray[np.float64]

SEX_CODES = {'F': 0.0, 'M': 1.0}
"""Regressor of each sex; the dataset's tables have been read into these letters."""


@dataclass(frozen=True)
class Fit:
    """An ordinary least-squares fit with intercept.

    Attributes
    ----------
    names : tuple of str
        ``intercept`` and the regressors.
    coefficients : (k,) array
        In the order of `names`.
    covariance : (k, k) array
        Of the coefficients.
    rss : float
        Residual sum of squares.
    df : int
        Residual degrees of freedom.
    r2 : Stat
        Explained share of the variance.
    outcome : (n,) array
        The fitted outcome, to check that two fits share their rows.
    """

    names: tuple[str, ...]
    coefficients: Array
    covariance: Array
    rss: float
    df: int
    r2: Stat
    outcome: Array

    def test(self, weights: ArrayLike) -> tuple[float, float, float, float]:
        """Test a linear combination of coefficients against zero.

        Returns
        -------
        estimate, standard_error, t, p : float
            Two-sided p with `df` degrees of freedom.
        """
        from scipy.stats import t as student

        c = np.asarray(weights, np.float64)
        estimate = float(c @ self.coefficients)
        se = float(np.sqrt(c @ self.covariance @ c))
        t = estimate / se if se > 0 else float(np.copysign(np.inf, estimate))
        return estimate, se, t, float(2 * student.sf(abs(t), self.df))

    def as_dict(self) -> dict[str, object]:
        """Return coefficients, covariance, n and residual variance for a JSON file."""
        return {
            'names': list(self.names),
            'coefficients': self.coefficients.tolist(),
            'covariance': self.covariance.tolist(),
            'n': int(self.outcome.size),
            'residual_variance': self.rss / self.df,
        }


class FitRefusedError(ValueError):
    """The model cannot be fitted to these rows."""


def fit_ols(outcome: ArrayLike, regressors: Mapping[str, ArrayLike]) -> Fit:
    """Fit an outcome on regressors and an intercept.

    Parameters
    ----------
    outcome : (n,) array
        For fusion the chronological age in years.
    regressors : mapping of str to (n,) array
        Columns by name; all finite.

    Raises
    ------
    FitRefusedError
        With too few rows, missing values, or columns that depend on each other.

    Examples
    --------
    >>> fit = fit_ols([1.0, 3.0, 5.0, 8.0], {'x': [0, 1, 2, 3]})  # 0.8 + 2.3 x
    >>> dict(zip(fit.names, fit.coefficients.round(6).tolist(), strict=True)), fit.df
    ({'intercept': 0.8, 'x': 2.3}, 2)
    """
    y = np.asarray(outcome, np.float64)
    names = ('intercept', *regressors)
    columns = [np.asarray(v, np.float64) for v in regressors.values()]
    x = np.column_stack([np.ones_like(y), *columns])
    df = y.size - len(names)
    if df < 1:
        raise FitRefusedError(f'{y.size} rows are too few for {len(names)} coefficients')
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FitRefusedError('missing values in the rows to fit')
    centre = np.append(0.0, x[:, 1:].mean(axis=0))
    scale = np.append(1.0, x[:, 1:].std(axis=0))
    if (scale == 0).any() or np.linalg.matrix_rank((x - centre) / scale) < len(names):
        raise FitRefusedError('a regressor is constant or a combination of the others')
    q, r = np.linalg.qr(x)
    beta = np.linalg.solve(r, q.T @ y)
    rss = float(np.sum((y - x @ beta) ** 2))
    inverse = np.linalg.inv(r)
    total = float(np.sum((y - y.mean()) ** 2))
    r2 = defined(1 - rss / total) if total > 0 else undefined('outcome has zero variance')
    return Fit(names, beta, inverse @ inverse.T * (rss / df), rss, df, r2, y)


@dataclass(frozen=True, slots=True)
class NestedTest:
    """F test of a full against a reduced model; `df_added` and `df` are its degrees."""

    f: Stat
    p: Stat
    df_added: int
    df: int


def nested_f(reduced: Fit, full: Fit) -> NestedTest:
    """Test whether added regressors explain more than chance.

    ``F = ((RSS0 − RSS1)/(df0 − df1)) / (RSS1/df1)``; with one added regressor the square of
    its t (Jomsky et al. 2024, arXiv:2412.01865).

    Raises
    ------
    FitRefusedError
        If the models are not nested or were fitted on different rows.

    Examples
    --------
    >>> y, x = [0, 2, 1, 3], [0, 1, 2, 3]  # residual sums of squares of 5 and 1.8
    >>> round(nested_f(fit_ols(y, {}), fit_ols(y, {'x': x})).f.get(), 4)  # 3.2 / (1.8 / 2)
    3.5556
    """
    from scipy.stats import f as fisher

    if not set(reduced.names) < set(full.names):
        raise FitRefusedError(f'{reduced.names} is not nested in {full.names}')
    if not np.array_equal(reduced.outcome, full.outcome):
        raise FitRefusedError('the two models were fitted on different rows')
    added = reduced.df - full.df
    if full.rss == 0:
        nothing = undefined('the full model leaves no residual')
        return NestedTest(nothing, nothing, added, full.df)
    value = max((reduced.rss - full.rss) / added / (full.rss / full.df), 0.0)
    p = float(fisher.sf(value, added, full.df))
    return NestedTest(defined(value), defined(p), added, full.df)


def fusion_table(
    age: ArrayLike, first: ArrayLike, second: ArrayLike, sex: ArrayLike | None
) -> tuple[dict[str, Fit], dict[str, NestedTest]]:
    """Fit the fusion models T, A, TA and TAS and compare the nested ones.

    Parameters
    ----------
    age : (n,) array
        Chronological age, years.
    first, second : (n,) array
        Predictions T and A of two models for the same scans, years.
    sex : (n,) array or None
        0 female, 1 male; None leaves out TAS.

    Returns
    -------
    fits : dict
        ``T``, ``A``, ``TA`` and, with sex, ``TAS``.
    tests : dict
        ``T vs TA``, ``A vs TA`` and, with sex, ``TA vs TAS``.

    Examples
    --------
    >>> age = [20, 30, 40, 50, 60]
    >>> fits, tests = fusion_table(age, [22, 29, 41, 52, 58], [25, 28, 44, 47, 63], None)
    >>> list(fits), list(tests)
    (['T', 'A', 'TA'], ['T vs TA', 'A vs TA'])
    """
    fits = {
        'T': fit_ols(age, {'T': first}),
        'A': fit_ols(age, {'A': second}),
        'TA': fit_ols(age, {'T': first, 'A': second}),
    }
    pairs = [('T', 'TA'), ('A', 'TA')]
    if sex is not None:
        fits['TAS'] = fit_ols(age, {'T': first, 'A': second, 'sex': sex})
        pairs.append(('TA', 'TAS'))
    return fits, {f'{a} vs {b}': nested_f(fits[a], fits[b]) for a, b in pairs}
