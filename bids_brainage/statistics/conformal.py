"""Prediction intervals with a coverage that holds for finite samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .result import Stat, defined, undefined

Array = NDArray[np.float64]


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
    if not 0 < level < 1:
        raise ValueError(f'the level must be between 0 and 1, got {level}')
    size = np.abs(np.asarray(residuals, np.float64))
    size = size[np.isfinite(size)]
    rank = math.ceil(round((size.size + 1) * level, 9))
    if rank > size.size:
        need = math.ceil(round(level / (1 - level), 9))
        return undefined(f'{size.size} people are too few for {level:.0%}; {need} are needed')
    return defined(np.partition(size, rank - 1)[rank - 1])


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
