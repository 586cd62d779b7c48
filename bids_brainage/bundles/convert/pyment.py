"""Networks of pyment: Leonardsen et al., NeuroImage 2022 (doi:10.1016/j.neuroimage.2022.119210).

Their weights are those that are called ``brain-age-2022``; later ones have other inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from bids_brainage.bundles.convert.record import (
    Choices,
    Layout,
    Published,
    PublishedFile,
    Training,
)

if TYPE_CHECKING:
    from torch import Tensor

N_BLOCKS = 6
AGE_RANGE = (3.0, 95.0)
"""Lowest and highest age that the published networks give, years."""

_LAYERS = {
    'conv': {'kernel': 'weight', 'bias': 'bias'},
    'norm': {
        'gamma': 'weight',
        'beta': 'bias',
        'moving_mean': 'running_mean',
        'moving_variance': 'running_var',
    },
}


def key_map() -> dict[str, str]:
    """Return the names that `read.read_keras` gives and ours."""
    names = {
        f'block{block}.{layer}.{source}': f'blocks.{block}.{layer}.{own}'
        for block in range(N_BLOCKS)
        for layer, fields in _LAYERS.items()
        for source, own in fields.items()
    }
    # Keras has no counter of batches; the name stands for one that is absent
    names |= {
        f'block{block}.norm.num_batches_tracked': f'blocks.{block}.norm.num_batches_tracked'
        for block in range(N_BLOCKS)
    }
    return names | {'predictions.kernel': 'head.weight', 'predictions.bias': 'head.bias'}


def turn(_name: str, value: Tensor) -> Tensor:
    """Bring a kernel of Keras (space, channels in, channels out) to the order of torch.

    Parameters
    ----------
    _name : str
        Not needed: the number of axes says what it is.
    value : Tensor
        Shape (X, Y, Z, in, out), (in, out) or (n,).

    Returns
    -------
    Tensor
        Shape (out, in, X, Y, Z), (out, in) or (n,).
    """
    order = {5: (4, 3, 0, 1, 2), 2: (1, 0)}.get(value.ndim)
    return value if order is None else value.permute(order)


def layout(_state: Mapping[str, Tensor], choices: Choices) -> Layout:
    """Return the layout of Keras; the poolings leave voxels of odd axes out at one end."""
    options = {'age_range': list(AGE_RANGE), 'mirrored': choices.array_order == 'LAS'}
    return Layout(key_map(), options, turn=turn)


_REGRESSION = Published(
    name='pyment-regression',
    arch='sfcn_regression',
    tag='pyment',
    title='Regression SFCN of pyment',
    source='https://github.com/estenhl/pyment-public',
    reference={
        'text': 'Leonardsen et al., NeuroImage 2022, 256:119210',
        'doi': '10.1016/j.neuroimage.2022.119210',
    },
    licence='CC BY-NC 4.0',
    copyright='The authors of pyment',
    restriction='No commercial use.',
    files=(
        PublishedFile(
            'regression_sfcn_brain_age_weights.h5', 'f87a66558433308bb8a5ecfb6aaa784811c5cd45'
        ),
        PublishedFile(
            'regression_sfcn_brain_age_weights.h5',
            '54b7f9545f1120cb302ff7342aaa724513f75219',
            'earlier',
        ),
    ),
    layout=layout,
    training=Training('34,285 images of 21 datasets', 34285, *AGE_RANGE),
    preprocessing='brain and intensities of FreeSurfer (autorecon1); aligned with the brain of '
    'MNI152 at 1 mm by a rigid registration of FSL, so that the brain keeps its size; cropped '
    'to voxels 6 to 172, 2 to 213 and 0 to 159, divided by 255.',
    differences='Here the brain is scaled to the size of MNI152, which the authors do not do: '
    'ages may be off by more than their error. White matter is set to 110 of 255 in place of '
    "FreeSurfer's intensities, and the brain mask is that of this program. Predicts between 3 "
    'and 95 years only.',
    format='keras',
)

RECORDS = (
    _REGRESSION,
    replace(
        _REGRESSION,
        name='pyment-ranking',
        arch='sfcn_ranking',
        title='Ranking SFCN of pyment',
        files=(
            PublishedFile(
                'ranking_sfcn_brain_age_weights.h5', '5d1bc5fc66327eb905acf81d9956f0391277b078'
            ),
        ),
        differences=_REGRESSION.differences.replace('Predicts', 'Predicts whole years'),
    ),
)
