"""How far the age of the default model would move if volumes were measured on fMRIPrep's images.

    python benchmarks/prepared.py SCAN.nii.gz [SCAN.nii.gz ...] [--out TABLE.tsv]

The program measures volumes on the raw image, whatever `--derivatives` gives; this shows why.
Each scan of a whole head is measured as it is, and as fMRIPrep would hand it on, with its bias
field removed: by our own N4 inside the brain, and by N4 on the whole head with the settings of
fMRIPrep (clipped intensities, every fourth voxel, 200 mm between the knots of the spline).  The
mask is our own: for this model it only says where the brain is.  Prints the years that each age
moves by against that of the scan as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainage.bundles.bundle import resolve_bundle
from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs
from bids_brainage.inference.predict import predict
from bids_brainage.preprocessing.bias import correct_bias
from bids_brainage.preprocessing.brainmask import find_brain
from bids_brainage.preprocessing.image import load_canonical
from bids_brainage.segmentation.measure import measure
from bids_brainage.segmentation.weights import load_networks, segmentation_facts

CLIP = (0.005, 0.995)
SHRINK = 4
KNOTS_MM = 200.0
ITERATIONS = (50, 50, 50, 50)
COLUMNS = ['own N4', 'N4 as fMRIPrep']


def n4_whole_head(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return an image without bias field, fitted on the whole head; the scale is kept."""
    import SimpleITK as sitk

    clipped = np.clip(data, *np.quantile(data, CLIP)).astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(clipped.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    small = sitk.Shrink(image, [SHRINK] * 3)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetConvergenceThreshold(1e-7)
    knots = np.maximum(np.ceil(np.array(data.shape) * spacing / KNOTS_MM), 1).astype(int) + 3
    n4.SetNumberOfControlPoints(knots.tolist())
    n4.SetNumberOfThreads(1)
    n4.Execute(small)
    enlarge = sitk.ResampleImageFilter()
    enlarge.SetReferenceImage(image)
    enlarge.SetInterpolator(sitk.sitkLinear)
    enlarge.SetUseNearestNeighborExtrapolator(True)
    field = sitk.GetArrayFromImage(enlarge.Execute(n4.GetLogBiasFieldAsImage(small)))
    return clipped / np.exp(field.transpose(2, 1, 0))


def variants(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield name, intensities, affine and brain mask; ``asis`` comes first."""
    data, affine, facts = load_canonical(path)
    mask, _ = find_brain(data, affine, skull_stripped=facts.skull_stripped)
    yield 'asis', data, affine, mask
    yield COLUMNS[0], correct_bias(data, affine, mask)[0], affine, mask
    yield COLUMNS[1], n4_whole_head(data, affine), affine, mask


def main() -> int:
    """Print one line for each scan and the mean of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('scans', nargs='+', type=Path)
    parser.add_argument('--out', type=Path)
    options = parser.parse_args()
    bundle = resolve_bundle(DEFAULT_MODELS[0], model_dirs(None))
    networks = load_networks(threads=1)
    rows = []
    for path in options.scans:
        ages = {}
        for name, data, affine, mask in variants(path):
            volumes = measure(data, affine, mask, networks).volumes_ml
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, 'volumes.json')
                facts = {'Segmentation': segmentation_facts(), 'SkullStripped': False}
                file.write_text(json.dumps({'VolumesML': volumes, **facts}))
                ages[name] = predict(bundle, {'region_volumes': file}, saliency=()).age
        moved = {name: ages[name] - ages['asis'] for name in COLUMNS}
        rows.append({'scan': path.name.partition('_')[0], 'as it is': ages['asis'], **moved})
        sys.stdout.write(' '.join(str(value)[:8] for value in rows[-1].values()) + '\n')
        sys.stdout.flush()
    table = pd.DataFrame(rows).set_index('scan')
    moved_by = table[COLUMNS]
    sys.stdout.write(f'n {len(table)}\nmean\n{moved_by.mean().round(2).to_string()}\n')
    sys.stdout.write(f'mean absolute\n{moved_by.abs().mean().round(2).to_string()}\n')
    sys.stdout.write(f'largest\n{moved_by.abs().max().round(2).to_string()}\n')
    if options.out:
        table.to_csv(options.out, sep='\t')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
