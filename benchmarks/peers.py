r"""Grey-matter maps of real heads by this program, by ANTs and by MeshNets, side by side.

    python benchmarks/peers.py WEIGHTS WORK HEAD.nii.gz [HEAD.nii.gz=LABELS.nii.gz ...]

``WEIGHTS`` holds brainchop's ``mindgrab`` and ``model20chan3cls`` (MIT); ``pip install antspyx``
for the other peer.  Each way starts from the file of the scanner, alone on one thread, in a
process of its own: processor seconds, its start among them, and peak memory are the process's.

* this program: brain mask, N4, registration to the template, tissues, modulated grey matter;
* ANTs: extremes cut off, N4, ``antsRegistrationSyNQuick[s]``, Atropos, modulated grey matter.  Its
  brain extraction needs weights from the network, so it gets our mask, which costs it nothing;
* MeshNets: brain mask and grey matter at 1 mm; neither bias field nor template.

With DLMUSE labels of a head, the Dice coefficient of its grey matter (code 601, in the head's own
space) with that of each way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bids_brainage.preprocessing.image import load_canonical, load_image, save_image
from bids_brainage.preprocessing.registration import dice
from bids_brainage.preprocessing.template import find_template, install_packaged_template

WAYS = ('this program', 'ANTs', 'MeshNets')
ONE_THREAD = {
    name: '1'
    for name in (
        'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS',
        'OPENBLAS_NUM_THREADS',
    )
}  # fmt: skip
GREY = 2
"""Label of grey matter in ``model20chan3cls``."""

NOT_GREY = (1, 4, 11, 35, 40, 41, 46, 49, 50, 51, 52, 61, 62, *range(81, 96))
"""DLMUSE's codes of fluid, white matter and brain stem; all others are grey matter (601)."""


def ours(head: Path, out: Path, work: Path) -> None:
    """Write the modulated map, the tissue labels and the mask."""
    sys.path.insert(0, str(Path(__file__).parents[1] / 'tools'))
    from real_inputs import grey_matter_files

    fixed, template = (find_template(work / 'template', resolution=n) for n in (2, 1))
    found = grey_matter_files(head, fixed, template, out)
    for name in ('t1w', 'mask'):
        save_image(*load_image(found[name]), out / f'{name}.nii.gz')
    tissues, affine = load_image(found['tissues'])
    save_image(tissues == 1, affine, out / 'grey.nii.gz', 'uint8')


def ants(head: Path, out: Path, work: Path) -> None:
    """Do the same with ANTs inside our brain mask."""
    import ants

    mask, image = (
        ants.image_read(str(out.parent / WAYS[0] / name)) for name in ('mask.nii.gz', 't1w.nii.gz')
    )
    template = ants.image_read(str(find_template(work / 'template', resolution=1).t1w))
    # without, three classes split white matter and leave grey matter out
    image = ants.iMath(image, 'TruncateIntensity', 0.01, 0.995, 256)
    brain = ants.n4_bias_field_correction(image, mask=mask) * mask
    moved = ants.registration(template, brain, type_of_transform='antsRegistrationSyNQuick[s]')
    tissue = ants.atropos(
        a=brain, x=mask, m='[0.1,1x1x1]', c='[5,0]', i='kmeans[3]', priorweight=0.0
    )
    grey = tissue['probabilityimages'][1]
    warped = ants.apply_transforms(template, grey, moved['fwdtransforms'])
    warp = next(name for name in moved['fwdtransforms'] if name.endswith('.nii.gz'))
    ants.image_write(
        warped * ants.create_jacobian_determinant_image(template, warp), str(out / 'map.nii.gz')
    )
    ants.image_write(ants.threshold_image(tissue['segmentation'], 2, 2), str(out / 'grey.nii.gz'))


def meshnets(head: Path, out: Path, work: Path) -> None:
    """Find mask and grey matter with two MeshNets, on the grid of FreeSurfer (1 mm, LIA)."""
    from scipy import ndimage

    from bids_brainage.preprocessing.resample import onto_grid

    data, affine, _ = load_canonical(head)
    centre = affine @ [*(np.array(data.shape) - 1) / 2, 1]
    grid = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    grid[:3, 3] = centre[:3] - grid[:3, :3] @ np.full(3, 127.5)
    conformed = onto_grid(data, affine, (256, 256, 256), grid)
    weights = json.loads((out / 'weights').read_text())
    mask = _net(Path(weights) / 'mindgrab', conformed, (2, 98)) == 1
    labels, _ = ndimage.label(mask)
    mask = ndimage.binary_fill_holes(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    brain = np.where(mask, conformed, 0)[box]
    tissue = np.zeros(mask.shape, np.uint8)
    tissue[box] = _net(Path(weights) / 'model20chan3cls', brain, (5, 95))
    grey = onto_grid((tissue == GREY) * np.float32(1), grid, data.shape, affine)
    save_image(grey > 0.5, affine, out / 'grey.nii.gz', 'uint8')


def _net(folder: Path, data: np.ndarray, quantiles: tuple[float, float]) -> np.ndarray:
    """Return the labels that a MeshNet gives to an image, shape (L, I, A)."""
    import torch
    from safetensors import safe_open

    torch.set_num_threads(1)
    low, high = np.percentile(data, quantiles)
    volume = torch.from_numpy(np.clip((data - low) / (high - low), 0, 1))[None, None].float()
    with safe_open(folder / 'model.safetensors', 'pt') as stored, torch.inference_mode():
        layers = json.loads(stored.metadata()['arch'])
        for k, layer in enumerate(layers):
            kernel, dilation = layer['kernel'], layer['dilation']
            bias = stored.get_tensor(f'conv{k}.bias') if layer['bias'] else None
            volume = torch.nn.functional.conv3d(
                volume, stored.get_tensor(f'conv{k}.weight'), bias,
                padding=dilation * (kernel - 1) // 2, dilation=dilation,
            )  # fmt: skip
            if layer['instance_norm']:
                volume = torch.nn.functional.group_norm(volume, volume.shape[1])
            if layer['act']:
                volume = getattr(torch.nn.functional, layer['act'])(volume)
        return volume[0].argmax(0).numpy()


def measured(way: str, head: Path, weights: Path, work: Path) -> tuple[float, float, float]:
    """Run one way on one head; return processor seconds, wall seconds and GB."""
    out = work / head.name.partition('.')[0] / way
    out.mkdir(parents=True, exist_ok=True)
    (out / 'weights').write_text(json.dumps(str(weights)))
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, '--one', way, str(head), str(out), str(work)],
        env={**os.environ, **ONE_THREAD},
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f'{way} failed on {head}')
    return used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 1e6


def grey_dice(found: Path, labels: Path) -> float:
    """Return how well the grey matter of a head agrees with DLMUSE's."""
    truth, _, _ = load_canonical(labels)
    codes = np.rint(truth)
    return dice(load_image(found)[0] > 0, (codes > 0) & ~np.isin(codes, NOT_GREY))


def main() -> None:
    """Run all ways on all heads and print a table."""
    if sys.argv[1:2] == ['--one']:
        way, head, out, work = sys.argv[2:]
        {WAYS[0]: ours, WAYS[1]: ants, WAYS[2]: meshnets}[way](Path(head), Path(out), Path(work))
        return
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('weights', type=Path)
    parser.add_argument('work', type=Path)
    parser.add_argument('heads', nargs='+', metavar='HEAD[=LABELS]')
    options = parser.parse_args()
    work = options.work.resolve()
    install_packaged_template(work / 'template')
    rows: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
    print('head | way | CPU s | wall s | GB | Dice')
    for given in options.heads:
        head, _, labels = given.partition('=')
        for way in WAYS:
            row = measured(way, Path(head).resolve(), options.weights.resolve(), work)
            name = Path(head).name.partition('.')[0]
            score = grey_dice(work / name / way / 'grey.nii.gz', Path(labels)) if labels else 0
            rows[way].append((*row, score))
            print(
                f'{name} | {way} | {row[0]:.0f} | {row[1]:.0f} | {row[2]:.2f} | {score:.3f}',
                flush=True,
            )
    first = statistics.median(row[0] for row in rows[WAYS[0]])
    for way, found in rows.items():
        middle = [statistics.median(column) for column in zip(*found, strict=True)]
        told = f'{middle[0]:.0f} s, {middle[2]:.2f} GB, Dice {middle[3]:.3f}'
        print(f'median of {len(found)}: {way}: {told}; {middle[0] / first:.2f} of ours')


if __name__ == '__main__':
    main()
