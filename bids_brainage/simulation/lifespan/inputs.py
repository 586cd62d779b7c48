"""What a model takes of a simulated person, without running the preprocessing.

The program's preprocessing measures tissue and looks for the warp to the template; here both
are known, so its result can be computed.  How far the program's own preprocessing is from this
stands in the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Grid
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import BRAIN, intensity_groups
from bids_brainage.simulation.lifespan.cohort import Individual
from bids_brainage.simulation.lifespan.imperfection import Imperfection
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.lifespan.registration import (
    Normalised,
    Registered,
    TemplateAnatomy,
    filled,
)
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
    from bids_brainage.inputs.intensity import scale_by_top_percent

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

    from bids_brainage.inputs.clinical import prepare_clinical

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
