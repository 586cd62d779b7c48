"""Put one number per region back into an image."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import numpy.typing as npt

from bids_brainage.errors import ProcessingError
from bids_brainage.preprocessing.bold.atlases import Atlas


def paint(
    atlas: Atlas,
    values: npt.NDArray[np.floating],
    shape: tuple[int, ...],
    affine: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Paint one value per region.

    Parameters
    ----------
    atlas : Atlas
        Of R regions.
    values : ndarray, shape (R,)
        In the order of the regions; where spheres overlap the larger value is shown.
    shape, affine
        Grid for spheres, voxel index → MNI RAS+ mm; a label image keeps its own grid.

    Returns
    -------
    image : ndarray of float32
        0 outside all regions.
    affine : ndarray, shape (4, 4)
        Its grid.

    Raises
    ------
    ProcessingError
        There is not one value per region.
    """
    if len(values) != len(atlas.regions):
        raise ProcessingError(
            f'Atlas {atlas.label}: expected {len(atlas.regions)} values, found {len(values)}. '
            'Use the atlas from which the values come.'
        )
    if atlas.image is not None:
        image = nib.nifti1.load(atlas.image)
        labels = np.round(np.asarray(image.dataobj)).astype(np.int64)
        table = np.zeros(labels.max() + 1, np.float32)
        table[[region.index for region in atlas.regions]] = values
        return table[labels], np.asarray(image.affine, dtype=float)
    painted = np.zeros(shape, np.float32)
    inverse = np.linalg.inv(affine)
    for region, value in zip(atlas.regions, values, strict=True):
        box, inside = _sphere(region.xyz, region.radius_mm, shape, affine, inverse)
        part = painted[box]
        part[inside] = np.maximum(part[inside], value)
    return painted, affine


def _sphere(
    xyz: tuple[float, float, float] | None,
    radius: float | None,
    shape: tuple[int, ...],
    affine: npt.NDArray[np.float64],
    inverse: npt.NDArray[np.floating],
) -> tuple[tuple[slice, ...], npt.NDArray[np.bool_]]:
    """Return the box around a sphere and which of its voxels lie inside."""
    centre, reach = np.asarray(xyz, dtype=float), float(radius or 0.0)
    middle = inverse[:3, :3] @ centre + inverse[:3, 3]
    half = np.ceil(reach * np.linalg.norm(inverse[:3, :3], axis=1))
    low = np.clip(np.floor(middle - half), 0, shape).astype(int)
    high = np.clip(np.ceil(middle + half) + 1, 0, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing='ij'), -1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return box, ((points - centre) ** 2).sum(axis=-1) <= reach**2
