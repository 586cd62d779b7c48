"""Orders in which a volume is read as a sequence.

A path is a permutation of the flat (C order) voxel indices of a grid.  Paths exist for any
grid: the Hilbert curve of the enclosing power-of-two cube is walked and cells outside the
grid are dropped.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import Literal

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import OptionError

Path = npt.NDArray[np.int64]
Grid = tuple[int, int, int]
ScanOrder = Literal['hilbert', 'snake', 'raster']

#: Directions of one scan: four orientations, each forward and reversed.
N_DIRECTIONS = 8
_AXIS_ORDERS = tuple(permutations(range(3)))


def raster_path(grid: Grid) -> Path:
    """Row after row, plane after plane, each from its start.

    Parameters
    ----------
    grid : tuple of int
        Voxels along each axis.

    Returns
    -------
    ndarray of int64, shape (voxels,)
        Flat index at each step.
    """
    return np.arange(int(np.prod(grid)), dtype=np.int64)


def snake_path(grid: Grid) -> Path:
    """Boustrophedon: every second row and plane backwards, so that all steps are unit steps.

    Parameters and result are those of `raster_path`.
    """
    index = raster_path(grid).reshape(grid)
    index = np.stack([plane[::-1] if i % 2 else plane for i, plane in enumerate(index)])
    rows = index.reshape(-1, grid[2])
    return np.stack([row[::-1] if i % 2 else row for i, row in enumerate(rows)]).ravel()


def hilbert_path(grid: Grid) -> Path:
    """Hilbert curve of the enclosing power-of-two cube, cells outside the grid dropped.

    Parameters
    ----------
    grid : tuple of int
        Voxels along each axis.

    Returns
    -------
    ndarray of int64, shape (voxels,)
        Flat index at each step.
    """
    bits = max(1, int(max(grid) - 1).bit_length())
    cells = _hilbert_cells(bits)
    inside = cells[(cells < np.asarray(grid)).all(axis=1)]
    return np.ravel_multi_index((inside[:, 0], inside[:, 1], inside[:, 2]), grid).astype(np.int64)


def _hilbert_cells(bits: int) -> npt.NDArray[np.int64]:
    """Cells of the Hilbert curve through a cube of edge ``2**bits``, in order.

    Decoding of all distances at once with the method of J. Skilling, "Programming the
    Hilbert curve" (AIP Conference Proceedings 707, 2004, doi:10.1063/1.1751381).

    Returns
    -------
    ndarray of int64, shape (8**bits, 3)
        Coordinates at each distance.
    """
    distance = np.arange(8**bits, dtype=np.int64)
    # bit b of axis a stands at position 3 b + (2 - a) of the distance
    axes = [
        sum(
            (((distance >> (3 * b + 2 - a)) & 1) << b for b in range(bits)),
            np.zeros_like(distance),
        )
        for a in range(3)
    ]
    carry = axes[2] >> 1
    axes[2] = axes[2] ^ axes[1]
    axes[1] = axes[1] ^ axes[0]
    axes[0] = axes[0] ^ carry
    for level in range(1, bits):
        low = (1 << level) - 1
        for a in (2, 1, 0):
            inverted = (axes[a] >> level) & 1 == 1
            exchanged = np.where(inverted, 0, (axes[0] ^ axes[a]) & low)
            axes[0] = np.where(inverted, axes[0] ^ low, axes[0] ^ exchanged)
            axes[a] = axes[a] ^ exchanged
    return np.stack(axes, axis=1)


_BASE = {'hilbert': hilbert_path, 'snake': snake_path, 'raster': raster_path}


def scan_paths(
    grid: Grid, order: ScanOrder = 'hilbert', *, block: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All directions in which a block reads a volume.

    Four orientations (identity and the three rotations by 180 degrees, which fit grids of
    any proportion), each forward and reversed.  The base order of block i runs over the axes
    in permutation i modulo 6.

    Parameters
    ----------
    grid : tuple of int
        Voxels along each axis.
    order : {'hilbert', 'snake', 'raster'}
        Base order.
    block : int
        Number of the block.

    Returns
    -------
    paths : ndarray of int64, shape (8, voxels)
        Flat index at each step of each direction.
    inverses : ndarray of int64, shape (8, voxels)
        Step at which each flat index is visited.

    Raises
    ------
    OptionError
        There is no such order.
    """
    if order not in _BASE:
        raise OptionError(f'Unknown scan order {order!r}, expected one of {", ".join(_BASE)}.')
    return _scan_paths(grid, order, block % len(_AXIS_ORDERS))


@cache
def _scan_paths(
    grid: Grid, order: ScanOrder, permutation: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    axes = _AXIS_ORDERS[permutation]
    base = _BASE[order]((grid[axes[0]], grid[axes[1]], grid[axes[2]]))
    index = raster_path(grid).reshape(grid)
    oriented = (index, index[:, ::-1, ::-1], index[::-1, :, ::-1], index[::-1, ::-1, :])
    forward = [view.transpose(axes).ravel()[base] for view in oriented]
    paths = np.stack([path for one in forward for path in (one, one[::-1])])
    inverses = np.empty_like(paths)
    np.put_along_axis(inverses, paths, np.arange(paths.shape[1])[np.newaxis], axis=1)
    for array in (paths, inverses):
        array.setflags(write=False)
    return paths, inverses
