"""Bring what a program measured at one site to the scale of the people a model learnt from.

The location part of ComBat (Johnson, Li and Rabinovic 2007, doi:10.1093/biostatistics/kxj037):
what the people of a site differ by, on average, from the usual person of their age is taken off,
shrunk the more the fewer they are.  How sites and people usually differ stands in the bundle
(``training.site_spread``).  The own measures of a person never count for their shift.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEAST_PEOPLE = 10
"""Others of known age that a shift needs."""


@dataclass(frozen=True)
class SiteShift:
    """What is added to the features of a person.

    Attributes
    ----------
    values : ndarray, shape (F,)
        In the unit of the features (log ratios).
    n : int
        People it was learnt from.
    site : str
        Name of the site, empty for the whole dataset.
    """

    values: Array
    n: int
    site: str

    def facts(self) -> dict[str, Any]:
        """Return what a side file says of it."""
        digest = hashlib.sha256(np.round(self.values, 9).tobytes()).hexdigest()
        return {'Site': self.site, 'People': self.n, 'ShiftSHA256': digest}


@dataclass(frozen=True)
class Site:
    """People of one site.

    Attributes
    ----------
    name : str
    people : tuple of str
        Who each row is.
    residuals : ndarray, shape (N, F)
        Features less those of the usual person of the same age; NaN where not measured.
    """

    name: str
    people: tuple[str, ...]
    residuals: Array

    def shift_of(self, person: str, spread: Mapping[str, Sequence[float]]) -> SiteShift | None:
        """Return the shift of a person, learnt from the others; None if they are too few.

        Parameters
        ----------
        person : str
        spread : mapping
            ``between`` and ``within``, (F,): variances of the mean of a site and of people of
            one site.

        Examples
        --------
        >>> site = Site('', tuple('abcdefghijk'), np.full((11, 1), 0.2))
        >>> shift = site.shift_of('a', {'between': [0.01], 'within': [0.1]})
        >>> shift.n, shift.values.round(3).tolist()  # ten others: half of 0.2
        (10, [-0.1])
        """
        names, everybody = self._means
        means = everybody[names != person]
        if len(means) < LEAST_PEOPLE:
            return None
        n = np.isfinite(means).sum(axis=0)
        between, within = (np.asarray(spread[key], np.float64) for key in ('between', 'within'))
        weight = n * between / (n * between + within)
        found = np.where(n > 0, weight * _mean(means), 0.0)
        return SiteShift(-found, len(means), self.name)

    @cached_property
    def _means(self) -> tuple[npt.NDArray[np.str_], Array]:
        """The people, and the mean residuals of each over their visits."""
        names = np.array(self.people)
        each = np.unique(names)
        return each, np.array([_mean(self.residuals[names == name]) for name in each])


def residuals_of(features: Array, age: Array, curves: Mapping[str, Any]) -> Array:
    """Return how people differ from the usual person of their age.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    age : ndarray, shape (N,)
        Years; beyond the curves their ends hold.
    curves : mapping
        ``age`` (A,) years, ``features`` (F, A): a bundle's ``training.reference_curves``.

    Returns
    -------
    ndarray, shape (N, F)
    """
    usual = [np.interp(age, curves['age'], curve) for curve in curves['features']]
    return np.asarray(features - np.stack(usual, axis=1), np.float64)


def spread_of(
    residuals: Array, source: npt.NDArray[np.str_], least: int = 5
) -> dict[str, list[float]]:
    """Return how sites and people differ, by the method of moments.

    Parameters
    ----------
    residuals : ndarray, shape (N, F)
        From `residuals_of`, all finite.
    source : ndarray of str, shape (N,)
        Site of each person.
    least : int
        Sites of fewer people do not count.

    Returns
    -------
    dict
        ``between`` and ``within``, see `Site.shift_of`.
    """
    names, counts = np.unique(source, return_counts=True)
    sites = [residuals[source == name] for name in names[counts >= least]]
    sizes = np.array([len(site) for site in sites])
    squares = sum((len(site) - 1) * site.var(axis=0, ddof=1) for site in sites)
    within = np.asarray(squares / (sizes.sum() - len(sizes)))
    means = np.array([site.mean(axis=0) for site in sites])
    between = means.var(axis=0, ddof=1) - within * (1 / sizes).mean()
    return {'between': np.maximum(between, 0.0).tolist(), 'within': within.tolist()}


def _mean(values: Array) -> Array:
    """Return the mean over rows, NaN of columns without a number."""
    n = np.isfinite(values).sum(axis=0)
    total = np.where(np.isfinite(values), values, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0))
