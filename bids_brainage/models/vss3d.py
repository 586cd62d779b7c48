"""Vision state-space blocks on volumes (VSS3D), channels last.

Cao, Li, Guo, "MedSegMamba" (arXiv:2409.08307): a selective scan of the volume along several
paths takes the place of self-attention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bids_brainage.models.scan_paths import N_DIRECTIONS, Grid, ScanOrder, scan_paths
from bids_brainage.models.selective_scan import selective_scan
from bids_brainage.models.transformer import drop_path

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4


class SS3D(nn.Module):
    """Selective scan of a volume in eight directions, summed.

    Parameters
    ----------
    width : int
        Channels d.
    n_states : int
        States N of each channel and direction.
    order : {'hilbert', 'snake', 'raster'}
        Base order of the paths.
    block : int
        Number of the block, which permutes the axes of the paths.
    dropout : float
        Probability after the last layer.
    """

    path: Tensor
    inverse: Tensor

    def __init__(
        self,
        width: int,
        n_states: int,
        *,
        order: ScanOrder = 'hilbert',
        block: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.order, self.block = order, block
        self.n_states = n_states
        self.rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, width, bias=False)
        self.conv = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.x_proj = nn.Parameter(torch.empty(N_DIRECTIONS, self.rank + 2 * n_states, width))
        self.dt_weight = nn.Parameter(torch.empty(N_DIRECTIONS, width, self.rank))
        self.dt_bias = nn.Parameter(torch.empty(N_DIRECTIONS, width))
        self.a_log = nn.Parameter(torch.empty(N_DIRECTIONS, width, n_states))
        self.d = nn.Parameter(torch.ones(N_DIRECTIONS, width))
        self.norm = nn.LayerNorm(width)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.grid: Grid | None = None
        self.register_buffer('path', torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer('inverse', torch.empty(0, dtype=torch.long), persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Set rates -(1..N) and step sizes log-uniform in [1e-3, 0.1]."""
        bound = self.x_proj.shape[-1] ** -0.5
        nn.init.uniform_(self.x_proj, -bound, bound)
        nn.init.uniform_(self.dt_weight, -(self.rank**-0.5), self.rank**-0.5)
        self.a_log.copy_(torch.arange(1, self.n_states + 1).float().log().expand_as(self.a_log))
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt = nn.init.uniform_(torch.empty_like(self.dt_bias), low, high).exp().clamp(min=DT_FLOOR)
        # inverse of softplus
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def _set_grid(self, grid: Grid, device: torch.device) -> None:
        """Store the paths of a grid, (voxels, 8), until another grid comes."""
        if self.grid != grid or self.path.device != device:
            paths, inverses = scan_paths(grid, self.order, block=self.block)
            self.path = torch.tensor(paths.T, device=device)
            self.inverse = torch.tensor(inverses.T, device=device)
            self.grid = grid

    def _scan(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(B, L, d)`` to the sum of the scans, same shape."""
        projected = F.linear(tokens, self.x_proj.flatten(0, 1)).unflatten(2, (N_DIRECTIONS, -1))
        low, b, c = projected.split([self.rank, self.n_states, self.n_states], dim=3)
        steps = torch.einsum('blkr,kdr->blkd', low, self.dt_weight)
        dt = F.softplus(steps.float() + self.dt_bias.float())
        direction = torch.arange(N_DIRECTIONS, device=tokens.device)
        ordered = (x[:, self.path, direction].transpose(0, 1) for x in (dt, b, c))
        u = tokens[:, self.path].transpose(0, 1)
        dt, b, c = ordered
        y = selective_scan(u, dt, -self.a_log.float().exp(), b, c, self.d)
        return y.transpose(0, 1)[:, self.inverse, direction].sum(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, X, Y, Z, d)`` to the same shape."""
        grid = (x.shape[1], x.shape[2], x.shape[3])
        self._set_grid(grid, x.device)
        mixed = F.silu(self.conv(self.in_proj(x).movedim(-1, 1)))
        scanned = self._scan(mixed.flatten(2).transpose(1, 2).contiguous())
        result: Tensor = self.dropout(self.out_proj(self.norm(scanned)))
        return result.unflatten(1, grid)


class VSS3D(nn.Module):
    """Pre-norm block of a volume scan and a feed-forward network, both with drop-path.

    Parameters
    ----------
    width, n_states, order, block, dropout
        See `SS3D`.
    drop_path : float
        Probability that a sample skips a branch, in training.
    """

    def __init__(
        self,
        width: int,
        n_states: int,
        *,
        order: ScanOrder = 'hilbert',
        block: int = 0,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.scan = SS3D(width, n_states, order=order, block=block, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )
        self.drop_probability = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, X, Y, Z, d)`` to the same shape."""
        probability, training = self.drop_probability, self.training
        x = x + drop_path(self.scan(self.norm1(x)), probability, training)
        return x + drop_path(self.feed_forward(self.norm2(x)), probability, training)
