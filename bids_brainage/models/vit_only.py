"""Ablation baseline of System A: a plain vision transformer on 16-voxel patches.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315).  The paper
gives patch size and number of layers; width and heads are chosen so that the size matches
the main model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bids_brainage.errors import UnusableImageError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.cot_resnet import initialise
from bids_brainage.models.transformer import TOKEN_STD, EncoderBlock, PatchEmbed3D

PATCH = 16
PUBLISHED_GRID = (84, 102, 84)


class ViTEncoder(nn.Module):
    """Patches, class token, learned positions and pre-norm layers; returns the class token.

    Parameters
    ----------
    input_shape : sequence of int
        Input grid (X, Y, Z); voxels beyond the last whole patch are not seen.
    dim, heads, depth : int
        Token width, attention heads, number of layers.
    dropout, drop_path : float
        Dropout, and drop-path rate of the last layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        dim: int = 256,
        heads: int = 4,
        depth: int = 12,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.grid = tuple(n // PATCH for n in self.input_shape)
        count = self.grid[0] * self.grid[1] * self.grid[2]
        if count == 0:
            raise UnusableImageError(
                f'Input grid {self.input_shape}: expected at least {PATCH} voxels per axis.'
            )
        self.embed = PatchEmbed3D(1, dim, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, 1 + count, dim))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, dropout, r, None) for r in rates)
        # Patch tokens pass here on their grid before the last layer, the latest place where
        # they still reach the class token, so that Grad-CAM can weigh them.
        self.token_grid = nn.Identity()
        self.norm = nn.LayerNorm(dim)

    def reset_tokens(self) -> None:
        """Draw class token and positions (truncated normal, std 0.02)."""
        nn.init.trunc_normal_(self.cls, std=TOKEN_STD)
        nn.init.trunc_normal_(self.position, std=TOKEN_STD)

    def _through_grid(self, x: Tensor) -> Tensor:
        cells = self.token_grid(x[:, 1:].transpose(1, 2).unflatten(2, self.grid))
        return torch.cat((x[:, :1], cells.flatten(2).transpose(1, 2)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised class token (B, dim) of a volume (B, 1, X, Y, Z)."""
        if tuple(x.shape[1:]) != (1, *self.input_shape):
            raise UnusableImageError(
                f'Input of shape {tuple(x.shape)}: expected (batch, 1, '
                f'{", ".join(map(str, self.input_shape))}).'
            )
        patches, _ = self.embed(x)
        x = torch.cat((self.cls.expand(len(x), -1, -1), patches), dim=1) + self.position
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](self._through_grid(x))
        cls: Tensor = self.norm(x[:, 0])
        return cls


class ViTOnly(AgeRegressor):
    """Age from the class token of :class:`ViTEncoder`, whose options it takes."""

    gradcam_layer = 'encoder.token_grid'
    output_layer = 'head'
    saliency_methods = ('gradcam',)

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = PUBLISHED_GRID,
        dim: int = 256,
        heads: int = 4,
        depth: int = 12,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = ViTEncoder(input_shape, dim, heads, depth, dropout, drop_path)
        self.head = nn.Linear(dim, 1)
        initialise(self)
        self.encoder.reset_tokens()

    def forward(self, x: Tensor) -> Tensor:
        """Return ages in years (B,) from modulated grey matter (B, 1, X, Y, Z), 2 mm, RAS."""
        age: Tensor = self.head(self.encoder(x)).squeeze(1)
        return age
