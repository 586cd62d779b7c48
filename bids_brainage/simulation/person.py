"""A simulated person: everything that stays the same from scan to scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError
from bids_brainage.simulation.grid import Array, sample_vectors
from bids_brainage.simulation.lifespan.person import FLOW, carve, draw_shape
from bids_brainage.simulation.lifespan.population import load_population
from bids_brainage.simulation.template import Template, load_carver, load_template

if TYPE_CHECKING:
    from torch import Tensor

#: SD of the log of the head's proportions along an axis.
PROPORTIONS = 0.025
#: How many standard deviations a drawn value may be away.
REACH_SD = 2.5


@dataclass(frozen=True)
class AgedBrain:
    """A person's brain at one age, as a warp of the template on the grid `FLOW`.

    Attributes
    ----------
    inverse : array, shape (3, nx, ny, nz)
        Displacement in mm from points of the person's head (of the template's size) back to the
        template.
    log_growth : array, shape (nx, ny, nz)
        Natural log of the local volume change, at the template's positions.
    share : array, shape (39,)
        Of each region in the intracranial volume.
    """

    inverse: Array
    log_growth: Array
    share: NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """One simulated person; `at_age` gives the anatomy of a session.

    Attributes
    ----------
    seed : tuple of int
        What the person was drawn from.
    sex : str
        ``F`` or ``M``.
    deviation : array, shape (38,)
        Log share of each region relative to the typical person of the same age, for life.
    intracranial_ml : float
    scale : array, shape (3,)
        Head size relative to the template along x, y, z.
    template : Template
        What the person is a warp of.
    shape : Tensor, shape (3, nx, ny, nz)
        Velocity of the individual shape on `FLOW`, mm.
    """

    seed: tuple[int, ...]
    sex: str
    deviation: NDArray[np.float64]
    intracranial_ml: float
    scale: NDArray[np.float64]
    template: Template
    shape: Tensor

    def at_age(self, age: float, *, exact: bool = True) -> AgedBrain:
        """Return the brain at an age.

        Parameters
        ----------
        age : float
            Years.
        exact : bool
            Correct the volumes on the fine grid.  Without, small regions can be a tenth off.

        Raises
        ------
        OptionError
            If the age is outside the curves.
        ProcessingError
            If no smooth warp of the template has the wanted volumes.
        """
        population, carver = load_population('regions'), load_carver()
        share = population.volumes(age, self.deviation, 1.0)
        warp = carve(carver, share, self.shape, exact=exact)
        inverse = warp.inverse(carver.points)
        return AgedBrain(
            inverse.numpy(), np.log(warp.growth.numpy()), warp.share / warp.share.sum()
        )


def make_person(
    seed: int | tuple[int, ...],
    sex: str,
    spacing: int = 1,
    variation: float = 1.0,
) -> Person:
    """Draw a person.

    Parameters
    ----------
    seed : int or tuple of int
        The same seed gives the same person.
    sex : {'F', 'M'}
        Sets the distribution of head size.
    spacing : {1, 2}
        Voxel size of the template to work from, mm.
    variation : float
        Factor on all differences between people (0 = everyone is typical).

    Returns
    -------
    Person

    Raises
    ------
    OptionError
        If `sex` is neither ``F`` nor ``M``.
    """
    if sex not in ('F', 'M'):
        raise OptionError(f'Sex {sex!r} cannot be simulated: expected F or M.')
    key = (seed,) if isinstance(seed, int) else tuple(seed)
    traits, shape = (np.random.default_rng([*key, stream]) for stream in range(2))
    population = load_population('regions')
    deviation = variation * population.draw_deviation(traits)
    typical = population.intracranial_ml[sex][0]
    intracranial = typical + variation * (population.draw_intracranial(traits, sex) - typical)
    drawn = np.clip(traits.standard_normal(3), -REACH_SD, REACH_SD)
    proportions = variation * PROPORTIONS * (drawn - drawn.mean())
    size = (intracranial / load_carver().volume_ml.sum()) ** (1 / 3)
    return Person(
        key,
        sex,
        deviation,
        float(intracranial),
        size * np.exp(proportions),
        load_template(spacing),
        draw_shape(shape, variation),
    )


def to_template(points: Array, brain: AgedBrain) -> Array:
    """Template positions (3, ...) in mm of points (3, ...) of a person's head."""
    return points + sample_vectors(brain.inverse, FLOW.index(points))
