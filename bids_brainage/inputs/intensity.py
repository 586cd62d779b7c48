"""Intensity scaling of System B.

Jomsky et al., arXiv:2412.01865v3: every volume, T1w or CBV, is divided by the mean of its
top 1 % of values.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError


def scale_by_top_percent(
    volume: npt.ArrayLike,
    *,
    percent: float = 1.0,
    source: str = 'volume',
) -> npt.NDArray[np.float32]:
    """Divide a volume by the mean of its largest values.

    Parameters
    ----------
    volume : array_like, shape (X, Y, Z)
        Non-negative intensities in any unit; non-finite values count as 0.
    percent : float
        Share of the voxels that counts as top, ``n = ceil(percent / 100 * size)``.
    source : str
        Name of the image, for messages.

    Returns
    -------
    ndarray, float32, shape (X, Y, Z)
        Dimensionless; neither shifted nor clipped, so values above 1 remain.

    Raises
    ------
    UnusableImageError
        When the top values do not have a positive mean, as in an all-zero volume.
    """
    data = np.nan_to_num(np.asarray(volume, dtype=np.float32), posinf=0.0, neginf=0.0)
    values = data.ravel()
    count = math.ceil(percent / 100 * values.size)
    top = np.partition(values, values.size - count)[values.size - count :]
    mean = float(top.mean(dtype=np.float64))
    if mean <= 0:
        raise UnusableImageError(
            f'{source}: the brightest {percent:g} % of voxels have mean {mean:g}, expected a '
            'positive value. Is this an empty image or a difference map?'
        )
    return data / np.float32(mean)
