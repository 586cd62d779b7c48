"""Prediction intervals with a coverage that holds for finite samples."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.result import Stat, defined, undefined

Array = NDArray[np.float64]

LEAST_BY_AGE = 50
"""Fewest calibration people from whom half widths by predicted age are made."""

BANDWIDTH_YEARS = 6.0
"""Standard deviation of the weights by which people of other predicted ages count."""

PRIOR_PEOPLE, FLOOR = 3.0, 0.25
"""The spread at an age is that of the people there and of this many with the mean spread of all,
and at least this share of the mean: a few small residuals by chance make no narrow interval."""

CELL_YEARS, GRID_CELLS = 0.5, 5
"""Predicted ages are told apart to a cell; half widths are stored for each fifth one."""

SMALLEST_YEARS = 1e-9


@dataclass(frozen=True, slots=True)
class Conformal:
    """Symmetric interval ``predicted ± half_width``.

    Attributes
    ----------
    level : float
        Nominal coverage.
    half_width : Stat
        Years; undefined when the calibration set is too small for the level.
    n : int
        Number of calibration people.
    """

    level: float
    half_width: Stat
    n: int


def half_width(residuals: ArrayLike, level: float) -> Stat:
    """Return the split-conformal half width of absolute residuals.

    It is the k-th smallest absolute residual with ``k = ceil((n + 1)·level)``, which covers a
    new exchangeable person with a probability of at least `level`
    (Lei et al. 2018, doi:10.1080/01621459.2017.1307116).

    Parameters
    ----------
    residuals : (n,) array
        Predicted minus chronological age of held-out people, years; NaN is left out.
    level : float
        Nominal coverage, between 0 and 1.
    """
    need = _least(level)
    size = np.abs(np.asarray(residuals, np.float64))
    size = size[np.isfinite(size)]
    rank = _rank(size.size, level)
    if rank > size.size:
        return undefined(f'{size.size} people are too few for {level:.0%}; {need} are needed')
    return defined(np.partition(size, rank - 1)[rank - 1])


def _least(level: float) -> int:
    """Return the fewest people from whom an interval can be made."""
    if not 0 < level < 1:
        raise ValueError(f'the level must be between 0 and 1, got {level}')
    return math.ceil(round(level / (1 - level), 9))


def _rank(n: int, level: float) -> int:
    """Return which of `n` sorted residuals is the half width; above `n` if they are too few."""
    return math.ceil(round((n + 1) * level, 9))


def leave_one_out_half_widths(residuals: ArrayLike, level: float) -> Array:
    """Return for each person the half width that all the others define.

    Intervals of calibration people that were made with their own residual contain them too
    often within a subset; with these, a coverage by age or sex is honest.

    Parameters
    ----------
    residuals : (n,) array
        Predicted minus chronological age, years.
    level : float
        Nominal coverage.

    Returns
    -------
    (n,) array
        Years; NaN for missing residuals, and for all when the others are too few.
    """
    size = np.abs(np.asarray(residuals, np.float64))
    known = np.flatnonzero(np.isfinite(size))
    result = np.full(size.shape, np.nan)
    rank = math.ceil(round(known.size * level, 9))
    if rank > known.size - 1:
        return result
    order = known[np.argsort(size[known], kind='stable')]
    result[order[:rank]] = size[order[rank]]
    result[order[rank:]] = size[order[rank - 1]]
    return result


def calibrate(residuals: ArrayLike, level: float) -> Conformal:
    """Calibrate intervals on the residuals of a reference group.

    Parameters
    ----------
    residuals : (n,) array
        Predicted minus chronological age, one per person, years; NaN is left out.
    level : float
        Nominal coverage.
    """
    values = np.asarray(residuals, np.float64)
    values = values[np.isfinite(values)]
    return Conformal(level, half_width(values, level), values.size)


@dataclass(frozen=True, slots=True)
class ConformalByAge:
    """Symmetric interval whose half width depends on the predicted age.

    Attributes
    ----------
    level : float
        Nominal coverage.
    half_width : Stat
        Median half width of the calibration people, years; undefined when they are too few.
    n : int
        Number of calibration people.
    age, half_widths : (k,) array
        Predicted ages, years, increasing, and the half width at each; linear between them, the
        end values hold beyond.  Empty when undefined.
    """

    level: float
    half_width: Stat
    n: int
    age: Array
    half_widths: Array


def calibrate_by_age(residuals: ArrayLike, predicted: ArrayLike, level: float) -> ConformalByAge:
    """Calibrate intervals that are as wide as the errors at the same predicted age.

    Normalised split-conformal prediction (Papadopoulos 2008; Lei et al. 2018,
    doi:10.1080/01621459.2017.1307116, section 5.2): residuals are divided by the spread
    expected at their predicted age, the k-th smallest of these scores with
    ``k = ceil((n + 1)·level)`` is taken times the spread at a new person's predicted age.  The
    spread is the mean absolute residual, each person weighted by a Gaussian of
    `BANDWIDTH_YEARS` in predicted age; a person's own residual is left out of the spread that
    their score is divided by, as it is for a new person.

    Parameters
    ----------
    residuals : (n,) array
        Predicted minus chronological age of held-out people, one per person, years; NaN is left
        out.
    predicted : (n,) array
        Predicted age, years.
    level : float
        Nominal coverage, between 0 and 1.
    """
    people = _People.of(residuals, predicted)
    n = len(people.size)
    need = max(LEAST_BY_AGE, _least(level))
    if n < need:
        reason = f'{n} people are too few for half widths by age; {need} are needed'
        return ConformalByAge(level, undefined(reason), n, np.empty(0), np.empty(0))
    widths = _cell_half_widths(people, np.ones(n, bool), level)
    last = len(widths) - 1
    shown = np.unique(np.append(np.arange(0, last, GRID_CELLS), last))
    middle = defined(float(np.median(widths[people.cell])))
    return ConformalByAge(level, middle, n, people.first + CELL_YEARS * shown, widths[shown])


def leave_one_out_half_widths_by_age(
    residuals: ArrayLike,
    predicted: ArrayLike,
    level: float,
    groups: Sequence[Hashable] | None = None,
) -> Array:
    """Return for each person the half width that all the others define; see `calibrate_by_age`.

    Parameters
    ----------
    residuals, predicted : (n,) array
        Predicted minus chronological age, and predicted age, years.
    level : float
        Nominal coverage.
    groups : sequence, optional
        Who belongs together (scans of a person, people of a site) and is left out at once;
        without it everybody alone.

    Returns
    -------
    (n,) array
        Years; NaN for missing residuals, and for those whose others are too few.
    """
    known = np.flatnonzero(_finite(residuals, predicted))
    people = _People.of(residuals, predicted)
    result = np.full(np.shape(residuals), np.nan)
    names = np.arange(len(known)) if groups is None else _numbered([groups[int(k)] for k in known])
    for group in range(names.max(initial=-1) + 1):
        others = names != group
        if _rank(n := int(others.sum()), level) <= n:
            widths = _cell_half_widths(people, others, level)
            result[known[~others]] = widths[people.cell[~others]]
    return result


@dataclass(frozen=True, slots=True)
class _People:
    """Absolute residuals and the cells of predicted age that they are in."""

    size: Array
    cell: NDArray[np.intp]
    first: float
    kernel: Array

    @classmethod
    def of(cls, residuals: ArrayLike, predicted: ArrayLike) -> _People:
        keep = _finite(residuals, predicted)
        size = np.abs(np.asarray(residuals, np.float64)[keep])
        age = np.asarray(predicted, np.float64)[keep]
        first = CELL_YEARS * math.floor(age.min() / CELL_YEARS) if age.size else 0.0
        cell = np.rint((age - first) / CELL_YEARS).astype(np.intp)
        at = CELL_YEARS * np.arange(cell.max(initial=0) + 1)
        return cls(size, cell, first, np.exp(-0.5 * ((at[:, None] - at) / BANDWIDTH_YEARS) ** 2))


def _cell_half_widths(people: _People, counted: NDArray[np.bool_], level: float) -> Array:
    """Return the half width in each cell that the counted people define."""
    size, cell, kernel = people.size * counted, people.cell, people.kernel
    total, n = size.sum(), int(counted.sum())
    near = kernel @ np.bincount(cell, size, len(kernel))
    weight = kernel @ np.bincount(cell, counted, len(kernel))
    own = _spread(near[cell] - size, weight[cell] - 1.0, (total - size) / (n - 1))
    scores = (people.size / own)[counted]
    rank = _rank(n, level)
    quantile: float = np.partition(scores, rank - 1)[rank - 1]
    return quantile * _spread(near, weight, total / n)


def _spread(near: Array, weight: Array, mean: ArrayLike) -> Array:
    """Return the mean absolute residual about an age; sums, weights and the mean of all people."""
    mean = np.maximum(np.asarray(mean, np.float64), SMALLEST_YEARS)
    return np.maximum((near + PRIOR_PEOPLE * mean) / (weight + PRIOR_PEOPLE), FLOOR * mean)


def _finite(residuals: ArrayLike, predicted: ArrayLike) -> NDArray[np.bool_]:
    return np.isfinite(np.asarray(residuals, np.float64) + np.asarray(predicted, np.float64))


def _numbered(names: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)
