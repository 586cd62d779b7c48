"""Three-dimensional DenseNet-201, the network of SynthBA.

Puglisi et al., MetroXRAINE 2024 (doi:10.48550/arXiv.2406.00365), which takes the
DenseNet of MONAI (Huang et al. 2017, doi:10.1109/CVPR.2017.243).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.densenet import DenseNetFeatures
from bids_brainage.models.stored_order import StoredOrder

BLOCKS = (6, 12, 48, 32)
#: Grid of the input of SynthBA in voxels of 1.4 mm.
INPUT_SHAPE = (130, 130, 130)


class DenseNet201(AgeRegressor):
    """Age from an aligned brain of any contrast.

    Parameters
    ----------
    mirrored : bool
        Trained on arrays stored from right to left.
    unit_years : float
        Years in one unit of the output layer (SynthBA: 100).
    """

    gradcam_layer = 'restore'
    output_layer = 'regressor'
    saliency_methods = ('gradcam', 'guided_backprop')

    def __init__(self, *, mirrored: bool = False, unit_years: float = 1.0) -> None:
        super().__init__()
        self.unit_years = unit_years
        self.store = StoredOrder(mirrored)
        self.features = DenseNetFeatures(BLOCKS, nn.ReLU)
        self.act = nn.ReLU()
        self.restore = StoredOrder(mirrored)
        self.regressor = nn.Linear(self.features.out_channels, 1)

    def set_output_bias(self, mean_age: float) -> None:
        """Start the output at the mean age (years) of the training set."""
        super().set_output_bias(mean_age / self.unit_years)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age.

        Parameters
        ----------
        x : Tensor, shape (B, 1, 130, 130, 130)
            Skull-stripped brain, RAS, 1.4 mm, between 0 and 1
            (`bids_brainage.inputs.published.prepare_synthba`).  Any grid of at least 32
            voxels an axis is accepted.

        Returns
        -------
        Tensor, shape (B,)
            Age in years.
        """
        features = self.restore(self.act(self.features(self.store(x))))
        pooled = torch.flatten(nn.functional.adaptive_avg_pool3d(features, 1), 1)
        age: Tensor = self.regressor(pooled).squeeze(1) * self.unit_years
        return age
