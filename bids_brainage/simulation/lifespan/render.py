"""Paint a person's brain, or whole head, as a T1w scan of any contrast, pose and resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bids_brainage.preprocessing.smoothing import smooth
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import (
    BRAIN,
    HEAD,
    OUTER,
    STRUCTURES,
    intensity_groups,
)
from bids_brainage.simulation.lifespan.cohort import Individual
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.warp import smooth_noise

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from torch import Tensor

Shape = tuple[int, int, int]

#: Lowest and highest T1w intensity of each class, white matter = 1.
INTENSITIES = {
    'csf': (0.08, 0.30),
    'gm': (0.52, 0.82),
    'wm': (1.0, 1.0),
    'thalamus': (0.70, 0.92),
    'striatum': (0.58, 0.86),
    'pallidum': (0.80, 0.97),
    'brainstem': (0.84, 0.98),
}
#: Outer tissue: bone and air dark, marrow and fat bright, muscle between; drawn one by one.
OUTER_INTENSITY = (0.05, 1.2)
#: SD of the turn of the head about each axis, degrees; of its shift along each axis, mm; and how
#: many SDs they reach.
TURN_DEGREES, SHIFT_MM, REACH_SD = 6.0, 5.0, 2.0
#: Weakest and strongest bias field (SD of its log), and its smoothness, mm.
BIAS_SD, BIAS_MM = (0.02, 0.20), (35.0, 60.0)
#: Step of the texture inside tissue, mm, and its SD.
TEXTURE_MM, TEXTURE_SD = 2.5, 0.03


@dataclass(frozen=True)
class Acquisition:
    """How a scan is taken.

    Attributes
    ----------
    voxel_mm : tuple of float
        Left-right, front-back, up-down.
    rotation_degrees, shift_mm : tuple of float
        Pose of the head: about and along the three axes.
    contrast : dict
        Intensity class → intensity, white matter = 1.
    bias_sd, bias_mm : float
        SD of the log of the bias field, and its smoothness.
    noise_sd : float
        Of the Rician noise, white matter = 1.
    cut_mm : float
        Field of view cut off at the bottom, measured from the lowest brain.
    skull_strip : bool
    """

    voxel_mm: tuple[float, float, float]
    rotation_degrees: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    contrast: dict[str, float]
    bias_sd: float
    bias_mm: float
    noise_sd: float
    cut_mm: float
    skull_strip: bool


def draw_acquisition(
    rng: np.random.Generator,
    voxel_mm: tuple[float, float, float] = (2.0, 2.0, 2.0),
    *,
    skull_strip: bool = False,
) -> Acquisition:
    """Draw pose, contrast, bias field and noise of a scan."""
    rotation = TURN_DEGREES * within_reach(rng)
    shift = SHIFT_MM * within_reach(rng)
    contrast = {name: float(rng.uniform(*limits)) for name, limits in INTENSITIES.items()}
    return Acquisition(
        voxel_mm,
        (float(rotation[0]), float(rotation[1]), float(rotation[2])),
        (float(shift[0]), float(shift[1]), float(shift[2])),
        contrast,
        float(rng.uniform(*BIAS_SD)),
        float(rng.uniform(*BIAS_MM)),
        float(rng.uniform(0.005, 0.04)),
        float(rng.uniform(15, 60)),
        skull_strip,
    )


def within_reach(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a value for each axis, in SDs, none beyond `REACH_SD`."""
    return np.clip(rng.standard_normal(3), -REACH_SD, REACH_SD)


@dataclass(frozen=True)
class Scan:
    """A T1w image and its truth on the same grid.

    Attributes
    ----------
    image : Nifti1Image
        int16, RAS+.
    structures : ndarray of float32, shape (15, nx, ny, nz), or None
        Fractions, where asked for.
    """

    image: Nifti1Image
    structures: NDArray[np.float32] | None


def paint(person: Individual, acquisition: Acquisition, rng: np.random.Generator) -> Tensor:
    """Noise-free image of the anatomy before its warp, on `HEAD`, shape (1, ...)."""
    import torch

    anatomy, device = person.carver.anatomy, person.carver.basis.device
    weight = np.zeros(len(STRUCTURES), 'f4')
    for name, indices in intensity_groups().items():
        weight[list(indices)] = acquisition.contrast[name] / 255
    brain = torch.tensordot(
        torch.from_numpy(weight).to(device), torch.from_numpy(anatomy.brain).to(device).float(), 1
    )
    texture = 1 + TEXTURE_SD * smooth_noise(rng, BRAIN.shape, BRAIN.spacing, TEXTURE_MM)
    brain = brain * torch.from_numpy(texture).to(device)
    image = torch.zeros(HEAD.shape, device=device)
    if not acquisition.skull_strip:
        outer = rng.uniform(*OUTER_INTENSITY, len(OUTER)).astype('f4') / 255
        for value, fraction in zip(outer, anatomy.outer, strict=True):
            image += float(value) * torch.from_numpy(fraction).to(device).float()
    x, y, z = (
        round((b - h) / HEAD.spacing) for b, h in zip(BRAIN.origin, HEAD.origin, strict=True)
    )
    nx, ny, nz = BRAIN.shape
    image[x : x + nx, y : y + ny, z : z + nz] += brain
    return image[None]


def scan_grid(person: Individual, acquisition: Acquisition) -> tuple[Shape, NDArray]:
    """Shape and affine of the scan: a box around head or brain, voxel edges as asked."""
    scale = person.volume_scale ** (1 / 3)
    box = BRAIN if acquisition.skull_strip else HEAD
    low = np.array(box.origin) * scale - 8
    high = (np.array(box.origin) + box.spacing * (np.array(box.shape) - 1)) * scale + 8
    low[2] = max(low[2], (BRAIN.origin[2] - acquisition.cut_mm) * scale)
    x, y, z = (int(n) for n in np.ceil((high - low) / acquisition.voxel_mm))
    affine = np.diag([*acquisition.voxel_mm, 1.0])
    affine[:3, 3] = low
    return (x, y, z), affine


def head_to_scanner(person: Individual, acquisition: Acquisition) -> NDArray[np.float64]:
    """Head size and pose: head space in mm to scanner mm, shape (4, 4)."""
    pose = head_pose(person.volume_scale ** (1 / 3), acquisition.rotation_degrees)
    pose[:3, 3] = acquisition.shift_mm
    return pose


def head_pose(size: float, rotation_degrees: ArrayLike) -> NDArray[np.float64]:
    """Scale and turn about the three axes, shape (4, 4)."""
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    turn = Rotation.from_euler('xyz', rotation_degrees, degrees=True).as_matrix()
    pose[:3, :3] = size * turn
    return pose


def take_scan(
    person: Individual, acquisition: Acquisition, seed: int, *, truth: bool = False
) -> Scan:
    """Scan a person once.

    Parameters
    ----------
    person : Individual
    acquisition : Acquisition
    seed : int
        Of texture, bias field and noise.
    truth : bool
        Also give the fractions of the structures.
    """
    import torch

    rng = np.random.default_rng([*person.traits.key, 4, seed])
    shape, affine = scan_grid(person, acquisition)
    device = person.carver.basis.device
    points = _anatomy_points(person, acquisition, shape, affine)
    painted = _slices(paint(person, acquisition, rng), acquisition)
    clean = field.sample(painted, HEAD, points)[0].cpu().numpy()
    spacing = float(np.mean(acquisition.voxel_mm))
    field_noise = smooth_noise(rng, shape, spacing, acquisition.bias_mm)
    noise = acquisition.noise_sd * rng.standard_normal((2, *shape), dtype='f4')
    values = np.hypot(clean * np.exp(acquisition.bias_sd * field_noise) + noise[0], noise[1])
    if acquisition.skull_strip:
        values *= _brain_mask(person, acquisition, points)
    fractions = None
    if truth:
        whole = torch.from_numpy(person.carver.anatomy.fractions()).to(device)
        fractions = field.sample(_slices(whole, acquisition), BRAIN, points).cpu().numpy()
    return Scan(_nifti(values, affine), fractions)


def _anatomy_points(
    person: Individual, acquisition: Acquisition, shape: Shape, affine: NDArray
) -> Tensor:
    """Where each voxel of the scan lies in the anatomy before its warp, mm, shape (3, ...)."""
    import torch

    device = person.carver.basis.device
    back = np.linalg.inv(head_to_scanner(person, acquisition)) @ affine
    matrix = torch.from_numpy(back.astype('f4')).to(device)
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing='ij'))
    points = torch.tensordot(matrix[:3, :3], index, 1) + matrix[:3, 3].reshape(3, 1, 1, 1)
    inverse = person.warp.inverse(person.carver.points)
    return points + field.sample(inverse, FLOW, points, border=True)


def _brain_mask(person: Individual, acquisition: Acquisition, points: Tensor) -> NDArray:
    """Brain and the fluid next to it, 0 or 1."""
    import torch

    brain = person.carver.anatomy.brain[1:].sum(0, dtype='f4') / 255
    near = smooth(torch.from_numpy(brain)[None].to(points.device), (1.2, 1.2, 1.2))
    return (field.sample(near, BRAIN, points)[0] > 0.25).cpu().numpy()


def _nifti(values: NDArray, affine: NDArray) -> Nifti1Image:
    import nibabel as nib

    image = nib.Nifti1Image(np.rint(1000 * values).astype('i2'), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units('mm', 'sec')
    return image


def _slices(volume: Tensor, acquisition: Acquisition) -> Tensor:
    """Average over slices thicker than the anatomy's voxels."""
    x, y, z = (field.slice_sd(edge, BRAIN.spacing) for edge in acquisition.voxel_mm)
    return smooth(volume, (x, y, z))
