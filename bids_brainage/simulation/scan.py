"""One scan of one simulated person, with everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError
from bids_brainage.simulation.ageing import VolumeWarp
from bids_brainage.simulation.anatomy import REGIONS, TISSUES, grid_box, sample_regions
from bids_brainage.simulation.grid import Array, sample, sample_vectors, upsample
from bids_brainage.simulation.person import Person, make_person, to_template
from bids_brainage.simulation.render import (
    Acquisition,
    ScannerGrid,
    draw_acquisition,
    finish,
    head_to_scanner,
    paint,
    paint_head,
    scanner_grid,
    slice_blur,
)

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

Resolution = float | tuple[float, float, float]


@dataclass(frozen=True)
class SimulatedScan:
    """A T1w image and its truth, all on the image's own grid and orientation.

    Attributes
    ----------
    image : Nifti1Image
        int16 T1w.
    labels : Nifti1Image
        uint8; 0 outside the intracranial space, else 1 + index into `anatomy.REGIONS`.
    brain_mask : Nifti1Image
        uint8.
    affine : array, shape (4, 4)
        Voxel index to scanner mm, RAS+.
    tissue : dict
        Fractions (0-1, float32 arrays) of ``csf``, ``gm``, ``wm``.
    volumes : dict
        Truth: region volumes in ml from the fractions.
    template_points : array, shape (3, nx, ny, nz)
        Template position (mm, RAS) of each voxel: the truth for a registration.
    ageing_log_jacobian : array, shape (nx, ny, nz)
        Natural log of local growth since the reference age (negative = loss).
    parameters : dict
        JSON-ready record of person, age and acquisition.
    """

    image: Nifti1Image
    labels: Nifti1Image
    brain_mask: Nifti1Image
    affine: NDArray[np.float64]
    tissue: dict[str, Array]
    volumes: dict[str, float]
    template_points: Array
    ageing_log_jacobian: Array
    parameters: dict


def simulate_person(
    seed: int | tuple[int, ...],
    age: float,
    sex: str,
    resolution: Resolution = 1.0,
    session: int = 0,
    *,
    skull_strip: bool = False,
    orientation: str | None = None,
    gap_sd: float = 3.0,
    variation: float = 1.0,
) -> SimulatedScan:
    """Scan a person once.

    Parameters
    ----------
    seed : int or tuple of int
        The person.
    age : float
        Age at the scan, years (18-95).
    sex : {'F', 'M'}
    resolution : float or three floats
        Voxel size in mm, left-right, front-back, up-down; unequal sizes give thick slices.
    session : int
        Another number is another scan: new pose, contrast, bias field and noise.
    skull_strip : bool
        Set everything outside the brain mask to zero.
    orientation : str, optional
        Storage order such as ``RAS``; random when left out.
    gap_sd : float
        SD of the brain-age gap between people, years.
    variation : float
        Factor on differences between people.

    Returns
    -------
    SimulatedScan

    Raises
    ------
    OptionError
        If age, sex or resolution cannot be simulated.
    """
    voxel = voxel_size(resolution)
    person = make_person(seed, sex, template_spacing(voxel), gap_sd, variation)
    acquisition = draw_acquisition((*person.seed, 1000 + session), orientation)
    return simulate_scan(person, age, acquisition, voxel, skull_strip=skull_strip)


def voxel_size(resolution: Resolution) -> tuple[float, float, float]:
    """Three voxel sizes in mm from one number or three, checked (0.5-10 mm)."""
    values = (resolution,) * 3 if isinstance(resolution, (int, float)) else tuple(resolution)
    if len(values) != 3 or not all(0.5 <= v <= 10 for v in values):
        raise OptionError(
            f'Resolution {resolution} cannot be simulated: expected one or three voxel sizes '
            'between 0.5 and 10 mm.'
        )
    return float(values[0]), float(values[1]), float(values[2])


def template_spacing(voxel: tuple[float, float, float]) -> int:
    """Template voxel size that is fine enough for a scan, mm."""
    return 1 if min(voxel) < 1.75 else 2


def simulate_scan(
    person: Person,
    age: float,
    acquisition: Acquisition,
    voxel: tuple[float, float, float],
    *,
    skull_strip: bool = False,
    warp: VolumeWarp | None = None,
) -> SimulatedScan:
    """Scan `person` at `age` years; `warp` is `person.at_age(age)` where already known."""
    warp = person.at_age(age) if warp is None else warp
    grid = scanner_grid(acquisition, voxel)
    points, growth, matrices = _trace(person, warp, acquisition, grid)
    template = np.stack([upsample(p, matrices) for p in points])
    tissue, regions, mask, box = _brain_truth(person, template, voxel)
    clean = _clean_image(person, acquisition, template, voxel)
    values = finish(clean, acquisition, voxel)
    inside = mask > 0.5
    if skull_strip:
        values = np.where(inside, values, 0)
    labels = np.zeros(grid.shape, 'u1')
    labels[box] = np.where(regions.sum(0) > 0.5, regions.argmax(0) + 1, 0)
    volume_ml = regions.sum((1, 2, 3), dtype='f8') * np.prod(voxel) / 1000
    stored = np.clip(np.rint(values * acquisition.gain), 0, 32767).astype('i2')
    jacobian = np.where(inside, upsample(growth, matrices), 0)
    return _oriented(
        acquisition.orientation,
        grid.affine,
        {'image': stored, 'labels': labels, 'mask': inside.astype('u1'), 'growth': jacobian},
        tissue,
        template,
        dict(zip(REGIONS, (float(v) for v in volume_ml), strict=True)),
        _record(person, age, acquisition, voxel, skull_strip),
    )


def _trace(
    person: Person, warp: VolumeWarp, acquisition: Acquisition, grid: ScannerGrid
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Follow coarse scanner points back to the template.

    Returns template positions (3, c...), log growth (c...), refining matrices.
    """
    points, matrices = grid.coarse()
    back = np.linalg.inv(head_to_scanner(acquisition, person.scale)).astype('f4')
    points = np.tensordot(back[:3, :3], points, 1) + back[:3, 3].reshape(3, 1, 1, 1)
    points = points + sample_vectors(warp.inverse, person.ageing_grid.index(points))
    growth = sample(warp.log_jacobian, person.ageing_grid.index(points))
    template = to_template(points, person.shape_grid, person.shape_inverse)
    return template, growth, matrices


def _brain_box(index: Array, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """Smallest box of scanner voxels that holds every voxel inside the brain grid."""
    limits = np.asarray(shape).reshape(3, 1, 1, 1)
    inside: np.ndarray = np.all((index > -1) & (index < limits), axis=0)
    x, y, z = (
        np.flatnonzero(np.moveaxis(inside, k, 0).reshape(inside.shape[k], -1).any(1))[[0, -1]]
        for k in range(3)
    )
    return slice(x[0], x[1] + 1), slice(y[0], y[1] + 1), slice(z[0], z[1] + 1)


def _brain_truth(
    person: Person, template: Array, voxel: tuple[float, float, float]
) -> tuple[Array, Array, Array, tuple[slice, slice, slice]]:
    """Tissue (whole grid), regions (in the brain's box), mask (whole grid), box."""
    anatomy = person.anatomy
    box = _brain_box(anatomy.grid.index(template), anatomy.grid.shape)
    blurred = np.stack([slice_blur(t, anatomy.grid.spacing, voxel) for t in person.tissue])
    part = np.stack([axis[box] for axis in template])
    inside, regions = sample_regions(anatomy, blurred, part)
    tissue = np.zeros((3, *template.shape[1:]), 'f4')
    tissue[(slice(None), *box)] = inside
    return tissue, regions, tissue.sum(0), box


def _clean_image(
    person: Person, acquisition: Acquisition, template: Array, voxel: tuple[float, float, float]
) -> Array:
    """Noise-free T1w on the scanner grid, white matter = 1."""
    anatomy = person.anatomy
    image = paint_head(anatomy.head, acquisition)
    box = grid_box(anatomy.grid, anatomy.head_grid)
    brain = paint(person.tissue, anatomy.mask, anatomy.texture, acquisition)
    image[box] = image[box] * (1 - anatomy.mask) + brain
    image = slice_blur(image, anatomy.grid.spacing, voxel)
    return sample(image, anatomy.head_grid.index(template))


def _record(
    person: Person,
    age: float,
    acquisition: Acquisition,
    voxel: tuple[float, float, float],
    skull_strip: bool,
) -> dict:
    """JSON-ready parameters of a scan."""
    return {
        'seed': list(person.seed),
        'age': age,
        'sex': person.sex,
        'brain_age_gap': round(person.gap, 4),
        'head_scale': [round(float(s), 4) for s in person.scale],
        'voxel_mm': list(voxel),
        'skull_strip': skull_strip,
        'acquisition': acquisition.parameters(),
    }


def _oriented(
    orientation: str,
    affine: NDArray[np.float64],
    volumes: dict[str, NDArray],
    tissue: Array,
    template: Array,
    region_ml: dict[str, float],
    parameters: dict,
) -> SimulatedScan:
    """Store RAS volumes in another axis order, with the affine that says so."""
    import nibabel as nib
    from nibabel import orientations as ornt

    change = ornt.ornt_transform(
        ornt.axcodes2ornt(('R', 'A', 'S')), ornt.axcodes2ornt(tuple(orientation))
    )
    shape = volumes['image'].shape
    new_affine = affine @ ornt.inv_ornt_aff(change, shape)

    def turn(volume: NDArray) -> NDArray:
        return ornt.apply_orientation(volume, change)

    def turn_vectors(field: Array) -> Array:
        return np.moveaxis(turn(np.moveaxis(field, 0, -1)), -1, 0)

    def image(volume: NDArray) -> Nifti1Image:
        nifti = nib.Nifti1Image(turn(volume), new_affine)
        nifti.set_qform(new_affine, 1)
        nifti.set_sform(new_affine, 1)
        nifti.header.set_xyzt_units('mm', 'sec')
        return nifti

    return SimulatedScan(
        image=image(volumes['image']),
        labels=image(volumes['labels']),
        brain_mask=image(volumes['mask']),
        affine=new_affine,
        tissue={name: turn(t) for name, t in zip(TISSUES, tissue, strict=True)},
        volumes=region_ml,
        template_points=turn_vectors(template),
        ageing_log_jacobian=turn(volumes['growth']),
        parameters=parameters,
    )
