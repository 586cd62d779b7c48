"""Fit an additive model of age on a table of features: one smooth function for each.

Penalised regression splines (Eilers and Marx 1996, doi:10.1214/ss/1038425655): each function is a
straight line plus a smooth deviation from it.  Both are shrunk, by two penalties that
cross-validation inside the training people chooses, so that dozens of correlated features and a
hundred people are enough.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainage.models.volumes import through_knots

Array = NDArray[np.float64]
Tensors = dict[str, Array]

LEAST_PEOPLE = 30
"""Fewest people a model is fitted on."""

KNOTS, ENDS = 7, (0.0, 1.0)
"""Knots of each function, evenly spread over the quantiles of its feature between `ENDS`."""

PENALTIES = (
    (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    (1e-2, 1e-1, 1.0, 10.0, 100.0),
)
"""Tried penalties of the slopes, and of the deviations in multiples of that of the slopes; years
per standard deviation of a feature, relative to the mean over the people."""

FOLDS = 5
WEIGHT_CAP = 5.0
CURVE_STEP_YEARS, CURVE_BANDWIDTH_YEARS = 5.0, 8.0


def balanced_weights(
    age: Array, people: Sequence[Hashable] | None = None, *, cap: float = WEIGHT_CAP
) -> Array:
    """Return weights that give every decade of age the same sum, and every person.

    Parameters
    ----------
    age : (N,) array
        Years.
    people : sequence, optional
        Who each row is; the rows of one person share the weight of one.
    cap : float
        Nobody weighs more than this times as much as if all weighed the same.

    Returns
    -------
    (N,) array
        Mean 1.
    """
    share = np.ones(len(age))
    if people is not None:
        share = 1.0 / np.bincount(codes := _numbered(people))[codes]
    decade = np.floor(np.asarray(age, float) / 10).astype(int)
    decade -= decade.min()
    sums = np.bincount(decade, share)
    weight = share.sum() / (np.count_nonzero(sums) * sums[decade])
    weight = share * np.minimum(weight, cap)
    return weight / weight.mean()


def aligned_weights(age: Array, cohorts: Sequence[Hashable], *, cap: float = WEIGHT_CAP) -> Array:
    """Return weights that give every cohort the age distribution of all, by decade.

    A person weighs the share of the decade among all people over its share in the cohort; then
    the cohort is brought back to its number of people.  Decades that a cohort does not have stay
    without people.

    Parameters
    ----------
    age : (N,) array
        Years.
    cohorts : sequence
        Where each row is from.
    cap : float
        Nobody weighs more than this times as much as if all weighed the same.

    Returns
    -------
    (N,) array
        Mean 1.

    Examples
    --------
    >>> aligned_weights(np.array([25.0, 25, 25, 65, 25, 65, 65, 65]), list('aaaabbbb')).round(2)
    array([0.67, 0.67, 0.67, 2.  , 2.  , 0.67, 0.67, 0.67])
    """
    decade, cohort = _numbered(np.floor(np.asarray(age, float) / 10).tolist()), _numbered(cohorts)
    counts = np.zeros((cohort.max() + 1, decade.max() + 1))
    np.add.at(counts, (cohort, decade), 1.0)
    size = counts.sum(1)
    weight = counts.sum(0)[decade] / len(decade) * size[cohort] / counts[cohort, decade]
    weight *= (size / np.bincount(cohort, weight))[cohort]
    weight = np.minimum(weight, cap)
    return weight / weight.mean()


def fit_additive(
    features: Array,
    age: Array,
    weights: Array | None = None,
    people: Sequence[Hashable] | None = None,
    *,
    penalties: tuple[float, float] | None = None,
) -> Tensors:
    """Fit the model.

    Parameters
    ----------
    features : (N, F) array
        Log ratios.
    age : (N,) array
        Years.
    weights : (N,) array, optional
        Of the squared errors; `balanced_weights` without them.
    people : sequence, optional
        Who each row is, so that cross-validation never divides a person.
    penalties : (float, float), optional
        Of slopes and deviations, see `choose_penalties`, which is asked without them.

    Returns
    -------
    dict of array
        What `bids_brainage.models.volumes.VolumesRegressor` loads: ``intercept`` (1,) years, the
        weighted mean age; ``knots`` (F, K) log ratios; ``values`` (F, K) years at the knots,
        of weighted mean 0 over the people; ``offset`` (F,), zeros.

    Raises
    ------
    ValueError
        People are too few, a value is not finite, or a feature is the same in everybody.
    """
    features, age, weights = _checked(features, age, weights, people)
    if penalties is None:
        penalties = choose_penalties(features, age, weights, people)
    return _tensors(_basis(features, weights), age, weights, penalties)


def choose_penalties(
    features: Array,
    age: Array,
    weights: Array | None = None,
    people: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Return the penalties with the smallest cross-validated squared error.

    Parameters
    ----------
    features, age, weights, people
        As for `fit_additive`.

    Returns
    -------
    slope, deviation : float
        Of the `PENALTIES`.  The folds are dealt along the order of ages, so the choice depends on
        the people only.
    """
    features, age, weights = _checked(features, age, weights, people)
    codes = np.arange(len(age)) if people is None else _numbered(people)
    middle = np.bincount(codes, age) / np.bincount(codes)
    fold = np.empty(len(middle), int)
    fold[np.argsort(middle, kind='stable')] = np.arange(len(middle)) % FOLDS
    tried = [(slope, slope * ratio) for slope in PENALTIES[0] for ratio in PENALTIES[1]]
    errors = np.zeros(len(tried))
    for number in range(FOLDS):
        held_out = fold[codes] == number
        basis = _basis(features[~held_out], weights[~held_out])
        for k, pair in enumerate(tried):
            tensors = _tensors(basis, age[~held_out], weights[~held_out], pair)
            found = tensors['intercept'] + contributions(tensors, features[held_out]).sum(axis=1)
            errors[k] += weights[held_out] @ (found - age[held_out]) ** 2
    return tried[int(errors.argmin())]


def contributions(tensors: Tensors, features: Array) -> Array:
    """Return what each feature adds to the age of each person, years, shape (N, F)."""
    x = np.asarray(features, float) + tensors['offset']
    return np.stack(
        [
            through_knots(column, knots, values)
            for column, knots, values in zip(x.T, tensors['knots'], tensors['values'], strict=True)
        ],
        axis=1,
    )


def reference_curves(
    tensors: Tensors, features: Array, age: Array, weights: Array | None = None
) -> dict[str, list]:
    """Return what each feature adds to the age of the usual person of each age.

    Local linear regression (Cleveland 1979, doi:10.1080/01621459.1979.10481038) of the
    contributions on age, with a Gaussian of `CURVE_BANDWIDTH_YEARS`.  A person's contributions
    less these average about zero at every age: they say what is unusual *for the age*.

    Parameters
    ----------
    tensors : dict
        From `fit_additive`.
    features : (N, F) array
        Of the training people.
    age : (N,) array
        Years.
    weights : (N,) array, optional
        Of the people.

    Returns
    -------
    dict
        ``age``: about every five years from the youngest to the oldest; ``contributions``: for
        each feature the years at these ages, F lists.
    """
    grid, curves = smooth_by_age(contributions(tensors, features), age, weights)
    return {'age': grid.round(3).tolist(), 'contributions': curves.T.round(4).tolist()}


def smooth_by_age(values: Array, age: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return what people have at each age, by local linear regression.

    Parameters
    ----------
    values : (N, F) array
    age : (N,) array
        Years.
    weights : (N,) array, optional
        Of the people.

    Returns
    -------
    grid : (A,) array
        About every five years from the youngest to the oldest.
    curves : (A, F) array
    """
    age = np.asarray(age, float)
    weight = np.ones(len(age)) if weights is None else np.asarray(weights, float)
    steps = max(1, round(np.ptp(age) / CURVE_STEP_YEARS))
    grid = np.linspace(age.min(), age.max(), steps + 1)
    curves = []
    for at in grid:
        away = age - at
        near = np.sqrt(weight * np.exp(-0.5 * (away / CURVE_BANDWIDTH_YEARS) ** 2))[:, None]
        line = np.stack([np.ones(len(age)), away], axis=1)
        curves.append(np.linalg.lstsq(near * line, near * values, rcond=None)[0][0])
    return grid, np.array(curves)


def feature_distribution(features: Array, weights: Array | None = None) -> dict[str, list]:
    """Return where the people lie, so that an unusual brain can be told.

    Parameters
    ----------
    features : (N, F) array
    weights : (N,) array, optional
        Of the people.

    Returns
    -------
    dict
        ``mean``, F numbers, and ``precision``, F × F: the inverse of the covariance, whose
        correlations are shrunk towards 0 as far as N calls for (Schäfer and Strimmer 2005,
        doi:10.2202/1544-6115.1175), so that it exists for fewer people than features.
    """
    x = np.asarray(features, float)
    weight = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    weight = weight / weight.sum()
    mean = weight @ x
    spread = np.sqrt(weight @ (x - mean) ** 2)
    z = (x - mean) / spread
    correlation = z.T @ (weight[:, None] * z)
    squares = weight**2
    # variance of each weighted mean of products z_i z_j
    variance = (
        (z**2).T @ (squares[:, None] * z**2)
        - 2 * correlation * (z.T @ (squares[:, None] * z))
        + squares.sum() * correlation**2
    )
    off = ~np.eye(x.shape[1], dtype=bool)
    strength = (correlation[off] ** 2).sum()
    shrinkage = min(1.0, variance[off].sum() / strength) if strength > 0 else 1.0
    correlation[off] *= 1.0 - shrinkage
    precision = np.linalg.inv(correlation * np.outer(spread, spread))
    return {'mean': mean.tolist(), 'precision': ((precision + precision.T) / 2).tolist()}


@dataclass(frozen=True)
class _Basis:
    """Columns of the regression.

    `design` (N, F·(K - 1)) is centred: for each feature its standardised value, clipped at the
    outer knots, then K - 2 deviations from it.  `at_knots` (F, K, K - 1) has the columns' values
    at the knots, `centre` their means over the people.
    """

    design: Array
    knots: Array
    at_knots: Array
    centre: Array


def _basis(features: Array, weights: Array) -> _Basis:
    columns, knots, at_knots = [], [], []
    share = weights / weights.sum()
    mean = share @ features
    spread = np.sqrt(share @ (features - mean) ** 2)
    for x in ((features - mean) / spread).T:
        order = np.argsort(x)
        reached = np.cumsum(share[order]) - share[order] / 2
        knot = np.interp(np.linspace(*ENDS, KNOTS), reached, x[order])
        knot = knot + 1e-6 * np.arange(KNOTS)  # ties of values must not make knots equal
        hats = np.stack([np.interp(x, knot, unit) for unit in np.eye(KNOTS)], axis=1)
        values = np.column_stack([knot, _deviations(knot)])
        columns.append(hats @ values)
        knots.append(knot)
        at_knots.append(values)
    design = np.hstack(columns)
    centre = share @ design
    scaled = np.array(knots) * spread[:, None] + mean[:, None]
    return _Basis(design - centre, scaled, np.array(at_knots), centre)


def _deviations(knot: Array) -> Array:
    """Return values at the knots that bend, (K, K - 2), each with the same mean squared bend."""
    slope = np.diff(np.eye(KNOTS), axis=0) / np.diff(knot)[:, None]
    bend = np.diff(slope, axis=0)
    # The pseudo-inverse has no part that is straight.
    return np.asarray(np.linalg.pinv(bend), np.float64)


def _tensors(basis: _Basis, age: Array, weights: Array, penalties: tuple[float, float]) -> Tensors:
    """Solve the penalised least squares."""
    n_features, _, per_feature = basis.at_knots.shape
    total = weights.sum()
    middle = float(weights @ age / total)
    weighted = basis.design * weights[:, None]
    penalty = np.tile([penalties[0], *[penalties[1]] * (per_feature - 1)], n_features)
    gram = weighted.T @ basis.design / total + np.diag(penalty)
    beta = np.linalg.solve(gram, weighted.T @ (age - middle) / total)
    own = beta.reshape(n_features, per_feature)
    values = np.einsum('fkc,fc->fk', basis.at_knots, own)
    values -= (basis.centre.reshape(own.shape) * own).sum(axis=1, keepdims=True)
    return {
        'intercept': np.array([middle]),
        'knots': basis.knots,
        'values': values,
        'offset': np.zeros(n_features),
    }


def _checked(
    features: Array, age: Array, weights: Array | None, people: Sequence[Hashable] | None
) -> tuple[Array, Array, Array]:
    features, age = np.asarray(features, float), np.asarray(age, float)
    n = len(age) if people is None else len(set(people))
    if n < LEAST_PEOPLE:
        raise ValueError(f'{n} people are too few to fit a model; {LEAST_PEOPLE} are needed')
    if features.ndim != 2 or len(features) != len(age):
        raise ValueError(f'features of shape {features.shape}, expected ({len(age)}, F)')
    if not (np.isfinite(features).all() and np.isfinite(age).all()):
        raise ValueError('features and ages must be finite numbers')
    same = np.flatnonzero(np.ptp(features, axis=0) == 0)
    if len(same):
        raise ValueError(f'feature {same[0]} is the same in everybody')
    weights = balanced_weights(age, people) if weights is None else np.asarray(weights, float)
    return features, age, weights


def _numbered(names: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)
