"""SFCN of Peng et al., Medical Image Analysis 2021 (doi:10.1016/j.media.2020.101871)."""

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

N_BLOCKS = 6
N_BINS = 40
AGE_RANGE = (42.0, 82.0)
"""Outer edges of the published bins, years."""


def key_map() -> dict[str, str]:
    """Return the names of the public layout (without prefix) and ours."""
    names: dict[str, str] = {}
    for block in range(N_BLOCKS):
        source = f'feature_extractor.conv_{block}'
        names |= weight_and_bias(f'{source}.0', f'blocks.{block}.conv')
        names |= batch_norm_names(f'{source}.1', f'blocks.{block}.norm')
    return names | weight_and_bias(f'classifier.conv_{N_BLOCKS}', 'head')


def layout(state: Mapping[str, Tensor], choices: Choices) -> Layout:
    """Return the public layout; the number of bins is that of the file.

    Every pooling halves an even axis, so kernels that are mirrored see RAS+ arrays exactly as
    the original sees those that are stored from right to left.
    """
    bias = state.get(f'classifier.conv_{N_BLOCKS}.bias')
    n_bins = N_BINS if bias is None else len(bias)
    mirrored = choices.array_order == 'LAS'

    def turn(_name: str, value: Tensor) -> Tensor:
        return value.flip(2) if mirrored and value.ndim == 5 else value

    options = {'age_range': list(choices.age_range or AGE_RANGE), 'n_bins': n_bins}
    return Layout(key_map(), options, turn=turn)


RECORDS = (
    Published(
        name='sfcn',
        arch='sfcn',
        tag='ukb',
        title='SFCN of Peng et al.',
        source='https://github.com/ha-ha-ha-han/UKBiobank_deep_pretrain',
        reference={
            'text': 'Peng et al., Medical Image Analysis 2021, 68:101871',
            'doi': '10.1016/j.media.2020.101871',
        },
        licence='MIT',
        copyright='2020 Han Peng',
        restriction='',
        files=(
            PublishedFile(
                'run_20190719_00_epoch_best_mae.p', '3631938002f789a842469132155380fa36de7d4d'
            ),
        ),
        layout=layout,
        training=Training('UK Biobank, 12,949 scans', 12949, *AGE_RANGE),
        preprocessing='UK Biobank pipeline: brain extracted with FSL, bias field corrected, '
        'aligned with MNI152 by a linear registration, 1 mm; divided by the mean of the whole '
        'grid, cropped about the centre to 160 x 192 x 160.',
        differences='Brain mask, bias field and registration are those of this program, not of '
        'FSL. Predicts between the edges of its age bins only, so younger and older people are '
        'drawn into them.',
        output={'kind': 'bins'},
        scale=2.0,
    ),
)
