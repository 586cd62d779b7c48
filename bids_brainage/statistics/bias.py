"""Age-bias correction from the healthy people of a study.

The line of predicted on chronological age is fitted by ordinary least squares on the whole
reference group (`fit_line`), or on its youngest and oldest people as in paper C (`fit_bias`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.config import BIAS_CORRECTIONS
from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.statistics.nested import Fit, fit_ols
from bids_brainage.statistics.result import Stat

Array = NDArray[np.float64]

TAIL = 0.05
"""Share of the reference group that is taken at each end of the age range."""

MIN_SPAN_YEARS = 1.0
"""Smallest age range of the calibration people."""

LEAST = {'linear': 30, 'tails': 100}
"""Fewest people of a reference group.

Of simulated cohorts of this size (ages 20 to 80, slope 0.9, error 5.5 years) the line leaves more
dependence on age than there was before in about one of ten."""


class CalibrationRefusedError(ValueError):
    """The reference group is too small or too alike in age for a correction."""


@dataclass(frozen=True, slots=True)
class BiasLine:
    """Line ``predicted = slope·age + intercept`` of the calibration people.

    Attributes
    ----------
    slope : float
        Years predicted per year of age.
    intercept : float
        Years.
    """

    slope: float
    intercept: float

    def apply(self, age: ArrayLike, predicted: ArrayLike) -> Array:
        """Return corrected ages ``predicted + age − (slope·age + intercept)``, years."""
        x = np.asarray(age, np.float64)
        return np.asarray(predicted, np.float64) + x - (self.slope * x + self.intercept)


@dataclass(frozen=True, slots=True)
class RegressionLine(BiasLine):
    """Line through everybody of a reference group.

    Attributes
    ----------
    fit : Fit
        The regression of predicted on chronological age.
    ages : (float, float)
        Youngest and oldest of the group, years.
    """

    fit: Fit
    ages: tuple[float, float]

    def band(self, age: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
        """Return the confidence limits of the line at some ages, years."""
        from scipy.stats import t

        x = np.atleast_1d(np.asarray(age, np.float64))
        design = np.column_stack([np.ones_like(x), x])
        se = np.sqrt(np.einsum('ij,jk,ik->i', design, self.fit.covariance, design))
        half = float(t.ppf((1 + level) / 2, self.fit.df)) * se
        middle = design @ self.fit.coefficients
        return middle - half, middle + half

    def as_dict(self) -> dict[str, object]:
        """Return the coefficients with 95 % limits of the slope for a JSON file."""
        from scipy.stats import t

        half = float(t.ppf(0.975, self.fit.df) * np.sqrt(self.fit.covariance[1, 1]))
        return {
            'method': 'linear',
            'slope': self.slope,
            'slope_low': self.slope - half,
            'slope_high': self.slope + half,
            'intercept': self.intercept,
            'n': int(self.fit.outcome.size),
            'age_min': self.ages[0],
            'age_max': self.ages[1],
        }


@dataclass(frozen=True, slots=True)
class BiasCorrection(BiasLine):
    """Line through the youngest and oldest people of a reference group.

    Attributes
    ----------
    n_per_side : int
        People taken at each end.
    ages : tuple of float
        Chronological ages of the calibration people, youngest first.
    """

    n_per_side: int
    ages: tuple[float, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the coefficients for a JSON file."""
        return {
            'slope': self.slope,
            'intercept': self.intercept,
            'n_per_side': self.n_per_side,
            'ages': list(self.ages),
        }


def fit_line(
    age: ArrayLike, predicted: ArrayLike, reference: ArrayLike, method: str = BIAS_CORRECTIONS[0]
) -> tuple[RegressionLine | BiasCorrection, NDArray[np.intp]]:
    """Fit the line of a study's reference group.

    Parameters
    ----------
    age, predicted : (n,) array
        Years.
    reference : (n,) bool array
        Healthy reference group, one row per person.
    method : str
        ``linear``: ordinary least squares on everybody; ``tails``: on the youngest and oldest
        5 % (paper C).

    Returns
    -------
    line : RegressionLine or BiasCorrection
    rows : (m,) int array
        The rows it was fitted on.

    Raises
    ------
    CalibrationRefusedError
        The group is smaller than `LEAST`, or of nearly one age.
    """
    x, y = np.asarray(age, np.float64), np.asarray(predicted, np.float64)
    rows = np.flatnonzero(np.asarray(reference, bool) & np.isfinite(x) & np.isfinite(y))
    if rows.size < LEAST[method]:
        raise CalibrationRefusedError(
            f'the reference group has {rows.size} people with an age; the correction '
            f'"{method}" needs {LEAST[method]}'
        )
    if method == 'tails':
        ends = calibration_rows(x, reference)
        return fit_bias(x, y, ends), ends
    _require_span(x[rows], 'people of the reference group')
    return regress(x[rows], y[rows]), rows


def regress(age: ArrayLike, predicted: ArrayLike) -> RegressionLine:
    """Fit the line of predicted on chronological age through all that are given, years.

    Raises
    ------
    FitRefusedError
        With fewer than three people, or all of one age.
    """
    x = np.asarray(age, np.float64)
    fit = fit_ols(predicted, {'age': x})
    intercept, slope = (float(c) for c in fit.coefficients)
    return RegressionLine(slope, intercept, fit, (float(x.min()), float(x.max())))


def _require_span(ages: Array, who: str) -> None:
    """Refuse people of nearly one age, through whom no line can be drawn."""
    span = float(np.ptp(ages))
    if span < MIN_SPAN_YEARS:
        raise CalibrationRefusedError(
            f'the {who} are {span:.2f} years apart; at least {MIN_SPAN_YEARS:g} year is needed'
        )


def calibration_rows(age: ArrayLike, reference: ArrayLike) -> NDArray[np.intp]:
    """Choose the youngest and oldest 5 % of the reference rows, by stable sort on age.

    Parameters
    ----------
    age : (n,) array
        Years; NaN rows are never chosen.
    reference : (n,) bool array
        Healthy reference group, one row per person.

    Returns
    -------
    (2·n5,) int array
        Row numbers, ``n5 = ceil(0.05·n_reference)`` from each end.

    Raises
    ------
    CalibrationRefusedError
        With fewer than 4 chosen rows, or ages within less than a year.
    """
    y = np.asarray(age, np.float64)
    rows = np.flatnonzero(np.asarray(reference, bool) & np.isfinite(y))
    n5 = math.ceil(round(TAIL * rows.size, 9))
    if 2 * n5 < 4:
        raise CalibrationRefusedError(
            f'the reference group has {rows.size} people with an age; more than 20 are needed '
            'so that 5 % at each end are at least 2 people'
        )
    order = rows[np.argsort(y[rows], kind='stable')]
    chosen = np.concatenate([order[:n5], order[-n5:]])
    _require_span(y[chosen], 'youngest and oldest of the reference group')
    return chosen


def fit_bias(age: ArrayLike, predicted: ArrayLike, rows: ArrayLike) -> BiasCorrection:
    """Fit predicted on chronological age by least squares on the calibration rows.

    Parameters
    ----------
    age, predicted : (n,) array
        Years.
    rows : (m,) int array
        From :func:`calibration_rows`.

    References
    ----------
    Kim et al., npj Aging (2025), doi:10.1038/s41514-025-00260-x.
    """
    index = np.asarray(rows)
    x = np.asarray(age, np.float64)[index]
    y = np.asarray(predicted, np.float64)[index]
    dx = x - x.mean()
    slope = float(dx @ (y - y.mean()) / (dx @ dx))
    intercept = float(y.mean() - slope * x.mean())
    return BiasCorrection(slope, intercept, index.size // 2, tuple(np.sort(x).tolist()))


def correction_report(
    age: ArrayLike, predicted: ArrayLike, correction: BiasLine, rows: ArrayLike
) -> dict[str, dict[str, Stat]]:
    """Report mae, me and r before, after, and after without the calibration rows.

    The correction uses the true age, so the three are not comparable as accuracies.

    Parameters
    ----------
    age, predicted : (n,) array
        Years.
    correction : BiasLine
        The fitted line.
    rows : (m,) int array
        Calibration rows.

    Returns
    -------
    dict
        ``before``, ``after`` and ``excl_calibration``, each with ``mae``, ``me``, ``r``.
    """
    y = np.asarray(age, np.float64)
    after = correction.apply(y, predicted)
    others = np.ones(y.size, bool)
    others[np.asarray(rows)] = False
    sets = {
        'before': (y, np.asarray(predicted, np.float64)),
        'after': (y, after),
        'excl_calibration': (y[others], after[others]),
    }
    return {
        name: {key: stat for key, stat in accuracy(*pair).items() if key in ('mae', 'me', 'r')}
        for name, pair in sets.items()
    }
