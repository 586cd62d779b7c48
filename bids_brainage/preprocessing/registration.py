"""Register a brain to the template with greedy, and check what came out.

greedy says nothing when its optimiser fails, so every result is scored here; a failed start is
tried again from others.  All steps run in double precision: in single precision the affine
optimiser was seen to fail silently (target registration error 26 mm), and the deformable one
hardly deforms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.errors import ProcessingError
from bids_brainage.preprocessing.greedy import from_itk, run_greedy, to_itk
from bids_brainage.preprocessing.normalise import brain_box
from bids_brainage.preprocessing.transforms import (
    SpatialTransform,
    grid_points,
    inverted,
    quantised,
    sample_image,
    voxel_points,
)

Affine = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

AFFINE_ITERATIONS = '100x50x5'
DEFORMABLE_ITERATIONS = '100x70x20'
"""Iterations at a quarter, half and all of the resolution: 30 fine ones fit no better.  Without
fine iterations of the affine the size of the aligned brain was 3 % off."""

SLOPPY_ITERATIONS = '60x0x0', '60x10x0'
NCC_RADIUS = '2x2x2'
SMOOTHING = '1.732vox', '0.707vox'
"""Smoothing of the gradient and of the total field, greedy's own defaults."""

REPEATABLE = '-seed 1'
"""The correlation metric adds a little noise to flat regions; without a seed two runs differ by
millimetres there.  The affine step also jitters its samples (switched off) and its sums depend
on the number of threads (kept at one); the deformable step gives the same bits for any number."""

TILTS_DEGREES = (0.0, 20.0, -20.0)
"""Head tilts (rotation about the left–right axis) tried as starting points."""

MIN_AFFINE_OVERLAP = 0.80
"""Dice of brain mask and template mask below which an affine start counts as failed; good
affine results on real heads reach 0.90 to 0.97."""

BEYOND_MM = 8.0
"""An affine leaves the brain of an adult within this distance of the template's brain."""


@dataclass(frozen=True)
class RegistrationScore:
    """How well the warped brain fits the template.

    Attributes
    ----------
    overlap : float
        Dice of the warped brain mask with the template's mask, 0 to 1.
    similarity : float
        Pearson correlation of intensities inside the template's mask.
    scale : float
        Determinant of the affine, template → native: native over template volume.
    rotation_degrees : float
        Rotation between the two frames.
    jacobian_min, jacobian_max : float
        0.1 % and 99.9 % quantiles of the local volume change of the deformation in the brain.
    beyond_ml : float
        What lies more than `BEYOND_MM` outside the template's brain after the affine alone, ml at
        the template's size.
    """

    overlap: float
    similarity: float
    scale: float
    rotation_degrees: float
    jacobian_min: float
    jacobian_max: float
    beyond_ml: float


def register(
    fixed: np.ndarray,
    fixed_mask: np.ndarray,
    fixed_affine: np.ndarray,
    moving: np.ndarray,
    moving_mask: np.ndarray,
    moving_affine: np.ndarray,
    *,
    threads: int = 1,
    sloppy: bool = False,
) -> tuple[SpatialTransform, dict[str, float]]:
    """Register a native brain (moving) to the template brain (fixed).

    Parameters
    ----------
    fixed, moving : ndarray, shape (X, Y, Z)
        Skull-stripped T1w intensities, RAS+.
    fixed_mask, moving_mask : ndarray of bool
        Brain masks on the same grids.
    fixed_affine, moving_affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    threads : int
        Threads for greedy.
    sloppy : bool
        Stop at coarse levels; for tests only.

    Returns
    -------
    transform : SpatialTransform
        Template → native.
    affine_scores : dict
        ``affine_overlap`` after the affine step and ``affine_starts``, the number of tries.

    Raises
    ------
    ProcessingError
        If no start gives a plausible affine.
    """
    images = _brains(fixed, fixed_mask, fixed_affine, moving, moving_mask, moving_affine)
    affine, overlap, starts = _best_affine(
        images, fixed_mask, fixed_affine, moving_mask, moving_affine, sloppy=sloppy
    )
    iterations = SLOPPY_ITERATIONS[1] if sloppy else DEFORMABLE_ITERATIONS
    out = run_greedy(
        f'-i fixed moving -it START -n {iterations} {REPEATABLE} -m NCC {NCC_RADIUS} '
        f'-s {SMOOTHING[0]} {SMOOTHING[1]} -o warp -wp 0 -threads {threads}',
        results=('warp',),
        start=affine,
        **images,
    )
    box, corner = brain_box(fixed_mask, fixed_affine)
    displacement = from_itk(out['warp'])
    sides = [(b.start, n - b.stop) for b, n in zip(box, fixed_mask.shape, strict=True)]
    # as the files keep them, so that nothing hangs on where a later step reads them
    there, back = (
        quantised(np.pad(field, (*sides, (0, 0)), mode='edge'))
        for field in (displacement, inverted(displacement, corner))
    )
    transform = SpatialTransform(affine, there, back, fixed_affine)
    return transform, {'affine_overlap': overlap, 'affine_starts': starts}


def score(
    transform: SpatialTransform,
    fixed: np.ndarray,
    fixed_mask: np.ndarray,
    moving: np.ndarray,
    moving_mask: np.ndarray,
    moving_affine: np.ndarray,
) -> RegistrationScore:
    """Score a registration on the grid of the transform.

    Parameters are those of `register`; ``fixed`` and ``fixed_mask`` live on ``transform.grid``.
    """
    points = transform.to_native(grid_points(fixed.shape, transform.grid))
    warped = sample_image(moving, moving_affine, points).reshape(fixed.shape)
    mask = sample_image(moving_mask.astype(np.float32), moving_affine, points) > 0.5
    mask = mask.reshape(fixed.shape)
    inside = fixed_mask & mask
    similarity = float(np.corrcoef(fixed[inside], warped[inside])[0, 1]) if inside.any() else 0.0
    linear = transform.affine[:3, :3]
    scale = float(np.linalg.det(linear))
    u, _, vt = np.linalg.svd(linear)
    cosine = np.clip((np.trace(u @ vt) - 1) / 2, -1, 1)
    local = (transform.jacobian() / abs(scale))[fixed_mask]
    low, high = np.quantile(local, [0.001, 0.999])
    return RegistrationScore(
        overlap=dice(fixed_mask, mask),
        similarity=similarity,
        scale=scale,
        rotation_degrees=float(np.degrees(np.arccos(cosine))),
        jacobian_min=float(low),
        jacobian_max=float(high),
        beyond_ml=_beyond_ml(transform, fixed_mask, moving_mask, moving_affine),
    )


def _beyond_ml(
    transform: SpatialTransform, fixed_mask: Mask, moving_mask: Mask, moving_affine: Affine
) -> float:
    """Return how much of a native mask the affine leaves far outside the template's brain, ml.

    The deformation cannot tell: it pulls such tissue in.
    """
    edges = np.linalg.norm(transform.grid[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(~fixed_mask, sampling=edges) <= BEYOND_MM
    native_to_template = np.linalg.inv(transform.affine)
    points = voxel_points(moving_mask, moving_affine)
    points = points @ native_to_template[:3, :3].T + native_to_template[:3, 3]
    far = sample_image(near.astype(np.float32), transform.grid, points) < 0.5
    voxel_mm3 = abs(np.linalg.det(moving_affine[:3, :3]) / np.linalg.det(transform.affine[:3, :3]))
    return float(far.sum() * voxel_mm3 / 1000)


def align(
    fixed: np.ndarray,
    fixed_mask: np.ndarray,
    fixed_affine: np.ndarray,
    moving: np.ndarray,
    moving_mask: np.ndarray,
    moving_affine: np.ndarray,
) -> Affine:
    """Align a native brain with the template brain, without deforming it.

    Parameters and errors are those of `register`, whose first step this is.

    Returns
    -------
    ndarray, shape (4, 4)
        Template → native, RAS+ mm.
    """
    images = _brains(fixed, fixed_mask, fixed_affine, moving, moving_mask, moving_affine)
    return _best_affine(
        images, fixed_mask, fixed_affine, moving_mask, moving_affine, sloppy=False
    )[0]


def _brains(
    fixed: np.ndarray,
    fixed_mask: Mask,
    fixed_affine: Affine,
    moving: np.ndarray,
    moving_mask: Mask,
    moving_affine: Affine,
) -> dict[str, Any]:
    """Return both brains as greedy takes them, by name, without what lies far around them."""
    box, corner = brain_box(fixed_mask, fixed_affine)
    around, edge = brain_box(moving_mask, moving_affine)
    return {
        'fixed': to_itk((fixed * fixed_mask)[box], corner),
        'moving': to_itk((moving * moving_mask)[around], edge),
    }


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice overlap of two boolean arrays, 0 to 1 (Dice 1945)."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 0.0


def _best_affine(
    images: Mapping[str, Any],
    fixed_mask: Mask,
    fixed_affine: Affine,
    moving_mask: Mask,
    moving_affine: Affine,
    *,
    sloppy: bool,
) -> tuple[Affine, float, int]:
    """Try starting points until one gives a plausible affine; return it, its overlap, tries."""
    best, best_overlap = np.eye(4), -1.0
    iterations = SLOPPY_ITERATIONS[0] if sloppy else AFFINE_ITERATIONS
    for tries, tilt in enumerate(TILTS_DEGREES, start=1):
        start = _moment_start(fixed_mask, fixed_affine, moving_mask, moving_affine, tilt)
        out = run_greedy(
            f'-i fixed moving -a -ia START -n {iterations} -jitter 0 {REPEATABLE} '
            f'-m NCC {NCC_RADIUS} -o affine -threads 1',
            results=('affine',),
            start=start,
            **images,
        )
        affine = np.asarray(out['affine'], dtype=float)
        overlap = _affine_overlap(affine, fixed_mask, fixed_affine, moving_mask, moving_affine)
        if overlap > best_overlap:
            best, best_overlap = affine, overlap
        if best_overlap >= MIN_AFFINE_OVERLAP:
            return best, best_overlap, tries
    raise ProcessingError(
        'no affine registration to the template succeeded: the best of '
        f'{len(TILTS_DEGREES)} starts overlaps by Dice {best_overlap:.2f}, expected at least '
        f'{MIN_AFFINE_OVERLAP:.2f}. Look at the brain mask: the scan may be cut off, mislabelled '
        'in its orientation, or not a T1w image of a whole brain.'
    )


def _moment_start(
    fixed_mask: Mask, fixed_affine: Affine, moving_mask: Mask, moving_affine: Affine, tilt: float
) -> Affine:
    """Return a similarity that matches centre and volume of the two masks, with a tilt."""
    centre_fixed, volume_fixed = _moments(fixed_mask, fixed_affine)
    centre_moving, volume_moving = _moments(moving_mask, moving_affine)
    angle = np.radians(tilt)
    rotation = np.array(
        [
            [1, 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, np.sin(angle), np.cos(angle)],
        ]
    )
    start = np.eye(4)
    start[:3, :3] = rotation * (volume_moving / volume_fixed) ** (1 / 3)
    start[:3, 3] = centre_moving - start[:3, :3] @ centre_fixed
    return start


def _moments(mask: Mask, affine: Affine) -> tuple[np.ndarray, float]:
    centre = affine[:3, :3] @ np.array(ndimage.center_of_mass(mask)) + affine[:3, 3]
    return centre, float(mask.sum() * abs(np.linalg.det(affine[:3, :3])))


def _affine_overlap(
    affine: Affine,
    fixed_mask: Mask,
    fixed_affine: Affine,
    moving_mask: Mask,
    moving_affine: Affine,
) -> float:
    points = grid_points(fixed_mask.shape, fixed_affine)
    points = points @ affine[:3, :3].T + affine[:3, 3]
    warped = sample_image(moving_mask.astype(np.float32), moving_affine, points) > 0.5
    return dice(fixed_mask, warped.reshape(fixed_mask.shape))
