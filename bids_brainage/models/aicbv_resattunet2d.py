"""Two-dimensional generator of contrast uptake: residual attention U-Net on axial slices.

The kind of network of Liu et al. (Front. Aging Neurosci. 2022, "DeepContrast"), which
Jomsky et al. (arXiv:2412.01865) cite for their maps although they describe another one
(`bids_brainage.models.aicbv_mamba`).  Its output is contrast uptake, proportional to
cerebral blood volume.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bids_brainage.models.base import MapGenerator

N_LEVELS = 6


def _conv_norm_act(before: int, after: int) -> list[nn.Module]:
    """Convolution k3, BatchNorm, ReLU."""
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


def _double_conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm_act(before, after), *_conv_norm_act(after, after))


class ResidualBlock(nn.Module):
    """Two convolutions plus a 1 x 1 convolution of the input.

    Parameters
    ----------
    before, after : int
        Channels of input and output.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = _double_conv(before, after)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, before, X, Y)`` to ``(B, after, X, Y)``."""
        result: Tensor = self.main(x) + self.skip(x)
        return result


class AttentionGate(nn.Module):
    """Additive attention on a skip, steered by the decoder.

    Oktay et al. 2018, "Attention U-Net" (arXiv:1804.03999), on one grid.

    Parameters
    ----------
    channels : int
        Of the skip and of the decoder's map; the gate works on half of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.steer = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
        self.look = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
        self.weigh = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid()
        )

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        """Weigh each pixel of the skip by a factor between 0 and 1."""
        weighed: Tensor = skip * self.weigh(self.steer(decoded) + self.look(skip))
        return weighed


class Up(nn.Module):
    """Nearest upsampling by 2, convolution, gated skip, two convolutions.

    Parameters
    ----------
    before, after : int
        Channels of input and output.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), *_conv_norm_act(before, after))
        self.gate = AttentionGate(after)
        self.join = _double_conv(2 * after, after)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map the coarse ``x`` and the fine ``skip`` to the grid of ``skip``."""
        up = self.up(x)
        result: Tensor = self.join(torch.cat([self.gate(up, skip), up], dim=1))
        return result


class AICBVResAttUNet2d(MapGenerator):
    """Contrast uptake of an axial slice of a T1w.

    Parameters
    ----------
    base : int
        Channels of the finest level, doubled at each of the five coarser ones.
    """

    by_slices = True

    def __init__(self, *, base: int = 64) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(N_LEVELS)]
        self.encoders = nn.ModuleList(
            ResidualBlock(before, after) for before, after in pairwise([1, *widths])
        )
        self.pool = nn.MaxPool2d(2)
        self.decoders = nn.ModuleList(
            Up(before, after) for before, after in pairwise(reversed(widths))
        )
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Generate slices.

        Parameters
        ----------
        x : Tensor, shape (B, 1, 352, 352)
            Axial slices, RAS order, divided by the maximum of their volume; each axis a
            multiple of 32 pixels.

        Returns
        -------
        Tensor, shape (B, 1, 352, 352)
            Contrast uptake in the units of the training maps.

        Raises
        ------
        OptionError
            An axis is no multiple of 32.
        """
        skips = self.encode(x)
        x = skips.pop()
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        result: Tensor = self.head(x)
        return result
