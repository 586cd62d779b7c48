"""People by number: who they are, their brain at an age, the same at another age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError, ProcessingError
from bids_brainage.simulation.lifespan.anatomy import BRAIN
from bids_brainage.simulation.lifespan.person import Carver, Warp, carve, draw_shape
from bids_brainage.simulation.lifespan.population import Population

#: An anatomy whose ventricles differ from the wanted ones by more (log ratio) is not used.
VENTRICLE_REACH = 1.3
VENTRICLE = 1


@dataclass(frozen=True)
class Traits:
    """What stays with a person for life.

    Attributes
    ----------
    key : tuple of int
        Seed of the cohort and number of the person.
    sex : str
        ``F`` or ``M``.
    deviation : array, shape (14,)
        Log shares relative to the typical person of the same age.
    intracranial_ml : float
    """

    key: tuple[int, int]
    sex: str
    deviation: NDArray[np.float64]
    intracranial_ml: float


@dataclass(frozen=True)
class Individual:
    """A person at an age.

    Attributes
    ----------
    traits : Traits
    age : float
        Years.
    carver : Carver
        The anatomy the person is made of.
    warp : Warp
    volumes_ml : array, shape (15,)
        Truth: volume of each structure, ml.
    volume_scale : float
        Millilitres of the person per millilitre of head space.
    """

    traits: Traits
    age: float
    carver: Carver
    warp: Warp
    volumes_ml: NDArray[np.float64]
    volume_scale: float

    @property
    def log_share(self) -> NDArray[np.float64]:
        """Log share of the 14 structures in the intracranial volume."""
        return np.log(self.volumes_ml[1:] / self.volumes_ml.sum())


def draw_traits(population: Population, seed: int, number: int) -> Traits:
    """Draw person `number` of cohort `seed`."""
    rng = np.random.default_rng([seed, number, 0])
    sex = 'FM'[int(rng.integers(2))]
    return Traits(
        (seed, number), sex, population.draw_deviation(rng), population.draw_intracranial(rng, sex)
    )


def draw_age(seed: int, number: int, ages: tuple[float, float]) -> float:
    """Draw the age at the first session, every year with the same chance."""
    low, high = ages
    if not low < high:
        raise OptionError(f'Ages {low:g} to {high:g} years: expected the first to be lower.')
    return float(np.random.default_rng([seed, number, 1]).uniform(low, high))


def individual_at(
    traits: Traits,
    age: float,
    population: Population,
    carvers: Sequence[Carver],
    *,
    shape_strength: float = 1.0,
    exact: bool = True,
) -> Individual:
    """Make a person's brain at an age.

    Parameters
    ----------
    traits : Traits
        Who.
    age : float
        Years.
    population : Population
    carvers : sequence of Carver
        Anatomies to choose from; for a later session of a person the one of the first.
    shape_strength : float
        Factor on individual shape.
    exact : bool
        As in `carve`.

    Returns
    -------
    Individual

    Raises
    ------
    ProcessingError
        If no anatomy can be warped that far.
    """
    share = population.volumes(age, traits.deviation, 1.0)
    rng = np.random.default_rng([*traits.key, 2])
    failures = []
    for carver in _candidates(rng, share, carvers):
        shape_rng = np.random.default_rng([*traits.key, 3])
        device = str(carver.basis.device)
        shape = draw_shape(shape_rng, shape_strength, device) if shape_strength > 0 else None
        try:
            warp = carve(carver, share, shape, exact=exact)
        except ProcessingError as error:
            failures.append(str(error))
            continue
        total = float(warp.share.sum())
        volumes = warp.share / total * traits.intracranial_ml
        head_ml = float(carver.volume.sum()) * BRAIN.spacing**3 / 1000 * total
        return Individual(traits, age, carver, warp, volumes, traits.intracranial_ml / head_ml)
    raise ProcessingError(
        f'Person {traits.key} at {age:.1f} years: none of {len(carvers)} anatomies can be warped '
        f'that far. {failures[-1] if failures else ""}'
    )


def _candidates(
    rng: np.random.Generator, share: NDArray[np.float64], carvers: Sequence[Carver]
) -> list[Carver]:
    """Anatomies in the order to try: those within reach shuffled, then the others by distance."""
    reach = [abs(np.log(share[VENTRICLE] / c.share[VENTRICLE])) for c in carvers]
    near = [k for k in rng.permutation(len(carvers)) if reach[k] <= VENTRICLE_REACH]
    far = sorted(set(range(len(carvers))) - set(near), key=lambda k: reach[k])
    return [carvers[k] for k in (*near, *far)]
