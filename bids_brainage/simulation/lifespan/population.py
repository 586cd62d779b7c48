"""How large the structures of a brain are at an age, and how people differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError

#: Deviations are drawn within this many standard deviations of each principal axis.
LIMIT_SD = 2.5


@dataclass(frozen=True)
class Population:
    """Log shares of structures in the intracranial volume over life.

    Attributes
    ----------
    structures : tuple of str
        The structures of the atlas without the fluid around the brain, which takes the rest.
    age : ndarray, shape (K,)
        Years.
    log_share : ndarray, shape (K, S)
        Natural log of volume / intracranial volume of the typical person.
    covariance : ndarray, shape (S, S)
        Of the deviations of people of one age.
    intracranial_ml : dict
        Sex → median and SD, ml.
    """

    structures: tuple[str, ...]
    age: NDArray[np.float64]
    log_share: NDArray[np.float64]
    covariance: NDArray[np.float64]
    intracranial_ml: dict[str, tuple[float, float]]

    def typical(self, age: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log shares of the typical person, shape (..., S).

        Raises
        ------
        OptionError
            If an age is outside the curve.
        """
        from scipy.interpolate import PchipInterpolator

        low, high = self.age[[0, -1]]
        if np.min(age) < low or np.max(age) > high:
            raise OptionError(
                f'Ages {np.min(age):g} to {np.max(age):g} years cannot be simulated: the tables '
                f'cover {low:g} to {high:g} years. Choose ages in that range.'
            )
        return PchipInterpolator(self.age, self.log_share, axis=0)(age)

    def draw_deviation(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw how a person differs from the typical one, for life; shape (S,)."""
        values, axes = np.linalg.eigh(self.covariance)
        score = np.clip(rng.standard_normal(len(values)), -LIMIT_SD, LIMIT_SD)
        return axes @ (score * np.sqrt(np.maximum(values, 0)))

    def draw_intracranial(self, rng: np.random.Generator, sex: str) -> float:
        """Draw an intracranial volume, ml."""
        median, spread = self.intracranial_ml[sex]
        return median + spread * float(np.clip(rng.standard_normal(), -LIMIT_SD, LIMIT_SD))

    def volumes(
        self, age: float, deviation: NDArray[np.float64], intracranial_ml: float
    ) -> NDArray[np.float64]:
        """Return a person's volumes, ml, shape (1 + S,): the fluid around the brain first.

        The fluid keeps at least a twentieth of the intracranial volume; where it would be
        less, the brain is made smaller as a whole.
        """
        share = np.exp(self.typical(age) + deviation)
        share *= min(1.0, 0.95 / share.sum())
        return intracranial_ml * np.concatenate([[1 - share.sum()], share])

    def expected_age(
        self,
        log_share: NDArray[np.float64],
        low: float,
        high: float,
        seen: Sequence[str] | None = None,
    ) -> NDArray[np.float64]:
        """Return the best guess of age from the true volumes: what nobody can beat.

        Parameters
        ----------
        log_share : ndarray, shape (N, S)
            Of people drawn evenly over ages.
        low, high : float
            Ages they were drawn from, years.
        seen : sequence of str, optional
            Structures whose volumes are known; all without it.

        Returns
        -------
        ndarray, shape (N,)
            Median of the posterior of age, years (it has the least expected absolute error).
        """
        grid = np.linspace(low, high, 4 * int(high - low) + 1)
        known = [self.structures.index(name) for name in seen or self.structures]
        precision = np.linalg.inv(self.covariance[np.ix_(known, known)])
        apart = log_share[:, None, known] - self.typical(grid)[None, :, known]
        log_density = -0.5 * np.einsum('nas,st,nat->na', apart, precision, apart)
        weight = np.cumsum(np.exp(log_density - log_density.max(axis=1, keepdims=True)), axis=1)
        return grid[(weight >= 0.5 * weight[:, -1:]).argmax(axis=1)]


@lru_cache(maxsize=2)
def load_population(name: Literal['structures', 'regions'] = 'structures') -> Population:
    """Return a packaged population (``data/population``; sources stand in the files).

    Parameters
    ----------
    name : {'structures', 'regions'}
        The 15 structures of the atlas, as FreeSurfer measures them, or the regions of the
        segmentation network, as it measures them.
    """
    text = files('bids_brainage').joinpath(f'data/population/{name}.json').read_text('utf-8')
    content = json.loads(text)
    return Population(
        tuple(content['structures']),
        np.array(content['age'], float),
        np.array(content['log_share'], float),
        np.array(content['covariance'], float),
        {sex: (float(v[0]), float(v[1])) for sex, v in content['intracranial_ml'].items()},
    )
