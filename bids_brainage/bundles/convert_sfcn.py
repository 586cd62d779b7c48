"""Bring a state dict of the public SFCN layout into a bundle.

``python -m bids_brainage.bundles.convert_sfcn STATE_DICT.p OUT_DIR --tag ukb``

The file is read with ``weights_only=True``: no code that it may hold is run.  The layout is
that of the weights that Peng et al. (doi:10.1016/j.media.2020.101871) published, with or
without the ``module.`` prefix of data-parallel training.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bids_brainage.errors import BrainAgeError, BundleError, MissingInputError, OptionError
from bids_brainage.models.registry import model_info

if TYPE_CHECKING:
    from torch import Tensor

    from bids_brainage.bundles.bundle import Bundle

ArrayOrder = Literal['LAS', 'RAS']

PREFIX = 'module.'
N_BLOCKS = 6
_NORM_FIELDS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
#: Counters of BatchNorm that files of old library versions lack.
_OPTIONAL_SUFFIX = 'num_batches_tracked'


def key_map() -> dict[str, str]:
    """Names of the public layout and ours.

    Returns
    -------
    dict
        Key of the public state dict (without prefix) to key of
        `bids_brainage.models.sfcn.SFCN`.
    """
    names = {}
    for block in range(N_BLOCKS):
        source = f'feature_extractor.conv_{block}'
        for field in ('weight', 'bias'):
            names[f'{source}.0.{field}'] = f'blocks.{block}.conv.{field}'
        for field in _NORM_FIELDS:
            names[f'{source}.1.{field}'] = f'blocks.{block}.norm.{field}'
    for field in ('weight', 'bias'):
        names[f'classifier.conv_{N_BLOCKS}.{field}'] = f'head.{field}'
    return names


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file.

    Parameters
    ----------
    path : Path
        File written by ``torch.save(model.state_dict(), path)``.

    Returns
    -------
    dict of str to Tensor
        On the CPU, without the ``module.`` prefix.

    Raises
    ------
    MissingInputError
        There is no such file.
    BundleError
        The file holds something else than named tensors.
    """
    import torch

    if not path.is_file():
        raise MissingInputError(f'{path}: no such file. Give the state dict to convert.')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BundleError(
            f'{path}: expected a state dict of tensors, found a file that cannot be read without '
            f'running its code ({type(error).__name__}). Save `model.state_dict()` of the '
            'network instead of the network.'
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise BundleError(
            f'{path}: expected a mapping of names to tensors, found {type(content).__name__}. '
            'Save the state dict alone, without optimiser or epoch.'
        )
    return {str(key).removeprefix(PREFIX): value for key, value in content.items()}


def convert_state_dict(
    state: Mapping[str, Tensor], *, source: str, array_order: ArrayOrder = 'LAS'
) -> dict[str, Tensor]:
    """Rename and check the tensors, and turn the kernels to RAS+ input.

    Parameters
    ----------
    state : mapping of str to Tensor
        Public layout, without prefix.
    source : str
        Name of the file for messages.
    array_order : {'LAS', 'RAS'}
        Order of the arrays on which the network was trained.  Images on FSL's MNI152 grid
        are stored from right to left (LAS); the kernels are then mirrored, so that RAS+
        arrays give exactly the age that the original gives for the stored ones.

    Returns
    -------
    dict of str to Tensor
        State dict of `bids_brainage.models.sfcn.SFCN`.

    Raises
    ------
    BundleError
        Names are missing or unknown, or a shape differs.
    """
    import torch

    from bids_brainage.models.sfcn import SFCN

    names = key_map()
    missing = sorted(
        key for key in names.keys() - state.keys() if not key.endswith(_OPTIONAL_SUFFIX)
    )
    unknown = sorted(state.keys() - names.keys())
    if missing or unknown:
        raise BundleError(
            f'{source}: not the SFCN layout. Missing: {_some(missing)}. Unknown: {_some(unknown)}.'
        )
    n_bins = len(state[f'classifier.conv_{N_BLOCKS}.bias'])
    with torch.device('meta'):
        expected = SFCN(n_bins=n_bins).state_dict()
    converted = {}
    for public, ours in names.items():
        value = state.get(public, torch.tensor(0))
        if value.shape != expected[ours].shape:
            raise BundleError(
                f'{source}: {public} has shape {tuple(value.shape)}, expected '
                f'{tuple(expected[ours].shape)}.'
            )
        mirrored = array_order == 'LAS' and value.ndim == 5
        converted[ours] = (value.flip(2) if mirrored else value).contiguous()
    if not all(torch.isfinite(value).all() for value in converted.values()):
        raise BundleError(f'{source}: the weights hold values that are not finite numbers.')
    return converted


def _some(names: Sequence[str], limit: int = 3) -> str:
    """First few names, and how many more there are."""
    if not names:
        return 'none'
    more = len(names) - limit
    return ', '.join(names[:limit]) + (f' and {more} more' if more > 0 else '')


def _metadata(
    options: argparse.Namespace, n_bins: int, age_range: tuple[float, float]
) -> dict[str, Any]:
    """Metadata of the bundle; what the user did not say is stated as unknown."""
    info = model_info('sfcn')
    return {
        'name': f'sfcn.{options.tag}',
        'version': '1.0.0',
        'arch': 'sfcn',
        'arch_options': {'age_range': list(age_range), 'n_bins': n_bins},
        'status': 'trained',
        'title': f'SFCN converted from {options.state_dict.name}',
        'description': 'Weights of the public SFCN layout, renamed'
        + (' and mirrored to RAS+ input.' if options.array_order == 'LAS' else '.'),
        'intended_use': 'Research on adults of the training ages, in the stated space.',
        'limitations': f'Predicts between {age_range[0]:g} and {age_range[1]:g} years only; not '
        'validated by this package. Calibrate on your own cohort.',
        'license': options.license,
        'copyright': options.copyright,
        'reference': info.reference,
        'input': {**info.input, 'space': options.space, 'orientation': 'RAS'},
        'output': {
            'quantity': 'age',
            'unit': 'year',
            'kind': 'bins',
            'n_bins': n_bins,
            'age_range': list(age_range),
        },
        'training': {
            'data': options.training_data,
            'simulated': False,
            'n': options.training_n,
            'age_min': age_range[0],
            'age_max': age_range[1],
            'age_mean': None,
            'sex_female_fraction': None,
            'sites': [],
            'recipe': {},
        },
        'validation': [],
        'bias_correction': None,
        'conformal': None,
        'saliency': ['gradcam', 'guided_backprop'],
        'tolerance_years': 0.05,
        'golden': {'seed': 0, 'scale': 2.0},
    }


def convert(options: argparse.Namespace) -> Bundle:
    """Convert one file to one bundle.

    Parameters
    ----------
    options : Namespace
        Of `build_parser`.

    Returns
    -------
    Bundle
        As written below ``options.out_dir``.

    Raises
    ------
    BrainAgeError
        The file is no SFCN state dict, the options contradict it, or the bundle exists.
    """
    from bids_brainage.bundles.bundle import export_bundle

    low, high = options.age_range
    if not (np.isfinite([low, high]).all() and low < high):
        raise OptionError(f'--age-range: expected two rising ages, found {low:g} {high:g}.')
    state = read_state_dict(options.state_dict)
    tensors = convert_state_dict(
        state, source=str(options.state_dict), array_order=options.array_order
    )
    metadata = _metadata(options, len(tensors['head.bias']), (low, high))
    return export_bundle(options.out_dir / metadata['name'], tensors, metadata)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = argparse.ArgumentParser(
        prog='python -m bids_brainage.bundles.convert_sfcn',
        description='Convert a state dict of the public SFCN layout into a bundle.',
    )
    add = parser.add_argument
    add('state_dict', type=Path, metavar='STATE_DICT.p', help='file of named tensors')
    add('out_dir', type=Path, metavar='OUT_DIR', help='folder that will hold the bundle')
    add('--tag', required=True, help='the bundle will be called sfcn.TAG')
    add('--training-data', required=True, help='what the weights were trained on')
    add('--training-n', type=int, required=True, help='number of training scans')
    add(
        '--age-range',
        type=float,
        nargs=2,
        default=(42.0, 82.0),
        metavar=('LOW', 'HIGH'),
        help='outer edges of the age bins in years (42 82)',
    )
    add(
        '--space',
        default='MNI152NLin6Asym',
        help='TemplateFlow label of the training space (MNI152NLin6Asym, that of FSL)',
    )
    add(
        '--array-order',
        choices=('LAS', 'RAS'),
        default='LAS',
        help='order of the training arrays (LAS, as FSL stores its MNI152 grid)',
    )
    add('--license', default='unknown', help='licence of the weights')
    add('--copyright', default='unknown', help='holder of the rights in the weights')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = build_parser().parse_args(argv)
    try:
        bundle = convert(options)
    except BrainAgeError as error:
        sys.stderr.write(f'{error}\n')
        return error.exit_code
    sys.stdout.write(f'{bundle.path}\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
