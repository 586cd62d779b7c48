"""Seeded percentile bootstrap over subjects, from sums per subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_SUBJECTS = 5
"""Fewest subjects for which bootstrap limits are given."""

MAX_UNDEFINED = 0.05
"""Largest share of draws in which a statistic may be undefined."""


MAX_KEPT = 24
"""How many sets of draws are kept for other tables with the same number of subjects."""


@dataclass(frozen=True)
class Bootstrap:
    """Draws of subjects with replacement, shared by all tables of one analysis.

    Every statistic here is a function of sums over scans, so a draw is a row of counts
    (how often each subject was taken) and all draws together are one matrix product
    ``counts @ sums``.  With more than `max_units` subjects these are first pooled at random
    into `max_units` blocks of nearly equal size, which leaves the variance of the sums what it is
    (its relative error is ``1/sqrt(2·max_units)``, 2.2 %, like the 1.6 % that 2,000 draws have)
    and makes the cost independent of the number of subjects.

    Attributes
    ----------
    draws : int
        Number of bootstrap samples.
    seed : int
        Seed; the same data and seed give the same limits.
    level : float
        Confidence level of the percentile interval.
    max_units : int
        Largest number of resampled units (subjects or blocks of subjects).

    Examples
    --------
    >>> Bootstrap(draws=3).counts(4).sum(axis=1).tolist()
    [4.0, 4.0, 4.0]
    """

    draws: int = 2000
    seed: int = 0
    level: float = 0.95
    max_units: int = 1024
    _counts: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def method(self) -> str:
        """One sentence that states the method, for the outputs."""
        return (
            f'percentile bootstrap over subjects, {self.draws} draws, seed {self.seed}, '
            f'level {self.level:g}; more than {self.max_units} subjects are pooled at random '
            f'into {self.max_units} blocks first'
        )

    def counts(self, n_units: int) -> Array:
        """Return how often each unit is taken in each draw, shape (draws, n_units).

        Every row sums to `n_units`.
        """
        if n_units not in self._counts:
            rng = np.random.default_rng([self.seed, n_units])
            picks = rng.integers(0, n_units, size=(self.draws, n_units))
            picks += np.arange(self.draws)[:, None] * n_units
            flat = np.bincount(picks.ravel(), minlength=self.draws * n_units)
            if len(self._counts) >= MAX_KEPT:
                self._counts.clear()
            self._counts[n_units] = flat.reshape(self.draws, n_units).astype(np.float64)
        return self._counts[n_units]

    def units(self, subjects: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
        """Find the resampled unit of rows with integer subject codes.

        Returns
        -------
        codes : (n_rows,) int array
            Unit of every row, 0..n_units-1.
        n_subjects : int
            Number of different subjects.
        """
        codes, n_subjects = recode(subjects)
        if n_subjects > self.max_units:
            order = np.random.default_rng([self.seed, n_subjects, 1]).permutation(n_subjects)
            codes = (order % self.max_units)[codes]
        return codes, n_subjects

    def sums(self, columns: Sequence[Array], codes: NDArray[np.intp]) -> Array:
        """Sum columns within units and draw: shape (draws, n_columns).

        Parameters
        ----------
        columns : sequence of (n_rows,) array
            Per-scan contributions.
        codes : (n_rows,) int array
            Unit of every row, from :meth:`units`.
        """
        return self.draw(unit_sums(columns, codes))

    def draw(self, table: Array) -> Array:
        """Turn sums of units, shape (n_units, k), into sums of draws, shape (draws, k)."""
        return self.counts(len(table)) @ table

    def limits(self, values: Array) -> tuple[float, float] | None:
        """Return percentile limits of drawn statistics, or None when too often undefined.

        Parameters
        ----------
        values : (draws,) array
            The statistic in every draw; NaN where undefined.
        """
        finite = values[np.isfinite(values)]
        if finite.size < (1 - MAX_UNDEFINED) * values.size:
            return None
        tail = (1 - self.level) / 2
        low, high = np.quantile(finite, [tail, 1 - tail])
        return float(low), float(high)


def recode(subjects: NDArray[np.intp]) -> tuple[NDArray[np.intp], int]:
    """Renumber non-negative codes to 0..k-1 in their order; returns them and k.

    As ``np.unique`` does, but without sorting the rows.

    Examples
    --------
    >>> codes, k = recode(np.array([4, 7, 4]))
    >>> codes.tolist(), k
    ([0, 1, 0], 2)
    """
    seen = np.bincount(subjects) > 0
    return (np.cumsum(seen) - 1)[subjects], int(seen.sum())


def unit_sums(columns: Sequence[Array], codes: NDArray[np.intp]) -> Array:
    """Sum columns, each (n_rows,), within units: shape (n_units, n_columns).

    Examples
    --------
    >>> unit_sums([np.array([1.0, 2.0, 3.0])], np.array([0, 1, 0])).tolist()
    [[4.0], [2.0]]
    """
    n_units = int(codes.max()) + 1
    table = np.empty((n_units, len(columns)))
    for j, column in enumerate(columns):
        table[:, j] = np.bincount(codes, weights=column, minlength=n_units)
    return table


def binned_unit_sums(
    values: Array | None, index: NDArray[np.intp], n_bins: int, codes: NDArray[np.intp]
) -> Array:
    """Sum values within units and bins in one pass.

    Parameters
    ----------
    values : (n_rows,) array or None
        What to sum; None counts rows.
    index : (n_rows,) int array
        Bin of every row, 0..n_bins-1, or -1 for none.
    n_bins : int
        Number of bins.
    codes : (n_rows,) int array
        Unit of every row.

    Returns
    -------
    (n_units, n_bins) array

    Examples
    --------
    >>> values, bins, units = np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0]), np.array([0, 0, 1])
    >>> binned_unit_sums(values, bins, 2, units).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    n_units = int(codes.max()) + 1
    cells = codes * (n_bins + 1) + index + 1
    flat = np.bincount(cells, weights=values, minlength=n_units * (n_bins + 1))
    return flat.reshape(n_units, n_bins + 1)[:, 1:].astype(np.float64)
