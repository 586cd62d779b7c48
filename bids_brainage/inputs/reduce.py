"""Halving the resolution of a map, the last step before System A.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315): modulated
grey matter of 169 x 205 x 169 voxels of 1 mm is reduced to 84 x 102 x 84 of 2 mm.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError


def reduce_half(
    volume: npt.ArrayLike, affine: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Average blocks of 2 x 2 x 2 voxels; the last plane of an odd axis is dropped.

    This equals trilinear interpolation by a scale factor of 0.5 (half-pixel centres), and
    the voxels of the result are exactly twice as wide, which resizing to a given shape would
    not achieve.

    Parameters
    ----------
    volume : array_like, shape (X, Y, Z)
        Map in any unit, at least 2 voxels an axis.
    affine : array_like, shape (4, 4)
        Its voxel-to-world matrix, millimetres.

    Returns
    -------
    reduced : ndarray, float32, shape (X // 2, Y // 2, Z // 2)
        Means of the blocks, same unit.
    affine : ndarray, shape (4, 4)
        Doubled voxels; the first centre moves by half an old voxel along each axis.

    Raises
    ------
    UnusableImageError
        When the volume is not three-dimensional or an axis is shorter than 2 voxels.
    """
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or min(data.shape) < 2:
        raise UnusableImageError(
            f'Cannot halve an array of shape {data.shape}: expected three axes of at least 2 '
            'voxels.'
        )
    nx, ny, nz = (n // 2 * 2 for n in data.shape)
    even = data[:nx, :ny, :nz]
    for axis in range(3):
        first = [slice(None)] * 3
        second = [slice(None)] * 3
        first[axis], second[axis] = slice(0, None, 2), slice(1, None, 2)
        even = (even[tuple(first)] + even[tuple(second)]) * np.float32(0.5)
    step = np.diag([2.0, 2.0, 2.0, 1.0])
    step[:3, 3] = 0.5
    return even, np.asarray(affine, dtype=np.float64) @ step
