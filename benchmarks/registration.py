"""Processor time and quality of the registration, on heads whose anatomy is known.

    python benchmarks/registration.py [--label-maps MAP.nii.gz ...]

Two simulated people of 1 mm, whose position in the template is known voxel by voxel, and heads
painted from label maps (SynthSeg's numbers), of which only the tissues are.  Printed for each:
seconds; error of both directions in the brain, mm; Dice of grey matter with the template's; the
0.1 and 99.9 % quantiles of the volume change; voxels that fold.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_brainage.preprocessing.bias import correct_bias
from bids_brainage.preprocessing.image import load_image
from bids_brainage.preprocessing.registration import dice, register, score
from bids_brainage.preprocessing.template import find_template, install_packaged_template
from bids_brainage.preprocessing.transforms import grid_points, sample_image, voxel_points
from bids_brainage.simulation import make_person, simulate_scan
from bids_brainage.simulation.render import draw_acquisition

PEOPLE = ((7, 'F', 70.0), (11, 'M', 35.0))
GREY = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58)
WHITE = (2, 41, 7, 46, 16, 28, 60, 85)
DEEP = (10, 49, 13, 52)
OUTSIDE = 500
"""Labels from here on are no brain."""


@dataclass(frozen=True)
class Case:
    """A head before its bias is corrected, and what is known of it."""

    name: str
    data: np.ndarray
    affine: np.ndarray
    mask: np.ndarray
    grey: np.ndarray
    points: np.ndarray | None = None


def simulated(seed: int, sex: str, age: float) -> Case:
    """Return a simulated person, with the template position of each voxel of the brain."""
    person = make_person(seed, sex, spacing=1)
    scan = simulate_scan(person, age, draw_acquisition((seed, 0), 'RAS'), (1.0, 1.0, 1.0))
    mask = np.asarray(scan.brain_mask.dataobj) > 0
    data = np.asarray(scan.image.dataobj, np.float32)
    points = scan.template_points[:, mask].T
    return Case(f'simulated {seed}', data, scan.affine, mask, scan.tissue['gm'], points)


def painted(path: Path) -> Case:
    """Return a head painted from a label map, with noise and a bias field."""
    image = nib.as_closest_canonical(nib.load(path))
    labels = np.asarray(image.dataobj).astype(int)
    mask, grey = (labels > 0) & (labels < OUTSIDE), np.isin(labels, GREY)
    data = np.select(
        [np.isin(labels, DEEP), np.isin(labels, WHITE), grey, mask], [100.0, 120.0, 85.0, 35.0]
    )
    rng = np.random.default_rng(0)
    field = ndimage.zoom(rng.normal(size=(5, 5, 5)), np.array(labels.shape) / 5, order=3)
    data = ndimage.gaussian_filter(data, 0.6) * np.exp(0.15 * field)
    data = np.maximum(data + 3 * rng.normal(size=labels.shape), 0).astype(np.float32)
    return Case(path.name, data, image.affine, mask, grey.astype(np.float32))


def measure(case: Case, root: Path) -> str:
    """Register a head and return its line of the table."""
    template = find_template(install_packaged_template(root), resolution=2)
    fixed, grid = load_image(template.t1w)
    brain = load_image(template.mask)[0] > 0
    data, _ = correct_bias(case.data, case.affine, case.mask)
    begun = time.process_time()
    transform, _ = register(fixed, brain, grid, data, case.mask, case.affine)
    seconds = time.process_time() - begun
    found = score(transform, fixed, brain, data, case.mask, case.affine)
    where = transform.to_native(grid_points(fixed.shape, grid))
    grey = sample_image(case.grey, case.affine, where).reshape(fixed.shape) > 0.5
    overlap = dice(grey, load_image(template.gm)[0] > 0.5)
    errors = '–'
    if case.points is not None:
        native = voxel_points(case.mask, case.affine)
        there = np.linalg.norm(transform.to_native(case.points) - native, axis=1).mean()
        back = np.linalg.norm(transform.to_template(native) - case.points, axis=1).mean()
        errors = f'{there:.2f}, {back:.2f}'
    folds = int((transform.jacobian()[brain] <= 0).sum())
    return (
        f'| {case.name} | {seconds:.1f} | {errors} | {overlap:.3f} | '
        f'{found.jacobian_min:.2f} to {found.jacobian_max:.2f} | {folds} |'
    )


def main() -> None:
    """Print a table of all heads."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--label-maps', nargs='+', type=Path, default=[])
    options = parser.parse_args()
    print('| head | CPU s | error, mm | grey-matter Dice | volume change | folds |')
    print('| --- | --- | --- | --- | --- | --- |', flush=True)
    with tempfile.TemporaryDirectory() as root:
        for person in PEOPLE:
            print(measure(simulated(*person), Path(root)), flush=True)
        for path in options.label_maps:
            print(measure(painted(path), Path(root)), flush=True)


if __name__ == '__main__':
    main()
