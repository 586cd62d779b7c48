"""Fit how measures change with age, and how people and sites differ, for `tables.openneuro`.

Usual measures are natural cubic splines of age (de Boor 1978) with an offset of each data set, a
random effect (Laird and Ware 1982, doi:10.2307/2529876), so that the mixture of data sets at an
age does not pass for ageing.  A stranger's measures differ from the usual ones by what people of a
data set differ by, plus what data sets do: directions in which data sets differ count for less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AGES = np.arange(3.0, 90.1, 0.5)
KNOTS_YEARS = np.array([8.0, 16.0, 25.0, 40.0, 58.0, 72.0])
FREEDOM = 10.0
PRIOR_YEARS, PRIOR_FLOOR = 4.0, 1e-4
"""Width that ages are smoothed with, and the share that each age has at least."""

ROUNDS, LEAST_PEOPLE = 15, 5
"""Rounds of estimating the offsets; people of a data set that counts for how data sets differ."""


@dataclass(frozen=True)
class Prior:
    """How the most likely age is told.

    `prior`: power of the ages of the people in the prior (0: all ages alike).  `ridge`: added to
    the variance of standardised features.  `sites`: weight of how sites differ.  `waves_share`:
    of the age that the regression on waves tells.  `waves_see`: how many of the first features
    that regression uses.
    """

    prior: float
    ridge: float
    sites: float
    waves_share: float
    waves_see: int


def spline(age: np.ndarray) -> np.ndarray:
    """Return the basis of natural cubic splines, (N, knots)."""
    t, knots = (np.asarray(age, float) - 40) / 20, (KNOTS_YEARS - 40) / 20
    past = [np.maximum(t - k, 0) ** 3 for k in knots]
    bent = [
        (one - past[-1]) / (knots[-1] - k) for one, k in zip(past[:-1], knots[:-1], strict=True)
    ]
    return np.stack([np.ones_like(t), t, *(b - bent[-1] for b in bent[:-1])], axis=1)


def curves_of(z: np.ndarray, age: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the coefficients of `spline` of each feature, data sets having offsets."""
    basis = spline(age)
    _, code, counts = np.unique(source, return_inverse=True, return_counts=True)
    members = np.eye(len(counts))[code]
    offset = np.zeros((len(counts), z.shape[1]))
    between, within = np.full(z.shape[1], 0.1), np.ones(z.shape[1])
    for _ in range(ROUNDS):
        found = np.linalg.lstsq(basis, z - offset[code], rcond=None)[0]
        rest = z - basis @ found
        kept = between / (between + within / counts[:, None])
        offset = kept * (members.T @ rest) / counts[:, None]
        within = ((rest - offset[code]) ** 2).mean(axis=0)
        between = (offset**2 + (1 - kept) * between).mean(axis=0)
    return found


def _means_of(rest: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the data set of each person as a number, and its people and means."""
    _, code, counts = np.unique(source, return_inverse=True, return_counts=True)
    return code, counts, np.eye(len(counts))[code].T @ rest / counts[:, None]


def within_sources(rest: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the covariance of people of one data set, (F, F)."""
    code, counts, means = _means_of(rest, source)
    own = rest - means[code]
    return own.T @ own / (len(rest) - len(counts))


def covariances(rest: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how people of a data set differ, and how data sets do, by the method of moments."""
    _, counts, means = _means_of(rest, source)
    within = within_sources(rest, source)
    large = counts >= LEAST_PEOPLE
    n, means = counts[large], means[large]
    share = n / (n + LEAST_PEOPLE)
    share /= share.sum()
    away = means - share @ means
    between = (away * share[:, None]).T @ away / (1 - (share**2).sum())
    between -= within * (share / n).sum()
    values, vectors = np.linalg.eigh((between + between.T) / 2)
    return within, (vectors * np.maximum(values, 0)) @ vectors.T


def fit_posterior(
    z: np.ndarray, age: np.ndarray, source: np.ndarray, settings: Prior
) -> dict[str, np.ndarray]:
    """Return the tensors of `PosteriorRegressor` but for scale and waves.

    Parameters
    ----------
    z : (N, F) array
        Standardised features.
    age : (N,) array
        Years.
    source : (N,) array of str
        Data set of each person.
    settings : Prior
    """
    found = curves_of(z, age, source)
    within, between = covariances(z - spline(age) @ found, source)
    spread = within + settings.sites * between + settings.ridge * np.eye(len(within))
    frequent = np.exp(-0.5 * ((AGES[:, None] - age) / PRIOR_YEARS) ** 2).sum(axis=1)
    prior = settings.prior * np.log(frequent / frequent.sum() + PRIOR_FLOOR)
    likely = likely_tensors(AGES, spline(AGES) @ found, spread, prior)
    return likely | {'waves_share': np.array([settings.waves_share])}


def likely_tensors(
    ages: np.ndarray, usual: np.ndarray, spread: np.ndarray, prior: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the tensors of `PosteriorRegressor` that tell how likely each age is.

    Parameters
    ----------
    ages : (A,) array
        Years.
    usual : (A, F) array
        Standardised features of the usual person of each age.
    spread : (F, F) array
        Covariance of how people differ from them.
    prior : (A,) array
        Logarithm of how likely each age is before anything was measured.
    """
    values, vectors = np.linalg.eigh(spread)
    turn = (vectors / np.sqrt(values)).T
    return {
        'ages': ages, 'prior': prior, 'usual': usual @ turn.T, 'turn': turn,
        'freedom': np.array([FREEDOM]),
    }  # fmt: skip
