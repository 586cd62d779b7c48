"""Whole volumes through a network that takes patches, with an honest forecast of the time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bids_brainage.errors import BrainAgeError

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Progress:
    """Where a run over patches stands.

    Attributes
    ----------
    done, total : int
        Patches.
    elapsed_s, remaining_s : float
        Seconds since the start, and the expected rest at the speed so far (before the first
        patch: at the speed of the probe).
    """

    done: int
    total: int
    elapsed_s: float
    remaining_s: float


def patch_starts(length: int, patch: int, stride: int) -> list[int]:
    """First voxels of the patches along one axis.

    Parameters
    ----------
    length : int
        Voxels along the axis.
    patch, stride : int
        Edge of a patch and distance between patches.

    Returns
    -------
    list of int
        Regular starts; the last patch reaches or passes the end, where the volume is padded.
    """
    n_steps = max(0, -(-(length - patch) // stride))
    return [step * stride for step in range(n_steps + 1)]


def plan(shape: tuple[int, int, int], patch: int, stride: int) -> list[tuple[int, int, int]]:
    """Corners of all patches that cover a volume.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each axis.
    patch, stride : int
        Edge of a patch and distance between patches, 1 <= stride <= patch.

    Returns
    -------
    list of tuple of int
        Corner of each patch, the first axis slowest.

    Raises
    ------
    BrainAgeError
        The stride leaves voxels out.
    """
    if not 1 <= stride <= patch:
        raise BrainAgeError(
            f'Sliding window: expected a stride from 1 to the patch edge {patch}, found {stride}.'
        )
    x, y, z = (patch_starts(length, patch, stride) for length in shape)
    return list(itertools.product(x, y, z))


@torch.inference_mode()
def probe_patch_seconds(predict: Predict, patch: int, probe: int, like: Tensor) -> float:
    """Estimate the time of one patch from a smaller one.

    The cost of convolutions and scans grows with the number of voxels, so a probe of a third
    of the edge costs a 27th.

    Parameters
    ----------
    predict : callable
        Network, ``(1, 1, n, n, n)`` to the same shape.
    patch, probe : int
        Edges of a patch and of the probe in voxels.
    like : Tensor
        Sets type and device of the probe.

    Returns
    -------
    float
        Expected seconds a patch.
    """
    volume = like.new_zeros((1, 1, probe, probe, probe))
    # the first call also pays for memory and for choosing algorithms
    _wait(predict(volume))
    start = time.perf_counter()
    _wait(predict(volume))
    return (time.perf_counter() - start) * (patch / probe) ** 3


def _wait(result: Tensor) -> Tensor:
    """Wait until a result is really there (CUDA works behind the caller's back)."""
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result


@torch.inference_mode()
def sliding_window(
    volume: Tensor,
    predict: Predict,
    *,
    patch: int,
    stride: int,
    batch: int = 1,
    probe: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Tensor:
    """Predict patch by patch and average where patches overlap.

    Parameters
    ----------
    volume : Tensor, shape (X, Y, Z)
        Input, padded with zeros at the far ends so that patches tile it.
    predict : callable
        Network in eval mode, ``(B, 1, patch, patch, patch)`` to the same shape.
    patch, stride : int
        Edge of a patch and distance between patches in voxels.
    batch : int
        Patches at a time.
    probe : int or None
        Edge of a small patch that is timed first, so that the first report, before any
        patch, holds a forecast; None makes no such report.
    on_progress : callable or None
        Called before the first patch (with `probe`) and after each batch.  It may raise to
        stop the run.

    Returns
    -------
    Tensor, shape (X, Y, Z)
        Mean of the overlapping outputs.

    Raises
    ------
    BrainAgeError
        The stride leaves voxels out, or the network changes the shape of a patch.
    """
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    corners = plan(shape, patch, stride)
    report = on_progress or (lambda progress: None)
    if probe is not None:
        seconds = probe_patch_seconds(predict, patch, probe, volume)
        report(Progress(0, len(corners), 0.0, seconds * len(corners)))
    padded = _pad(volume, corners[-1], patch)
    total, count = torch.zeros_like(padded), torch.zeros_like(padded)
    start = time.perf_counter()
    for first in range(0, len(corners), batch):
        windows = [_window(corner, patch) for corner in corners[first : first + batch]]
        stack = torch.stack([padded[window] for window in windows]).unsqueeze(1)
        outputs = _checked(predict, stack)
        for window, output in zip(windows, outputs[:, 0], strict=True):
            total[window] += output
            count[window] += 1
        done = first + len(windows)
        elapsed = time.perf_counter() - start
        remaining = elapsed / done * (len(corners) - done)
        report(Progress(done, len(corners), elapsed, remaining))
    return (total / count)[: shape[0], : shape[1], : shape[2]]


def _checked(predict: Predict, stack: Tensor) -> Tensor:
    """Predict patches and make sure that the network keeps their shape."""
    outputs = _wait(predict(stack))
    if outputs.shape != stack.shape:
        raise BrainAgeError(
            f'Sliding window: expected an output of shape {tuple(stack.shape)}, found '
            f'{tuple(outputs.shape)}. The network must keep the grid and give one channel.'
        )
    return outputs


def _pad(volume: Tensor, last: tuple[int, int, int], patch: int) -> Tensor:
    """Pad with zeros up to the end of the last patch."""
    missing = [corner + patch - n for corner, n in zip(last, volume.shape, strict=True)]
    return F.pad(volume, (0, missing[2], 0, missing[1], 0, missing[0]))


def _window(corner: tuple[int, int, int], patch: int) -> tuple[slice, slice, slice]:
    x, y, z = corner
    return slice(x, x + patch), slice(y, y + patch), slice(z, z + patch)
