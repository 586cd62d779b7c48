"""What a model takes of a simulated person, without running the preprocessing.

The program's preprocessing measures tissue and finds the warp to the template; here both are
known.  `modulated_gm` is what a perfect segmentation and a perfect registration would give;
`tests/test_lifespan_inputs.py` states how far the real ones are from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Grid
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import BRAIN, STRUCTURES, HeadAnatomy
from bids_brainage.simulation.lifespan.cohort import Individual
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.warp import smooth_noise

if TYPE_CHECKING:
    from torch import Tensor

GREY = (
    'cortex', 'cerebellum_cortex', 'thalamus', 'caudate', 'putamen', 'pallidum', 'hippocampus',
    'amygdala',
)  # fmt: skip


@dataclass(frozen=True)
class Imperfection:
    """Errors of a real segmentation and registration, new for every scan.

    Attributes
    ----------
    gain_sd : float
        SD of the log of the whole map's gain (contrast of the scan).
    patch_sd, patch_mm : float
        SD of the log of a smooth local gain, and its smoothness.
    shift_mm, shift_smooth_mm : float
        SD of the misplacement along each axis, and its smoothness.
    """

    gain_sd: float = 0.02
    patch_sd: float = 0.08
    patch_mm: float = 12.0
    shift_mm: float = 1.0
    shift_smooth_mm: float = 15.0

    def draw_gain(self, rng: np.random.Generator, grid: Grid) -> NDArray[np.float32]:
        """Draw the gain of a scan's map, shape of `grid`."""
        patches = smooth_noise(rng, grid.shape, grid.spacing, self.patch_mm)
        return np.exp(self.gain_sd * rng.standard_normal() + self.patch_sd * patches).astype('f4')

    def draw_shift(self, rng: np.random.Generator, grid: Grid) -> NDArray[np.float32]:
        """Draw the misplacement of a scan's map in mm, shape (3, ...)."""
        noise = [smooth_noise(rng, grid.shape, grid.spacing, self.shift_smooth_mm) for _ in 'xyz']
        return (self.shift_mm * np.stack(noise)).astype('f4')


@dataclass(frozen=True)
class GreyTemplate:
    """Grey matter of an anatomy as its own registration brings it to the template.

    Attributes
    ----------
    density : Tensor, shape (1, nx, ny, nz)
        Head-space volume of grey matter per template volume, on `BRAIN`.
    head_points : Tensor, shape (3, nx, ny, nz)
        Head-space position of each template voxel, mm.
    """

    density: Tensor
    head_points: Tensor


def grey_template(
    anatomy: HeadAnatomy, device: str = 'cpu', gain: Mapping[str, float] | None = None
) -> GreyTemplate:
    """Compute an anatomy's grey matter in the template.

    Parameters
    ----------
    anatomy : HeadAnatomy
    device : str
        Torch device.
    gain : mapping, optional
        Structure → volume that the program's segmentation finds / true volume.
    """
    import torch

    points = field.grid_points(BRAIN, device)
    displacement = torch.from_numpy(anatomy.to_head).to(device)
    head_points = points + displacement
    weight = np.zeros(len(STRUCTURES), 'f4')
    for name in GREY:
        weight[STRUCTURES.index(name)] = (gain or {}).get(name, 1.0) / 255
    grey = torch.from_numpy(np.tensordot(weight, anatomy.brain, 1)).to(device)
    change = field.jacobian(displacement, BRAIN.spacing)
    return GreyTemplate(field.sample(grey[None], BRAIN, head_points) * change, head_points)


def modulated_gm(
    person: Individual,
    template: GreyTemplate,
    shape: tuple[int, ...],
    affine: NDArray,
    error: Imperfection | None = None,
    scan: int = 0,
) -> NDArray[np.float32]:
    """Return a person's modulated grey matter on a model's grid.

    Parameters
    ----------
    person : Individual
    template : GreyTemplate
        Of the person's anatomy.
    shape, affine
        Grid of the model: equal voxel edges of at least 2 mm, RAS+ mm of the template.
    error : Imperfection, optional
        What segmentation and registration do to the map.
    scan : int
        Another number is another scan of the person: other errors.

    Returns
    -------
    ndarray of float32, ``shape``
        Millilitres of the person's grey matter per millilitre of template.
    """
    import torch

    growth = field.sample(person.warp.growth[None], FLOW, template.head_points, border=True)
    fine = template.density * growth * person.volume_scale
    spacing = float(np.linalg.norm(affine[:3, 0]))
    grid = Grid((shape[0], shape[1], shape[2]), spacing, tuple(map(float, affine[:3, 3])))
    sd = field.slice_sd(spacing, BRAIN.spacing)
    coarse = field.smooth(fine, (sd, sd, sd))
    points = field.grid_points(grid, str(fine.device))
    if error is None:
        return field.sample(coarse, BRAIN, points)[0].cpu().numpy()
    rng = np.random.default_rng([*person.traits.key, 5, scan])
    points = points + torch.from_numpy(error.draw_shift(rng, grid)).to(points.device)
    return field.sample(coarse, BRAIN, points)[0].cpu().numpy() * error.draw_gain(rng, grid)
