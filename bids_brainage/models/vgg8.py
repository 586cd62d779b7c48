"""System B: VGG8 on one modality, T1w or AI-synthesised cerebral blood volume.

Jomsky et al., "Enhancing Brain Age Estimation with a Multimodal 3D CNN Approach Combining
Structural MRI and AI-Synthesized Cerebral Blood Volume Data" (arXiv:2412.01865v3).  The
linear fusion of two such networks is in :mod:`bids_brainage.bundles.regressions`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from bids_brainage.errors import UnusableImageError
from bids_brainage.models.base import AgeRegressor

PUBLISHED_GRID = (182, 218, 182)
CHANNELS = (16, 32, 64, 128, 256)
HIDDEN = (512, 128)
#: Five poolings by 2, rounding down.
STRIDE = 2 ** len(CHANNELS)


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
    """

    gradcam_layer = 'features.block5.conv'
    output_layer = 'head.4'
    saliency_methods = ('gradcam', 'guided_backprop')

    def __init__(self, *, input_shape: Sequence[int] = PUBLISHED_GRID) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        if len(self.input_shape) != 3 or min(self.input_shape) < STRIDE:
            raise UnusableImageError(
                f'Input grid {self.input_shape}: expected three axes of at least {STRIDE} voxels.'
            )
        inputs = (1, *CHANNELS)
        self.features = nn.Sequential(
            OrderedDict(
                (f'block{number}', _block(inputs[number - 1], out))
                for number, out in enumerate(CHANNELS, start=1)
            )
        )
        flat = CHANNELS[-1] * prod(n // STRIDE for n in self.input_shape)
        self.head = nn.Sequential(
            nn.Linear(flat, HIDDEN[0]),
            nn.ReLU(),
            nn.Linear(HIDDEN[0], HIDDEN[1]),
            nn.ReLU(),
            nn.Linear(HIDDEN[1], 1),
        )

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
