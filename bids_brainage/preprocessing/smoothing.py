"""Gaussian smoothing in torch, on whatever device the volume lies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def smooth(volume: Tensor, sd: tuple[float, float, float]) -> Tensor:
    """Gaussian smoothing of channels, zero outside the grid.

    Parameters
    ----------
    volume : Tensor, shape (C, nx, ny, nz)
    sd : tuple of float
        Voxels along each axis; 0 leaves an axis alone.
    """
    import torch
    import torch.nn.functional as functional

    out = volume[:, None]
    for axis, width in enumerate(sd):
        if width <= 0:
            continue
        reach = math.ceil(3.5 * width)
        steps = torch.arange(-reach, reach + 1, dtype=out.dtype, device=out.device)
        kernel = torch.exp(-0.5 * (steps / width) ** 2)
        size, padding = [1] * 5, [0] * 3
        size[2 + axis], padding[axis] = len(kernel), reach
        weight = (kernel / kernel.sum()).reshape(size)
        out = functional.conv3d(out, weight, padding=(padding[0], padding[1], padding[2]))
    return out[:, 0]
