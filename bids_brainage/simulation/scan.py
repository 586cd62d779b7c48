"""One scan of one simulated person, with everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OptionError
from bids_brainage.simulation.grid import Array, nearest, sample, sample_vectors, upsample
from bids_brainage.simulation.lifespan.anatomy import BRAIN
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.person import AgedBrain, Person, make_person, to_template
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
from bids_brainage.simulation.template import (
    REGIONS,
    TISSUES,
    Template,
    grid_box,
    region_labels,
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
        uint8; 0 outside the intracranial space, else 1 + index into `template.REGIONS`.
    brain_mask : Nifti1Image
        uint8.
    affine : array, shape (4, 4)
        Voxel index to scanner mm, RAS+.
    tissue : dict
        Fractions (0-1, float32 arrays) of ``csf``, ``gm``, ``wm``.
    volumes : dict
        Truth: region volumes in ml.
    template_points : array, shape (3, nx, ny, nz)
        Template position (mm, RAS) of each voxel: the truth for a registration.
    log_growth : array, shape (nx, ny, nz)
        Natural log of local growth relative to the template (negative = loss).
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
    log_growth: Array
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
    person = make_person(seed, sex, template_spacing(voxel), variation)
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
    brain: AgedBrain | None = None,
) -> SimulatedScan:
    """Scan `person` at `age` years; `brain` is `person.at_age(age)` where already known."""
    brain = person.at_age(age) if brain is None else brain
    grid = scanner_grid(acquisition, voxel)
    points, growth, matrices = _trace(person, brain, acquisition, grid)
    template = np.stack([upsample(p, matrices) for p in points])
    tissue = _tissue(person.template, template, voxel)
    clean = _clean_image(person, acquisition, template, voxel)
    values = finish(clean, acquisition, voxel)
    inside = tissue.sum(0) > 0.5
    if skull_strip:
        values = np.where(inside, values, 0)
    labels = nearest(region_labels(), BRAIN.index(template))
    stored = np.clip(np.rint(values * acquisition.gain), 0, 32767).astype('i2')
    jacobian = np.where(inside, upsample(growth, matrices), 0)
    return _oriented(
        acquisition.orientation,
        grid.affine,
        {'image': stored, 'labels': labels, 'mask': inside.astype('u1'), 'growth': jacobian},
        tissue,
        template,
        dict(zip(REGIONS, (brain.share * person.intracranial_ml).tolist(), strict=True)),
        _record(person, age, acquisition, voxel, skull_strip),
    )


def _trace(
    person: Person, brain: AgedBrain, acquisition: Acquisition, grid: ScannerGrid
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Follow coarse scanner points back to the template.

    Returns template positions (3, c...), log growth (c...), refining matrices.
    """
    points, matrices = grid.coarse()
    back = np.linalg.inv(head_to_scanner(acquisition, person.scale)).astype('f4')
    points = np.tensordot(back[:3, :3], points, 1) + back[:3, 3].reshape(3, 1, 1, 1)
    template = to_template(points, brain)
    return template, sample(brain.log_growth, FLOW.index(template)), matrices


def _tissue(template: Template, points: Array, voxel: tuple[float, float, float]) -> Array:
    """Tissue fractions at template points (3, ...) in mm, shape (3, ...)."""
    blurred = np.stack([slice_blur(t, template.grid.spacing, voxel) for t in template.tissue])
    return sample_vectors(blurred, template.grid.index(points))


def painted_head(template: Template, acquisition: Acquisition) -> Array:
    """Noise-free T1w of the template's head on its `head_grid`, white matter = 1."""
    image = paint_head(template.head, acquisition)
    box = grid_box(template.grid, template.head_grid)
    brain = paint(template.tissue, template.mask, template.texture, acquisition)
    image[box] = image[box] * (1 - template.mask) + brain
    return image


def _clean_image(
    person: Person, acquisition: Acquisition, points: Array, voxel: tuple[float, float, float]
) -> Array:
    """Noise-free T1w on the scanner grid, white matter = 1."""
    template = person.template
    image = slice_blur(painted_head(template, acquisition), template.grid.spacing, voxel)
    return sample(image, template.head_grid.index(points))


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
        log_growth=turn(volumes['growth']),
        parameters=parameters,
    )
