"""Ablation baseline of System A: its convolutional branch alone.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.cot_resnet import STAGE_CHANNELS, CoTResNet3D, initialise


class ResNetOnly(AgeRegressor):
    """CoTResNet3D, global average pool, one Linear layer.

    Parameters
    ----------
    blocks_per_stage, se_stages, dropout, cot
        See :class:`bids_brainage.models.cot_resnet.CoTResNet3D`.
    """

    gradcam_layer = 'backbone.stage3'
    output_layer = 'head'
    saliency_methods = ('gradcam',)

    def __init__(
        self,
        *,
        blocks_per_stage: int = 2,
        se_stages: Iterable[int] = (2, 3),
        dropout: float = 0.1,
        cot: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = CoTResNet3D(blocks_per_stage, se_stages, dropout, cot)
        self.head = nn.Linear(STAGE_CHANNELS[2], 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return ages in years (B,) from modulated grey matter (B, 1, X, Y, Z), 2 mm, RAS."""
        pooled = self.backbone(x)[1].mean(dim=(2, 3, 4))
        age: Tensor = self.head(pooled).squeeze(1)
        return age
