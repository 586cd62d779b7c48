"""Maps on another grid of the same space."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_brainage.preprocessing.transforms import grid_points, sample_image


def onto_grid(
    data: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray
) -> np.ndarray:
    """Resample a map onto another grid of the same space.

    Parameters
    ----------
    data, affine
        Map and its grid, RAS+ mm.
    shape, target
        Wanted grid.

    Returns
    -------
    ndarray of float32, ``shape``
        Trilinear samples; a coarser grid is smoothed first (Gaussian whose width at half
        maximum is the root of the difference of the squared voxel sizes).
    """
    source_size = np.linalg.norm(affine[:3, :3], axis=0)
    target_size = np.linalg.norm(target[:3, :3], axis=0)
    width = np.sqrt(np.maximum(target_size**2 - source_size**2, 0)) / source_size
    if (width > 0).any():
        data = ndimage.gaussian_filter(data, width / np.sqrt(8 * np.log(2)))
    return sample_image(data, affine, grid_points(shape, target)).reshape(shape)
