"""Write where System D's training on T1w images alone begins.

    python tools/structural_start.py LAYERS MODELS

``MODELS/amagenet.start`` is AMAge-Net with ``fusion='structural'`` and without the last dense
block, on the grid of the packaged ``vgg8.lifespan-reduced``, its images scaled in the same way, so
that ``tools/real_inputs.py`` prepares both.  All layers to the third dense block have the shapes
of System C's: they come from the bundle ``LAYERS``, which has learnt from generated people; the
others are random.  System C divides an image by the spread of its values; the first layer makes up
for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from bids_brainage.bundles.bundle import Bundle, export_bundle, load_bundle, resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.bundles.untrained import OUTPUT_BIAS_YEARS, untrained_metadata
from bids_brainage.models.registry import create_model
from bids_brainage.training.start import start_state

ARCH, GRID, SEED = 'amagenet', 'vgg8.lifespan-reduced', 0
OPTIONS = {
    'n_nodes': 90, 'age_range': [0.0, 100.0], 'fusion': 'structural', 'blocks': [6, 12, 24, 0],
}  # fmt: skip
SPREAD = 0.36
"""Standard deviation in the brain, in units of the brightest percent (middle of 184 scans)."""

SHARED = ('stem.', 'stages.block1.', 'stages.transition1.', 'stages.block2.',
          'stages.transition2.', 'stages.block3.')  # fmt: skip


def borrowed(layers: Bundle, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those of the wanted weights of an encoder that another DenseNet has, too."""
    found = {name.removeprefix('features.'): w for name, w in start_state(layers, 1).items()}
    found['stem.conv.weight'] = found['stem.conv.weight'] / SPREAD
    return {name: found[name] for name in wanted if name.startswith(SHARED)}


def main() -> None:
    """Write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    for name in ('layers', 'models'):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    model = create_model(ARCH, **OPTIONS)
    model.set_output_bias(OUTPUT_BIAS_YEARS)
    taken = borrowed(load_bundle(options.layers), model.image_encoder.state_dict())
    model.image_encoder.load_state_dict(taken, strict=False)
    metadata = untrained_metadata(ARCH, 'start', OPTIONS, saliency=['gradcam'])
    grid = resolve_bundle(GRID, model_dirs(None)).input
    own = {name: metadata['input'][name] for name in ('kind', 'n_nodes')}
    metadata['input'] = {**grid, **own, 'structural_only': True}
    export_bundle(options.models / f'{ARCH}.start', model.eval(), metadata)


if __name__ == '__main__':
    main()
