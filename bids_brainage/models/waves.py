"""Brain age from a table of measures: a straight line plus many broad waves.

The waves are random Fourier features (Rahimi and Recht 2007): with Gaussian directions they stand
for the Gaussian kernel of a support-vector or Gaussian-process regression, without keeping a row
of a training person.  What each measure adds is its Aumann-Shapley value (Aumann and Shapley 1974;
Sundararajan et al. 2017, arXiv:1703.01365) of the logarithm, which here has a closed form, scaled
to years by one factor for all, so that they add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SHAPES = {
    'intercept': ('1',), 'centre': ('F',), 'scale': ('F',), 'tail': ('1',), 'linear': ('F',),
    'directions': ('W', 'F'), 'phase': ('W',), 'height': ('W',), 'offset_years': ('1',),
}  # fmt: skip
_STILL = 1e-6
"""Phase that is no movement."""


class WavesRegressor:
    """Regression of the logarithm of age on standardised measures.

    Parameters
    ----------
    features : sequence of str
        Names of the inputs, in their order.

    Attributes
    ----------
    tensors : dict of ndarray
        ``centre``, ``scale`` (F,): of the features; ``tail`` (1,): standardised values are cut
        off at it on both sides; ``linear`` (F,), ``directions`` (W, F), ``phase``, ``height``
        (W,): the logarithm of age plus ``offset_years`` (1,) is ``intercept`` (1,) plus
        ``linear · z`` plus the sum of ``height · cos(directions · z + phase)``.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self.tensors: dict[str, Array] = {}

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a bundle.

        Raises
        ------
        ValueError
            If a tensor is absent or of another shape.
        """
        known = {'1': 1, 'F': len(self.features), 'W': len(tensors.get('phase', ()))}
        for name, letters in _SHAPES.items():
            shape = tuple(known[letter] for letter in letters)
            if name not in tensors or tensors[name].shape != shape:
                raise ValueError(f'tensor {name!r} of shape {shape} is missing')
        self.tensors = {name: np.asarray(tensors[name], np.float64) for name in _SHAPES}

    def __call__(self, features: np.ndarray) -> Array:
        """Return ages in years, shape (B,), of features, shape (B, F)."""
        return self._age(self._logarithm(self._standard(features)))

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
        directions = self.tensors['directions']
        before = directions @ start + self.tensors['phase']
        turned = directions @ moved
        still = np.abs(turned) < _STILL
        slope = np.where(
            still,
            -np.sin(before + turned / 2),
            (np.cos(before + turned) - np.cos(before)) / np.where(still, 1.0, turned),
        )
        parts = moved * (self.tensors['linear'] + (self.tensors['height'] * slope) @ directions)
        first, last = (self._logarithm(z[None])[0] for z in (start, end))
        years = float(self._age(last) - self._age(first))
        # along the path age is not the logarithm: its parts are scaled by their common ratio
        total = float(last - first)
        ratio = years / total if abs(total) > _STILL else float(np.exp(last))
        return np.asarray(parts * ratio)

    def beyond(self, features: np.ndarray) -> tuple[str, ...]:
        """Return the names of the features of a brain, shape (F,), that are cut off."""
        z = (features - self.tensors['centre']) / self.tensors['scale']
        outside = np.abs(z) > self.tensors['tail'][0]
        return tuple(name for name, out in zip(self.features, outside, strict=True) if out)

    def _standard(self, features: np.ndarray) -> Array:
        z = (np.asarray(features, np.float64) - self.tensors['centre']) / self.tensors['scale']
        return np.asarray(np.clip(z, -self.tensors['tail'][0], self.tensors['tail'][0]))

    def _logarithm(self, z: Array) -> Array:
        t = self.tensors
        waves = np.cos(z @ t['directions'].T + t['phase']) @ t['height']
        return np.asarray(t['intercept'][0] + z @ t['linear'] + waves)

    def _age(self, logarithm: Array) -> Array:
        return np.asarray(np.exp(logarithm) - self.tensors['offset_years'][0])
