"""Age bins: left-closed, right-open, open-ended above so that nobody is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.statistics.result import Stat, defined, undefined

DECADES: tuple[float, ...] = tuple(range(0, 100, 10))
"""Lower edges of ten-year bins, years; the last bin is 90 and above."""

FIVE_YEARS: tuple[float, ...] = tuple(range(0, 100, 5))
"""Lower edges of five-year bins, years; the last bin is 95 and above."""

AGE_GROUPS: tuple[float, ...] = (0, 18, 60)
"""Lower edges of children, adults and older adults, years."""

MIN_BIN_N = 5
"""Fewest scans of a bin that may set the worst-bin error."""


@dataclass(frozen=True, slots=True)
class WorstBin:
    """Largest bin mean of a non-negative error.

    Attributes
    ----------
    value, value_all : Stat
        Maximum over bins with at least `min_bin_n` values, and over all bins.
    bin, bin_all : str or None
        Labels of the bins that hold these maxima.
    excluded : tuple of str
        Labels of the occupied bins that were too small.
    means : tuple of Stat
        Mean of each bin in the order of the edges.
    counts : tuple of int
        Number of values in each bin.
    """

    value: Stat
    value_all: Stat
    bin: str | None
    bin_all: str | None
    excluded: tuple[str, ...]
    means: tuple[Stat, ...]
    counts: tuple[int, ...]


def bin_index(ages: ArrayLike, edges: Sequence[float] = DECADES) -> NDArray[np.intp]:
    """Find the bin of each age.

    Parameters
    ----------
    ages : (n,) array
        Years.
    edges : sequence of float
        Lower edges in rising order.

    Returns
    -------
    (n,) int array
        0 for the first bin; -1 below the first edge or for a missing age.

    Examples
    --------
    >>> bin_index([17.9, 18, 75, float('nan')], edges=(0, 18, 60)).tolist()
    [0, 1, 2, -1]
    """
    values = np.asarray(ages, dtype=np.float64)
    index = np.searchsorted(np.asarray(edges, dtype=np.float64), values, side='right') - 1
    return np.where(np.isnan(values), -1, index)


def bin_labels(edges: Sequence[float] = DECADES) -> tuple[str, ...]:
    """Name the bins, such as ``15-20``, and ``90+`` for the last one.

    Examples
    --------
    >>> bin_labels((0, 18, 60))
    ('0-18', '18-60', '60+')
    """
    inner = [f'{low:g}-{high:g}' for low, high in pairwise(edges)]
    return (*inner, f'{edges[-1]:g}+')


def worst_bin(
    ages: ArrayLike,
    values: ArrayLike,
    edges: Sequence[float] = DECADES,
    min_bin_n: int = MIN_BIN_N,
) -> WorstBin:
    """Find the age bin with the largest mean value.

    With ``values = |predicted - age|`` this is mMAE, with the absolute error of change and
    the ages at baseline it is mMAdE (Dular & Špiclin 2024,
    doi:10.1016/j.neuroimage.2023.120469).

    Parameters
    ----------
    ages : (n,) array
        Years; rows outside the edges are ignored.
    values : (n,) array
        Non-negative, finite.
    edges : sequence of float
        Lower edges of the bins.
    min_bin_n : int
        Bins with fewer values do not count for `value` but do for `value_all`.

    Examples
    --------
    >>> worst = worst_bin([20, 25, 31], [1, 3, 9], min_bin_n=2)
    >>> worst.bin, worst.value.get(), worst.bin_all, worst.value_all.get()
    ('20-30', 2.0, '30-40', 9.0)
    """
    index = bin_index(ages, edges)
    keep = index >= 0
    size = len(edges)
    counts = np.bincount(index[keep], minlength=size)
    totals = np.bincount(index[keep], np.asarray(values, np.float64)[keep], minlength=size)
    labels = bin_labels(edges)
    means = tuple(
        defined(total / n) if n else undefined('empty bin')
        for total, n in zip(totals, counts, strict=True)
    )
    every, every_label = _largest(means, counts > 0, labels, 'no value in any bin')
    best, label = _largest(
        means, counts >= max(min_bin_n, 1), labels, f'no bin holds at least {min_bin_n} values'
    )
    small = tuple(labels[k] for k in range(size) if 0 < counts[k] < min_bin_n)
    return WorstBin(best, every, label, every_label, small, means, tuple(map(int, counts)))


def _largest(
    means: tuple[Stat, ...], use: NDArray[np.bool_], labels: tuple[str, ...], why_not: str
) -> tuple[Stat, str | None]:
    """Return the largest mean among the bins in use, and its label."""
    chosen = [k for k in range(len(means)) if use[k]]
    if not chosen:
        return undefined(why_not), None
    top = max(chosen, key=lambda k: means[k].get())
    return means[top], labels[top]
