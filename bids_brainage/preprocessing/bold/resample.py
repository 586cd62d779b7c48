"""One interpolation from the volumes as scanned to the template grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.preprocessing.transforms import SpatialTransform

MIN_SEEN = 0.95
"""Share of volumes in which a voxel must lie in the field of view to count as covered."""

HEADER_BYTES = 352
SLAB_VOLUMES = 25

Points = npt.NDArray[np.floating]


def bold_points(
    transform: SpatialTransform, coregistration: np.ndarray, points: Points
) -> npt.NDArray[np.float64]:
    """Return where template points lie in the BOLD reference.

    Parameters
    ----------
    transform : SpatialTransform
        Template → T1w.
    coregistration : ndarray, shape (4, 4)
        T1w RAS+ mm → BOLD reference RAS+ mm.
    points : ndarray, shape (N, 3)
        Template RAS+ mm.

    Returns
    -------
    ndarray, shape (N, 3)
        BOLD reference RAS+ mm.
    """
    native = transform.to_native(np.asarray(points)).astype(np.float64)
    return native @ coregistration[:3, :3].T + coregistration[:3, 3]


def resample_series(
    data: npt.NDArray[np.float32],
    affine: np.ndarray,
    motion: npt.NDArray[np.float64],
    points: Points,
    *,
    order: int = 3,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Sample every volume at points of the reference, each moved with the head.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z, T)
        Series as scanned (slice timing corrected or not).
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    motion : ndarray, shape (T, 4, 4)
        Reference RAS+ mm → volume RAS+ mm (`Motion.matrices`).
    points : ndarray, shape (N, 3)
        Reference RAS+ mm, from `bold_points`.
    order : int
        Spline order: 3 cubic, 1 linear.

    Returns
    -------
    values : ndarray of float32, shape (N, T)
        0 outside the field of view.
    covered : ndarray of bool, shape (N,)
        In the field of view of at least 95 % of the volumes.
    """
    n_volumes = data.shape[3]
    values = np.empty((len(points), n_volumes), np.float32)
    seen = np.zeros(len(points), np.int32)
    edge = np.array(data.shape[:3])[:, None] - 0.5
    to_voxel = np.linalg.inv(affine)
    for t in range(n_volumes):
        chain = to_voxel @ motion[t]
        index = chain[:3, :3] @ points.T + chain[:3, 3:]
        inside = ((index >= -0.5) & (index <= edge)).all(axis=0)
        found = ndimage.map_coordinates(
            data[..., t], index, order=order, mode='nearest', output=np.float32
        )
        values[:, t] = np.where(inside, found, 0)
        seen += inside
    return values, seen >= MIN_SEEN * n_volumes


def signal_coverage(
    values: npt.NDArray[np.float32], covered: npt.NDArray[np.bool_], *, fraction: float = 0.2
) -> npt.NDArray[np.bool_]:
    """Return which voxels hold BOLD signal.

    Parameters
    ----------
    values : ndarray, shape (N, T)
        From `resample_series`.
    covered : ndarray of bool, shape (N,)
        In the field of view.
    fraction : float
        Share of the median temporal mean below which a voxel has lost its signal (susceptibility,
        air).

    Returns
    -------
    ndarray of bool, shape (N,)
        In the field of view, above that level and not constant.
    """
    mean = values.mean(axis=1)
    typical = float(np.median(mean[covered])) if covered.any() else 0.0
    return covered & (mean > fraction * typical) & (values.std(axis=1) > 0)


def write_series(
    path: Path,
    values: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    affine: np.ndarray,
    tr: float,
) -> None:
    """Write a series volume by volume as an uncompressed NIfTI file.

    Parameters
    ----------
    path : Path
        ``.nii`` file.
    values : ndarray of float32, shape (N, T)
        Values at the voxels of the mask; 0 elsewhere.
    mask : ndarray of bool, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm of the template.
    tr : float
        Repetition time, seconds.

    Notes
    -----
    Stored as 16-bit integers with a scale factor: the rounding error is at most 1/65534 of the
    largest value.  The whole series is never in memory on the template grid.
    """
    slope = max(float(np.abs(values).max(initial=0)) / 32767, 1e-12)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((*mask.shape, values.shape[1]))
    header.set_sform(affine, 4)
    header.set_qform(affine, 4)
    header.set_zooms((*np.linalg.norm(affine[:3, :3], axis=0), tr))
    header.set_xyzt_units('mm', 'sec')
    header.set_slope_inter(slope, 0)
    header['magic'] = b'n+1'
    header['vox_offset'] = HEADER_BYTES
    volume = np.zeros(mask.shape, np.int16)
    with path.open('wb') as stream:
        header.write_to(stream)
        stream.write(bytes(HEADER_BYTES - stream.tell()))
        for t in range(values.shape[1]):
            volume[mask] = np.rint(values[:, t] / slope)
            stream.write(volume.tobytes('F'))


def read_series(image: Any, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Read the voxels of a mask, a few volumes at a time.

    Parameters
    ----------
    image : nibabel image, shape (X, Y, Z, T)
        Not compressed, else every step starts from the beginning of the file.
    mask : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    ndarray of float32, shape (N, T)
    """
    values = np.empty((int(mask.sum()), image.shape[3]), np.float32)
    for start in range(0, image.shape[3], SLAB_VOLUMES):
        slab = np.asarray(image.dataobj[..., start : start + SLAB_VOLUMES])
        values[:, start : start + slab.shape[3]] = slab[mask]
    return values
