"""Generator of cerebral blood volume maps from T1w patches.

A CNN encoder and decoder stand around a bottleneck of state-space blocks.
Jomsky et al. (arXiv:2412.01865) describe it in words that fit MedSegMamba (Cao, Li, Guo,
arXiv:2409.08307) with one linear output channel.  No weights are public: supply your own, or
a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bids_brainage.errors import OptionError
from bids_brainage.models.base import MapGenerator
from bids_brainage.models.scan_paths import ScanOrder
from bids_brainage.models.vss3d import VSS3D

GROUPS = 8

Preset = Literal['full', 'lite', 'test']


@dataclass(frozen=True)
class Size:
    """Widths of a generator.

    Attributes
    ----------
    channels : tuple of int
        Of the four levels of the encoder.
    width : int
        Channels of the bottleneck.
    n_states : int
        States of its scans.
    patch : int
        Voxels along each axis of a patch in training and inference.
    """

    channels: tuple[int, int, int, int]
    width: int
    n_states: int
    patch: int


SIZES: dict[str, Size] = {
    'full': Size((32, 64, 128, 256), 1024, 64, 96),
    'lite': Size((16, 32, 64, 128), 256, 16, 96),
    'test': Size((8, 16, 32, 64), 64, 8, 32),
}


def _conv_norm_act(before: int, after: int) -> list[nn.Module]:
    """Convolution k3, GroupNorm of 8 groups, ReLU."""
    return [nn.Conv3d(before, after, 3, padding=1), nn.GroupNorm(GROUPS, after), nn.ReLU()]


class ResConv(nn.Module):
    """Two convolutions plus a 1 x 1 x 1 convolution of the input.

    Parameters
    ----------
    before, after : int
        Channels of input and output.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*_conv_norm_act(before, after), *_conv_norm_act(after, after))
        self.skip = nn.Conv3d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, before, X, Y, Z)`` to ``(B, after, X, Y, Z)``."""
        result: Tensor = self.main(x) + self.skip(x)
        return result


class Up(nn.Module):
    """Nearest upsampling by 2 and convolution, joined with the skip, then `ResConv`.

    Parameters
    ----------
    before, skip, after : int
        Channels of the input (halved on the way up), of the skip and of the output.
    """

    def __init__(self, before: int, skip: int, after: int) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), *_conv_norm_act(before, before // 2))
        self.join = ResConv(before // 2 + skip, after)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map the coarse ``x`` and the fine ``skip`` to the grid of ``skip``."""
        result: Tensor = self.join(torch.cat([self.up(x), skip], dim=1))
        return result


class AICBVMamba(MapGenerator):
    """Map of cerebral blood volume from a patch of a skull-stripped T1w.

    Parameters
    ----------
    preset : {'full', 'lite', 'test'}
        Widths, see `SIZES`; 84.4, 7.8 and 1.1 million parameters.
    scan : {'hilbert', 'snake', 'raster'}
        Order in which the bottleneck reads the volume.
    n_blocks : int
        State-space blocks of the bottleneck.
    dropout, drop_path : float
        Probabilities in training.

    Attributes
    ----------
    size : Size
        Widths of the preset.
    """

    def __init__(
        self,
        *,
        preset: Preset = 'full',
        scan: ScanOrder = 'hilbert',
        n_blocks: int = 9,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if preset not in SIZES:
            raise OptionError(f'Unknown preset {preset!r}, expected one of {", ".join(SIZES)}.')
        self.size = SIZES[preset]
        c1, c2, c3, c4 = self.size.channels
        width = self.size.width
        self.encoders = nn.ModuleList(
            [ResConv(1, c1), ResConv(c1, c2), ResConv(c2, c3), ResConv(c3, c4)]
        )
        self.pool = nn.MaxPool3d(2)
        self.expand = nn.Sequential(
            nn.GroupNorm(GROUPS, c4), nn.ReLU(), nn.Conv3d(c4, width, 3, padding=1)
        )
        self.bottleneck = nn.Sequential(
            *(
                VSS3D(
                    width,
                    self.size.n_states,
                    order=scan,
                    block=block,
                    dropout=dropout,
                    drop_path=drop_path,
                )
                for block in range(n_blocks)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.compress = nn.Sequential(*_conv_norm_act(width, c4), *_conv_norm_act(c4, c4))
        self.decoders = nn.ModuleList([Up(c4, c3, c3), Up(c3, c2, c2), Up(c2, c1, 2 * c1)])
        self.head = nn.Conv3d(2 * c1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Generate a map.

        Parameters
        ----------
        x : Tensor, shape (B, 1, X, Y, Z)
            T1w, skull-stripped, RAS, 1 mm, divided by the mean of its top 1 % of values;
            each axis a multiple of 8 voxels.

        Returns
        -------
        Tensor, shape (B, 1, X, Y, Z)
            Cerebral blood volume in the units of the training maps.

        Raises
        ------
        OptionError
            An axis is no multiple of 8.
        """
        skips = self.encode(x)
        tokens = self.expand(skips.pop()).movedim(1, -1)
        x = self.compress(self.norm(self.bottleneck(tokens)).movedim(-1, 1))
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        result: Tensor = self.head(x)
        return result
