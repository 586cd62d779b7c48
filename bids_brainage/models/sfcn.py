"""SFCN: the simple fully convolutional network with a distribution over ages as output.

Peng et al., Medical Image Analysis 2021 (doi:10.1016/j.media.2020.101871).  The public
weights of its authors can be brought into a bundle with
``bids_brainage convert sfcn``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bids_brainage.errors import OptionError
from bids_brainage.models.base import AgeRegressor

CHANNELS = (32, 64, 128, 256, 256, 64)
N_BINS = 40
AGE_RANGE = (42.0, 82.0)
#: Grid of the input in voxels of 1 mm, cut from the middle of the MNI152 grid.
INPUT_SHAPE = (160, 192, 160)


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, maximum pooling by 2 (except in the last block), ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    last : bool
        Kernel 1 without pooling instead of kernel 3 with pooling.
    eps : float
        Added to the variance of the BatchNorm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, last: bool, eps: float = 1e-5
    ) -> None:
        super().__init__()
        kernel = 1 if last else 3
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm3d(out_channels, eps=eps)
        self.pool = nn.Identity() if last else nn.MaxPool3d(2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, X, Y, Z)`` to ``(B, C', X/2, Y/2, Z/2)``, or the same grid if last."""
        result: Tensor = self.act(self.pool(self.norm(self.conv(x))))
        return result


class SFCN(AgeRegressor):
    """Age from a linearly registered T1w brain, as the mean of a distribution over bins.

    Parameters
    ----------
    age_range : tuple of float
        Lower edge of the first and upper edge of the last bin in years.
    n_bins : int
        Bins of equal width in that range.  Predictions cannot leave it.
    dropout : float
        Probability before the last convolution, in training.

    Attributes
    ----------
    bin_centres : Tensor, shape (n_bins,)
        Years: 42.5, 43.5, ... 81.5 by default.
    """

    gradcam_layer = 'blocks.5'
    saliency_methods = ('gradcam', 'guided_backprop')
    bin_centres: Tensor

    def __init__(
        self,
        *,
        age_range: tuple[float, float] = AGE_RANGE,
        n_bins: int = N_BINS,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        low, high = (float(age) for age in age_range)
        if not high > low or n_bins < 2:
            raise OptionError(
                f'SFCN: expected a rising age_range and at least 2 bins, found {age_range} and '
                f'{n_bins}.'
            )
        last = len(CHANNELS) - 1
        self.blocks = nn.Sequential(
            *(
                ConvBlock(before, after, last=index == last)
                for index, (before, after) in enumerate(
                    zip((1, *CHANNELS[:-1]), CHANNELS, strict=True)
                )
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv3d(CHANNELS[-1], n_bins, 1)
        width = (high - low) / n_bins
        centres = low + width * (torch.arange(n_bins, dtype=torch.float64) + 0.5)
        self.register_buffer('bin_centres', centres.float(), persistent=False)

    def log_probabilities(self, x: Tensor) -> Tensor:
        """Logarithm of the probability of each bin.

        Parameters
        ----------
        x : Tensor, shape (B, 1, 160, 192, 160)
            T1w brain in MNI152 space, RAS, 1 mm, divided by its mean
            (`bids_brainage.inputs.sfcn.prepare_sfcn`).  Any grid of at least 32
            voxels an axis is accepted.

        Returns
        -------
        Tensor, shape (B, n_bins)
            Natural logarithm; the exponentials sum to 1.
        """
        pooled = self.blocks(x).mean(dim=(2, 3, 4), keepdim=True)
        scores: Tensor = self.head(self.dropout(pooled)).flatten(1)
        return scores.log_softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the expected age in years, shape ``(B,)``; see `log_probabilities`."""
        return self.log_probabilities(x).exp() @ self.bin_centres
