"""A person of any age: one real anatomy, warped until its structures have wanted volumes.

The warp is the flow of a stationary velocity: a sum of one curl-free field for each structure
(it makes that structure grow and its surroundings give way) plus smooth individual shape.  The
weights of the sum are found by Broyden's method, starting from slopes measured once for each
anatomy; so a person takes a few evaluations on a 4 mm grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import ProcessingError
from bids_brainage.simulation.grid import Grid
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import BRAIN, HeadAnatomy
from bids_brainage.simulation.warp import border_window, curl_free_velocity, smooth_noise

if TYPE_CHECKING:
    from torch import Tensor

#: Where velocities live: blocks of 2 x 2 x 2 voxels of `BRAIN`.
FLOW = Grid(
    (BRAIN.shape[0] // 2, BRAIN.shape[1] // 2, BRAIN.shape[2] // 2),
    2 * BRAIN.spacing,
    (BRAIN.origin[0] + 1.0, BRAIN.origin[1] + 1.0, BRAIN.origin[2] + 1.0),
)
#: SD of the low-pass of the velocities, mm.
LOW_PASS_MM = 2.4
#: Accepted error of a structure's log volume while searching for an exact warp, and at the end.
TOLERANCE, LIMIT = 0.008, 0.02
MAX_ROUNDS = 10
#: Times the quick volumes are corrected by those of the fine grid.
REFINEMENTS = 4
#: Largest change of a weight in one round.
LARGEST_MOVE = 1.0
#: SD in mm and smoothness of individual shape.
SHAPE = ((2.0, 30.0), (1.2, 14.0))


@dataclass(frozen=True)
class Carver:
    """What is computed once for an anatomy.

    Attributes
    ----------
    anatomy : HeadAnatomy
    fractions, blocks : Tensor, shape (S, nx, ny, nz)
        Of the structures, on `BRAIN` and on `FLOW`.
    basis : Tensor, shape (S, 3, nx, ny, nz)
        Velocity for a unit rate of growth of each structure, mm.
    slope : array, shape (S, S)
        Change of the log volumes (rows) for a unit weight (columns), near no change.
    points, fine : Tensor
        Voxel centres of `FLOW` and of `BRAIN`, mm.
    volume, block_volume : array, shape (S,)
        Of the structures, voxels of `BRAIN` and of `FLOW`.
    """

    anatomy: HeadAnatomy
    fractions: Tensor
    blocks: Tensor
    basis: Tensor
    slope: NDArray[np.float64]
    points: Tensor
    fine: Tensor
    volume: NDArray[np.float64]
    block_volume: NDArray[np.float64]

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of each structure in the anatomy's intracranial volume, shape (S,)."""
        return self.volume / self.volume.sum()

    @property
    def volume_ml(self) -> NDArray[np.float64]:
        """Volume of each structure of the anatomy, shape (S,)."""
        return self.volume * BRAIN.spacing**3 / 1000


@dataclass(frozen=True)
class Warp:
    """A person's anatomy.

    Attributes
    ----------
    velocity : Tensor, shape (3, nx, ny, nz)
        Its flow for unit time takes the anatomy to the person, in head space; mm, on `FLOW`.
    growth : Tensor, shape (nx, ny, nz)
        Local volume change, at the anatomy's positions.
    share : array, shape (S,)
        What the structures' volumes came out as, per intracranial volume of the anatomy.
    """

    velocity: Tensor
    growth: Tensor
    share: NDArray[np.float64]

    def inverse(self, points: Tensor) -> Tensor:
        """Displacement from the person back to the anatomy on `FLOW` (its `points`), mm."""
        return field.exponentiate(-self.velocity, FLOW, points)


def prepare_carver(anatomy: HeadAnatomy, device: str = 'cpu') -> Carver:
    """Compute velocities and slopes of an anatomy (a few seconds)."""
    import torch

    x, y, z = FLOW.shape
    blocks = anatomy.fractions().reshape(-1, x, 2, y, 2, z, 2).mean((2, 4, 6))
    window = border_window(FLOW.shape, 4)
    basis = np.stack(
        [curl_free_velocity(d, FLOW.spacing, LOW_PASS_MM) * window for d in _drivers(blocks)]
    )
    fractions = torch.from_numpy(anatomy.fractions()).to(device)
    volume = blocks.sum((1, 2, 3), dtype='f8')
    return Carver(
        anatomy,
        fractions,
        torch.from_numpy(blocks.astype('f4')).to(device),
        torch.from_numpy(basis.astype('f4')).to(device),
        _slope(blocks, basis) / volume[:, None],
        field.grid_points(FLOW, device),
        field.grid_points(BRAIN, device),
        _total(fractions),
        volume,
    )


def _slope(blocks: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float64]:
    """Change of the volumes (rows) for a unit weight (columns): divergences, summed up."""
    flat = blocks.reshape(len(blocks), -1)
    columns = []
    for velocity in basis:
        divergence = sum(np.gradient(velocity[k], FLOW.spacing, axis=k) for k in range(3))
        columns.append(flat @ divergence.ravel())
    return np.stack(columns, axis=1).astype('f8')


def _drivers(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each structure takes its growth; outer fluid in thin sheets, not in cisterns."""
    from scipy.ndimage import gaussian_filter

    drivers = blocks.astype('f4').copy()
    crowd = gaussian_filter(drivers[0], 1.5) / 0.35
    drivers[0] /= 1 + crowd**4
    return drivers


def draw_shape(rng: np.random.Generator, strength: float = 1.0, device: str = 'cpu') -> Tensor:
    """Draw the velocity of an individual shape, mm, shape (3, nx, ny, nz) on `FLOW`."""
    import torch

    window = border_window(FLOW.shape, 4)
    total = np.zeros((3, *FLOW.shape), 'f4')
    for sd, smoothness in SHAPE:
        noise = [smooth_noise(rng, FLOW.shape, FLOW.spacing, smoothness) for _ in range(3)]
        total += np.float32(sd * strength) * np.stack(noise)
    return torch.from_numpy(total * window).to(device)


def _flow(carver: Carver, weights: NDArray[np.float64], shape: Tensor | None) -> Tensor:
    """Velocity of weights plus individual shape."""
    import torch

    rates = torch.from_numpy(weights.astype('f4')).to(carver.basis.device)
    velocity = torch.tensordot(rates, carver.basis, 1)
    return velocity if shape is None else velocity + shape


def _volumes(carver: Carver, velocity: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
    """Growth, and log of the structures' volumes after / before, on the coarse grid: quick."""
    forward = field.exponentiate(velocity, FLOW, carver.points)
    growth = field.jacobian(forward, FLOW.spacing)
    volume = (carver.blocks.flatten(1) @ growth.flatten()).double().cpu().numpy()
    return growth, np.log(np.maximum(volume, 1e-6) / carver.block_volume)


def _total(fractions: Tensor) -> NDArray[np.float64]:
    return fractions.sum((1, 2, 3)).double().cpu().numpy()


def measure(carver: Carver, inverse: Tensor) -> NDArray[np.float64]:
    """Volumes of the structures of a warped anatomy on the fine grid, shape (S,), voxels."""
    back = field.sample(inverse, FLOW, carver.fine, border=True)
    return _total(field.sample(carver.fractions, BRAIN, carver.fine + back))


def carve(
    carver: Carver,
    share: NDArray[np.float64],
    shape: Tensor | None = None,
    *,
    exact: bool = True,
) -> Warp:
    """Warp an anatomy until its structures have the wanted shares.

    Parameters
    ----------
    carver : Carver
        From `prepare_carver`.
    share : array, shape (S,)
        Wanted volume of each structure / intracranial volume (they sum to 1).
    shape : Tensor, optional
        From `draw_shape`.
    exact : bool
        Measure on the fine grid and correct (several times slower); without it structures
        smaller than two millilitres can be a tenth off.

    Returns
    -------
    Warp

    Raises
    ------
    ProcessingError
        A structure is more than 2 % from its volume, or the warp folds: the anatomy is too
        different from what is wanted.
    """
    before = carver.volume
    wanted = np.log(share * before.sum() / before)
    weights, slope = np.linalg.solve(carver.slope, wanted), carver.slope
    bias = np.zeros(len(share))
    for _ in range(REFINEMENTS if exact else 1):
        found = _search(
            carver, shape, weights, slope, wanted - bias, TOLERANCE if exact else LIMIT
        )
        achieved = found.ratio
        if exact:
            inverse = field.exponentiate(-found.velocity, FLOW, carver.points)
            achieved = np.log(np.maximum(measure(carver, inverse), 1e-6) / before)
        error = float(np.abs(achieved - wanted).max())
        if error < LIMIT:
            break
        bias = achieved - found.ratio
        weights, slope = found.weights, found.slope
    smallest = float(found.growth.min())
    if error > LIMIT or smallest <= 0:
        raise ProcessingError(
            f'No smooth warp of {carver.anatomy.name} reaches the wanted volumes: largest error '
            f'{100 * error:.1f} % (expected at most {100 * LIMIT:.0f} %), smallest Jacobian '
            f'determinant {smallest:.3f} (expected above 0). Take another anatomy.'
        )
    return Warp(found.velocity, found.growth, np.exp(achieved) * before / before.sum())


@dataclass(frozen=True)
class _Found:
    """Where a search ended, and the slopes it has learnt."""

    weights: NDArray[np.float64]
    slope: NDArray[np.float64]
    velocity: Tensor
    growth: Tensor
    ratio: NDArray[np.float64]


def _search(
    carver: Carver,
    shape: Tensor | None,
    weights: NDArray[np.float64],
    slope: NDArray[np.float64],
    wanted: NDArray[np.float64],
    tolerance: float,
) -> _Found:
    """Change the weights until the quick volumes are as wanted (Broyden's method)."""
    slope = slope.copy()
    best: _Found | None = None
    least, last = np.inf, None
    for _ in range(MAX_ROUNDS):
        velocity = _flow(carver, weights, shape)
        growth, ratio = _volumes(carver, velocity)
        if last is not None:
            step = weights - last[0]
            miss = (ratio - last[1]) - slope @ step
            slope += np.outer(miss, step) / max(float(step @ step), 1e-12)
        error = wanted - ratio
        largest = float(np.abs(error).max())
        if best is None or largest < least:
            best, least = _Found(weights, slope, velocity, growth, ratio), largest
        if least < tolerance:
            break
        last = weights, ratio
        move = np.linalg.solve(slope, error)
        weights = weights + np.clip(move, -LARGEST_MOVE, LARGEST_MOVE)
    assert best is not None
    return best
