"""Transformer parts shared by System A and its ViT baselines.

Positional code, tokens and self-attention follow Zhu et al., Bioengineering 2026, 13(3):315
(doi:10.3390/bioengineering13030315).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOKEN_STD = 0.02


def axis_widths(dim: int) -> tuple[int, int, int]:
    """Return how many of `dim` columns code each array axis: b, b, dim - 2b, with b even."""
    base = dim // 3
    base += base % 2
    return base, base, dim - 2 * base


def _axis_code(length: int, width: int) -> npt.NDArray[np.float64]:
    frequency = 10000.0 ** (-np.arange(0, width, 2) / width)
    angle = np.arange(length)[:, None] * frequency
    code = np.empty((length, width))
    code[:, 0::2] = np.sin(angle)
    code[:, 1::2] = np.cos(angle)
    return code


@lru_cache(maxsize=16)
def positional_code(grid: tuple[int, int, int], dim: int) -> npt.NDArray[np.float32]:
    """Return the fixed sine-cosine code of every cell of a token grid.

    Parameters
    ----------
    grid : tuple of int
        Token grid (X, Y, Z).
    dim : int
        Token width, even.

    Returns
    -------
    ndarray, float32, shape (X * Y * Z, dim)
        Array axis 0 varies slowest.  Columns of axis 0, 1, 2 in turn; for integer coordinate
        t and width d, column 2i is sin(t * 10000^(-2i/d)) and column 2i+1 its cosine.
    """
    parts = []
    for axis, (length, width) in enumerate(zip(grid, axis_widths(dim), strict=True)):
        shape = [1, 1, 1, width]
        shape[axis] = length
        parts.append(np.broadcast_to(_axis_code(length, width).reshape(shape), (*grid, width)))
    code: npt.NDArray[np.float32] = np.concatenate(parts, axis=-1).astype(np.float32)
    return code.reshape(-1, dim)


def drop_path(x: Tensor, probability: float, training: bool) -> Tensor:
    """Drop the update of whole samples, and scale the others so that the mean stays."""
    if not training or probability == 0.0:
        return x
    keep = 1.0 - probability
    mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
    return x * mask / keep


def keep_random_tokens(tokens: Tensor, rate: float) -> Tensor:
    """Keep a random share of the tokens, another subset for every sample, in order.

    Parameters
    ----------
    tokens : Tensor, shape (B, N, D)
        Patch tokens, without class token.
    rate : float
        Share to keep, in (0, 1]; at least one token stays.

    Returns
    -------
    Tensor, shape (B, max(1, round(rate * N)), D)
    """
    batch, count, dim = tokens.shape
    kept = max(1, round(rate * count))
    if kept == count:
        return tokens
    order = torch.rand(batch, count, device=tokens.device).argsort(dim=1)
    index = order[:, :kept].sort(dim=1).values
    return tokens.gather(1, index[..., None].expand(-1, -1, dim))


class PatchEmbed3D(nn.Module):
    """Non-overlapping patches to tokens by an unpadded strided convolution (with bias)."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.project = nn.Conv3d(channels, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Return tokens (B, N, dim), array axis 0 slowest, and their grid; remainders are cut."""
        cells: Tensor = self.project(x)
        nx, ny, nz = cells.shape[2:]
        return cells.flatten(2).transpose(1, 2), (nx, ny, nz)


class MLP(nn.Module):
    """Linear, GELU, Linear, with dropout after both."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., dim) from (..., dim)."""
        out: Tensor = self.layers(x)
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention with biased projections."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.rate = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, N, dim) from (B, N, dim)."""
        batch, count, dim = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        out: Tensor = self.dropout(self.project(mixed.transpose(1, 2).reshape(x.shape)))
        return out


class EncoderBlock(nn.Module):
    """Pre-norm self-attention block.

    ``x = x + DP(g1 * MHSA(LN(x)))``; ``x = x + DP(g2 * MLP(LN(x)))``.

    Parameters
    ----------
    dim, heads : int
        Token width and number of heads; the MLP is four times as wide.
    dropout, path_rate : float
        Dropout, and probability of dropping the update of a sample.
    layer_scale : float or None
        Initial value of the per-channel factors g1, g2; None leaves them out.
    """

    scale1: nn.Parameter | None
    scale2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        path_rate: float,
        layer_scale: float | None,
    ) -> None:
        super().__init__()
        self.path_rate = path_rate
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim, dropout)
        for name in ('scale1', 'scale2'):
            scale = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))
            self.register_parameter(name, scale)

    def _update(self, y: Tensor, scale: Tensor | None) -> Tensor:
        return drop_path(y if scale is None else scale * y, self.path_rate, self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, N, dim) from (B, N, dim)."""
        x = x + self._update(self.attention(self.norm1(x)), self.scale1)
        return x + self._update(self.mlp(self.norm2(x)), self.scale2)


class CrossAttention(nn.Module):
    """A class token of one stream reads the patch tokens of the other.

    The class token is brought to the width of the other stream, queries its patches (never
    its class token), and the answer is brought back::

        q = Wq LN(P_in(cls));  k, v = Wk, Wv LN(patches)
        cls = cls + DP(gate * g1 * P_out(Wo softmax(q k / sqrt(d)) v))
        cls = cls + DP(g2 * MLP(LN(cls)))

    Parameters
    ----------
    dim, other : int
        Width of the reading and of the read stream.
    heads : int
        At width `other`.
    dropout, path_rate : float
        As in :class:`EncoderBlock`.
    layer_scale, gate : float
        Initial values.
    """

    def __init__(
        self,
        dim: int,
        other: int,
        heads: int,
        dropout: float,
        path_rate: float,
        layer_scale: float,
        gate: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.path_rate = path_rate
        self.enter = nn.Linear(dim, other)
        self.norm_query = nn.LayerNorm(other)
        self.norm_patches = nn.LayerNorm(other)
        self.query = nn.Linear(other, other)
        self.key = nn.Linear(other, other)
        self.value = nn.Linear(other, other)
        self.mix = nn.Linear(other, other)
        self.leave = nn.Linear(other, dim)
        self.norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim, dropout)
        self.scale1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.scale2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.gate = nn.Parameter(torch.full((1,), gate))
        self.dropout = nn.Dropout(dropout)

    def _split(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        return x.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Update the class token.

        Parameters
        ----------
        cls : Tensor, shape (B, 1, dim)
            Class token of the reading stream.
        patches : Tensor, shape (B, N, other)
            Patch tokens of the read stream.

        Returns
        -------
        cls : Tensor, shape (B, 1, dim)
            Updated class token.
        attention : Tensor, shape (B, N)
            Attention on the patches, averaged over heads; sums to 1 in eval mode.
        """
        source = self.norm_patches(patches)
        query = self._split(self.query(self.norm_query(self.enter(cls))))
        key, value = self._split(self.key(source)), self._split(self.value(source))
        scores = query @ key.transpose(2, 3) * key.shape[-1] ** -0.5
        attention = self.dropout(scores.softmax(dim=-1))
        answer = (attention @ value).transpose(1, 2).flatten(2)
        update = self.gate * self.scale1 * self.leave(self.dropout(self.mix(answer)))
        cls = cls + drop_path(update, self.path_rate, self.training)
        update = self.scale2 * self.mlp(self.norm(cls))
        cls = cls + drop_path(update, self.path_rate, self.training)
        return cls, attention.mean(dim=1).squeeze(1)
