"""Time and memory of a BOLD series through the steps of its workflow.

A series of 64 x 64 x 36 x 150 voxels (3.4 x 3.4 x 4 mm) is rendered from the template with known
motion; every step then runs in its own process with one thread, so that its peak memory is its
own::

    python benchmarks/bold.py
    python benchmarks/bold.py --volumes 300 --out bold.json

The errors against the known motion and position are printed below the table.

Measured on one thread of a busy 2-core machine, 150 volumes, CPU seconds and peak GB:

============  =====  ====
step          CPU s    GB
============  =====  ====
motion            8   0.3
coregister        2   0.3
resample         13   0.6
confounds         4   0.7
connectivity     13   0.9
figures           4   0.8
============  =====  ====

44 s in all; motion was found within 0.008 mm (median over volumes, RMS over the brain), the
position against the T1w image within 0.16 mm.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPE = (64, 64, 36)
VOXEL_MM = (3.4, 3.4, 4.0)
TR = 2.0
STEPS = ('motion', 'coregister', 'resample', 'confounds', 'connectivity', 'figures')
COLUMNS = ('step', 'cpu_s', 'wall_s', 'peak_gb')
PLACE = (3.0, -6.0, 4.0, 0.06, -0.03, 0.05)


def simulate(folder: Path, n_volumes: int) -> None:
    """Write series, true motion, T1w, masks and transform into the folder."""
    import nibabel as nib
    import numpy as np
    from nilearn import datasets
    from scipy import ndimage

    from bids_brainage.preprocessing.bold.motion import to_matrix
    from bids_brainage.preprocessing.transforms import SpatialTransform, save_transform

    rng = np.random.default_rng(0)
    mask = datasets.load_mni152_brain_mask(resolution=2)
    inside = np.asarray(mask.dataobj) > 0
    t1w = np.asarray(datasets.load_mni152_template(resolution=2).dataobj, np.float32) * inside
    nib.save(nib.Nifti1Image(t1w, mask.affine), folder / 't1w.nii.gz')
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), mask.affine), folder / 'brain.nii.gz')
    zero = np.zeros((*inside.shape, 3), np.float32)
    save_transform(folder / 'transform.npz', SpatialTransform(np.eye(4), zero, zero, mask.affine))
    bright = np.where(inside, 900 - 600 * t1w / np.percentile(t1w[inside], 98), 0)
    bright = ndimage.gaussian_filter(bright.astype(np.float32), 0.8)
    centre = np.array([0.0, -18.0, 8.0])
    motion = np.cumsum(rng.normal(0, [0.03] * 3 + [0.0004] * 3, (n_volumes, 6)), axis=0)
    motion -= motion[n_volumes // 2]
    affine = np.diag([*VOXEL_MM, 1.0])
    affine[:3, 3] = centre + PLACE[:3] - np.array(VOXEL_MM) * (np.array(SHAPE) - 1) / 2
    world = affine[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + affine[:3, 3:]
    data = np.empty((*SHAPE, n_volumes), np.int16)
    for t in range(n_volumes):
        chain = to_matrix(motion[t], centre) @ to_matrix(np.array(PLACE), centre)
        back = np.linalg.inv(mask.affine) @ np.linalg.inv(chain)
        index = back[:3, :3] @ world + back[:3, 3:]
        found = ndimage.map_coordinates(bright, index, order=1).reshape(SHAPE)
        data[..., t] = np.rint(found + rng.normal(0, 6, SHAPE))
    image = nib.Nifti1Image(data, affine)
    image.header.set_zooms((*VOXEL_MM, TR))
    image.header.set_xyzt_units('mm', 'sec')
    nib.save(image, folder / 'sub-01_task-rest_bold.nii.gz')
    np.savez(folder / 'truth.npz', motion=motion, place=to_matrix(np.array(PLACE), centre))


def interface(step: str, folder: Path) -> Any:
    """Return the Nipype interface of a step with its inputs."""
    from bids_brainage.interfaces import bold, bold_connectivity

    bold_file = str(folder / 'sub-01_task-rest_bold.nii.gz')
    slices = SHAPE[2]
    times = [TR * ((2 * i) % slices + (2 * i) // slices) / slices for i in range(slices)]
    metadata = {'RepetitionTime': TR, 'SliceTiming': times}
    native = {'t1w': str(folder / 't1w.nii.gz'), 't1w_mask': str(folder / 'brain.nii.gz')}
    made = {s: folder / s for s in STEPS}
    series = {
        'bold': str(made['resample'] / 'bold.nii'),
        'mask': str(made['resample'] / 'mask.nii.gz'),
    }
    motion = str(made['motion'] / 'motion.npz')
    regional = {
        **series,
        'confounds': str(made['confounds'] / 'confounds.tsv'),
        'facts': str(made['motion'] / 'facts.json'),
        'atlas': 'power2011',
        'space': 'MNI152NLin2009aSym',
    }
    if step == 'motion':
        return bold.EstimateMotion(bold=bold_file, metadata=metadata)
    if step == 'coregister':
        head = {
            'reference': str(made['motion'] / 'reference.nii.gz'),
            'mask': str(made['motion'] / 'mask.nii.gz'),
        }
        return bold.CoregisterBold(**head, **native)
    if step == 'resample':
        return bold.ResampleBold(
            bold=bold_file,
            metadata=metadata,
            motion=motion,
            matrix=str(made['coregister'] / 'matrix.txt'),
            transform=str(folder / 'transform.npz'),
            target_mask=str(folder / 'brain.nii.gz'),
        )
    if step == 'confounds':
        return bold.BuildConfounds(**series, motion=motion)
    if step == 'connectivity':
        return bold_connectivity.MeasureConnectivity(**regional)
    return bold_connectivity.DrawBold(
        **regional,
        **native,
        correlation=str(made['connectivity'] / 'correlation.tsv'),
        aligned=str(made['coregister'] / 'aligned.nii.gz'),
        source_file=bold_file,
        base_directory=str(made['figures']),
    )


def measure(step: str, folder: Path) -> dict[str, Any]:
    """Run one step in this process and return its row; imports are not counted as time."""
    task = interface(step, folder)
    where = folder / step
    where.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    task.run(cwd=str(where))
    return {
        'step': step,
        'cpu_s': time.process_time() - cpu,
        'wall_s': time.perf_counter() - wall,
        'peak_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def errors(folder: Path) -> dict[str, float]:
    """Compare motion and coregistration with the truth, mm over the brain."""
    import nibabel as nib
    import numpy as np

    from bids_brainage.preprocessing.bold.motion import Motion, framewise_displacement, to_matrix
    from bids_brainage.preprocessing.transforms import voxel_points

    truth: Any = np.load(folder / 'truth.npz')
    found: Any = np.load(folder / 'motion' / 'motion.npz')
    brain: Any = nib.load(folder / 'brain.nii.gz')
    points = voxel_points(np.asarray(brain.dataobj) > 0, brain.affine)[::20]

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        moved = [points @ m[:3, :3].T + m[:3, 3] for m in (a, b)]
        return float(np.sqrt(((moved[0] - moved[1]) ** 2).sum(axis=1).mean()))

    matrices = Motion(found['parameters'], found['centre']).matrices()
    true = [to_matrix(p, np.array([0.0, -18.0, 8.0])) for p in truth['motion']]
    middle = len(true) // 2
    pairs = [
        apart(a @ np.linalg.inv(matrices[middle]), b) for a, b in zip(matrices, true, strict=True)
    ]
    displacement = [framewise_displacement(p)[1:] for p in (found['parameters'], truth['motion'])]
    correlation: Any = np.corrcoef(np.stack(displacement))
    return {
        'motion_error_mm': float(np.median(pairs)),
        'fd_correlation': float(correlation[0, 1]),
        'coregistration_error_mm': apart(
            matrices[middle] @ np.loadtxt(folder / 'coregister' / 'matrix.txt'), truth['place']
        ),
    }


def main() -> int:
    """Read the options and run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--volumes', type=int, default=150)
    parser.add_argument('--out', type=Path, help='JSON file for the rows')
    parser.add_argument('--step', choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.folder)))
        return 0
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    rows = []
    print('\t'.join(COLUMNS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder, options.volumes)
        for step in STEPS:
            command = [sys.executable, __file__, '--step', step, '--folder', name]
            done = subprocess.run(
                command, env={**os.environ, **threads}, capture_output=True, text=True, check=True
            )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            numbers = [f'{rows[-1][key]:.1f}' for key in COLUMNS[1:]]
            print('\t'.join([step.ljust(14), *numbers]), flush=True)
        found = errors(folder)
    print('\t'.join(['all'.ljust(14), f'{sum(r["cpu_s"] for r in rows):.1f}']))
    print(json.dumps(found))
    if options.out:
        options.out.write_text(json.dumps({'steps': rows, 'errors': found}, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
