"""Explanation maps over a group: mean map, mean anatomy, and strength by region (numpy only).

Rules of System B, Jomsky et al., arXiv:2412.01865v3: the strongest fifth of each person's map
is averaged over the people of a decade of age.  One map is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError
from bids_brainage.inference.saliency.display import SliceChoice, choose_slices, keep_top

Volume = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

TOP_FRACTION = 0.2
"""Share of the voxels of the grid that each person's map keeps."""


@dataclass(frozen=True)
class GroupMap:
    """Mean of the maps of several people.

    Attributes
    ----------
    mean : ndarray of float32, shape (X, Y, Z)
        Mean of the strongest parts, in the unit and with the sign of the maps.
    n : int
        Number of maps.
    slices : dict of str to SliceChoice
        By view (``axial``, ``coronal``, ``sagittal``): the slice with the largest area of the
        strongest fifth of the mean map.
    region_abs, region_sd : ndarray, shape (R,)
        Mean over people of the mean magnitude in each region of the whole map, and its
        standard deviation (ddof 1; NaN for one map).  NaN for a region without a voxel.
    region_mean : ndarray, shape (R,)
        Mean over people of the mean with sign.
    """

    mean: Volume
    n: int
    slices: dict[str, SliceChoice]
    region_abs: npt.NDArray[np.float64]
    region_sd: npt.NDArray[np.float64]
    region_mean: npt.NDArray[np.float64]


def strongest(values: Volume, fraction: float = TOP_FRACTION) -> Volume:
    """Keep the voxels of largest magnitude with their sign, set the others to 0.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z)
        Map with or without sign.
    fraction : float
        Share of all voxels of the grid to keep, see `keep_top`.
    """
    return np.where(keep_top(np.abs(values), fraction) > 0, values, 0).astype(np.float32)


def average_maps(maps: Iterable[Volume], atlas: Labels, n_regions: int) -> GroupMap:
    """Average the maps of a group.

    Parameters
    ----------
    maps : iterable of ndarray, shape (X, Y, Z)
        One map a person on one grid; taken one by one.
    atlas : ndarray of int, shape (X, Y, Z)
        Region 1..R of each voxel, 0 outside.
    n_regions : int
        R.

    Raises
    ------
    UnusableImageError
        There is no map, or a map is on another grid than the atlas.
    """
    total = np.zeros(atlas.shape, np.float64)
    sizes, means = [], []
    for values in maps:
        if values.shape != atlas.shape:
            raise UnusableImageError(
                f'Group map: expected maps of shape {atlas.shape}, found {values.shape}.'
            )
        total += strongest(values)
        sizes.append(region_means(np.abs(values), atlas, n_regions))
        means.append(region_means(values, atlas, n_regions))
    if not sizes:
        raise UnusableImageError('Group map: expected at least one map, found none.')
    mean = (total / len(sizes)).astype(np.float32)
    magnitude = np.stack(sizes)
    spread = magnitude.std(axis=0, ddof=1) if len(sizes) > 1 else np.full(n_regions, np.nan)
    return GroupMap(
        mean=mean,
        n=len(sizes),
        slices=choose_slices(keep_top(np.abs(mean), TOP_FRACTION)),
        region_abs=magnitude.mean(axis=0),
        region_sd=spread,
        region_mean=np.stack(means).mean(axis=0),
    )


def average_anatomy(images: Iterable[Volume], shape: tuple[int, ...]) -> Volume:
    """Average T1w images, each scaled by the median of its positive voxels.

    Parameters
    ----------
    images : iterable of ndarray, shape (X, Y, Z)
        Skull-stripped images of any intensity scale; taken one by one.
    shape : tuple of int
        Grid; images on another grid are refused.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        1 is the typical intensity of a brain; all 0 without an image.
    """
    total, n = np.zeros(shape, np.float32), 0
    for values in images:
        if values.shape != shape:
            raise UnusableImageError(
                f'Group anatomy: expected images of shape {shape}, found {values.shape}.'
            )
        inside = values[values > 0]
        if inside.size:
            total += values / np.float32(np.median(inside))
            n += 1
    return total / np.float32(max(n, 1))


def region_means(values: Volume, atlas: Labels, n_regions: int) -> npt.NDArray[np.float64]:
    """Mean of a map in regions 1..R of an atlas on the same grid; NaN without a voxel."""
    flat = atlas.ravel()
    count = np.bincount(flat, minlength=n_regions + 1)[1 : n_regions + 1]
    total = np.bincount(flat, values.ravel(), minlength=n_regions + 1)[1 : n_regions + 1]
    return np.divide(total, count, out=np.full(n_regions, np.nan), where=count > 0)
