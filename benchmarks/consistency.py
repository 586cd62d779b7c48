"""Measure whether one brain keeps its age, however its image is stored.

    python benchmarks/consistency.py SCAN.nii.gz WORK_DIR [--brain-mask MASK.nii.gz]

Writes a dataset in which one T1w scan stands in four orientations, at 2 mm, smoothed, as bytes,
z-scored, and (with a mask) skull-stripped: at its own voxel size and 2 mm, with a background of
NaN, z-scored, and turned by some degrees with splines.  Runs the participant level on it, and
prints for each model the age of each beside that of the scan as it is.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_brainage.bundles.places import DEFAULT_MODELS

ORIENTATIONS = ('LPS', 'PIR', 'ASL')
TURN_DEGREES = (5.0, -4.0, 7.0)


def variants(scan: Path, mask: Path | None) -> dict[str, nib.Nifti1Image]:
    """Return name → image; ``asis`` is the scan itself."""
    from nibabel.processing import resample_from_to, resample_to_output
    from scipy.ndimage import gaussian_filter

    image = nib.load(scan)
    data = np.asarray(image.dataobj, dtype=np.float32)
    image = nib.Nifti1Image(data, image.affine)
    out = {'asis': image}
    for code in ORIENTATIONS:
        change = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(code)
        )
        out[code] = image.as_reoriented(change)
    width = 0.5 * 2.0 / np.asarray(image.header.get_zooms()[:3])
    smooth = nib.Nifti1Image(gaussian_filter(data, width / 1.18), image.affine)
    out['whole2mm'] = small = resample_to_output(smooth, 2.0, order=1)
    out['smoothed'] = smooth
    share = np.clip(data / np.percentile(data, 99.8), 0, 1)
    out['bytes'] = nib.Nifti1Image((255 * share).astype('u1'), image.affine)
    out['zscored'] = nib.Nifti1Image((data - data.mean()) / data.std(), image.affine)
    if mask is not None:
        brain = nib.load(mask)
        inside = brain.get_fdata() > 0
        stripped = np.where(inside, data, 0)
        centred = np.where(inside, (data - data[inside].mean()) / data[inside].std(), 0)
        out['stripped'] = nib.Nifti1Image(stripped, image.affine)
        out['strippednan'] = nib.Nifti1Image(np.where(inside, data, np.nan), image.affine)
        out['strippedzscored'] = nib.Nifti1Image(centred.astype('f4'), image.affine)
        out['strippedturned'] = nib.Nifti1Image(turned(stripped), image.affine)
        coarse = resample_from_to(brain, small, order=0).get_fdata() > 0
        out['stripped2mm'] = nib.Nifti1Image(small.get_fdata() * coarse, small.affine)
    return out


def turned(data: np.ndarray) -> np.ndarray:
    """Turn a volume about its centre with cubic splines, rounded to integers."""
    from scipy.ndimage import affine_transform
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler('xyz', TURN_DEGREES, degrees=True).as_matrix()
    centre = (np.array(data.shape) - 1) / 2
    moved = affine_transform(data, turn, offset=centre - turn @ centre, order=3)
    return np.rint(moved).astype('i2')


def write_dataset(folder: Path, images: dict[str, nib.Nifti1Image]) -> None:
    """Write one participant for each variant."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {'Name': 'One scan, stored in many ways', 'BIDSVersion': '1.11.1'}
    (folder / 'dataset_description.json').write_text(json.dumps(description), 'utf-8')
    for name, image in images.items():
        anat = folder / f'sub-{name}' / 'anat'
        anat.mkdir(parents=True, exist_ok=True)
        nib.save(image, anat / f'sub-{name}_T1w.nii.gz')


def main() -> None:
    """Write, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scan', type=Path)
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('--brain-mask', type=Path)
    parser.add_argument('--models', nargs='+', default=DEFAULT_MODELS)
    parser.add_argument('--nprocs', type=int, default=1)
    options = parser.parse_args()
    bids, out = options.work_dir / 'bids', options.work_dir / 'out'
    write_dataset(bids, variants(options.scan, options.brain_mask))
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage', bids, out, 'participant',
            '--nprocs', str(options.nprocs), '-w', options.work_dir / 'work',
            '--models', *options.models,
        ],
        check=True,
    )  # fmt: skip
    ages: dict[str, dict[str, float]] = {}
    for path in sorted(out.glob('sub-*/anat/*_brainage.tsv')):
        with path.open(encoding='utf-8') as stream:
            for row in csv.DictReader(stream, delimiter='\t'):
                of_model = ages.setdefault(row['model'], {})
                of_model[row['participant_id']] = float(row['predicted_age'])
    for model, found in ages.items():
        for name, age in found.items():
            sys.stdout.write(f'{model} {name:18s} {age:6.2f} {age - found["sub-asis"]:+.2f}\n')


if __name__ == '__main__':
    main()
