"""A simulated person: everything that stays the same from scan to scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError
from bids_brainage.simulation.ageing import (
    AGE_RANGE,
    DRIVEN,
    VolumeWarp,
    ageing_curve,
    solve_volumes,
    target_volumes,
    volume_ratio,
)
from bids_brainage.simulation.anatomy import (
    Anatomy,
    individual_folds,
    load_anatomy,
    region_fractions,
)
from bids_brainage.simulation.grid import Array, Grid, sample, sample_vectors
from bids_brainage.simulation.warp import border_window, exponentiate, smooth_noise

#: Grid spacings of the shape warp and of the ageing warp, mm.
SHAPE_SPACING, AGEING_SPACING = 6.0, 3.0
#: Distance of the points at which region volumes are measured, mm.
MEASURE_SPACING = 2.0


@dataclass
class Person:
    """One simulated person; `at_age` gives the anatomy of a session.

    Attributes
    ----------
    seed : tuple of int
        What the person was drawn from.
    sex : str
        ``F`` or ``M``.
    gap : float
        Years by which the brain is older (+) or younger (-) than the person.
    deviation : array, shape (6,)
        Log ratio of each driven region to the curve, fixed for life.
    scale : array, shape (3,)
        Head size relative to the template along x, y, z.
    anatomy : Anatomy
        Template the person is a warp of.
    tissue : array, shape (3, nx, ny, nz)
        The person's own CSF, GM, WM fractions in template space.
    shape_grid, shape_inverse : Grid, array
        Displacement (mm) from the person's shape back to the template.
    regions : array, shape (7, nx, ny, nz)
        Region fractions at the reference age in the person's shape, on `ageing_grid`.
    """

    seed: tuple[int, ...]
    sex: str
    gap: float
    deviation: NDArray[np.float64]
    scale: NDArray[np.float64]
    anatomy: Anatomy
    tissue: Array
    shape_grid: Grid
    shape_inverse: Array
    ageing_grid: Grid
    regions: Array

    def at_age(self, age: float, *, tolerance: float = 0.005, fine: bool = True) -> VolumeWarp:
        """Warp from the reference age to a chronological `age` in years (plus the gap).

        Parameters
        ----------
        age : float
            Years.
        tolerance : float
            Accepted error of the log volume of each region.
        fine : bool
            Measure volumes on the unblurred anatomy.  Without, on `ageing_grid` only: twice
            as fast, and up to 3 % off.
        """
        start = self._start_volumes if fine else self.regions.sum((1, 2, 3), dtype='f8')
        volume_ratio(age)  # refuses an age outside the curve before the gap is added
        brain_age = float(np.clip(age + self.gap, *AGE_RANGE))
        ratio = volume_ratio(brain_age) * np.exp(self.deviation)
        target = target_volumes(start, ratio)
        return solve_volumes(
            self.regions,
            AGEING_SPACING,
            target / start,
            tolerance,
            measure=self._volumes_after if fine else None,
        )

    def _volumes_after(self, ageing_inverse: Array) -> NDArray[np.float64]:
        """Region volumes after ageing / before, shape (7,)."""
        return self._region_volumes(ageing_inverse) / self._start_volumes

    @cached_property
    def _start_volumes(self) -> NDArray[np.float64]:
        """Region volumes at the reference age, measured as after ageing."""
        return self._region_volumes(None)

    def _region_volumes(self, ageing_inverse: Array | None) -> NDArray[np.float64]:
        """Region volumes from point samples every 2 mm of the unblurred anatomy, shape (7,)."""
        points = self.ageing_grid.coarser(MEASURE_SPACING, 0.0).points()
        if ageing_inverse is not None:
            points += sample_vectors(ageing_inverse, self.ageing_grid.index(points))
        points = to_template(points, self.shape_grid, self.shape_inverse)
        fractions = region_fractions(self.tissue, self.anatomy.zone, self.anatomy.surround)
        at_points = sample_vectors(fractions, self.anatomy.grid.index(points))
        return np.maximum(at_points.sum((1, 2, 3), dtype='f8'), 1e-9)


def make_person(
    seed: int | tuple[int, ...],
    sex: str,
    spacing: int = 1,
    gap_sd: float = 3.0,
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
    gap_sd : float
        SD of the brain-age gap between people, years.
    variation : float
        Factor on all differences between people (0 = everyone is the template).

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
    traits, folds, shape = (np.random.default_rng([*key, stream]) for stream in range(3))
    anatomy = load_anatomy(spacing)
    gap = float(variation * gap_sd * np.clip(traits.standard_normal(), -2.5, 2.5))
    deviation = variation * _draw_deviation(traits)
    scale = _draw_scale(traits, sex, anatomy, variation)
    tissue = individual_folds(anatomy, folds, strength=variation)
    shape_grid = anatomy.head_grid.coarser(SHAPE_SPACING, SHAPE_SPACING)
    velocity = _draw_shape(shape, shape_grid, variation)
    inverse = exponentiate(-velocity, SHAPE_SPACING)
    ageing_grid = anatomy.grid.coarser(AGEING_SPACING, 6.0)
    regions = _regions_in_shape(anatomy, tissue, shape_grid, inverse, ageing_grid)
    return Person(
        key,
        sex,
        gap,
        deviation,
        scale,
        anatomy,
        tissue,
        shape_grid,
        inverse,
        ageing_grid,
        regions,
    )


def _draw_deviation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Person's log deviation from the curve for `DRIVEN`, within 2 SD."""
    spread = ageing_curve()['between_person_log_sd']
    normal = np.clip(rng.standard_normal(len(DRIVEN)), -2, 2)
    return normal * [spread[name] for name in DRIVEN]


def _draw_scale(
    rng: np.random.Generator, sex: str, anatomy: Anatomy, variation: float
) -> NDArray[np.float64]:
    """Scale along x, y, z so that the head has a plausible intracranial volume."""
    median, spread = ageing_curve()['intracranial_volume_ml'][sex]
    voxels = float((anatomy.mask + anatomy.surround).sum(dtype='f8'))
    template_ml = voxels * anatomy.grid.spacing**3 / 1000
    volume = median + variation * spread * np.clip(rng.standard_normal(), -2.5, 2.5)
    proportions = variation * 0.025 * np.clip(rng.standard_normal(3), -2.5, 2.5)
    return np.exp(proportions - proportions.mean()) * (volume / template_ml) ** (1 / 3)


def _draw_shape(rng: np.random.Generator, grid: Grid, variation: float) -> Array:
    """Velocity of the individual shape, mm: broad and finer smooth differences."""
    broad = [smooth_noise(rng, grid.shape, grid.spacing, 30.0) for _ in range(3)]
    finer = [smooth_noise(rng, grid.shape, grid.spacing, 12.0) for _ in range(3)]
    window = border_window(grid.shape, 4)
    return np.float32(variation) * window * (2.5 * np.stack(broad) + 1.0 * np.stack(finer))


def to_template(points: Array, shape_grid: Grid, shape_inverse: Array) -> Array:
    """Template positions (3, ...) in mm of points (3, ...) in a person's shape."""
    index = shape_grid.index(points)
    return points + np.stack([sample(u, index, np.nan) for u in shape_inverse])


def _regions_in_shape(
    anatomy: Anatomy, tissue: Array, shape_grid: Grid, inverse: Array, target: Grid
) -> Array:
    """Region fractions of the person's shape, averaged over the voxels of `target`."""
    from scipy.ndimage import uniform_filter

    index = anatomy.grid.index(to_template(target.points(), shape_grid, inverse))
    width = round(target.spacing / anatomy.grid.spacing)
    fractions = region_fractions(tissue, anatomy.zone, anatomy.surround)
    return np.stack([sample(uniform_filter(f, width), index) for f in fractions])
