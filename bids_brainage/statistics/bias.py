"""Age-bias correction from the youngest and oldest healthy people of a study."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.statistics.result import Stat

Array = NDArray[np.float64]

TAIL = 0.05
"""Share of the reference group that is taken at each end of the age range."""

MIN_SPAN_YEARS = 1.0
"""Smallest age range of the calibration people."""


class CalibrationRefusedError(ValueError):
    """The reference group is too small or too alike in age for a correction."""


@dataclass(frozen=True, slots=True)
class BiasCorrection:
    """Line ``predicted = slope·age + intercept`` of the calibration people.

    Attributes
    ----------
    slope : float
        Years predicted per year of age.
    intercept : float
        Years.
    n_per_side : int
        People taken at each end.
    ages : tuple of float
        Chronological ages of the calibration people, youngest first.
    """

    slope: float
    intercept: float
    n_per_side: int
    ages: tuple[float, ...]

    def apply(self, age: ArrayLike, predicted: ArrayLike) -> Array:
        """Return corrected ages ``predicted + age − (slope·age + intercept)``, years."""
        x = np.asarray(age, np.float64)
        return np.asarray(predicted, np.float64) + x - (self.slope * x + self.intercept)

    def as_dict(self) -> dict[str, object]:
        """Return the coefficients for a JSON file."""
        return {
            'slope': self.slope,
            'intercept': self.intercept,
            'n_per_side': self.n_per_side,
            'ages': list(self.ages),
        }


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
    span = float(np.ptp(y[chosen]))
    if span < MIN_SPAN_YEARS:
        raise CalibrationRefusedError(
            f'the youngest and oldest of the reference group are {span:.2f} years apart; '
            f'at least {MIN_SPAN_YEARS:g} year is needed'
        )
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
    age: ArrayLike, predicted: ArrayLike, correction: BiasCorrection, rows: ArrayLike
) -> dict[str, dict[str, Stat]]:
    """Report mae, me and r before, after, and after without the calibration rows.

    The correction uses the true age, so the three are not comparable as accuracies.

    Parameters
    ----------
    age, predicted : (n,) array
        Years.
    correction : BiasCorrection
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
