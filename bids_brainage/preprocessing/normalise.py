"""Bring native maps onto the template grid, and maps of the template back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bids_brainage.preprocessing.image import extent, load_image
from bids_brainage.preprocessing.transforms import (
    SpatialTransform,
    grid_points,
    sample_image,
    sample_vectors_on_grid,
    voxel_points,
)

MODULATION_SMOOTHING_MM = 0.8
"""Native tissue maps are smoothed by this Gaussian (standard deviation) before they are sampled,
so that no tissue falls between the sampling points where the warp compresses."""

SMEARED = 9
"""Width of a filter (voxels of 1 mm) that covers all around the brain where it can leave some."""

CHUNK = 400_000

BOX_MARGIN_MM = 12.0
"""Brain masks that a registration accepts do not reach further beyond the template's brain."""


def brain_box(
    brain: np.ndarray, affine: np.ndarray, margin_mm: float = BOX_MARGIN_MM
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the part of a template grid that can hold brain, to spare work on the rest.

    Parameters
    ----------
    brain : ndarray of bool, shape (X, Y, Z)
        Brain of the template.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    margin_mm : float
        Kept on every side.

    Returns
    -------
    box : tuple of slice
        Of the template grid.
    corner : ndarray, shape (4, 4)
        Voxel index of the box → RAS+ mm.
    """
    margin = np.ceil(margin_mm / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    first, last = extent(brain)
    low, high = np.maximum(first - margin, 0), np.minimum(last + margin + 1, brain.shape)
    corner = affine.copy()
    corner[:3, 3] += affine[:3, :3] @ low
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), corner


def load_brain(mask: str, *images: str) -> tuple[tuple[slice, ...], np.ndarray, list[np.ndarray]]:
    """Read a native brain mask and images of its grid, without what lies far around the brain.

    Sampling a part that is small and in the order of its axes takes a fifth of the time.

    Parameters
    ----------
    mask, *images : str
        Files that steps of this program have written.

    Returns
    -------
    box, corner
        As of `brain_box`.
    parts : list of ndarray
        Of the mask (bool) and the images within the box.
    """
    inside, affine = load_image(mask)
    box, corner = brain_box(inside > 0, affine)
    parts = [inside > 0, *(load_image(path)[0] for path in images)]
    return box, corner, [np.ascontiguousarray(part[box]) for part in parts]


def template_coordinates(
    transform: SpatialTransform, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Return where every template voxel lies in the native image.

    Parameters
    ----------
    transform : SpatialTransform
        Template → native.
    shape, affine
        Template grid.

    Returns
    -------
    ndarray of float32, shape (N, 3)
        Native RAS+ mm, last axis of the grid fastest.
    """
    points = aligned_coordinates(transform, shape, affine)
    points @= transform.affine[:3, :3].T.astype(np.float32)
    points += transform.affine[:3, 3].astype(np.float32)
    return points


def aligned_coordinates(
    transform: SpatialTransform, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Return where every template voxel lies in the image aligned by the affine alone.

    Parameters and result are those of `template_coordinates`, but in millimetres of the template:
    sampling an aligned map there deforms it to the template.
    """
    points = sample_vectors_on_grid(transform.displacement, transform.grid, shape, affine)
    points += grid_points(shape, affine)
    return points


def align_labels(
    labels: np.ndarray, affine: np.ndarray, transform: SpatialTransform
) -> np.ndarray:
    """Lay labels of template space on the image aligned by the affine alone.

    Parameters
    ----------
    labels : ndarray, shape (X, Y, Z)
        Labels of the deformed image.
    affine : ndarray, shape (4, 4)
        Its grid, RAS+ mm of the template.
    transform : SpatialTransform
        Template → native.

    Returns
    -------
    ndarray, shape (X, Y, Z)
        Nearest labels, on the same grid.
    """
    linear = transform.linear()
    box, corner = brain_box(labels > 0, affine)
    shape = labels[box].shape
    where = _in_chunks(
        lambda points: transform.to_template(linear.to_native(points)), grid_points(shape, corner)
    )
    out = np.zeros_like(labels)
    out[box] = pull(labels, affine, where, shape, order=0)
    return out


def _in_chunks(function: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """Map many points, a part at a time to spare memory."""
    return np.concatenate(
        [function(points[i : i + CHUNK]).astype(np.float32) for i in range(0, len(points), CHUNK)]
    )


def pull(
    data: np.ndarray,
    affine: np.ndarray,
    coordinates: np.ndarray,
    shape: tuple[int, ...],
    *,
    order: int = 1,
) -> np.ndarray:
    """Resample a native image at template coordinates.

    Parameters
    ----------
    data, affine
        Native image in RAS+.
    coordinates : ndarray, shape (N, 3)
        From `template_coordinates`.
    shape : tuple of int
        Template grid, ``N = prod(shape)``.
    order : int
        0 nearest neighbour, 1 trilinear.

    Returns
    -------
    ndarray, ``shape``
    """
    return sample_image(data, affine, coordinates, order=order).reshape(shape)


def pull_inside(
    data: np.ndarray,
    affine: np.ndarray,
    coordinates: np.ndarray,
    inside: np.ndarray,
    *,
    order: int = 1,
) -> np.ndarray:
    """Resample a native image at some template voxels; the others are 0.

    Parameters
    ----------
    data, affine, coordinates, order
        As for `pull`.
    inside : ndarray of bool
        Which voxels of the template grid.

    Returns
    -------
    ndarray, shape of ``inside``
    """
    out = np.zeros(inside.shape, data.dtype)
    out[inside] = sample_image(data, affine, coordinates[inside.ravel()], order=order)
    return out


def pull_mask(
    mask: np.ndarray,
    affine: np.ndarray,
    transform: SpatialTransform,
    brain: np.ndarray,
    grid: np.ndarray,
) -> np.ndarray:
    """Resample a native brain mask onto the template grid.

    Parameters
    ----------
    mask, affine
        Native mask in RAS+.
    transform : SpatialTransform
        Template → native.
    brain : ndarray of bool, shape (X, Y, Z)
        Brain of the template; the result is false far away from it.
    grid : ndarray, shape (4, 4)
        Voxel index of the template → RAS+ mm.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    box, corner = brain_box(brain, grid)
    shape = brain[box].shape
    where = template_coordinates(transform, shape, corner)
    found = np.zeros(brain.shape, bool)
    found[box] = pull((mask > 0).astype(np.float32), affine, where, shape) > 0.5
    return found


def modulate(
    probability: np.ndarray,
    jacobian: np.ndarray,
    jacobian_affine: np.ndarray,
    affine: np.ndarray,
) -> np.ndarray:
    """Multiply a normalised tissue map by the volume change, so that its sum is millilitres.

    Parameters
    ----------
    probability : ndarray, shape (X, Y, Z)
        Tissue probability on a template grid.
    jacobian : ndarray, shape (U, V, W)
        Determinant of the template → native mapping (`SpatialTransform.jacobian`).
    jacobian_affine, affine : ndarray, shape (4, 4)
        Grids of ``jacobian`` and ``probability``, RAS+ mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Native tissue volume per template voxel volume; values above 1 are possible.

    References
    ----------
    Good et al. (2001), doi:10.1006/nimg.2001.0786.
    """
    change = sample_vectors_on_grid(
        jacobian[..., None], jacobian_affine, probability.shape, affine
    )
    return (probability * change.reshape(probability.shape)).astype(np.float32)


def push_to_native(
    data: np.ndarray,
    affine: np.ndarray,
    transform: SpatialTransform,
    native_shape: tuple[int, ...],
    native_affine: np.ndarray,
    native_mask: np.ndarray,
    *,
    order: int = 1,
) -> np.ndarray:
    """Sample a template-space map at the brain voxels of the native image.

    Parameters
    ----------
    data, affine
        Map in template space.
    transform : SpatialTransform
        Template → native; its inverse is used.
    native_shape, native_affine, native_mask
        Native grid and brain mask.
    order : int
        0 nearest neighbour, 1 trilinear.

    Returns
    -------
    ndarray of float32, ``native_shape``
        0 outside the mask.
    """
    points = voxel_points(native_mask, native_affine)
    out = np.zeros(native_shape, np.float32)
    out[native_mask] = sample_image(data, affine, transform.to_template(points), order=order)
    return out
