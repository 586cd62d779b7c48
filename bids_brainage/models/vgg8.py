"""System B: VGG8 on one modality, T1w or AI-synthesised cerebral blood volume.

Jomsky et al., "Enhancing Brain Age Estimation with a Multimodal 3D CNN Approach Combining
Structural MRI and AI-Synthesized Cerebral Blood Volume Data" (arXiv:2412.01865v3).  The
linear fusion of two such networks is in :mod:`bids_brainage.bundles.regressions`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.models.base import AgeRegressor

PUBLISHED_GRID = (182, 218, 182)
CHANNELS = (16, 32, 64, 128, 256)
HIDDEN = (512, 128)


def _block(inp: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv3d(inp, out, 3, padding=1),
            norm=nn.BatchNorm3d(out),
            act=nn.ReLU(inplace=True),
            pool=nn.MaxPool3d(2),
        )
    )


class VGG8(AgeRegressor):
    """Five convolution blocks and three fully connected layers.

    Parameters
    ----------
    input_shape : sequence of int
        Input grid (X, Y, Z), at least 32 voxels an axis; it fixes the size of the first
        fully connected layer.
    blocks : int
        How many of the convolution blocks there are, 1 to 5; fewer is not published.
    hidden : sequence of int
        Units of the fully connected layers before the last one; others are not published, and
        with none, the age is a linear function of what the blocks find.

    Raises
    ------
    OptionError
        `blocks` or `hidden` is out of range.
    UnusableImageError
        The grid is too small.
    """

    saliency_methods = ('gradcam', 'guided_backprop')

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = PUBLISHED_GRID,
        blocks: int = len(CHANNELS),
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        if not 1 <= blocks <= len(CHANNELS) or min([1, *hidden]) < 1:
            raise OptionError(
                f'vgg8: expected blocks from 1 to {len(CHANNELS)} and units above 0 in hidden, '
                f'found blocks = {blocks} and hidden = {list(hidden)}.'
            )
        stride = 2**blocks  # each block halves the grid, rounding down
        if len(self.input_shape) != 3 or min(self.input_shape) < stride:
            raise UnusableImageError(
                f'Input grid {self.input_shape}: expected three axes of at least {stride} voxels.'
            )
        channels = (1, *CHANNELS[:blocks])
        self.features = nn.Sequential(
            OrderedDict(
                (f'block{number}', _block(channels[number - 1], out))
                for number, out in enumerate(channels[1:], start=1)
            )
        )
        units = (channels[-1] * prod(n // stride for n in self.input_shape), *hidden)
        self.head = nn.Sequential()
        for inputs, out in pairwise(units):
            self.head.extend([nn.Linear(inputs, out), nn.ReLU()])
        self.head.append(nn.Linear(units[-1], 1))
        self.gradcam_layer = f'features.block{blocks}.conv'
        self.output_layer = f'head.{len(self.head) - 1}'

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age.

        Parameters
        ----------
        x : Tensor, shape (B, 1, *input_shape)
            Skull-stripped T1w or CBV map in template space, RAS, 1 mm, divided by the mean of
            its top 1 % of values
            (:func:`bids_brainage.inputs.intensity.scale_by_top_percent`).

        Returns
        -------
        Tensor, shape (B,)
            Age in years.

        Raises
        ------
        UnusableImageError
            When the grid is not `input_shape`.
        """
        if tuple(x.shape[1:]) != (1, *self.input_shape):
            raise UnusableImageError(
                f'Input of shape {tuple(x.shape)}: expected (batch, 1, '
                f'{", ".join(map(str, self.input_shape))}).'
            )
        age: Tensor = self.head(self.features(x).flatten(1)).squeeze(1)
        return age
