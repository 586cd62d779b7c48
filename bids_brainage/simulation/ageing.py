"""Change of the brain along age: a warp that gives each region its wanted volume.

The curve (`data/ageing_curve.json`) says how each region's share of the intracranial volume
changes.  `solve_volumes` finds a smooth invertible warp that realises it: a curl-free
velocity from a Poisson solve of region-wise rates of log volume change, exponentiated by
scaling and squaring; the rates are corrected until every region has its volume.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError, ProcessingError
from bids_brainage.simulation.anatomy import REGIONS
from bids_brainage.simulation.grid import Array, sample_vectors
from bids_brainage.simulation.warp import (
    border_window,
    compose,
    curl_free_velocity,
    exponentiate,
    identity_index,
    jacobian_determinant,
)

AGE_RANGE = (18.0, 95.0)
#: Regions whose volume the curve sets; sulcal CSF takes what they leave.
DRIVEN = tuple(name for name in REGIONS if name != 'sulcal_csf')
#: Largest log volume ratio of one stage.
STAGE = 0.5
#: Corrections of the rates within a stage.
MAX_ROUNDS = 15
#: Scaling-and-squaring steps of one stage.
SQUARINGS = 4
#: Typical change of log volume for a unit rate, `REGIONS` order: where the search starts.
RESPONSE = (0.35, 0.2, 0.3, 0.6, 0.35, 0.6, 0.6)
#: SD of the Gaussian low-pass of the velocity, mm.
LOW_PASS_MM = 2.4
#: Sulcal CSF may not fall below this share of what the person started with.
MIN_SULCAL_SHARE = 0.35


@lru_cache(maxsize=1)
def ageing_curve() -> dict:
    """Content of ``data/ageing_curve.json`` (numbers, sources, method)."""
    text = files('bids_brainage').joinpath('data/ageing_curve.json').read_text('utf-8')
    return json.loads(text)


def volume_ratio(age: float) -> NDArray[np.float64]:
    """Region volume at `age` relative to the reference age, as share of the head.

    Parameters
    ----------
    age : float
        Years, within `AGE_RANGE`.

    Returns
    -------
    array, shape (6,): one ratio for each name in `DRIVEN`

    Raises
    ------
    OptionError
        If `age` is outside `AGE_RANGE`.
    """
    from scipy.interpolate import PchipInterpolator

    low, high = AGE_RANGE
    if not low <= age <= high:
        raise OptionError(
            f'Age {age:g} years cannot be simulated: the ageing curve covers adults of '
            f'{low:g} to {high:g} years. Choose an age in that range.'
        )
    curve = ageing_curve()
    values = np.log([curve['regions'][name] for name in DRIVEN])
    log_ratio = PchipInterpolator(curve['age'], values, axis=1)
    return np.exp(log_ratio(age) - log_ratio(curve['reference_age']))


def target_volumes(start: NDArray[np.float64], ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volumes of all `REGIONS` after ageing, with the same total.

    Parameters
    ----------
    start : array, shape (7,)
        Volumes now, in the order of `REGIONS`, any unit.
    ratio : array, shape (6,)
        Wanted volume / volume now, for `DRIVEN`.

    Returns
    -------
    array, shape (7,)
        Sulcal CSF takes the rest.  Where that would fall below `MIN_SULCAL_SHARE` of its
        start, the log ratios of the others are shrunk together until it does not.
    """
    sulcal = REGIONS.index('sulcal_csf')
    driven = [REGIONS.index(name) for name in DRIVEN]
    for share in np.linspace(1, 0, 21):
        target = np.array(start, float)
        target[driven] = start[driven] * np.exp(share * np.log(ratio))
        target[sulcal] = start.sum() - target[driven].sum()
        if target[sulcal] >= MIN_SULCAL_SHARE * start[sulcal]:
            break
    return target


@dataclass(frozen=True)
class VolumeWarp:
    """A warp that changes region volumes.

    Attributes
    ----------
    forward, inverse : array, shape (3, nx, ny, nz)
        Displacements in mm: young to old, and old to young.
    log_jacobian : array, shape (nx, ny, nz)
        Natural log of local growth, at the *young* position (negative = loss).
    achieved : array, shape (7,)
        Volume after / volume before for each of `REGIONS`.
    """

    forward: Array
    inverse: Array
    log_jacobian: Array
    achieved: NDArray[np.float64]


def volume_drivers(regions: Array) -> Array:
    """Where each region takes its volume change, shape (7, nx, ny, nz).

    The region itself, but sulcal CSF grows in thin sheets rather than in cisterns: its
    weight falls where it fills the neighbourhood.
    """
    from scipy.ndimage import gaussian_filter

    drivers = regions.copy()
    sulcal = REGIONS.index('sulcal_csf')
    crowd = gaussian_filter(regions[sulcal], 2.0) / 0.35
    drivers[sulcal] /= 1 + crowd**4
    return drivers


def solve_volumes(
    regions: Array,
    spacing: float,
    ratio: NDArray[np.float64],
    tolerance: float = 0.005,
    measure: Callable[[Array], NDArray[np.float64]] | None = None,
) -> VolumeWarp:
    """Find a smooth invertible warp that multiplies each region's volume by `ratio`.

    Large changes are composed of stages, each driven by the regions where the earlier ones
    have moved them; within a stage the rates are corrected by Broyden's method.

    Parameters
    ----------
    regions : array, shape (7, nx, ny, nz)
        Fractions of `REGIONS` before the warp, with an empty border of some 15 mm.
    spacing : float
        Voxel size, mm.
    ratio : array, shape (7,)
        Wanted volume / volume before.  Their total volume should stay the same.
    tolerance : float
        Accepted error of each log ratio.
    measure : callable, optional
        Maps an inverse displacement to volume ratios measured more finely than `regions`
        allow; what they differ by is corrected in a last stage.

    Returns
    -------
    VolumeWarp

    Raises
    ------
    ProcessingError
        If a region is still more than 2 % from its target, or the warp folds.

    References
    ----------
    Broyden, Math. Comp. 1965, doi:10.1090/S0025-5718-1965-0198670-6.
    """
    wanted = np.log(ratio)
    stages = max(1, int(np.ceil(np.abs(wanted).max() / STAGE)))
    still = np.zeros((3, *regions.shape[1:]), 'f4')
    slope = np.diag(RESPONSE)
    before = solver = _Solver(regions, spacing, still, still, wanted / stages / RESPONSE, slope)
    for stage in range(1, stages + 1):
        before = solver
        enough = tolerance if stage == stages and measure is None else 0.03
        solver = _solve_stage(before, wanted * stage / stages, enough)
    achieved = solver.log_ratio(solver.moved(solver.inverse))
    if measure is not None:
        bias = np.log(measure(solver.inverse)) - achieved
        again = replace(before, rates=solver.rates, slope=solver.slope)
        solver = _solve_stage(again, wanted - bias, tolerance)
        achieved = np.log(measure(solver.inverse))
    return _checked_warp(solver, wanted, achieved)


@dataclass(frozen=True)
class _Solver:
    """Where the search stands after a stage (`VolumeWarp` explains the fields)."""

    regions: Array
    spacing: float
    forward: Array
    inverse: Array
    rates: NDArray[np.float64]
    slope: NDArray[np.float64]  # d(log volume) / d(rates), learnt on the way

    def moved(self, inverse: Array) -> Array:
        """Region fractions where the warp with this `inverse` puts them."""
        index = identity_index(self.regions.shape[1:]) + inverse / np.float32(self.spacing)
        return sample_vectors(self.regions, index)

    def log_ratio(self, moved: Array) -> NDArray[np.float64]:
        """Log of volume after / volume before of each region."""
        before, after = (r.sum((1, 2, 3), dtype='f8') for r in (self.regions, moved))
        return np.log(np.maximum(after, 1e-9) / before)


def _solve_stage(solver: _Solver, wanted: NDArray[np.float64], tolerance: float) -> _Solver:
    """Go on from where `solver` stands to the log ratios `wanted` (Broyden's method)."""
    spacing, rates, slope = solver.spacing, solver.rates, solver.slope.copy()
    moved = solver.moved(solver.inverse)
    drivers = volume_drivers(moved)
    window = border_window(drivers.shape[1:], max(2, round(9 / spacing)))
    before, achieved = np.zeros_like(rates), solver.log_ratio(moved)
    for _ in range(MAX_ROUNDS):
        divergence = np.tensordot(rates.astype('f4'), drivers, 1)
        velocity = curl_free_velocity(divergence, spacing, LOW_PASS_MM) * window
        back = exponentiate(-velocity, spacing, SQUARINGS)
        inverse = compose(solver.inverse, back, spacing)
        change, step = solver.log_ratio(solver.moved(inverse)) - achieved, rates - before
        slope += np.outer(change - slope @ step, step) / max(float(step @ step), 1e-12)
        before, achieved = rates, achieved + change
        error = wanted - achieved
        if np.abs(error).max() < tolerance:
            break
        rates = rates + np.clip(np.linalg.solve(slope, error), -1.0, 1.0)
    ahead = exponentiate(velocity, spacing, SQUARINGS)
    forward = compose(ahead, solver.forward, spacing)
    return _Solver(solver.regions, spacing, forward, inverse, before, slope)


def _checked_warp(
    solver: _Solver, wanted: NDArray[np.float64], achieved: NDArray[np.float64]
) -> VolumeWarp:
    """Return the finished warp; refuse one that misses its target or folds."""
    jacobian = jacobian_determinant(solver.forward, solver.spacing)
    error = np.abs(wanted - achieved).max()
    if error > 0.02 or jacobian.min() <= 0:
        raise ProcessingError(
            f'No smooth warp reaches the wanted region volumes: largest error '
            f'{100 * error:.1f} % (expected at most 2 %), smallest Jacobian determinant '
            f'{jacobian.min():.3f} (expected above 0). Ask for a smaller change.'
        )
    return VolumeWarp(solver.forward, solver.inverse, np.log(jacobian), np.exp(achieved))
