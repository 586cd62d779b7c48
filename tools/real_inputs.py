"""Prepare T1w brains of people of known age, as a bundle sees them, without a run.

    python tools/real_inputs.py SHARED_DATA WORK [--start BUNDLE] [--part I/N]

Mask, bias field, affine and grid are found by the functions of the participant level.
``WORK/<kind of input>/<scan>.npy``, shape (N, X, Y, Z), holds the input of the bundle: the
modulated grey matter (System A, N = 1; the deformed map of 1 mm stays in ``WORK/maps``), the
aligned brain (Systems B and D, N = 1), or each thick-slice scan that the head contains, in its
own space (System C).  What is there already stays.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from measure_regions import scans

from bids_brainage.bundles.places import model_dirs
from bids_brainage.inputs.arrays import modulated_gm, prepare_slices
from bids_brainage.inputs.intensity import scale_by_top_percent
from bids_brainage.interfaces.anatomical import (
    CheckT1w,
    CorrectBias,
    ExtractBrain,
    RegisterToTemplate,
    SegmentBrain,
    WarpToTemplate,
)
from bids_brainage.preprocessing.bias import correct_bias
from bids_brainage.preprocessing.brainmask import find_brain
from bids_brainage.preprocessing.image import load_canonical
from bids_brainage.preprocessing.normalise import pull
from bids_brainage.preprocessing.registration import align
from bids_brainage.preprocessing.resample import onto_grid
from bids_brainage.preprocessing.template import Template, find_template, install_packaged_template
from bids_brainage.preprocessing.transforms import grid_points
from bids_brainage.training.start import find_start

LOG = logging.getLogger('real_inputs')
START = 'vgg8.lifespan-reduced'


def aligned_brain(
    path: Path, fixed: Template, template: Template
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias-corrected brain on the 1 mm grid of the template, and that grid.

    Parameters
    ----------
    path : Path
        T1w image.
    fixed, template : Template
        At 2 mm, to which the brain is aligned, and at 1 mm.
    """
    data, affine, facts = load_canonical(path)
    mask, _ = find_brain(data, affine, skull_stripped=facts.skull_stripped)
    corrected, _ = correct_bias(data, affine, mask)
    target, target_affine, _ = load_canonical(fixed.t1w)
    target_mask = load_canonical(fixed.mask)[0] > 0
    found = align(target, target_mask, target_affine, corrected, mask, affine)
    image, grid, _ = load_canonical(template.t1w)
    points = grid_points(image.shape, grid) @ found[:3, :3].T + found[:3, 3]
    brain = pull(mask.astype(np.float32), affine, points, image.shape) > 0.5
    return pull(corrected, affine, points, image.shape) * brain, grid


def grey_matter_files(
    path: Path, fixed: Template, template: Template, folder: Path
) -> dict[str, Path]:
    """Run the steps of the participant level up to the modulated grey matter.

    Parameters
    ----------
    path, fixed, template
        As for `aligned_brain`.
    folder : Path
        Gets the files of all steps.

    Returns
    -------
    dict
        ``t1w`` (in RAS+ order), ``mask`` and ``tissues`` in the person's own space, and
        ``gm_modulated`` on the 1 mm grid of the template.
    """

    def run(interface: Any, **inputs: Any) -> Any:
        step = folder / interface.__name__
        step.mkdir(exist_ok=True)
        return interface(**inputs).run(cwd=step).outputs

    check = run(CheckT1w, t1w=str(path.resolve()), memo=f'{folder}/memo.json')
    mask = run(ExtractBrain, t1w=check.t1w, facts=check.facts).mask
    brain = {'t1w': run(CorrectBias, t1w=check.t1w, mask=mask).t1w, 'mask': mask}
    found = run(
        RegisterToTemplate, **brain, template=str(fixed.t1w), template_mask=str(fixed.mask)
    )
    brain['transform'] = found.transform
    tissues = run(SegmentBrain, **brain)
    warped = run(
        WarpToTemplate, **brain, template=str(template.t1w), gm=tissues.gm,
        tissues=tissues.tissues, structures=tissues.structures,
    )  # fmt: skip
    files = (check.t1w, mask, tissues.tissues, warped.gm_modulated)
    names = ('t1w', 'mask', 'tissues', 'gm_modulated')
    return dict(zip(names, map(Path, files), strict=True))


def grey_matter(path: Path, fixed: Template, template: Template, out: Path) -> Path:
    """Write the modulated grey matter on the 1 mm grid of the template, if it is not there."""
    if not out.is_file():
        with TemporaryDirectory() as folder:
            found = grey_matter_files(path, fixed, template, Path(folder))['gm_modulated']
            out.parent.mkdir(exist_ok=True)
            nib.save(nib.load(found), out)
    return out


def thick_slices(path: Path, declared: Mapping[str, Any]) -> np.ndarray:
    """Return the thick-slice scans of a head, shape (N, X, Y, Z), for the input of a bundle."""
    data, affine, facts = load_canonical(path)
    mask, _ = find_brain(data, affine, skull_stripped=facts.skull_stripped)
    with TemporaryDirectory() as folder:
        brain = Path(folder) / 'mask.nii'
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), brain)
        slices = prepare_slices(declared, {'t1w_uncorrected': path, 'mask_native': brain})
    return np.concatenate([part.arrays[0] for part in slices])


def main() -> None:
    """Prepare what is missing."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    for name in ('shared', 'work'):
        parser.add_argument(name, type=Path)
    parser.add_argument('--start', default=START, metavar='BUNDLE')
    parser.add_argument('--part', default='1/1', help='which part of the scans, as 1/2')
    options = parser.parse_args()
    declared = find_start(options.start, model_dirs(None)).input
    folder = options.work / declared['kind']
    folder.mkdir(parents=True, exist_ok=True)
    root = options.work.resolve() / 'template'
    install_packaged_template(root)
    fixed, template = find_template(root, resolution=2), find_template(root, resolution=1)
    part, parts = map(int, options.part.split('/'))
    for _, path, _ in list(scans(options.shared))[part - 1 :: parts]:
        out = folder / f'{path.name.removesuffix("_T1w.nii.gz")}.npy'
        if not out.is_file():
            if declared['kind'] == 't1w_clinical':
                found = thick_slices(path, declared)
            elif declared['kind'] == 'modulated_gm':
                whole = options.work / 'maps' / f'{out.stem}_gm.nii.gz'
                files = {'gm_modulated': grey_matter(path, fixed, template, whole)}
                found = modulated_gm(declared, files).arrays[0]
            else:
                image = onto_grid(
                    *aligned_brain(path, fixed, template),
                    tuple(declared['shape']), np.array(declared['affine']),
                )  # fmt: skip
                found = scale_by_top_percent(image, source=path.name)[None]
            np.save(out, found)
            LOG.info('%s', out.stem)


if __name__ == '__main__':
    main()
