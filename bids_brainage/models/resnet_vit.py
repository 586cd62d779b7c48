"""Ablation baseline of System A: CNN and ViT side by side, without cross-attention.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.cot_resnet import STAGE_CHANNELS, CoTResNet3D, initialise
from bids_brainage.models.resnet_crossvit import readout
from bids_brainage.models.vit_only import PUBLISHED_GRID, ViTEncoder


class ResNetViT(AgeRegressor):
    """Pooled CNN vector and ViT class token, concatenated, then the readout of System A.

    Parameters
    ----------
    input_shape, dim, heads, depth, drop_path
        See :class:`bids_brainage.models.vit_only.ViTEncoder`.
    blocks_per_stage, se_stages, cot
        See :class:`bids_brainage.models.cot_resnet.CoTResNet3D`.
    dropout : float
        Of both branches and of the readout.
    """

    gradcam_layer = 'backbone.stage3'
    output_layer = 'readout.4'
    saliency_methods = ('gradcam',)

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = PUBLISHED_GRID,
        dim: int = 256,
        heads: int = 4,
        depth: int = 12,
        blocks_per_stage: int = 2,
        se_stages: Iterable[int] = (2, 3),
        dropout: float = 0.1,
        drop_path: float = 0.1,
        cot: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = CoTResNet3D(blocks_per_stage, se_stages, dropout, cot)
        self.encoder = ViTEncoder(input_shape, dim, heads, depth, dropout, drop_path)
        self.readout = readout(STAGE_CHANNELS[2] + dim, dropout)
        initialise(self)
        self.encoder.reset_tokens()

    def forward(self, x: Tensor) -> Tensor:
        """Return ages in years (B,) from modulated grey matter (B, 1, X, Y, Z), 2 mm, RAS."""
        token = self.encoder(x)
        pooled = self.backbone(x)[1].mean(dim=(2, 3, 4))
        age: Tensor = self.readout(torch.cat((pooled, token), dim=1)).squeeze(1)
        return age
