"""Contrast-uptake maps from the two-dimensional AICBV generator, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError

if TYPE_CHECKING:
    from bids_brainage.models.aicbv_resattunet2d import AICBVResAttUNet2d

#: Pixels along each axis of a slice.
EDGE = 352

Array = npt.NDArray[np.float32]


def fit_slices(volume: Array, edge: int = EDGE) -> Array:
    """Centre axial slices on a square, cutting or repeating the border.

    Parameters
    ----------
    volume : ndarray, shape (X, Y, Z)
        RAS+ order.
    edge : int
        Pixels along each axis of the square.

    Returns
    -------
    ndarray, shape (edge, edge, Z)
        Cut or padded about the centre.
    """
    for axis in (0, 1):
        surplus = volume.shape[axis] - edge
        if surplus > 0:
            start = surplus // 2
            volume = np.take(volume, range(start, start + edge), axis=axis)
        elif surplus < 0:
            width = [(0, 0)] * 3
            width[axis] = (-surplus // 2, -surplus - -surplus // 2)
            volume = np.pad(volume, width, mode='edge')
    return volume


def restore_slices(slices: Array, shape: tuple[int, int, int]) -> Array:
    """Undo `fit_slices`; what was cut is 0.

    Parameters
    ----------
    slices : ndarray, shape (edge, edge, Z)
        Square slices.
    shape : tuple of int
        Grid of the volume.

    Returns
    -------
    ndarray, shape `shape`
        On the grid of the volume.
    """
    result = np.zeros(shape, dtype=slices.dtype)
    source, target = [], []
    for axis in (0, 1):
        surplus = shape[axis] - slices.shape[axis]
        kept = min(shape[axis], slices.shape[axis])
        inner, outer = max(0, -surplus) // 2, max(0, surplus) // 2
        source.append(slice(inner, inner + kept))
        target.append(slice(outer, outer + kept))
    result[tuple(target)] = slices[tuple(source)]
    return result


def _run(
    slices: Array,
    model: AICBVResAttUNet2d,
    batch: int,
    on_slice: Callable[[int, int], None] | None,
) -> Array:
    """Map slices ``(edge, edge, Z)`` to the same shape."""
    import torch

    device = next(model.parameters()).device
    stack = torch.from_numpy(np.ascontiguousarray(slices.transpose(2, 0, 1)))[:, None]
    outputs = []
    with torch.inference_mode():
        for first in range(0, len(stack), batch):
            outputs.append(model(stack[first : first + batch].to(device))[:, 0].cpu())
            if on_slice is not None:
                on_slice(min(first + batch, len(stack)), len(stack))
    generated: Array = torch.cat(outputs).numpy().transpose(1, 2, 0)
    return generated


def synthesise_uptake(
    t1w: npt.NDArray[np.floating],
    mask: npt.NDArray[np.bool_],
    model: AICBVResAttUNet2d,
    *,
    edge: int = EDGE,
    batch: int = 4,
    on_slice: Callable[[int, int], None] | None = None,
) -> Array:
    """Generate the contrast uptake of one scan.

    Parameters
    ----------
    t1w : ndarray, shape (X, Y, Z)
        T1w, RAS+ order, 1 mm.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain.
    model : AICBVResAttUNet2d
        Generator in eval mode.
    edge : int
        Pixels along each axis of a slice.
    batch : int
        Slices at a time.
    on_slice : callable or None
        Called with the slices done and their total after each batch.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Contrast uptake in the units of the training maps, 0 outside the brain.

    Raises
    ------
    UnusableImageError
        Shapes differ, the mask is empty, or the scan has no positive value.
    """
    if t1w.shape != mask.shape or not mask.any():
        raise UnusableImageError(
            f'AICBV: expected a brain mask of shape {t1w.shape} that is not empty, found shape '
            f'{mask.shape} with {int(mask.sum())} voxels.'
        )
    largest = float(t1w.max())
    if not largest > 0:
        raise UnusableImageError('AICBV: the scan has no positive value. Check the image.')
    planes = np.flatnonzero(mask.any(axis=(0, 1)))
    scaled = fit_slices((t1w[:, :, planes] / largest).astype(np.float32), edge)
    generated = _run(scaled, model, batch, on_slice)
    result = np.zeros(t1w.shape, dtype=np.float32)
    shape = (t1w.shape[0], t1w.shape[1], len(planes))
    result[:, :, planes] = restore_slices(generated, shape)
    return result * mask
