"""Simulated people with the derivatives of the participant level, in seconds a person.

The simulation knows where every point of a head belongs in the template, so no brain has to be
extracted, corrected, segmented or registered.  A registration resolves only broad differences;
`RESOLVED_MM` says how broad, and the true warp is smoothed by as much.  Everything after it is
the program's own normalisation.  `test_simulated_training.py` compares the result with what
the participant level makes of the same scan.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

import bids_brainage.simulation
from bids_brainage.names import derivative_path
from bids_brainage.preprocessing import normalise
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.preprocessing.transforms import SpatialTransform, grid_points
from bids_brainage.simulation import Person, SimulatedScan, simulate_scan
from bids_brainage.simulation.dataset import Plan, draw_person, participant
from bids_brainage.simulation.person import AgedBrain, to_template
from bids_brainage.simulation.render import Acquisition, draw_acquisition, head_to_scanner
from bids_brainage.simulation.template import REGION_MAPS

SCAN_MM = 3.0
DERIVATIVE_GRID = (66, 78, 63)
DERIVATIVE_AFFINE = np.array([[3.0, 0, 0, -98], [0, 3.0, 0, -134], [0, 0, 3.0, -72], [0, 0, 0, 1]])
#: Gaussian (SD, mm) that the true warp is smoothed by.
RESOLVED_MM = 6.0
#: Share of the true grey matter that the segmentation of a 3 mm scan calls grey.
FOUND_GM = 0.86
INVERSION_ROUNDS = 10
N_NODES = 90
#: SD of how much older or younger than they are people's connectivity looks.
GAP_YEARS = 4.0
SIMULATION = ('dataset', 'grid', 'head', 'person', 'render', 'scan', 'template', 'warp')


@dataclass(frozen=True)
class Normalised:
    """Maps in template space, on `DERIVATIVE_GRID`."""

    t1w: np.ndarray
    gm_modulated: np.ndarray


def take_scan(
    seed: tuple[int, ...], age: float, sex: str, bias: bool = False
) -> tuple[SimulatedScan, SpatialTransform, Person]:
    """Scan a person of the simulation at 3 mm; also where the scan lies in the template."""
    person, (brain,) = draw_person(seed, sex, 2, [age], exact=False)
    acquisition = draw_acquisition((*seed, 1000), 'RAS')
    if not bias:
        acquisition = replace(acquisition, bias=0.0)
    scan = simulate_scan(person, age, acquisition, (SCAN_MM,) * 3, brain=brain)
    return scan, known_transform(person, brain, acquisition), person


def known_transform(
    person: Person, brain: AgedBrain, acquisition: Acquisition
) -> SpatialTransform:
    """Template to native, as a registration would find it: the true warp, smoothed."""
    grid = person.template.grid.coarser(4.0, 8.0)
    template = grid.points()
    head = template.copy()
    for _ in range(INVERSION_ROUNDS):
        head += template - to_template(head, brain)
    broad = [ndimage.gaussian_filter(u, RESOLVED_MM / grid.spacing) for u in head - template]
    displacement = np.stack(broad, axis=-1)
    # Of the two directions only this one is used.
    return SpatialTransform(
        head_to_scanner(acquisition, person.scale), displacement, -displacement, grid.affine
    )


def normalised(scan: SimulatedScan, transform: SpatialTransform) -> Normalised:
    """Bring a scan into template space with the program's own functions."""
    where = normalise.template_coordinates(transform, DERIVATIVE_GRID, DERIVATIVE_AFFINE)

    def pull(data: np.ndarray, where: np.ndarray = where) -> np.ndarray:
        return normalise.pull(data, scan.affine, where, DERIVATIVE_GRID)

    mask = np.asarray(scan.brain_mask.dataobj) > 0
    aligned = aligned_coordinates(where, pull(mask.astype(np.float32)) > 0.5)
    t1w = pull(np.asarray(scan.image.dataobj, np.float32) * mask, aligned)
    gm = FOUND_GM * scan.tissue['gm']
    gm = ndimage.gaussian_filter(gm, normalise.MODULATION_SMOOTHING_MM / SCAN_MM)
    modulated = normalise.modulate(
        pull(gm), transform.jacobian(), transform.grid, DERIVATIVE_AFFINE
    )
    return Normalised(t1w, modulated)


def aligned_coordinates(where: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Replace a deformation by the affine that fits it best in the brain, shape (N, 3)."""
    grid = grid_points(DERIVATIVE_GRID, DERIVATIVE_AFFINE)
    design = np.column_stack([grid, np.ones(len(grid))])
    inside = brain.ravel()
    affine, *_ = np.linalg.lstsq(design[inside], where[inside], rcond=None)
    return (design @ affine).astype(np.float32)


def connectivity(age: float, rng: np.random.Generator) -> np.ndarray:
    """Correlations of regions that fade with age; not part of the simulation, (N, N)."""
    common = rng.standard_normal((150, 1)) * (1.5 - age / 90)
    series = common + rng.standard_normal((150, N_NODES))
    return np.corrcoef(series, rowvar=False)


def write_cohort(root: Path, n: int, seed: int = 11) -> None:
    """Write ``bids`` and ``out`` of a cohort below a folder."""
    plan = Plan(n, seed=seed, resolution=SCAN_MM)
    lines = ['participant_id\tage\tsex']
    with ProcessPoolExecutor(os.cpu_count(), get_context('spawn')) as pool:
        for number, found in enumerate(pool.map(partial(write_person, root, plan), range(n))):
            lines.append('\t'.join([f'sub-{number + 1:02d}', *map(str, found)]))
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    description = {
        'Name': 'Simulated people', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw',
        'GeneratedBy': [{'Name': 'bids_brainage.simulation'}],
    }  # fmt: skip
    (root / 'bids' / 'dataset_description.json').write_text(json.dumps(description))


def write_person(root: Path, plan: Plan, number: int) -> tuple[float, str]:
    """Write scan and derivatives of one person, and return age and sex."""
    age, sex = participant(plan, number)
    name = f'{number + 1:02d}'
    scan, transform, _ = take_scan((plan.seed, number), age, sex)
    raw = root / 'bids' / f'sub-{name}' / 'anat' / f'sub-{name}_T1w.nii.gz'
    raw.parent.mkdir(parents=True)
    nib.save(scan.image, raw)
    write_derivatives(root / 'out', name, scan, normalised(scan, transform))
    relmat = root / 'out' / f'sub-{name}' / 'func'
    relmat.mkdir()
    rng = np.random.default_rng([plan.seed, number, 7])
    matrix = connectivity(age + GAP_YEARS * rng.standard_normal(), rng)
    name = f'sub-{name}_task-rest_atlas-power2011_stat-pearsoncorrelation_relmat.tsv'
    np.savetxt(
        relmat / name, matrix,
        fmt='%.5f', delimiter='\t', header='\t'.join(f'r{k}' for k in range(N_NODES)), comments='',
    )  # fmt: skip
    return age, sex


def write_derivatives(out: Path, name: str, scan: SimulatedScan, maps: Normalised) -> None:
    """Write what training reads of one scan."""
    space = {'space': DEFAULT_SPACE, 'res': '1'}
    gm = {'label': 'GM', 'desc': 'modulated', 'suffix': 'probseg'}
    for entities, data in (
        ({**space, 'desc': 'affine', 'suffix': 'T1w'}, maps.t1w),
        ({**space, **gm}, maps.gm_modulated),
    ):
        path = out / derivative_path({'sub': name, **entities}, 'anat')
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data.astype(np.float32), DERIVATIVE_AFFINE), path)
    mask = derivative_path({'sub': name, 'desc': 'brain', 'suffix': 'mask'}, 'anat')
    nib.save(scan.brain_mask, out / mask)


def cached_cohort(folder: Path, n: int) -> Path:
    """Return a cohort below a folder, made there if this version of the code has not yet."""
    from filelock import FileLock

    root = folder / f'cohort-{n}-{code_version()}'
    with FileLock(folder / 'cohort.lock'):
        if not root.is_dir():
            scratch = Path(tempfile.mkdtemp(dir=folder))
            write_cohort(scratch, n)
            scratch.rename(root)
    return root


def code_version() -> str:
    """Hash the code that a cohort depends on."""
    package = Path(bids_brainage.simulation.__file__).parent
    files = [
        *(package / f'{name}.py' for name in SIMULATION),
        *(package / 'lifespan' / f'{name}.py' for name in ('field', 'person', 'population')),
        package.parent / 'data' / 'population' / 'regions.json',
        package.parent / REGION_MAPS,
        Path(normalise.__file__),
        Path(__file__),
    ]
    return hashlib.sha256(b''.join(path.read_bytes() for path in files)).hexdigest()[:16]
