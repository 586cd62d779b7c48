"""MedNeXt encoder with an age at its end, the network of BrainAgeNeXt.

La Rosa et al., Imaging Neuroscience 2025 (doi:10.1162/imag_a_00487), which takes the encoder of
MedNeXt-B (Roy et al., MICCAI 2023, doi:10.48550/arXiv.2303.09975).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bids_brainage.errors import OptionError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.stored_order import StoredOrder

CHANNELS = 32
EXPANSION = (2, 3, 4, 4, 4)
"""Widening inside the blocks, from the finest to the coarsest of five levels."""
N_BLOCKS = 2
HIDDEN = 64
#: Grid of the input in voxels of 1 mm.
INPUT_SHAPE = (160, 192, 160)


class Block(nn.Module):
    """Depthwise convolution, norm of each channel, widening, GELU, narrowing; plus a shortcut.

    Parameters
    ----------
    channels, out_channels : int
        Before and after.
    expansion : int
        Widening.
    down : bool
        Halve the grid; the shortcut is then a convolution.
    """

    def __init__(self, channels: int, out_channels: int, expansion: int, *, down: bool) -> None:
        super().__init__()
        stride = 2 if down else 1
        self.depthwise = nn.Conv3d(
            channels, channels, 3, stride=stride, padding=1, groups=channels
        )
        self.norm = nn.GroupNorm(channels, channels)
        self.expand = nn.Conv3d(channels, expansion * channels, 1)
        self.act = nn.GELU()
        self.compress = nn.Conv3d(expansion * channels, out_channels, 1)
        self.shortcut = nn.Conv3d(channels, out_channels, 1, stride=2) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, X, Y, Z)`` to ``(B, C', X', Y', Z')``."""
        new: Tensor = self.compress(self.act(self.expand(self.norm(self.depthwise(x)))))
        return new + self.shortcut(x)


class MedNeXtRegressor(AgeRegressor):
    """Age from an aligned brain.

    Parameters
    ----------
    channels : int
        Of the finest level; each coarser one has twice as many.
    expansion : sequence of int
        Widening inside the blocks of each level.
    mirrored : bool
        Trained on arrays stored from right to left.
    """

    gradcam_layer = 'restore'
    output_layer = 'head.2'
    saliency_methods = ('gradcam',)

    def __init__(
        self,
        *,
        channels: int = CHANNELS,
        expansion: Sequence[int] = EXPANSION,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        if channels < 1 or len(expansion) < 2 or min(expansion) < 1:
            raise OptionError(
                f'MedNeXt: expected channels and expansions from 1 on two or more levels, found '
                f'{channels} and {list(expansion)}.'
            )
        self.store = StoredOrder(mirrored)
        self.stem = nn.Conv3d(1, channels, 1)
        self.levels = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, ratio in enumerate(expansion):
            if level:
                self.downs.append(Block(channels, 2 * channels, ratio, down=True))
                channels *= 2
            blocks = (Block(channels, channels, ratio, down=False) for _ in range(N_BLOCKS))
            self.levels.append(nn.Sequential(*blocks))
        self.restore = StoredOrder(mirrored)
        self.head = nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age.

        Parameters
        ----------
        x : Tensor, shape (B, 1, 160, 192, 160)
            Skull-stripped T1w brain, RAS, 1 mm, z-scored
            (`bids_brainage.inputs.published.prepare_brainagenext`).  Any grid of at least 32
            voxels an axis is accepted.

        Returns
        -------
        Tensor, shape (B,)
            Age in years.
        """
        x = self.levels[0](self.stem(self.store(x)))
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            x = level(down(x))
        pooled = torch.flatten(nn.functional.adaptive_avg_pool3d(self.restore(x), 1), 1)
        age: Tensor = self.head(pooled).squeeze(1)
        return age
