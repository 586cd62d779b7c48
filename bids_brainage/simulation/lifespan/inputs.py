"""What a model takes of a simulated person, without running the preprocessing.

The program's preprocessing measures tissue and looks for the warp to the template; here both
are known, so its result can be computed.  A real registration does not find all of a person's
shape: it follows the share `REGISTERED` of the warp and leaves the rest in the images.  How far
the program's own preprocessing is from this stands in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Grid
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import (
    BRAIN,
    STRUCTURES,
    HeadAnatomy,
    intensity_groups,
)
from bids_brainage.simulation.lifespan.cohort import Individual
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.warp import smooth_noise

if TYPE_CHECKING:
    from torch import Tensor

#: Share of the warp that the registration finds.  On 30 real scans the log volume of the lateral
#: ventricles varies by 0.67 between people, and still by 0.20 after registration; that of the
#: cortex by 0.115 and 0.051.
REGISTERED = 0.65
GREY = (
    'cortex', 'cerebellum_cortex', 'thalamus', 'caudate', 'putamen', 'pallidum', 'hippocampus',
    'amygdala',
)  # fmt: skip


@dataclass(frozen=True)
class Imperfection:
    """Errors of a real segmentation and registration.

    Most of an error belongs to the person's anatomy and comes back with every scan; a later
    scan differs from the first by the share `rescan`.

    Attributes
    ----------
    gain_sd : float
        SD of the log of the whole map's gain.
    patch_sd, patch_mm : float
        SD of the log of a smooth local gain, and its smoothness.
    shift_mm, shift_smooth_mm : float
        SD of the misplacement along each axis, and its smoothness.
    shading_sd, shading_mm : float
        SD of the log of the bias field that is left, and its smoothness; new in every scan.
    rescan : float
        SD of what a later scan adds, relative to the SDs above.
    """

    gain_sd: float = 0.02
    patch_sd: float = 0.06
    patch_mm: float = 15.0
    shift_mm: float = 1.0
    shift_smooth_mm: float = 15.0
    shading_sd: float = 0.04
    shading_mm: float = 35.0
    rescan: float = 0.5

    def draw_gain(self, key: tuple[int, ...], scan: int, grid: Grid) -> NDArray[np.float32]:
        """Draw the gain of scan 1, 2, ... of a person on a grid, shape of `grid`."""
        total = np.zeros(grid.shape, 'f4')
        for rng, share in self._parts(key, scan):
            patches = smooth_noise(rng, grid.shape, grid.spacing, self.patch_mm)
            part = self.gain_sd * rng.standard_normal() + self.patch_sd * patches
            total += np.float32(share) * part.astype('f4')
        return np.exp(total)

    def draw_shift(self, key: tuple[int, ...], scan: int) -> NDArray[np.float32]:
        """Draw the misplacement of scan 1, 2, ... in mm on `FLOW`, shape (3, ...)."""
        total = np.zeros((3, *FLOW.shape), 'f4')
        for rng, share in self._parts(key, scan):
            for axis in total:
                noise = smooth_noise(rng, FLOW.shape, FLOW.spacing, self.shift_smooth_mm)
                axis += np.float32(share * self.shift_mm) * noise
        return total

    def draw_shading(self, key: tuple[int, ...], grid: Grid) -> NDArray[np.float32]:
        """Draw what is left of a scan's bias field on a grid, shape of `grid`."""
        noise = smooth_noise(np.random.default_rng(key), grid.shape, grid.spacing, self.shading_mm)
        return np.exp(self.shading_sd * noise).astype('f4')

    def _parts(
        self, key: tuple[int, ...], scan: int
    ) -> Iterator[tuple[np.random.Generator, float]]:
        """Random numbers and share of the person's part, and of the scan's after the first."""
        yield np.random.default_rng([*key, 1]), 1.0
        if scan > 1:
            yield np.random.default_rng([*key, scan]), self.rescan


@dataclass(frozen=True)
class TemplateAnatomy:
    """An anatomy seen from the template.

    Attributes
    ----------
    grey : Tensor, shape (1, nx, ny, nz)
        Grey matter as the segmentation would find it, in head space on `BRAIN`.
    classes : Tensor, shape (8, nx, ny, nz)
        Fractions of the intensity classes, then of the brain mask, in head space on `BRAIN`.
    points : Tensor, shape (3, nx, ny, nz)
        Head-space position of each template voxel of `BRAIN`, mm.
    change : Tensor, shape (1, nx, ny, nz)
        Head-space volume per template volume.
    """

    grey: Tensor
    classes: Tensor
    points: Tensor
    change: Tensor


def template_anatomy(
    anatomy: HeadAnatomy, device: str = 'cpu', gain: Mapping[str, float] | None = None
) -> TemplateAnatomy:
    """Prepare an anatomy.

    Parameters
    ----------
    anatomy : HeadAnatomy
    device : str
        Torch device.
    gain : mapping, optional
        Structure → volume that the program's segmentation finds / true volume.
    """
    import torch

    fractions = torch.from_numpy(anatomy.fractions()).to(device)
    weight = torch.zeros(len(STRUCTURES), device=device)
    for name in GREY:
        weight[STRUCTURES.index(name)] = (gain or {}).get(name, 1.0)
    classes = [fractions[list(indices)].sum(0) for indices in intensity_groups().values()]
    near = field.smooth(fractions[1:].sum(0)[None], (1.2, 1.2, 1.2))[0]
    displacement = torch.from_numpy(anatomy.to_head).to(device)
    return TemplateAnatomy(
        torch.tensordot(weight, fractions, 1)[None],
        torch.stack([*classes, (near > 0.25).float()]),
        field.grid_points(BRAIN, device) + displacement,
        field.jacobian(displacement, BRAIN.spacing)[None],
    )


@dataclass(frozen=True)
class Normalised:
    """A scan of a person as the registration brings it to the template.

    Attributes
    ----------
    person : Individual
    template : TemplateAnatomy
    source : Tensor, shape (3, nx, ny, nz)
        Position in the anatomy of each template voxel of `BRAIN`, mm.
    volume : Tensor, shape (1, nx, ny, nz)
        Millilitres of the person per millilitre of template.
    scan : int
        Number of the scan, from 1.
    """

    person: Individual
    template: TemplateAnatomy
    source: Tensor
    volume: Tensor
    scan: int


def normalise(
    person: Individual, template: TemplateAnatomy, scan: int = 1, error: Imperfection | None = None
) -> Normalised:
    """Register a scan of a person.

    Parameters
    ----------
    person : Individual
    template : TemplateAnatomy
        Of the person's anatomy.
    scan : int
        1 for the first scan of the person.
    error : Imperfection, optional
        Misplacement; none without it.
    """
    import torch

    velocity, points = person.warp.velocity, person.carver.points
    found = field.exponentiate(REGISTERED * velocity, FLOW, points)
    left = field.exponentiate((REGISTERED - 1) * velocity, FLOW, points)
    if error is not None:
        shift = error.draw_shift((*person.traits.key, 5), scan)
        left = left + torch.from_numpy(shift).to(left.device)
    growth = field.jacobian(found, FLOW.spacing)[None]
    at = template.points
    source = at + field.sample(left, FLOW, at, border=True)
    volume = field.sample(growth, FLOW, at, border=True) * template.change * person.volume_scale
    return Normalised(person, template, source, volume, scan)


def modulated_gm(
    scan: Normalised, shape: tuple[int, ...], affine: NDArray, error: Imperfection | None = None
) -> NDArray[np.float32]:
    """Return modulated grey matter on a model's grid.

    Parameters
    ----------
    scan : Normalised
    shape, affine
        Grid of the model: equal voxel edges of at least 2 mm, RAS+ mm of the template.
    error : Imperfection, optional
        Gains of the segmentation; none without it.

    Returns
    -------
    ndarray of float32, ``shape``
        Millilitres of the person's grey matter per millilitre of template.
    """
    fine = field.sample(scan.template.grey, BRAIN, scan.source) * scan.volume
    grid = model_grid(shape, affine)
    values = _onto(fine, grid)
    if error is not None:
        values = values * error.draw_gain((*scan.person.traits.key, 6), scan.scan, grid)
    return values


def t1w_brain(
    scan: Normalised,
    contrast: Mapping[str, float],
    shape: tuple[int, ...],
    affine: NDArray,
    error: Imperfection | None = None,
) -> NDArray[np.float32]:
    """Return the brain-extracted T1w on a model's grid, in units of its brightest percent.

    Parameters
    ----------
    scan : Normalised
    contrast : mapping
        Intensity class → intensity (`bids_brainage.simulation.lifespan.render.Acquisition`).
    shape, affine
        Grid of the model: equal voxel edges of at least 2 mm, RAS+ mm of the template.
    error : Imperfection, optional
        What the correction of the bias field leaves; none without it.
    """
    import torch

    from bids_brainage.preprocessing.intensity import scale_by_top_percent

    weight = torch.tensor([contrast[name] for name in intensity_groups()])
    classes, mask = scan.template.classes[:-1], scan.template.classes[-1]
    painted = torch.tensordot(weight.to(classes.device), classes, 1) * mask
    fine = field.sample(painted[None], BRAIN, scan.source)
    grid = model_grid(shape, affine)
    values = _onto(fine, grid)
    if error is not None:
        values = values * error.draw_shading((*scan.person.traits.key, 7, scan.scan), grid)
    return scale_by_top_percent(values, source=f'simulated person {scan.person.traits.key}')


def ageing_map(young: Individual, old: Individual, template: TemplateAnatomy) -> NDArray:
    """Return where a person's brain changed between two ages: the truth for saliency.

    Parameters
    ----------
    young, old : Individual
        The same person, made of the same anatomy.
    template : TemplateAnatomy
        Of that anatomy.

    Returns
    -------
    ndarray of float32, shape of `BRAIN`
        Natural log of local growth relative to the head (negative: tissue is lost), in template
        space.
    """
    import torch

    ratio = torch.log(old.warp.growth / young.warp.growth)[None]
    return field.sample(ratio, FLOW, template.points, border=True)[0].cpu().numpy()


def model_grid(shape: tuple[int, ...], affine: NDArray) -> Grid:
    """Return the grid of a model whose voxels are cubes along the axes."""
    origin = tuple(float(v) for v in affine[:3, 3])
    return Grid(
        (shape[0], shape[1], shape[2]), float(affine[0, 0]), (origin[0], origin[1], origin[2])
    )


def _onto(fine: Tensor, grid: Grid) -> NDArray[np.float32]:
    """Smooth a map on `BRAIN` for a coarser grid, as the preparation of inputs does; sample."""
    sd = field.slice_sd(grid.spacing, BRAIN.spacing)
    coarse = field.smooth(fine, (sd, sd, sd))
    points = field.grid_points(grid, str(fine.device))
    return field.sample(coarse, BRAIN, points)[0].cpu().numpy()
