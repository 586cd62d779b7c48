"""Rigid head motion: one transform per volume, by inverse-compositional Gauss–Newton.

Convention
----------
Six parameters per volume, in this order: translation along x, y, z (mm, RAS+) and rotation about
x, y, z (radians, right-hand rule).  They describe where a point of the reference head lies in the
volume::

    M(x) = Rx(a) Ry(b) Rz(c) (x - centre) + centre + translation

A positive ``trans_y`` is thus a head that moved forward since the reference.  ``centre`` is the
centre of gravity of the mask of the reference.

References
----------
Baker & Matthews (2004), doi:10.1023/B:VISI.0000011205.11775.fd (inverse-compositional algorithm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.preprocessing.brainmask import largest_component

PARAMETERS = ('trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z')

LEVELS_MM = (6.0, 3.0)
"""Gaussian smoothing (standard deviation, mm) of the two passes, coarse to fine."""

MAX_POINTS = 30_000
"""Voxels of the reference at which volumes are compared."""

MAX_ITERATIONS = 30
STEP_TOLERANCE_MM = 0.002
"""An iteration that moves no mask point by more than this ends the search."""

REFERENCE_VOLUMES = 40
"""Volumes from which the reference is made."""

Params = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """Head motion of a series.

    Attributes
    ----------
    parameters : ndarray, shape (T, 6)
        See the convention of the module.
    centre : ndarray, shape (3,)
        Centre of rotation, RAS+ mm.
    """

    parameters: Params
    centre: npt.NDArray[np.float64]

    def matrices(self) -> npt.NDArray[np.float64]:
        """Return reference → volume as matrices on RAS+ mm, shape (T, 4, 4)."""
        return np.stack([to_matrix(p, self.centre) for p in self.parameters])


def to_matrix(parameters: Params, centre: np.ndarray) -> npt.NDArray[np.float64]:
    """Return the matrix (4, 4) of six parameters (mm, radians) about a centre (mm)."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(parameters[3:]), np.sin(parameters[3:])
    rx = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    ry = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    rz = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = rx @ ry @ rz
    matrix[:3, 3] = centre + parameters[:3] - matrix[:3, :3] @ centre
    return matrix


def to_parameters(matrix: np.ndarray, centre: np.ndarray) -> Params:
    """Return the six parameters (mm, radians) of a rigid matrix (4, 4): inverse of `to_matrix`."""
    r = matrix[:3, :3]
    angles = [np.arctan2(-r[1, 2], r[2, 2]), np.arcsin(r[0, 2]), np.arctan2(-r[0, 1], r[0, 0])]
    translation = matrix[:3, 3] - centre + r @ centre
    return np.concatenate([translation, angles])


def reference_volume(data: np.ndarray, *, skip: int = 0) -> npt.NDArray[np.float32]:
    """Return a sharp reference: the mean of the volumes that agree best with the median.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, T)
        Series.
    skip : int
        Leading volumes to leave out (not in steady state).

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Mean of the half of (at most 40) central volumes that lies nearest to their median, so that
        volumes in motion do not blur it.
    """
    n = data.shape[3] - skip
    start = skip + max(0, (n - REFERENCE_VOLUMES) // 2)
    part = data[..., start : start + min(n, REFERENCE_VOLUMES)]
    coarse = part[::2, ::2, ::2]
    distance = np.abs(coarse - np.median(coarse, axis=3, keepdims=True)).mean(axis=(0, 1, 2))
    nearest = np.sort(np.argsort(distance, kind='stable')[: max(1, part.shape[3] // 2)])
    return part[..., nearest].mean(axis=3, dtype=np.float32)


def head_mask(reference: np.ndarray, affine: np.ndarray) -> npt.NDArray[np.bool_]:
    """Return where the reference shows a head: above half of Otsu's threshold, one piece.

    Parameters
    ----------
    reference : ndarray, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    """
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(reference, 2.0 / _voxel_sizes(affine))
    # strong coil shading puts Otsu's threshold inside the brain, hence the half
    mask = largest_component(smooth > 0.5 * threshold_otsu(smooth))
    return ndimage.binary_fill_holes(mask)


def estimate_motion(
    data: np.ndarray, affine: np.ndarray, reference: np.ndarray, mask: np.ndarray
) -> Motion:
    """Estimate the rigid motion of every volume against the reference.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, T)
        Series.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    reference : ndarray, shape (X, Y, Z)
        From `reference_volume`.
    mask : ndarray of bool, shape (X, Y, Z)
        From `head_mask`.

    Returns
    -------
    Motion
        Each volume starts from the result of the one before it.
    """
    step = max(1, int(np.ceil(mask.sum() / MAX_POINTS)))
    index = np.argwhere(mask)
    centre = affine[:3, :3] @ index.mean(axis=0) + affine[:3, 3]
    targets = [_Target.make(reference, affine, index[::step], centre, mm) for mm in LEVELS_MM]
    matrix = np.eye(4)
    parameters = np.zeros((data.shape[3], 6))
    for t in range(data.shape[3]):
        for target in targets:
            matrix = target.align(data[..., t], matrix)
        parameters[t] = to_parameters(matrix, centre)
    return Motion(parameters, centre)


def framewise_displacement(
    parameters: Params, *, radius_mm: float = 50.0
) -> npt.NDArray[np.float64]:
    """Return framewise displacement after Power et al.

    Parameters
    ----------
    parameters : ndarray, shape (T, 6)
        Translations in mm, rotations in radians.
    radius_mm : float
        Radius of the sphere on which rotations are turned into millimetres.

    Returns
    -------
    ndarray, shape (T,)
        Millimetres; NaN for the first volume.

    References
    ----------
    Power et al. (2012), doi:10.1016/j.neuroimage.2011.10.018.
    """
    change = np.abs(np.diff(parameters, axis=0))
    displacement = change[:, :3].sum(axis=1) + radius_mm * change[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], displacement])


def _voxel_sizes(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


@dataclass(frozen=True)
class _Target:
    """The smoothed reference at its mask points, with what Gauss–Newton needs of it.

    ``solve`` (6, N) turns the differences at the points into a step of the parameters.
    """

    affine: np.ndarray
    centre: np.ndarray
    points: np.ndarray
    values: np.ndarray
    solve: np.ndarray
    sigma: np.ndarray
    reach: float

    @classmethod
    def make(cls, reference, affine, index, centre, smoothing_mm: float) -> _Target:
        sigma = smoothing_mm / _voxel_sizes(affine)
        smooth = ndimage.gaussian_filter(reference.astype(np.float32), sigma)
        per_voxel = np.stack(np.gradient(smooth), axis=-1)[tuple(index.T)]
        gradient = per_voxel @ np.linalg.inv(affine[:3, :3])  # per mm
        points = index @ affine[:3, :3].T + affine[:3, 3]
        # d(x)/d(rotation i) = e_i × (x - centre)
        steepest = np.hstack([gradient, np.cross(points - centre, gradient)])
        solve = np.linalg.solve(steepest.T @ steepest, steepest.T)
        reach = float(np.linalg.norm(points - centre, axis=1).max())
        values = smooth[tuple(index.T)].astype(np.float64)
        return cls(affine, centre, points, values, solve, sigma, reach)

    def align(self, volume: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Refine reference → volume (4, 4) from a start."""
        smooth = ndimage.gaussian_filter(volume.astype(np.float32), self.sigma)
        coefficients = ndimage.spline_filter(smooth, order=3, output=np.float32)
        to_voxel = np.linalg.inv(self.affine)
        edge = np.array(volume.shape)[:, None] - 1
        matrix = start
        for _ in range(MAX_ITERATIONS):
            chain = to_voxel @ matrix
            where = chain[:3, :3] @ self.points.T + chain[:3, 3:]
            seen = ((where >= 0) & (where <= edge)).all(axis=0)
            if not seen.any():
                return start
            found = ndimage.map_coordinates(coefficients, where, order=3, prefilter=False)
            gain = self.values[seen] @ found[seen] / (found[seen] @ found[seen] + 1e-12)
            step = self.solve @ np.where(seen, gain * found - self.values, 0.0)
            matrix = matrix @ np.linalg.inv(to_matrix(step, self.centre))
            if np.abs(step[:3]).sum() + self.reach * np.abs(step[3:]).sum() < STEP_TOLERANCE_MM:
                break
        return matrix
