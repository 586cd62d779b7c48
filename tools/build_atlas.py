"""Build the structure atlas of the package from whole-head label maps.

    python tools/build_atlas.py LABEL_MAP_DIR

``LABEL_MAP_DIR`` holds ``training_seg_*.nii.gz`` of SynthSeg (Apache-2.0).  Each map is turned
into a brain image with typical T1w intensities, registered to the MNI152NLin2009aSym template
that nilearn packages, resampled, averaged with its left–right mirror image, and smoothed.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage

from bids_brainage.preprocessing.registration import register, score
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.preprocessing.transforms import grid_points, sample_image
from bids_brainage.simulation.lifespan.anatomy import LABELS, t1w_of

DATA = Path(__file__).parents[1] / 'bids_brainage' / 'data' / 'atlas'
SMOOTHING_VOXELS = 0.7
LOG = logging.getLogger('build_atlas')

TABLE = {
    # name: tissue, intensity class, title
    'csf': ('CSF', 'csf', 'Fluid around the brain'),
    'lateral_ventricle': ('CSF', 'csf', 'Lateral ventricles'),
    'third_ventricle': ('CSF', 'csf', 'Third ventricle'),
    'fourth_ventricle': ('CSF', 'csf', 'Fourth ventricle'),
    'cortex': ('GM', 'gm', 'Cerebral cortex'),
    'cerebral_white_matter': ('WM', 'wm', 'Cerebral white matter'),
    'cerebellum_cortex': ('GM', 'gm', 'Cerebellar cortex'),
    'cerebellum_white_matter': ('WM', 'wm', 'Cerebellar white matter'),
    'thalamus': ('GM', 'thalamus', 'Thalamus'),
    'caudate': ('GM', 'striatum', 'Caudate and accumbens'),
    'putamen': ('GM', 'striatum', 'Putamen'),
    'pallidum': ('GM', 'pallidum', 'Pallidum'),
    'hippocampus': ('GM', 'gm', 'Hippocampus'),
    'amygdala': ('GM', 'gm', 'Amygdala'),
    'brainstem': ('WM', 'brainstem', 'Brain stem and ventral DC'),
}
OUTSIDE = 400
"""Labels above this are skull, scalp and other tissue outside the brain."""


def main() -> None:
    """Register all maps, average them, write the atlas and its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('label_map_dir', type=Path)
    folder = parser.parse_args().label_map_dir
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    template = load_mni152_template(resolution=2)
    fixed = template.get_fdata(dtype=np.float32)
    mask = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    priors = np.zeros((len(LABELS), *fixed.shape))
    maps = sorted(folder.glob('training_seg_*.nii.gz'))
    for path in maps:
        source = nib.as_closest_canonical(nib.load(path))
        labels = np.asanyarray(source.dataobj).astype(int)
        image, brain = t1w_of(labels)
        transform, _ = register(
            fixed, mask, template.affine, image, brain, source.affine, threads=2
        )
        result = score(transform, fixed, mask, image, brain, source.affine)
        LOG.info('%s: overlap %.3f, similarity %.3f', path.name, result.overlap, result.similarity)
        points = transform.to_native(grid_points(fixed.shape, template.affine))
        for i, (name, codes) in enumerate(LABELS.items()):
            here = np.isin(labels, codes)
            if name == 'csf':
                here |= (labels > OUTSIDE) | (labels == 0)
            soft = ndimage.gaussian_filter(here.astype(np.float32), SMOOTHING_VOXELS)
            priors[i] += sample_image(soft, source.affine, points).reshape(fixed.shape)
    priors /= len(maps)
    priors = (priors + priors[:, ::-1]) / 2
    priors = np.stack([ndimage.gaussian_filter(p, SMOOTHING_VOXELS) for p in priors])
    write(priors, template.affine)


def write(priors: np.ndarray, affine: np.ndarray) -> None:
    """Write the atlas with 8-bit steps, and the table of structures."""
    DATA.mkdir(parents=True, exist_ok=True)
    steps = np.round(np.moveaxis(priors, 0, 3) * 255).astype(np.uint8)
    image = nib.Nifti1Image(steps, affine)
    image.header.set_slope_inter(1 / 255, 0)
    image.header.set_xyzt_units('mm')
    nib.save(image, DATA / f'tpl-{DEFAULT_SPACE}_res-2_atlas-structures_probseg.nii.gz')
    table = [
        {'index': i, 'name': n, 'title': title, 'tissue': t, 'intensity': c}
        for i, (n, (t, c, title)) in enumerate(TABLE.items(), start=1)
    ]
    (DATA / 'structures.json').write_text(json.dumps(table, indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
