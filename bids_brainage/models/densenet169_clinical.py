"""System C: 3-D DenseNet-169 without its last transition, for routine clinical T1w.

Kim et al., npj Aging 2025 (doi:10.1038/s41514-025-00260-x), "Architecture".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bids_brainage.errors import OptionError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.densenet import DenseNetFeatures
from bids_brainage.models.views import views

BLOCKS = (6, 12, 32, 32)
NEGATIVE_SLOPE = 0.01
#: Grid of the input in voxels of 2 mm, RAS: 160 x 240 x 80 mm.
INPUT_SHAPE = (80, 120, 40)


class DenseNet169Clinical(AgeRegressor):
    """Age from a skull-stripped clinical T1w volume.

    The whole third transition (BN, activation, convolution and pooling) of DenseNet-169 is
    left out, which is the only reading with the 20.4 million parameters of the paper.  Every
    activation is LeakyReLU(0.01).

    Parameters
    ----------
    view_shift : sequence of int, optional
        Once trained, the age is the mean over `views` of the image with this shift (not in the
        paper): thick slices lie elsewhere in every scan, and the mean depends less on where.
        Without it the image is seen once.

    Attributes
    ----------
    features : DenseNetFeatures
        Input to the last BatchNorm, 2304 channels.
    """

    gradcam_layer = 'features'
    output_layer = 'regressor'
    saliency_methods: tuple[str, ...] = ('guided_backprop', 'gradcam')

    def __init__(self, view_shift: Sequence[int] | None = None) -> None:
        super().__init__()
        if view_shift is not None and (len(view_shift) != 3 or min(view_shift) < 0):
            raise OptionError(
                f'view_shift {list(view_shift)}: expected three whole numbers of voxels from 0.'
            )
        self.view_shift = view_shift
        if view_shift is not None:
            self.saliency_methods = ('guided_backprop',)  # Grad-CAM explains one pass alone
        self.features = DenseNetFeatures(BLOCKS, _leaky_relu, last_transition=False)
        self.act = _leaky_relu()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.regressor = nn.Linear(self.features.out_channels, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Kaiming normal (fan-in, slope 0.01) for convolutions and the linear layer."""
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.kaiming_normal_(
                    module.weight, a=NEGATIVE_SLOPE, mode='fan_in', nonlinearity='leaky_relu'
                )
        nn.init.zeros_(self.regressor.bias)

    def penultimate(self, x: Tensor) -> Tensor:
        """Pooled features ``(B, 2304)`` of a volume ``(B, 1, X, Y, Z)``."""
        pooled: Tensor = self.pool(self.act(self.features(x))).flatten(1)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age.

        Parameters
        ----------
        x : Tensor, shape (B, 1, 80, 120, 40)
            T1w, skull-stripped, RAS, 2 mm, divided by its foreground standard deviation
            (`bids_brainage.inputs.clinical.prepare_clinical`).  Any grid of at least
            16 voxels an axis is accepted.

        Returns
        -------
        Tensor, shape (B,)
            Age in years.
        """
        if self.training or self.view_shift is None:
            return self._age(x)
        # checkpoints keep one view in memory where gradients are wanted
        ages = [
            checkpoint(self._age, view, use_reentrant=False) for view in views(x, self.view_shift)
        ]
        return torch.stack(ages).mean(0)

    def _age(self, x: Tensor) -> Tensor:
        age: Tensor = self.regressor(self.penultimate(x)).squeeze(1)
        return age


def _leaky_relu() -> nn.Module:
    return nn.LeakyReLU(NEGATIVE_SLOPE)
