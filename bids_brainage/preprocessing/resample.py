"""Maps on another grid of the same space."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_brainage.preprocessing.transforms import grid_points, to_index

SUPPORT = 4.0
"""Standard deviations at which the smoothing ends."""


def onto_grid(
    data: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, ...],
    target: np.ndarray,
    *,
    order: int = 1,
) -> np.ndarray:
    """Resample a map onto another grid of the same space.

    Parameters
    ----------
    data, affine
        Map and its grid, RAS+ mm.
    shape, target
        Wanted grid.
    order : int
        Of the splines: 1 for straight lines, 3 for cubic ones, which keep an image sharp.

    Returns
    -------
    ndarray of float32, ``shape``
        Samples, never beyond the range of the map; a coarser grid is smoothed first (Gaussian
        whose width at half maximum is the root of the difference of the squared voxel sizes).
    """
    source_size = np.linalg.norm(affine[:3, :3], axis=0)
    target_size = np.linalg.norm(target[:3, :3], axis=0)
    width = np.sqrt(np.maximum(target_size**2 - source_size**2, 0)) / source_size
    index = to_index(affine, grid_points(shape, target))
    if (width > 0).any():
        sigma = width / np.sqrt(8 * np.log(2))
        # smoothing what is not sampled takes most of the time for a small box in a large head
        margin = np.ceil(SUPPORT * sigma) + 2
        low = np.clip(np.floor(index.min(axis=1)) - margin, 0, np.array(data.shape) - 1)
        high = np.maximum(np.ceil(index.max(axis=1)) + margin + 1, low + 1)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        data = ndimage.gaussian_filter(data[box], sigma, truncate=SUPPORT)
        index -= low.astype(np.float32)[:, None]
    found = ndimage.map_coordinates(data, index, order=order, mode='constant', cval=0.0)
    if order > 1:
        found = np.clip(found, min(float(data.min()), 0), float(data.max()))
    return found.reshape(shape)
