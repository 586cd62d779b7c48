"""Rigid registration of the BOLD reference to the T1w image of the same person."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.errors import ProcessingError
from bids_brainage.preprocessing.greedy import run_greedy, to_itk
from bids_brainage.preprocessing.transforms import grid_points, sample_image

GRID_MM = 2.5
"""Voxel size on which the two images are compared; BOLD voxels are rarely smaller."""

ITERATIONS = '60x40x15'
MIN_COVERED = 0.80
"""Share of the BOLD head's core that must fall into the T1w brain; below it a start has failed."""

BINS = 32


@dataclass(frozen=True)
class Coregistration:
    """Result of `coregister`.

    Attributes
    ----------
    matrix : ndarray, shape (4, 4)
        T1w RAS+ mm → BOLD reference RAS+ mm (rigid).
    start : str
        Starting point that won: ``header`` (scanner coordinates) or ``centre``.
    information : float
        Normalised mutual information of the two images inside the T1w brain, 1 to 2.
    overlap : float
        Share of the T1w brain voxels (those in the field of view) that show BOLD signal.
    moved_mm, turned_degrees : float
        How far the result moves the centre of the brain from the scanner coordinates, and how much
        it turns it.
    coverage : float
        Share of the T1w brain that lies in the field of view of the BOLD series.
    """

    matrix: npt.NDArray[np.float64]
    start: str
    information: float
    overlap: float
    moved_mm: float
    turned_degrees: float
    coverage: float

    def scores(self) -> dict[str, float | str]:
        """Return everything but the matrix as plain JSON types."""
        facts = asdict(self)
        del facts['matrix']
        return facts


def coregister(
    reference: np.ndarray,
    reference_mask: np.ndarray,
    reference_affine: np.ndarray,
    t1w: np.ndarray,
    t1w_mask: np.ndarray,
    t1w_affine: np.ndarray,
) -> Coregistration:
    """Register the BOLD reference to the T1w brain by normalised mutual information.

    The T1w brain is brought to 2.5 mm and searched from the scanner coordinates and from equal
    centres of gravity; the result with the higher information wins.

    Parameters
    ----------
    reference, reference_mask : ndarray, shape (X, Y, Z)
        BOLD reference and its head mask.
    t1w, t1w_mask : ndarray, shape (U, V, W)
        T1w image and its brain mask.
    reference_affine, t1w_affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.

    Returns
    -------
    Coregistration

    Raises
    ------
    ProcessingError
        No start puts the brain where BOLD signal is.
    """
    fixed, brain, grid = _compact(t1w, t1w_mask, t1w_affine)
    moving = _evened(reference, reference_mask, reference_affine)
    images = {'fixed': to_itk(fixed, grid), 'moving': to_itk(moving, reference_affine)}
    results = [
        _search(name, start, images, fixed, brain, grid, moving, reference_mask, reference_affine)
        for name, start in _starts(brain, grid, reference_mask, reference_affine).items()
    ]
    best = max(results, key=lambda r: r.information * (r.overlap >= MIN_COVERED))
    if best.overlap < MIN_COVERED:
        raise ProcessingError(
            'the BOLD series could not be registered to the T1w image: only '
            f'{best.overlap:.0%} of the T1w brain shows BOLD signal, expected at least '
            f'{MIN_COVERED:.0%}. Check that both images are of the same '
            'person and look at the orientation of the BOLD series.'
        )
    return best


def mutual_information(a: np.ndarray, b: np.ndarray, bins: int = BINS) -> float:
    """Return normalised mutual information (H(A) + H(B)) / H(A, B) of two samples, 1 to 2.

    References
    ----------
    Studholme et al. (1999), doi:10.1016/S0031-3203(98)00091-0.
    """
    joint, _, _ = np.histogram2d(a, b, bins=bins)
    joint /= joint.sum()

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    return (entropy(joint.sum(axis=1)) + entropy(joint.sum(axis=0))) / entropy(joint)


def _compact(t1w, mask, affine):
    """Return T1w brain and mask on an isotropic grid that just holds the brain, and its affine."""
    index = np.argwhere(mask)
    low, high = index.min(axis=0), index.max(axis=0)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing='ij')).reshape(3, -1).T
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    origin = world.min(axis=0) - 2 * GRID_MM
    shape = tuple(int(n) for n in np.ceil((world.max(axis=0) - origin) / GRID_MM) + 3)
    grid = np.diag([GRID_MM] * 3 + [1.0])
    grid[:3, 3] = origin
    points = grid_points(shape, grid)
    sigma = np.maximum(0.4 * GRID_MM / np.linalg.norm(affine[:3, :3], axis=0), 0.1)
    smooth = ndimage.gaussian_filter((t1w * mask).astype(np.float32), sigma)
    inside = sample_image(mask.astype(np.float32), affine, points).reshape(shape) > 0.5
    return sample_image(smooth, affine, points).reshape(shape) * inside, inside, grid


def _evened(reference, mask, affine):
    """Divide out the coarse shading of the receive coil and clip what is outside the head."""
    sigma = 20.0 / np.linalg.norm(affine[:3, :3], axis=0)
    inside = mask.astype(np.float32)
    weight = ndimage.gaussian_filter(inside, sigma)
    shading = ndimage.gaussian_filter(reference * inside, sigma) / np.maximum(weight, 1e-3)
    return np.where(mask, reference / np.maximum(shading, 1e-6), 0.0).astype(np.float32)


def _starts(brain, grid, reference_mask, reference_affine):
    """Return the starting matrices, T1w → BOLD mm: scanner coordinates, equal centres."""
    shift = np.eye(4)
    shift[:3, 3] = _centre(reference_mask, reference_affine) - _centre(brain, grid)
    return {'header': np.eye(4), 'centre': shift}


def _centre(mask, affine):
    return affine[:3, :3] @ np.array(ndimage.center_of_mass(mask)) + affine[:3, 3]


def _search(name, start, images, fixed, brain, grid, moving, mask, affine) -> Coregistration:
    """Register from one start and score the result."""
    out = run_greedy(
        f'-i fixed moving -a -dof 6 -ia START -n {ITERATIONS} -jitter 0 -seed 1 -m NMI '
        '-o affine -threads 1',
        results=('affine',),
        start=start,
        **images,
    )
    matrix = np.asarray(out['affine'], dtype=float)
    points = np.argwhere(brain) @ grid[:3, :3].T + grid[:3, 3]
    place = points @ matrix[:3, :3].T + matrix[:3, 3]
    index = (place - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    seen = ((index >= -0.5) & (index <= np.array(mask.shape) - 0.5)).all(axis=1)
    found = sample_image(moving, affine, place[seen])
    signal = sample_image(mask.astype(np.float32), affine, place[seen]) > 0.5
    centre = points.mean(axis=0)
    cosine = np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)
    return Coregistration(
        matrix=matrix,
        start=name,
        information=mutual_information(fixed[brain][seen], found) if seen.any() else 1.0,
        overlap=float(signal.mean()) if seen.any() else 0.0,
        moved_mm=float(np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre)),
        turned_degrees=float(np.degrees(np.arccos(cosine))),
        coverage=float(seen.mean()),
    )
