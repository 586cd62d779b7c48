"""System A: CoTResNet3D with a CrossViT head on modulated grey matter.

Zhu et al., "From Infancy to Aging: Precise Brain Age Estimation via Hybrid CoTResNet3D and
CrossViT Models on T1-Weighted Imaging", Bioengineering 2026, 13(3):315
(doi:10.3390/bioengineering13030315).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bids_brainage.errors import UnusableImageError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.cot_resnet import STAGE_CHANNELS, CoTResNet3D, initialise
from bids_brainage.models.transformer import (
    TOKEN_STD,
    CrossAttention,
    EncoderBlock,
    PatchEmbed3D,
    keep_random_tokens,
    positional_code,
)

HEADS = 4
CROSS_GATE_INIT = 0.1
READOUT_WIDTH = 192
#: Stage 3 divides the input by 16, rounding up.
STRIDE = 16
Grid = tuple[int, int, int]


def readout(width: int, dropout: float) -> nn.Sequential:
    """Return LN, Linear to 192, GELU, dropout, Linear to 1: features to age in years."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, READOUT_WIDTH),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(READOUT_WIDTH, 1),
    )


class CrossLayer(nn.Module):
    """One layer of the head: self-attention in each stream, then both class tokens cross."""

    def __init__(
        self,
        dims: Sequence[int],
        path_rate: float,
        sa_blocks: int,
        dropout: float,
        layer_scale: float,
    ) -> None:
        super().__init__()
        small, large = dims

        def stack(dim: int) -> nn.Sequential:
            block = [
                EncoderBlock(dim, HEADS, dropout, path_rate, layer_scale) for _ in range(sa_blocks)
            ]
            return nn.Sequential(*block)

        def cross(dim: int, other: int) -> CrossAttention:
            return CrossAttention(
                dim, other, HEADS, dropout, path_rate, layer_scale, CROSS_GATE_INIT
            )

        self.self_small = stack(small)
        self.self_large = stack(large)
        self.cross_small = cross(small, large)
        self.cross_large = cross(large, small)

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both updated streams, then the attention on small and on large patches.

        Both directions read the class tokens before either is updated.
        """
        small, large = self.self_small(small), self.self_large(large)
        cls_small, on_large = self.cross_small(small[:, :1], large[:, 1:])
        cls_large, on_small = self.cross_large(large[:, :1], small[:, 1:])
        small = torch.cat((cls_small, small[:, 1:]), dim=1)
        large = torch.cat((cls_large, large[:, 1:]), dim=1)
        return small, large, on_small, on_large


class ResNetCrossViT(AgeRegressor):
    """Age from a modulated grey-matter map.

    Parameters
    ----------
    blocks_per_stage, se_stages, cot, channels
        See :class:`bids_brainage.models.cot_resnet.CoTResNet3D`.
    dims : sequence of int
        Token widths of the small (stage 3) and the large (stage 2) stream.
    depth : int
        Layers of the head.
    sa_blocks : int
        Self-attention blocks per stream and layer.
    patch : int
        Patch edge in cells of the feature maps.
    dropout, drop_path : float
        Dropout everywhere in the network, and the drop-path rate of the last layer (rates
        grow linearly from 0).
    layer_scale_init : float
        Start of the LayerScale factors.
    token_keep_rate : float
        Share of patch tokens that a training step sees; 1 keeps all.
    freeze_backbone : bool
        Train the head alone; the backbone also stays in eval mode, so that its BatchNorm
        statistics do not move.
    gradcam_stage : int
        Stage whose maps Grad-CAM weighs; on coarse grids those of the last have a few cells only.
    """

    output_layer = 'readout.4'
    saliency_methods = ('gradcam', 'attention')

    def __init__(
        self,
        *,
        blocks_per_stage: int = 2,
        se_stages: Iterable[int] = (2, 3),
        dims: Sequence[int] = (96, 160),
        depth: int = 2,
        sa_blocks: int = 1,
        patch: int = 2,
        dropout: float = 0.1,
        drop_path: float = 0.1,
        layer_scale_init: float = 1e-4,
        token_keep_rate: float = 1.0,
        freeze_backbone: bool = False,
        cot: bool = True,
        channels: Sequence[int] = STAGE_CHANNELS,
        gradcam_stage: int = 3,
    ) -> None:
        super().__init__()
        self.gradcam_layer = f'backbone.stage{gradcam_stage}'
        self.patch = patch
        self.token_keep_rate = token_keep_rate
        self.freeze_backbone = freeze_backbone
        small, large = dims
        self.backbone = CoTResNet3D(blocks_per_stage, se_stages, dropout, cot, channels)
        self.embed_small = PatchEmbed3D(channels[2], small, patch)
        self.embed_large = PatchEmbed3D(channels[1], large, patch)
        self.cls_small = nn.Parameter(torch.zeros(1, 1, small))
        self.cls_large = nn.Parameter(torch.zeros(1, 1, large))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.layers = nn.ModuleList(
            CrossLayer(dims, rate, sa_blocks, dropout, layer_scale_init) for rate in rates
        )
        self.norm_small = nn.LayerNorm(small)
        self.norm_large = nn.LayerNorm(large)
        self.readout = readout(small + large, dropout)
        initialise(self)
        for token in (self.cls_small, self.cls_large):
            nn.init.trunc_normal_(token, std=TOKEN_STD)
        self.backbone.requires_grad_(not freeze_backbone)

    def train(self, mode: bool = True) -> ResNetCrossViT:
        """Set training mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def tokens(self, feature_map: Tensor, embed: PatchEmbed3D, cls: Tensor) -> tuple[Tensor, Grid]:
        """Return class token and patch tokens (B, 1 + N, dim) of a stream, and their grid.

        Patch tokens carry the positional code, the class token does not.
        """
        patches, grid = embed(feature_map)
        code = torch.from_numpy(positional_code(grid, patches.shape[-1]))
        patches = patches + code.to(patches)
        if self.training and self.token_keep_rate < 1:
            patches = keep_random_tokens(patches, self.token_keep_rate)
        return torch.cat((cls.expand(len(patches), -1, -1), patches), dim=1), grid

    def _check_grid(self, x: Tensor) -> None:
        least = STRIDE * (self.patch - 1) + 1
        if x.ndim != 5 or x.shape[1] != 1 or min(x.shape[2:]) < least:
            raise UnusableImageError(
                f'Input of shape {tuple(x.shape)}: expected (batch, 1, X, Y, Z) with at least '
                f'{least} voxels along every axis.'
            )

    def _run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._check_grid(x)
        stage2, stage3 = self.backbone(x)
        small, grid_small = self.tokens(stage3, self.embed_small, self.cls_small)
        large, grid_large = self.tokens(stage2, self.embed_large, self.cls_large)
        on_small = on_large = x.new_zeros(0)
        for layer in self.layers:
            small, large, on_small, on_large = layer(small, large)
        streams = (self.norm_small(small[:, 0]), self.norm_large(large[:, 0]))
        age = self.readout(torch.cat(streams, dim=1)).squeeze(1)
        if self.training:
            return age, {}
        return age, {
            'small': on_small.unflatten(1, grid_small),
            'large': on_large.unflatten(1, grid_large),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Predict the age.

        Parameters
        ----------
        x : Tensor, shape (B, 1, X, Y, Z)
            Modulated, spatially normalised grey matter, 2 mm, RAS, unscaled; 84 x 102 x 84
            for the published grid, at least 17 voxels an axis.

        Returns
        -------
        Tensor, shape (B,)
            Age in years.
        """
        return self._run(x)[0]

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return where the class tokens of the last layer look (not in the paper; ours).

        Parameters
        ----------
        x : Tensor, shape (B, 1, X, Y, Z)
            As in :meth:`forward`; the model must be in eval mode.

        Returns
        -------
        dict of Tensor
            ``small`` (B, 3, 3, 3) on stage-3 patches and ``large`` (B, 5, 6, 5) on stage-2
            patches for the published grid; averaged over heads, each map sums to 1.
        """
        return self._run(x)[1]
