"""What a model takes of a simulated person, without running the preprocessing.

The program's preprocessing measures tissue and looks for the warp to the template; here both
are known, so its result can be computed.  A real deformation does not find all of a person's
shape: it follows a share of the warp (`Imperfection.registered`) and leaves the rest in the
images; an affine registration leaves all of it but size, pose and the proportions of the whole
brain.  How far the program's own preprocessing is from this stands in the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.preprocessing.smoothing import smooth
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
from bids_brainage.simulation.lifespan.render import (
    BIAS_MM,
    BIAS_SD,
    TURN_DEGREES,
    head_pose,
    within_reach,
)
from bids_brainage.simulation.warp import smooth_noise

if TYPE_CHECKING:
    from torch import Tensor

#: Share of the warp that the registration finds, in the middle of `Imperfection.registered`.
REGISTERED = 0.8
#: Farther than the registration leaves a brain from the average one, and than an affine one does.
REACH_MM, AFFINE_REACH_MM = 6.0, 16.0
#: Voxels for one that the fit of the affine looks at.
FIT_EVERY = 16
#: About which an affine registration errs: the middle of the brain, mm.
MIDDLE = (0.0, -18.0, 8.0)
GREY = (
    'cortex', 'cerebellum_cortex', 'thalamus', 'caudate', 'putamen', 'pallidum', 'hippocampus',
    'amygdala',
)  # fmt: skip
FLUID = ('csf', 'lateral_ventricle', 'third_ventricle', 'fourth_ventricle')
WHITE = ('cerebral_white_matter', 'cerebellum_white_matter', 'brainstem')
#: How far white matter and fluid blur into each other in a scan (SD of a Gaussian), mm.
RIM_MM = 1.2


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
    affine_mm, affine_degrees, affine_scale_sd : float
        SD of shift, rotation and log scale along and about each axis of an affine registration.
    shading_sd, shading_mm : float
        SD of the log of the bias field that is left, and its smoothness; new in every scan.
    registered : tuple of float
        Least and most of the warp that the deformation finds, drawn once for each person.  On 30
        real scans the log volume of the lateral ventricles varies by 0.67 between people, and
        still by 0.20 after registration, on 12 generated heads that went through the program by
        0.79 and 0.19; with a share of 0.65 it would be 0.32.
    rim : tuple of float
        Least and most grey matter that the segmentation sees where white matter and fluid blur
        into each other, per product of their shares, drawn once for each person.  Around the
        bodies of the lateral ventricles, 12 generated heads that went through the program have
        0.12 before the age of 35 and 0.13 after that of 74, real ones 0.12 and 0.13.
    rescan : float
        SD of what a later scan adds, relative to the SDs above.
    """

    gain_sd: float = 0.02
    patch_sd: float = 0.06
    patch_mm: float = 15.0
    shift_mm: float = 1.0
    shift_smooth_mm: float = 15.0
    affine_mm: float = 1.0
    affine_degrees: float = 1.0
    affine_scale_sd: float = 0.015
    shading_sd: float = 0.04
    shading_mm: float = 35.0
    registered: tuple[float, float] = (0.65, 0.95)
    rim: tuple[float, float] = (0.2, 1.4)
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

    def draw_affine(self, key: tuple[int, ...], scan: int) -> NDArray[np.float64]:
        """Draw the error of an affine registration, template mm to template mm, shape (4, 4)."""
        from scipy.spatial.transform import Rotation

        drawn = np.zeros((3, 3))
        for rng, share in self._parts(key, scan):
            drawn += share * rng.standard_normal((3, 3))
        turn = Rotation.from_euler('xyz', self.affine_degrees * drawn[0], degrees=True)
        error = np.eye(4)
        error[:3, :3] = turn.as_matrix() * np.exp(self.affine_scale_sd * drawn[1])
        middle = np.array(MIDDLE)
        error[:3, 3] = middle - error[:3, :3] @ middle + self.affine_mm * drawn[2]
        return error

    def draw_shading(self, key: tuple[int, ...], grid: Grid) -> NDArray[np.float32]:
        """Draw what is left of a scan's bias field on a grid, shape of `grid`."""
        noise = smooth_noise(np.random.default_rng(key), grid.shape, grid.spacing, self.shading_mm)
        return np.exp(self.shading_sd * noise).astype('f4')

    def draw_habits(self, key: tuple[int, ...]) -> tuple[float, float]:
        """Draw the share of a person's warp that is found, and the weight of the rim."""
        rng = np.random.default_rng(key)
        return float(rng.uniform(*self.registered)), float(rng.uniform(*self.rim))

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


def modulated_gm(
    scan: Normalised, shape: tuple[int, ...], affine: NDArray, error: Imperfection | None = None
) -> NDArray[np.float32]:
    """Return modulated grey matter on a model's grid.

    Parameters
    ----------
    scan : Normalised
    shape, affine
        Grid of the model: voxel edges of at least 2 mm, RAS+ mm of the template.
    error : Imperfection, optional
        Gains and rims of the segmentation; none without it.

    Returns
    -------
    ndarray of float32, ``shape``
        Millilitres of the person's grey matter per millilitre of template.
    """
    grey = scan.template.grey
    if error is not None:
        grey = grey + error.draw_habits((*scan.person.traits.key, 9))[1] * scan.template.rim
    fine = field.sample(grey, BRAIN, scan.source) * scan.volume
    values = _onto(filled(fine, scan.inside), shape, affine)
    if error is not None:
        grid = model_grid(shape, affine)
        values = values * error.draw_gain((*scan.person.traits.key, 6), scan.scan, grid)
    return values


def painted(template: TemplateAnatomy, contrast: Mapping[str, float]) -> Tensor:
    """Return the brain of an anatomy in a contrast, in head space, shape (1, nx, ny, nz).

    Parameters
    ----------
    template : TemplateAnatomy
    contrast : mapping
        Intensity class → intensity (`bids_brainage.simulation.lifespan.render.Acquisition`).
    """
    import torch

    weight = torch.tensor([contrast[name] for name in intensity_groups()])
    classes, mask = template.classes[:-1], template.classes[-1]
    return (torch.tensordot(weight.to(classes.device), classes, 1) * mask)[None]


def t1w_brain(
    scan: Registered,
    image: Tensor,
    shape: tuple[int, ...],
    affine: NDArray,
    error: Imperfection | None = None,
) -> NDArray[np.float32]:
    """Return the brain-extracted T1w on a model's grid, in units of its brightest percent.

    Parameters
    ----------
    scan : Registered
        From `align`.
    image : Tensor
        From `painted`.
    shape, affine
        Grid of the model: voxel edges of at least 2 mm, RAS+ mm of the template.
    error : Imperfection, optional
        What the correction of the bias field leaves; none without it.
    """
    from bids_brainage.preprocessing.intensity import scale_by_top_percent

    values = _reduced(scan, image, shape, affine, error)
    return scale_by_top_percent(values, source=f'simulated person {scan.person.traits.key}')


def t1w_structural(
    scan: Registered,
    image: Tensor,
    shape: tuple[int, ...],
    affine: NDArray,
    error: Imperfection | None = None,
) -> NDArray[np.float32]:
    """Return the brain-extracted T1w on the grid of System D, from 0 to about 1.

    Parameters are those of `t1w_brain`.  The brightest voxel of a 2 mm brain is 1, as far as
    a simulated scan has no vessels.
    """
    values = _reduced(scan, image, shape, affine, error)
    return (values / image.max().item()).astype('f4')


def t1w_clinical(
    person: Individual,
    image: Tensor,
    declared: Mapping[str, Any],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return a routine scan with thick slices, as System C takes it.

    Slices lie 5 to 7.5 mm apart, along an axis tilted by some degrees, and are from 1 mm to
    their distance thick; the bias field is not corrected.

    Parameters
    ----------
    person : Individual
    image : Tensor
        From `painted`.
    declared : mapping
        The ``input`` block of the model.
    rng : Generator
        Of the acquisition.
    """
    import torch

    from bids_brainage.preprocessing.clinical import prepare_clinical

    edge = float(declared['voxel_size_mm'][0])
    distance = float(rng.uniform(5.0, 7.5))
    thickness = float(rng.uniform(1.0, distance))
    size = person.volume_scale ** (1 / 3)
    spacing = np.array([edge, edge, distance])
    low = size * np.array(BRAIN.origin) + spacing * rng.uniform(0, 1, 3)
    shape = tuple(int(n) for n in size * BRAIN.spacing * np.array(BRAIN.shape) / spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    turn = head_pose(size, TURN_DEGREES * within_reach(rng))
    back = torch.from_numpy(np.linalg.inv(turn).astype('f4')).to(image.device)
    at = torch.from_numpy(_positions(shape, affine, thickness)).to(image.device)
    points = (back[:3, :3] @ at.flatten(1)).reshape(at.shape)
    inverse = person.warp.inverse(person.carver.points)
    source = points + field.sample(inverse, FLOW, points, border=True)
    slices = field.sample(image, BRAIN, source)[0].mean(0).cpu().numpy()
    smoothness, strength = float(rng.uniform(*BIAS_MM)), float(rng.uniform(*BIAS_SD))
    coarse = (shape[0], shape[1], int(shape[2] * distance / edge) + 1)
    noise = smooth_noise(rng, coarse, edge, smoothness)
    shading = noise[:, :, (np.arange(shape[2]) * distance / edge).astype(int)]
    ready = prepare_clinical(
        slices * np.exp(strength * shading),
        affine,
        shape=tuple(declared['shape']),
        voxel_size_mm=edge,
        source=f'simulated person {person.traits.key}',
    )
    return ready.volume


def _positions(shape: tuple[int, ...], affine: NDArray, thickness: float) -> NDArray[np.float32]:
    """Scanner mm of each voxel at three depths of its slice, shape (3, 3, nx, ny, nz)."""
    index = np.indices(shape, dtype='f4')
    points = np.stack([affine[k, k] * index[k] + affine[k, 3] for k in range(3)])
    depths = np.repeat(points[:, None], 3, axis=1)
    depths[2] += thickness * np.array([-1 / 3, 0, 1 / 3]).reshape(3, 1, 1, 1)
    return depths.astype('f4')


def _reduced(
    scan: Registered,
    image: Tensor,
    shape: tuple[int, ...],
    affine: NDArray,
    error: Imperfection | None,
) -> NDArray[np.float32]:
    """Bring a painted brain to a model's grid."""
    fine = field.sample(image, BRAIN, scan.source)
    values = _onto(filled(fine, scan.inside), shape, affine)
    if error is not None:
        grid = model_grid(shape, affine)
        values = values * error.draw_shading((*scan.person.traits.key, 7, scan.scan), grid)
    return values


def ageing_map(young: Individual, old: Individual, scan: Registered) -> NDArray:
    """Return where a person's brain changed between two ages: the truth for saliency.

    Parameters
    ----------
    young, old : Individual
        The same person, made of the same anatomy.
    scan : Registered
        The scan whose voxels are asked about.

    Returns
    -------
    ndarray of float32, shape of `BRAIN`
        Natural log of local growth relative to the head (negative: tissue is lost), in template
        space; 0 far from the brain.
    """
    import torch

    ratio = torch.log(old.warp.growth / young.warp.growth)[None]
    found = field.sample(ratio, FLOW, scan.source, border=True)
    return filled(found, scan.inside).cpu().numpy()


def model_grid(shape: tuple[int, ...], affine: NDArray) -> Grid:
    """Return the grid of a model along the axes, its edges replaced by their mean."""
    origin = tuple(float(v) for v in affine[:3, 3])
    edge = float(np.diag(affine)[:3].mean())
    return Grid((shape[0], shape[1], shape[2]), edge, (origin[0], origin[1], origin[2]))


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


def _onto(fine: Tensor, shape: tuple[int, ...], affine: NDArray) -> NDArray[np.float32]:
    """Smooth a map on `BRAIN` for a coarser grid, as the preparation of inputs does; sample."""
    import torch

    out = fine
    for axis in range(3):
        line = float(affine[axis, 3]), float(affine[axis, axis]), int(shape[axis])
        weight = torch.from_numpy(_resampling(axis, *line)).to(fine.device)
        out = torch.tensordot(out, weight, ([0], [1]))  # the new axis comes last: a full turn
    return out.cpu().numpy()


@lru_cache(maxsize=64)
def _resampling(axis: int, first: float, edge: float, count: int) -> NDArray[np.float32]:
    """Weights of `BRAIN`'s planes (columns) in those of a coarser grid (rows)."""
    spacing, planes = BRAIN.spacing, np.arange(BRAIN.shape[axis])
    sd = max(field.slice_sd(edge, spacing), 1e-3)
    kernel = np.exp(-0.5 * ((planes[:, None] - planes[None, :]) / sd) ** 2)
    whole = np.exp(-0.5 * (np.arange(-len(planes), len(planes) + 1) / sd) ** 2).sum()
    at = (first + edge * np.arange(count) - BRAIN.origin[axis]) / spacing
    near = np.maximum(1 - np.abs(at[:, None] - planes[None, :]), 0)
    return (near @ (kernel / whole)).astype('f4')
