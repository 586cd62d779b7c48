"""Input of SFCN: intensity over its mean, middle of the MNI152 grid.

Peng et al., Medical Image Analysis 2021 (doi:10.1016/j.media.2020.101871): the T1w brain on
the 1 mm MNI152 grid (182 x 218 x 182) is divided by the mean of all its voxels, zeros
included, and cropped about the centre to 160 x 192 x 160.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError

GRID = (160, 192, 160)


def prepare_sfcn(
    data: npt.NDArray[np.floating],
    affine: npt.NDArray[np.float64],
    *,
    shape: tuple[int, int, int] = GRID,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Divide by the mean and crop about the centre.

    Parameters
    ----------
    data : ndarray, shape (182, 218, 182)
        Skull-stripped T1w in MNI152 space, RAS+ order, 1 mm.  The mean depends on the share
        of zeros, hence on the grid: give the whole one.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    shape : tuple of int
        Voxels to keep.

    Returns
    -------
    volume : ndarray of float32, shape `shape`
        Intensity over its mean.
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm.

    Raises
    ------
    UnusableImageError
        The grid is smaller than `shape`, or the mean is not positive.
    """
    if data.ndim != 3 or any(n < wanted for n, wanted in zip(data.shape, shape, strict=True)):
        raise UnusableImageError(
            f'Expected a volume of at least {shape} voxels, found shape {data.shape}. Resample '
            'to the 1 mm MNI152 grid (182, 218, 182).'
        )
    finite = np.where(np.isfinite(data), data, 0)
    mean = float(finite.mean(dtype=np.float64))
    if not mean > 0:
        raise UnusableImageError(
            f'The mean intensity is {mean:g}, expected a positive one. Check the brain mask.'
        )
    start = (np.asarray(data.shape) - np.asarray(shape)) // 2
    window = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    new = np.array(affine, dtype=np.float64)
    new[:3, 3] += affine[:3, :3] @ start
    return (finite[window] / mean).astype(np.float32), new
