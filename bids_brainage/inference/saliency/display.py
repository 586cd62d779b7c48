"""Which part of a saliency map to show, and in which slices (numpy only).

Rules of System B, Jomsky et al., arXiv:2412.01865v3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.floating]
#: Array axis (RAS) across which each view cuts.
VIEW_AXES = {'axial': 2, 'coronal': 1, 'sagittal': 0}


def keep_top(values: Volume, fraction: float = 0.2) -> Volume:
    """Keep the largest values of a map and set the others to 0.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z)
        Non-negative map.
    fraction : float
        Share of all voxels of the grid to keep.

    Returns
    -------
    ndarray, shape (X, Y, Z)
        ``values`` where they are positive and at least their ``1 - fraction`` quantile.  If
        more than ``1 - fraction`` of the map is 0, all its positive voxels stay.
    """
    threshold = np.quantile(values, 1 - fraction)
    return np.where((values >= threshold) & (values > 0), values, 0).astype(values.dtype)


@dataclass(frozen=True)
class SliceChoice:
    """A slice to show.

    Attributes
    ----------
    axis, index : int
        Array axis (RAS) and position along it.
    area : int
        Non-zero voxels of the map in that slice.
    """

    axis: int
    index: int
    area: int


def choose_slices(values: Volume) -> dict[str, SliceChoice]:
    """Choose for each view the slice with the most non-zero voxels.

    Ties go to the larger sum, then to the lower index.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z)
        Thresholded map, RAS axes.

    Returns
    -------
    dict of SliceChoice
        For ``axial``, ``coronal`` and ``sagittal``.
    """
    chosen = {}
    for view, axis in VIEW_AXES.items():
        others = tuple(a for a in range(3) if a != axis)
        areas = np.count_nonzero(values, axis=others)
        sums = values.sum(axis=others, dtype=np.float64)
        index = max(range(len(areas)), key=lambda i: (areas[i], sums[i], -i))
        chosen[view] = SliceChoice(axis, index, int(areas[index]))
    return chosen
