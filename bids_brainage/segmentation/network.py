"""The segmentation network: a 3-D U-Net that normalises each image by its own statistics.

Ronneberger et al. 2015 (doi:10.1007/978-3-319-24574-4_28) in three dimensions, with instance
normalisation as in nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): running averages
of the training images fail on scanners that are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

STEP = 16
"""Edges of an input are multiples of this: four times halved."""


class OwnNorm(nn.Module):
    """Normalise each channel of one image by its own mean and variance.

    For one image at a time this is instance normalisation; batch normalisation without running
    averages computes it without a change of memory layout, which takes a third of the time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return normalised features, shape (1, C, X, Y, Z)."""
        if len(x) != 1:
            raise ValueError(f'expected one image at a time, found {len(x)}')
        return functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


def _block(channels: int, middle: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, middle, 3, stride, 1, bias=False),
        OwnNorm(middle),
        nn.LeakyReLU(0.01, inplace=True),
        nn.Conv3d(middle, out, 3, 1, 1, bias=False),
        OwnNorm(out),
        nn.LeakyReLU(0.01, inplace=True),
    )


class StructureUNet(nn.Module):
    """U-Net that gives every voxel a score for each region.

    Parameters
    ----------
    classes : int
        Regions and background.
    widths : sequence of int
        Channels of each level, finest first.
    last : int
        Channels before the scores.
    """

    def __init__(self, classes: int, widths: Sequence[int], last: int) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(
            [_block(1, widths[0], widths[0]), *(_block(a, b, b, 2) for a, b in steps)]
        )
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, 2) for a, b in steps)
        self.join = nn.ModuleList(
            _block(2 * a, a, a if level else last) for level, (a, _) in enumerate(steps)
        )
        self.head = nn.Conv3d(last, classes, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features before the scores, shape (1, last, X, Y, Z)."""
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
        kept.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores, shape (1, classes, X, Y, Z).

        Parameters
        ----------
        x : Tensor, shape (1, 1, X, Y, Z)
            Intensities as `bids_brainage.segmentation.measure.scaled` makes them; edges are
            multiples of `STEP`.
        """
        return self.head(self.features(x))
