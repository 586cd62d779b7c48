"""How a registration brings a simulated person to the template: known, not searched for.

A real deformation does not find all of a person's shape: it follows a share of the warp
(`Imperfection.registered`) and leaves the rest in the images; an affine registration leaves all
of it but size, pose and the proportions of the whole brain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_brainage.preprocessing.smoothing import smooth
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import (
    BRAIN,
    STRUCTURES,
    HeadAnatomy,
    intensity_groups,
)
from bids_brainage.simulation.lifespan.cohort import Individual
from bids_brainage.simulation.lifespan.imperfection import Imperfection
from bids_brainage.simulation.lifespan.person import FLOW

if TYPE_CHECKING:
    from torch import Tensor

#: Share of the warp that the registration finds, in the middle of `Imperfection.registered`.
REGISTERED = 0.8
#: Farther than the registration leaves a brain from the average one, and than an affine one does.
REACH_MM, AFFINE_REACH_MM = 6.0, 16.0
#: Voxels for one that the fit of the affine looks at.
FIT_EVERY = 16
GREY = (
    'cortex', 'cerebellum_cortex', 'thalamus', 'caudate', 'putamen', 'pallidum', 'hippocampus',
    'amygdala',
)  # fmt: skip
FLUID = ('csf', 'lateral_ventricle', 'third_ventricle', 'fourth_ventricle')
WHITE = ('cerebral_white_matter', 'cerebellum_white_matter', 'brainstem')
#: How far white matter and fluid blur into each other in a scan (SD of a Gaussian), mm.
RIM_MM = 1.2


@dataclass(frozen=True)
class TemplateAnatomy:
    """An anatomy seen from the template.

    Attributes
    ----------
    grey : Tensor, shape (1, nx, ny, nz)
        Grey matter as the segmentation would find it, in head space on `BRAIN`.
    rim : Tensor, shape (1, nx, ny, nz)
        Product of the shares of white matter and fluid, blurred by `RIM_MM`.
    classes : Tensor, shape (8, nx, ny, nz)
        Fractions of the intensity classes, then of the brain mask, in head space on `BRAIN`.
    inside, around : Tensor of int, shape (n,) and (m,)
        Template voxels of `BRAIN` (flat indices) in and within `REACH_MM` and `AFFINE_REACH_MM`
        of the brain: only these are computed.
    points : Tensor, shape (3, n)
        Head-space position of each voxel `inside`, mm.
    change : Tensor, shape (1, n)
        Head-space volume per template volume there.
    """

    grey: Tensor
    rim: Tensor
    classes: Tensor
    inside: Tensor
    around: Tensor
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
    import torch.nn.functional as functional

    fractions = torch.from_numpy(anatomy.fractions()).to(device)
    weight = torch.zeros(len(STRUCTURES), device=device)
    for name in GREY:
        weight[STRUCTURES.index(name)] = (gain or {}).get(name, 1.0)
    classes = [fractions[list(indices)].sum(0) for indices in intensity_groups().values()]
    near = smooth(fractions[1:].sum(0)[None], (1.2, 1.2, 1.2))[0]
    blur = RIM_MM / BRAIN.spacing
    fluid, white = (
        smooth(fractions[[STRUCTURES.index(name) for name in names]].sum(0)[None], (blur,) * 3)
        for names in (FLUID, WHITE)
    )
    displacement = torch.from_numpy(anatomy.to_head).to(device)
    points = field.grid_points(BRAIN, device) + displacement
    brain = field.sample(fractions.sum(0)[None], BRAIN, points)[None]

    def within(reach_mm: float) -> Tensor:
        reach = 2 * round(reach_mm / BRAIN.spacing) + 1
        near_brain = functional.max_pool3d(brain, reach, stride=1, padding=reach // 2)
        return torch.nonzero(near_brain.flatten() > 0.5)[:, 0]

    inside = within(REACH_MM)
    change = field.jacobian(displacement, BRAIN.spacing)
    return TemplateAnatomy(
        torch.tensordot(weight, fractions, 1)[None],
        fluid * white,
        torch.stack([*classes, (near > 0.25).float()]),
        inside,
        within(AFFINE_REACH_MM),
        points.flatten(1)[:, inside],
        change.flatten()[inside][None],
    )


@dataclass(frozen=True)
class Registered:
    """A scan of a person as a registration brings it to the template.

    Attributes
    ----------
    person : Individual
    template : TemplateAnatomy
    scan : int
        Number of the scan, from 1.
    inside : Tensor of int, shape (n,)
        Template voxels of `BRAIN` (flat indices) that are computed.
    source : Tensor, shape (3, n)
        Position in the anatomy of each of them, mm.
    """

    person: Individual
    template: TemplateAnatomy
    scan: int
    inside: Tensor
    source: Tensor


@dataclass(frozen=True)
class Normalised(Registered):
    """A scan that was deformed to the template.

    Attributes
    ----------
    volume : Tensor, shape (1, n)
        Millilitres of the person per millilitre of template.
    """

    volume: Tensor


def align(
    person: Individual, template: TemplateAnatomy, scan: int = 1, error: Imperfection | None = None
) -> Registered:
    """Register a scan of a person by the affine that fits the brain best (least squares).

    Parameters are those of `normalise`.
    """
    import torch

    velocity, points = person.warp.velocity, person.carver.points
    grid = person.carver.fine.flatten(1)
    forward = field.exponentiate(velocity, FLOW, points)
    some = slice(None, None, FIT_EVERY)
    at, head = grid[:, template.inside[some]], template.points[:, some].contiguous()
    there = head + field.sample(forward, FLOW, head, border=True)
    homogeneous = torch.cat([at, torch.ones_like(at[:1])]).double()
    affine = torch.linalg.solve(homogeneous @ homogeneous.T, homogeneous @ there.double().T).T
    if error is not None:
        drawn = error.draw_affine((*person.traits.key, 8), scan)
        affine = affine @ torch.from_numpy(drawn).to(affine.device)
    affine = affine.float()
    here = affine[:, :3] @ grid[:, template.around] + affine[:, 3:]
    back = field.sample(person.warp.inverse(points), FLOW, here, border=True)
    return Registered(person, template, scan, template.around, here + back)


def normalise(
    person: Individual, template: TemplateAnatomy, scan: int = 1, error: Imperfection | None = None
) -> Normalised:
    """Deform a scan of a person to the template.

    Parameters
    ----------
    person : Individual
    template : TemplateAnatomy
        Of the person's anatomy.
    scan : int
        1 for the first scan of the person.
    error : Imperfection, optional
        Misplacement, and how much of the warp is found; none and `REGISTERED` without it.
    """
    import torch

    velocity, points = person.warp.velocity, person.carver.points
    share = REGISTERED if error is None else error.draw_habits((*person.traits.key, 9))[0]
    found = field.exponentiate(share * velocity, FLOW, points)
    left = field.exponentiate((share - 1) * velocity, FLOW, points)
    if error is not None:
        shift = error.draw_shift((*person.traits.key, 5), scan)
        left = left + torch.from_numpy(shift).to(left.device)
    growth = field.jacobian(found, FLOW.spacing)[None]
    here = field.sample(torch.cat([left, growth]), FLOW, template.points, border=True)
    volume = here[3:] * template.change * person.volume_scale
    source = template.points + here[:3]
    return Normalised(person, template, scan, template.inside, source, volume)


def filled(values: Tensor, inside: Tensor) -> Tensor:
    """Put values of the template voxels that are computed on the whole of `BRAIN`.

    Parameters
    ----------
    values : Tensor, shape (1, n)
    inside : Tensor of int, shape (n,)
        Their flat indices.

    Returns
    -------
    Tensor, shape (nx, ny, nz)
        0 elsewhere.
    """
    flat = values.new_zeros(BRAIN.shape).flatten()
    flat[inside] = values[0]
    return flat.reshape(BRAIN.shape)
