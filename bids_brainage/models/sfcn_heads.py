"""SFCN with a linear or a ranking output, the networks of pyment.

Leonardsen et al., NeuroImage 2022 (doi:10.1016/j.neuroimage.2022.119210): the convolutions of
SFCN (`bids_brainage.models.sfcn`) with BatchNorm as Keras has it, and another last layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bids_brainage.errors import OptionError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.sfcn import CHANNELS, ConvBlock
from bids_brainage.models.stored_order import StoredOrder, straight_through

AGE_RANGE = (3.0, 95.0)
KERAS_EPS = 1e-3
"""What Keras adds to the variance of a BatchNorm."""


class _SFCNFeatures(AgeRegressor):
    """Convolutions of SFCN, pooled.

    Parameters
    ----------
    age_range : tuple of float
        Lowest and highest age that can be predicted, years.
    n_outputs : int
        Of the last layer.
    mirrored : bool
        Trained on arrays stored from right to left.
    """

    gradcam_layer = 'restore'
    saliency_methods = ('gradcam', 'guided_backprop')

    def __init__(self, age_range: tuple[float, float], n_outputs: int, mirrored: bool) -> None:
        super().__init__()
        self.low, self.high = (float(age) for age in age_range)
        if not self.high - self.low >= 2:
            raise OptionError(f'SFCN: expected a rising age_range, found {age_range}.')
        self.store = StoredOrder(mirrored)
        last = len(CHANNELS) - 1
        inputs = (1, *CHANNELS[:-1])
        self.blocks = nn.Sequential(
            *(
                ConvBlock(before, after, last=index == last, eps=KERAS_EPS)
                for index, (before, after) in enumerate(zip(inputs, CHANNELS, strict=True))
            )
        )
        self.restore = StoredOrder(mirrored)
        self.head = nn.Linear(CHANNELS[-1], n_outputs)

    def outputs(self, x: Tensor) -> Tensor:
        """Return what the last layer gives, shape ``(B, n_outputs)``, for ``(B, 1, X, Y, Z)``."""
        features = self.restore(self.blocks(self.store(x)))
        scores: Tensor = self.head(features.mean(dim=(2, 3, 4)))
        return scores


class SFCNRegression(_SFCNFeatures):
    """Age as one number, cut off at the ends of a range.

    Parameters
    ----------
    age_range : tuple of float
        Lowest and highest age that can be predicted, years.
    mirrored : bool
        Trained on arrays stored from right to left.
    """

    output_layer = 'head'

    def __init__(
        self, *, age_range: tuple[float, float] = AGE_RANGE, mirrored: bool = False
    ) -> None:
        super().__init__(age_range, 1, mirrored)

    def set_output_bias(self, mean_age: float) -> None:
        """Start the output at the mean age (years) of the training set."""
        super().set_output_bias(mean_age - self.low)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age in years, shape ``(B,)``, of volumes ``(B, 1, 167, 212, 160)``.

        An age beyond the range is cut off; its gradient is that of the uncut one.
        """
        age = self.outputs(x).squeeze(1)
        return straight_through(age.clamp(0, self.high - self.low) + self.low, age)


class SFCNRanking(_SFCNFeatures):
    """Age as a count: each output says whether the person is older than one age.

    Parameters
    ----------
    age_range : tuple of whole numbers
        Lowest and highest age, years; there is one output for each year between them.
    mirrored : bool
        Trained on arrays stored from right to left.
    """

    def __init__(
        self, *, age_range: tuple[float, float] = AGE_RANGE, mirrored: bool = False
    ) -> None:
        low, high = age_range
        super().__init__(age_range, int(high - low) - 1, mirrored)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age in years, shape ``(B,)``, of volumes ``(B, 1, 167, 212, 160)``.

        It is the lowest age and the number of outputs above one half; its gradient is that of
        the sum of their probabilities.
        """
        probabilities = torch.sigmoid(self.outputs(x))
        counted = probabilities.round().sum(dim=1) + self.low
        return straight_through(counted, probabilities.sum(dim=1))
