"""Warps on the GPU or CPU: stationary velocity fields and their exponentials.

Fields have shape (3, nx, ny, nz), are in mm and live on a `Grid`.  A displacement ``u`` means the
map ``x -> x + u(x)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_brainage.simulation.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor


def grid_points(grid: Grid, device: str = 'cpu') -> Tensor:
    """Voxel centres of a grid in mm, shape (3, nx, ny, nz)."""
    import torch

    axes = [torch.from_numpy(grid.axis(k)).to(device) for k in range(3)]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'))


def sample(volume: Tensor, grid: Grid, points: Tensor, *, border: bool = False) -> Tensor:
    """Trilinear interpolation of channels at points in mm.

    Parameters
    ----------
    volume : Tensor, shape (C, nx, ny, nz)
        On `grid`.
    points : Tensor, shape (3, ...)
        mm.
    border : bool
        Repeat the border outside the grid instead of 0.

    Returns
    -------
    Tensor, shape (C, ...)
    """
    import torch
    import torch.nn.functional as functional

    origin = torch.tensor(grid.origin, dtype=points.dtype, device=points.device)
    last = torch.tensor([n - 1 for n in grid.shape], dtype=points.dtype, device=points.device)
    flat = points.reshape(3, -1)
    unit = (flat - origin[:, None]) * (2 / (grid.spacing * last[:, None])) - 1
    # torch counts axes from the last: x of its grid is our z
    where = unit.flip(0).T.reshape(1, 1, 1, -1, 3)
    mode = 'border' if border else 'zeros'
    out = functional.grid_sample(volume[None], where, 'bilinear', mode, align_corners=True)
    return out.reshape(volume.shape[0], *points.shape[1:])


def exponentiate(velocity: Tensor, grid: Grid, points: Tensor, squarings: int = 3) -> Tensor:
    """Displacement after unit time (Arsigny et al. 2006, doi:10.1007/11866565_113).

    The first short step is of second order, so that few squarings are enough: on warps as large
    as those from young to very old, volumes are within 1 % of those of nine squarings.

    Parameters
    ----------
    velocity : Tensor, shape (3, nx, ny, nz)
        mm per unit time.
    points : Tensor, shape (3, nx, ny, nz)
        `grid_points` of `grid`.
    """
    import torch

    step = 0.5**squarings
    turn = []
    for part in velocity:
        along_x, along_y, along_z = _gradient(part, grid.spacing)
        turn.append(along_x * velocity[0] + along_y * velocity[1] + along_z * velocity[2])
    displacement = step * velocity + (0.5 * step**2) * torch.stack(turn)
    for _ in range(squarings):
        displacement = displacement + sample(displacement, grid, points + displacement)
    return displacement


def _gradient(part: Tensor, spacing: float) -> list[Tensor]:
    """Slopes along the three axes."""
    import torch

    return list(torch.gradient(part, spacing=spacing))


def jacobian(displacement: Tensor, spacing: float) -> Tensor:
    """Local volume change of ``x -> x + u(x)``, shape (nx, ny, nz)."""
    rows = []
    for k in range(3):
        gradient = _gradient(displacement[k], spacing)
        gradient[k] = gradient[k] + 1
        rows.append(gradient)
    a, b, c = rows
    return (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        - a[1] * (b[0] * c[2] - b[2] * c[0])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )


def slice_sd(edge: float, spacing: float) -> float:
    """SD in voxels of the Gaussian that makes voxels of `spacing` as wide as `edge`, mm.

    Its full width at half maximum is the root of the difference of the squared edges.
    """
    import math

    return math.sqrt(max(edge**2 - spacing**2, 0)) / spacing / math.sqrt(8 * math.log(2))
