"""SynthBA of Puglisi et al., MetroXRAINE 2024 (doi:10.48550/arXiv.2406.00365)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bids_brainage.bundles.convert.record import (
    Choices,
    Layout,
    Published,
    PublishedFile,
    Training,
    batch_norm_names,
    weight_and_bias,
)

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = (6, 12, 48, 32)
"""Layers of the dense blocks of DenseNet-201."""

UNIT_YEARS = 100.0
"""The authors multiply what the network gives by 100."""


def key_map() -> dict[str, str]:
    """Return the names of MONAI's DenseNet-201 and ours."""
    names = {'features.conv0.weight': 'features.stem.conv.weight'}
    names |= batch_norm_names('features.norm0', 'features.stem.norm')
    for block, n_layers in enumerate(BLOCKS, start=1):
        for layer in range(n_layers):
            source = f'features.denseblock{block}.denselayer{layer + 1}.layers'
            own = f'features.stages.block{block}.{layer}'
            for part in (1, 2):
                names |= batch_norm_names(f'{source}.norm{part}', f'{own}.norm{part}')
                names[f'{source}.conv{part}.weight'] = f'{own}.conv{part}.weight'
        if block < len(BLOCKS):
            source, own = f'features.transition{block}', f'features.stages.transition{block}'
            names |= batch_norm_names(f'{source}.norm', f'{own}.norm')
            names[f'{source}.conv.weight'] = f'{own}.conv.weight'
    names |= batch_norm_names('features.norm5', 'features.norm')
    return names | weight_and_bias('class_layers.out', 'regressor')


def layout(_state: Mapping[str, Tensor], choices: Choices) -> Layout:
    """Return MONAI's layout; the output is in hundreds of years."""
    mirrored = choices.array_order == 'LAS'
    return Layout(key_map(), {'mirrored': mirrored, 'unit_years': UNIT_YEARS})


RECORDS = (
    Published(
        name='synthba',
        arch='densenet201',
        tag='synthba',
        title='SynthBA',
        source='https://github.com/LemuelPuglisi/SynthBA',
        reference={
            'text': 'Puglisi et al., SynthBA, IEEE MetroXRAINE 2024',
            'doi': '10.48550/arXiv.2406.00365',
        },
        licence='MIT, as the metadata of the package say; the repository has no licence file',
        copyright='The authors of SynthBA',
        restriction='No licence comes with the weights themselves.',
        files=(
            PublishedFile(
                'synthba-g.pth', '40e25e5b1c0061010b3dd03ae44d7068180398a8', 'recommended'
            ),
            PublishedFile(
                'synthba-u.pth', '8be4aa4a5da9bec3c553f5646da2907ad27c0ad1', 'uniform prior'
            ),
            PublishedFile(
                'synthba-g.pth', 'cdbe133c8112227d438179df6da80145e7975053', 'of the 2024 paper'
            ),
            PublishedFile(
                'synthba-u.pth', 'acd085d53d01d1f9bce99b1fb6c96827c06d56aa', 'of the 2024 paper'
            ),
        ),
        layout=layout,
        training=Training('Images synthesised from label maps of healthy people'),
        preprocessing='brain extracted with SynthStrip; aligned with the brain of MNI152 at 1 mm '
        'by an affine registration of ANTs; sampled at 1.4 mm, cropped about the centre to 130 '
        'x 130 x 130, scaled to 0 to 1; output times 100.',
        differences='Brain mask and registration are those of this program, not SynthStrip and '
        'ANTs, and the bias field is corrected, which the authors do not do. The authors take '
        'any contrast; here it is the T1w image. How many people of which ages were trained on '
        'is not stated in the code.',
    ),
)
