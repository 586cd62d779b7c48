"""Axis-aligned sampling grids in millimetres and interpolation between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """A regular RAS grid with equal spacing on the three axes.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along x, y, z.
    spacing : float
        Distance of neighbouring voxel centres, mm.
    origin : tuple of float
        Position of the centre of voxel (0, 0, 0), mm.
    """

    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """Voxel index to mm, shape (4, 4)."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine

    def axis(self, number: int) -> Array:
        """Voxel centres along one axis, shape (n,), mm."""
        return (self.origin[number] + self.spacing * np.arange(self.shape[number])).astype('f4')

    def points(self) -> Array:
        """All voxel centres, shape (3, nx, ny, nz), mm."""
        return np.stack(np.meshgrid(*(self.axis(k) for k in range(3)), indexing='ij'))

    def index(self, points: Array) -> Array:
        """Fractional voxel indices, shape (3, ...), of `points` in mm, same shape."""
        origin = np.asarray(self.origin, 'f4').reshape(3, *(1,) * (points.ndim - 1))
        return (points - origin) / np.float32(self.spacing)

    def coarser(self, spacing: float, margin: float) -> Grid:
        """Grid of another `spacing` that covers this one with `margin` mm on each side."""
        extent = [self.spacing * (n - 1) + 2 * margin for n in self.shape]
        x, y, z = (int(np.ceil(e / spacing)) + 1 for e in extent)
        start = tuple(o - margin for o in self.origin)
        return Grid((x, y, z), spacing, (start[0], start[1], start[2]))


def sample(volume: NDArray, index: Array, outside: float = 0.0) -> Array:
    """Trilinear interpolation.

    Parameters
    ----------
    volume : array, shape (nx, ny, nz)
    index : array, shape (3, ...)
        Fractional voxel indices into `volume`.
    outside : float
        Value given to points outside the grid; ``nan`` repeats the border instead.

    Returns
    -------
    array, shape ``index.shape[1:]``, float32
    """
    from scipy.ndimage import map_coordinates

    mode = 'nearest' if np.isnan(outside) else 'constant'
    cval = 0.0 if np.isnan(outside) else outside
    return map_coordinates(volume, index, 'f4', order=1, mode=mode, cval=cval, prefilter=False)


def nearest(volume: NDArray, index: Array) -> NDArray:
    """Value of the nearest voxel at fractional indices (3, ...), 0 outside the grid."""
    from scipy.ndimage import map_coordinates

    return map_coordinates(volume, index, volume.dtype, order=0, mode='constant')


def sample_vectors(vectors: Array, index: Array) -> Array:
    """Trilinear interpolation of a vector field (3, ...), zero outside its grid."""
    return np.stack([sample(component, index) for component in vectors])


def spline_matrix(nodes: NDArray, positions: NDArray) -> Array:
    """Cubic-spline interpolation from `nodes` to `positions` as a matrix.

    Parameters
    ----------
    nodes : array, shape (c,), increasing
    positions : array, shape (f,), inside the range of `nodes`

    Returns
    -------
    array, shape (f, c), float32: ``values_at_positions = matrix @ values_at_nodes``
    """
    from scipy.interpolate import make_interp_spline

    degree = min(3, len(nodes) - 1)
    return make_interp_spline(nodes, np.eye(len(nodes)), k=degree)(positions).astype('f4')


def upsample(volume: Array, matrices: tuple[Array, Array, Array]) -> Array:
    """Interpolate a volume separably: one matrix of `spline_matrix` per axis."""
    x, y, z = matrices
    partly = np.tensordot(volume, z.T, axes=1)
    partly = np.matmul(y, partly)
    return np.tensordot(x, partly, axes=1).astype('f4', copy=False)


def resample_to(volume: Array, grid: Grid, target: Grid) -> Array:
    """Smooth interpolation of `volume` on `grid` to `target`, which must lie inside."""
    x, y, z = (spline_matrix(grid.axis(k), target.axis(k)) for k in range(3))
    return upsample(volume, (x, y, z))
