"""Brain age from structure volumes: an additive model of splines.

Each feature (log of a volume ratio) passes through its own piecewise-linear function, or a
straight line; the age is the sum of the functions.  So the contribution of a structure in years is
exact, not an approximation after the fact (generalised additive model, Hastie & Tibshirani 1986,
doi:10.1214/ss/1177013604).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import BundleError

Array = npt.NDArray[np.float64]


class VolumesRegressor:
    """Additive spline regression of age on log volume ratios.

    Parameters
    ----------
    features : sequence of str
        Names of the inputs, in their order.

    Attributes
    ----------
    tensors : dict of ndarray
        ``intercept`` (1,) years; ``knots`` (F, K) log ratios, ascending; ``values`` (F, K)
        years at the knots; ``offset`` (F,) added to a feature before anything else, which
        takes our segmentation's scale to the one the tables were measured on.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self.tensors: dict[str, np.ndarray] = {}

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a bundle.

        Raises
        ------
        ValueError
            If a tensor is absent or of another shape.
        """
        n = len(self.features)
        expected = {'intercept': 1, 'knots': 2, 'values': 2, 'offset': 1}
        for name, dimensions in expected.items():
            if name not in tensors or tensors[name].ndim != dimensions:
                raise ValueError(f'tensor {name!r} with {dimensions} dimensions is missing')
            if name != 'intercept' and tensors[name].shape[0] != n:
                raise ValueError(f'tensor {name!r} has {tensors[name].shape[0]} rows, not {n}')
        self.tensors = {name: np.asarray(tensors[name], np.float64) for name in expected}

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years, shape (B,), of features, shape (B, F)."""
        parts = np.stack([self.contributions(row) for row in np.asarray(features, np.float64)])
        return np.asarray(self.tensors['intercept'][0] + parts.sum(axis=1))

    def contributions(
        self, features: np.ndarray, reference: np.ndarray | None = None
    ) -> np.ndarray:
        """Return what each feature adds to the age.

        Parameters
        ----------
        features : ndarray, shape (F,)
            Log ratios of one brain.
        reference : ndarray, shape (F,), optional
            Of the one that it is compared with.

        Returns
        -------
        ndarray, shape (F,)
            Years above (positive: looks older) or below the age of the reference; without one,
            the intercept, which is the mean age of the training people.  Outside the knots see
            `through_knots` and `beyond`.
        """
        if reference is not None:
            return self.contributions(features) - self.contributions(reference)
        x = np.asarray(features, np.float64) + self.tensors['offset']
        functions = zip(x, self.tensors['knots'], self.tensors['values'], strict=True)
        return np.array([through_knots(v, knots, values) for v, knots, values in functions])

    def beyond(self, features: np.ndarray) -> tuple[str, ...]:
        """Return the names of the features of a brain, shape (F,), that lie beyond the knots."""
        x = np.asarray(features, np.float64) + self.tensors['offset']
        knots = self.tensors['knots']
        outside = (x < knots[:, 0]) | (x > knots[:, -1])
        return tuple(name for name, out in zip(self.features, outside, strict=True) if out)


def through_knots(x: npt.ArrayLike, knots: Array, values: Array) -> Array:
    """Return a function of one feature that is straight between its knots.

    Outside of several knots the end value holds; two knots mean a straight line, which goes on.

    >>> through_knots([0.0, 3.0], np.array([1.0, 2.0]), np.array([10.0, 12.0]))
    array([ 8., 14.])
    >>> through_knots([0.0, 4.0], np.array([1.0, 2.0, 3.0]), np.array([10.0, 12.0, 13.0]))
    array([10., 13.])
    """
    at = np.asarray(x, np.float64)
    if len(knots) == 2:
        slope = (values[1] - values[0]) / (knots[1] - knots[0])
        return np.asarray(values[0] + slope * (at - knots[0]))
    return np.asarray(np.interp(at, knots, values))


def filled(features: np.ndarray, people: Mapping[str, Sequence] | None) -> np.ndarray:
    """Return the features of a brain, those that are not known at what the others suggest.

    Parameters
    ----------
    features : ndarray, shape (F,)
        NaN where not known.
    people : mapping or None
        ``mean`` (F,) and ``precision`` (F, F) of the training people.

    Returns
    -------
    ndarray, shape (F,)
        Conditional mean of a normal distribution in place of NaN.

    Raises
    ------
    BundleError
        A feature is not known and the people are not, either.
    """
    x = np.asarray(features, np.float64)
    unknown = np.isnan(x)
    if not unknown.any():
        return x
    if people is None:
        raise BundleError(
            'the model takes a measure that this image does not have (fluid around the brain, '
            'after skull-stripping), and its bundle does not say how people differ '
            '(`training.feature_distribution`). Give an image of the whole head, or a bundle '
            'that says so.'
        )
    mean, precision = (np.asarray(people[key], np.float64) for key in ('mean', 'precision'))
    away = precision[np.ix_(unknown, ~unknown)] @ (x - mean)[~unknown]
    x = x.copy()
    x[unknown] = mean[unknown] - np.linalg.solve(precision[np.ix_(unknown, unknown)], away)
    return x
