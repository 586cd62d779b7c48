"""Brain age from a table of measures: the age at which these measures are most at home.

The usual measures of every age, and how people and sites differ from them, give by Bayes' rule
how likely each age is; the age that is told is the mean of these.  Unlike a regression it does not
pull people towards the ages that were frequent among those it learnt from, since their part in
the prior can be lowered (a calibration by the inverse; Osborne 1991, doi:10.2307/1403690).
Differences follow Student's distribution, so that one that is unusual anyway settles less.

To it a regression is mixed: on waves, or straight lines.  What each measure adds is its
Aumann-Shapley value (Aumann and Shapley 1974; Sundararajan et al. 2017, arXiv:1703.01365), of both
parts alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.models.volumes import VolumesRegressor
from bids_brainage.models.waves import WavesRegressor

Array = npt.NDArray[np.float64]

_SHAPES = {
    'centre': ('F',), 'scale': ('F',), 'tail': ('1',), 'ages': ('A',), 'prior': ('A',),
    'usual': ('A', 'F'), 'turn': ('F', 'F'), 'freedom': ('1',),
}  # fmt: skip
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


def tables_model(features: Sequence[str], form: str = 'waves') -> Any:
    """Return an untrained model of tables.

    Parameters
    ----------
    features : sequence of str
        Names of the inputs, in their order.
    form : {'waves', 'posterior'}
        A regression on waves, or that mixed with the most likely age.

    Raises
    ------
    TypeError
        There is no such form.
    """
    return _either('waves', WavesRegressor(features), form)


def volumes_model(features: Sequence[str], form: str = 'additive') -> Any:
    """Return an untrained model of region volumes.

    Parameters
    ----------
    features : sequence of str
        Names of the inputs, in their order.
    form : {'additive', 'posterior'}
        Splines, or these mixed with the most likely age.

    Raises
    ------
    TypeError
        There is no such form.
    """
    return _either('additive', VolumesRegressor(features), form)


def _either(name: str, regression: Any, form: str) -> Any:
    if form not in (name, 'posterior'):
        raise TypeError(f'form {form!r} is none of {name}, posterior')
    return regression if form == name else PosteriorRegressor(name, regression)


class PosteriorRegressor:
    """Mean of the ages that a person may have, mixed with a regression.

    Parameters
    ----------
    name : str
        Of the regression.
    regression : WavesRegressor or VolumesRegressor
        Of the same features.

    Attributes
    ----------
    tensors : dict of ndarray
        ``centre``, ``scale`` (F,): of the features; ``tail`` (1,): standardised values are cut
        off at it on both sides, for the regression, too; ``ages`` (A,): years; ``prior`` (A,):
        logarithm of how likely they are before anything was measured; ``turn`` (F, F): makes the
        differences between people of one age independent and of variance 1; ``usual`` (A, F):
        standardised features of each age after that turn; ``freedom`` (1,): degrees of freedom
        of the differences; ``<name>_share`` (1,): of the age that the regression tells; its own
        tensors start with ``<name>_``, too.
    """

    def __init__(self, name: str, regression: Any) -> None:
        self.features = tuple(regression.features)
        self.tensors: dict[str, Array] = {}
        self.regression = regression
        self._prefix = f'{name}_'
        self._share = f'{name}_share'

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a bundle.

        Raises
        ------
        ValueError
            If a tensor is absent or of another shape.
        """
        known = {'1': 1, 'F': len(self.features), 'A': len(tensors.get('ages', ()))}
        shapes = _SHAPES | {self._share: ('1',)}
        for name, letters in shapes.items():
            shape = tuple(known[letter] for letter in letters)
            if name not in tensors or tensors[name].shape != shape:
                raise ValueError(f'tensor {name!r} of shape {shape} is missing')
        self.tensors = {name: np.asarray(tensors[name], np.float64) for name in shapes}
        self.regression.load_tensors({
            name.removeprefix(self._prefix): value
            for name, value in tensors.items()
            if name.startswith(self._prefix) and name not in shapes
        })  # fmt: skip

    def __call__(self, features: np.ndarray) -> Array:
        """Return ages in years, shape (B,), of features, shape (B, F)."""
        z = self._standard(features)
        own = np.array([self._age(row) for row in z])
        return self._mixed(own, self.regression(self._cut(z)))

    def contributions(self, features: np.ndarray, reference: np.ndarray) -> Array:
        """Return what each measure adds to the age of a reference person.

        Parameters
        ----------
        features, reference : ndarray, shape (F,)
            Of one brain, and of the one that it is compared with.

        Returns
        -------
        ndarray, shape (F,)
            Years; they sum up to the age of the one less that of the other.
        """
        start, end = self._standard(reference[None])[0], self._standard(features[None])[0]
        moved = end - start
        slope = sum(
            weight / 2 * self._slope(start + (node + 1) / 2 * moved)
            for node, weight in zip(_NODES, _WEIGHTS, strict=True)
        )
        parts = moved * slope
        # the integral is a sum over nodes: what it lacks is shared out by size
        lacking = self._age(end) - self._age(start) - parts.sum()
        size = np.abs(parts)
        parts += lacking * size / max(float(size.sum()), np.finfo(float).tiny)
        others = self.regression.contributions(self._cut(end), self._cut(start))
        return self._mixed(parts, others)

    def beyond(self, features: np.ndarray) -> tuple[str, ...]:
        """Return the names of the features of a brain, shape (F,), that are cut off."""
        z = (features - self.tensors['centre']) / self.tensors['scale']
        outside = np.abs(z) > self.tensors['tail'][0]
        return tuple(name for name, out in zip(self.features, outside, strict=True) if out)

    def _mixed(self, own: Array, other: Array) -> Array:
        share = self.tensors[self._share][0]
        return np.asarray((1 - share) * own + share * other)

    def _standard(self, features: np.ndarray) -> Array:
        z = (np.asarray(features, np.float64) - self.tensors['centre']) / self.tensors['scale']
        return np.asarray(np.clip(z, -self.tensors['tail'][0], self.tensors['tail'][0]))

    def _cut(self, z: Array) -> Array:
        """Return the features that standardised ones, which were cut off, stand for."""
        return np.asarray(self.tensors['centre'] + self.tensors['scale'] * z)

    def _posterior(self, z: Array) -> tuple[Array, Array, Array]:
        """Return how likely each age is, and differences and squared distances from its usual."""
        t = self.tensors
        away = t['turn'] @ z - t['usual']
        distance = (away**2).sum(axis=1)
        freedom = t['freedom'][0]
        logarithm = t['prior'] - (freedom + len(z)) / 2 * np.log1p(distance / freedom)
        likely = np.exp(logarithm - logarithm.max())
        return likely / likely.sum(), away, distance

    def _age(self, z: Array) -> float:
        return float(self._posterior(z)[0] @ self.tensors['ages'])

    def _slope(self, z: Array) -> Array:
        """Return by how many years the age moves with each standardised feature."""
        likely, away, distance = self._posterior(z)
        ages, freedom = self.tensors['ages'], self.tensors['freedom'][0]
        pull = likely * (ages - likely @ ages) * (freedom + len(z)) / (freedom + distance)
        return np.asarray(-(pull @ away) @ self.tensors['turn'])
