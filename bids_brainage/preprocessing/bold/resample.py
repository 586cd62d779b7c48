"""One interpolation from the volumes as scanned to the template grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.preprocessing.transforms import SpatialTransform

MIN_SEEN = 0.95
"""Share of volumes in which a voxel must lie in the field of view to count as covered."""

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
    report: Callable[[int], None] | None = None,
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
    report : callable, optional
        Called with the number of volumes done.

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
        if report is not None:
            report(t + 1)
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
