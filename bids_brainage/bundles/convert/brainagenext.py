"""BrainAgeNeXt of La Rosa et al., Imaging Neuroscience 2025 (doi:10.1162/imag_a_00487)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bids_brainage.bundles.convert.record import (
    Choices,
    Layout,
    Published,
    PublishedFile,
    Training,
    weight_and_bias,
)

if TYPE_CHECKING:
    from torch import Tensor

N_FILES = 5
N_LEVELS = 5
N_BLOCKS = 2
_PARTS = {'conv1': 'depthwise', 'norm': 'norm', 'conv2': 'expand', 'conv3': 'compress'}

UNUSED = frozenset(
    f'mednextv1.{name}'
    for name in ('dummy_tensor', 'out_0.conv_out.weight', 'out_0.conv_out.bias')
)
"""What the encoder inherits from the segmentation network and does not use."""


def key_map() -> dict[str, str]:
    """Return the names of the authors' network and ours."""
    names = weight_and_bias('mednextv1.stem', 'stem')
    for level in range(N_LEVELS):
        last = level == N_LEVELS - 1
        source = 'mednextv1.bottleneck' if last else f'mednextv1.enc_block_{level}'
        for block in range(N_BLOCKS):
            names |= _block_names(f'{source}.{block}', f'levels.{level}.{block}')
        if not last:
            names |= _block_names(f'mednextv1.down_{level}', f'downs.{level}')
            names |= weight_and_bias(f'mednextv1.down_{level}.res_conv', f'downs.{level}.shortcut')
    names |= weight_and_bias('regression_fc.0', 'head.0')
    return names | weight_and_bias('regression_fc.3', 'head.2')


def _block_names(source: str, own: str) -> dict[str, str]:
    return {
        name: mine
        for theirs, ours in _PARTS.items()
        for name, mine in weight_and_bias(f'{source}.{theirs}', f'{own}.{ours}').items()
    }


def layout(_state: Mapping[str, Tensor], choices: Choices) -> Layout:
    """Return the layout of one of the five files."""
    return Layout(key_map(), {'mirrored': choices.array_order == 'LAS'}, unused=UNUSED)


RECORDS = (
    Published(
        name='brainagenext',
        arch='mednext',
        tag='brainagenext',
        title='BrainAgeNeXt',
        source='https://huggingface.co/FrancescoLR/BrainAgeNeXt',
        reference={
            'text': 'La Rosa et al., Imaging Neuroscience 2025',
            'doi': '10.1162/imag_a_00487',
        },
        licence='Apache-2.0 for the code; that of the weights stands on their page',
        copyright='Francesco La Rosa',
        restriction='The licence of the weights could not be read here.',
        files=tuple(PublishedFile(f'BrainAge_{k}.pth') for k in range(1, N_FILES + 1)),
        layout=layout,
        training=Training('11,574 scans of 33 datasets', 11574, 5.0, 95.0),
        preprocessing='brain extracted with SynthSeg; aligned with MNI152 by an affine '
        'registration of ANTs; bias field corrected with N4; cut to the brain, padded or cropped '
        'to 160 x 192 x 160 at 1 mm, z-scored over the voxels above zero; median of five '
        'networks.',
        differences='Brain mask and registration are those of this program, not SynthSeg and '
        'ANTs. The authors add 0.062 times the known age less 2.96 years for adults; here the '
        'age is the uncorrected one. They do not say in which order their arrays are stored: '
        'LAS is taken. A prediction needs about 5 GB.',
        n_files=N_FILES,
        combine='median',
    ),
)
