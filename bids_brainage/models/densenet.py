"""Three-dimensional DenseNet features shared by Systems C and D.

Huang et al. 2017, "Densely Connected Convolutional Networks"
(doi:10.1109/CVPR.2017.243), with 3-D convolutions.  Activations are separate modules and
never work in place, so that guided backpropagation can replace each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

#: Builds one activation module.
ActivationFactory = Callable[[], nn.Module]

GROWTH = 32
BOTTLENECK_FACTOR = 4
STEM_CHANNELS = 64


class DenseLayer(nn.Module):
    """One bottleneck layer: BN, act, conv k1, BN, act, conv k3, concatenated to its input.

    Parameters
    ----------
    channels : int
        Channels of the input.
    growth : int
        Channels added to it.
    activation : callable
        Builds an activation module.
    """

    def __init__(self, channels: int, growth: int, activation: ActivationFactory) -> None:
        super().__init__()
        width = BOTTLENECK_FACTOR * growth
        self.norm1 = nn.BatchNorm3d(channels)
        self.act1 = activation()
        self.conv1 = nn.Conv3d(channels, width, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(width)
        self.act2 = activation()
        self.conv2 = nn.Conv3d(width, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, X, Y, Z)`` to ``(B, C + growth, X, Y, Z)``."""
        new = self.conv1(self.act1(self.norm1(x)))
        new = self.conv2(self.act2(self.norm2(new)))
        return torch.cat([x, new], dim=1)


class Transition(nn.Sequential):
    """BN, act, conv k1 and average pooling by 2, between two dense blocks.

    Parameters
    ----------
    channels, out_channels : int
        Channels before and after.
    activation : callable
        Builds an activation module.
    """

    def __init__(self, channels: int, out_channels: int, activation: ActivationFactory) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels)
        self.act = activation()
        self.conv = nn.Conv3d(channels, out_channels, 1, bias=False)
        self.pool = nn.AvgPool3d(2)


class DenseNetFeatures(nn.Module):
    """Convolutional part of a 3-D DenseNet, up to and including the last BatchNorm.

    Parameters
    ----------
    blocks : sequence of int
        Layers of each dense block.
    activation : callable
        Builds an activation module.
    last_transition : bool
        Keep the transition before the last dense block (the original network does).
    growth, stem_channels : int
        Channels added by a layer, and those after the stem.

    Attributes
    ----------
    out_channels : int
        Channels of the output.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        activation: ActivationFactory,
        *,
        last_transition: bool = True,
        growth: int = GROWTH,
        stem_channels: int = STEM_CHANNELS,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.conv = nn.Conv3d(1, stem_channels, 7, stride=2, padding=3, bias=False)
        self.stem.norm = nn.BatchNorm3d(stem_channels)
        self.stem.act = activation()
        self.stem.pool = nn.MaxPool3d(3, stride=2, padding=1)
        self.stages = nn.Sequential()
        channels = stem_channels
        for index, n_layers in enumerate(blocks, start=1):
            layers = [
                DenseLayer(channels + i * growth, growth, activation) for i in range(n_layers)
            ]
            channels += n_layers * growth
            self.stages.add_module(f'block{index}', nn.Sequential(*layers))
            followed = index < len(blocks) - (0 if last_transition else 1)
            if followed:
                self.stages.add_module(
                    f'transition{index}', Transition(channels, channels // 2, activation)
                )
                channels //= 2
        self.norm = nn.BatchNorm3d(channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Map a volume ``(B, 1, X, Y, Z)`` to features ``(B, out_channels, X', Y', Z')``."""
        features: Tensor = self.norm(self.stages(self.stem(x)))
        return features
