"""Bundles with fresh weights: to try the plumbing, or to start a training from.

``python -m bids_brainage.bundles.untrained resnet_crossvit test models/`` writes
``models/resnet_crossvit.test``.  Their ages mean nothing, and their metadata say so.  Options of
the architecture are one JSON object: ``--options '{"channels": [16, 32, 64]}'``.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle, export_bundle
from bids_brainage.errors import BrainAgeError
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.models.registry import ModelInfo, create_model, list_models, model_info

#: Bias of the output layer, years, so that an untrained age is at least a possible one.
OUTPUT_BIAS_YEARS = 45.0
TOLERANCE_YEARS = 0.01


def _input_block(info: ModelInfo, shape: Sequence[int] | None) -> dict[str, Any]:
    """Return the input contract, on request of another shape over the same field of view."""
    block: dict[str, Any] = {
        'space': None,
        'affine': None,
        'orientation': 'RAS',
        'normalisation': 'see the reference',
        'skull_stripped': True,
        **info.input,
    }
    if shape is None or list(shape) == block['shape']:
        return block
    factor = np.array(block['shape']) / np.array(shape)
    block['shape'] = list(shape)
    if kind_of(block).fixed_voxels:
        return block
    block['voxel_size_mm'] = (np.array(block['voxel_size_mm']) * factor).tolist()
    if block['affine'] is not None:
        step = np.diag([*factor, 1.0])
        step[:3, 3] = (factor - 1) / 2  # the outer edges stay, so the first centre moves
        block['affine'] = (np.array(block['affine']) @ step).tolist()
    return block


def output_block(model: Any) -> dict[str, Any]:
    """Return the output contract: an age, or the mean of a distribution over bins.

    Parameters
    ----------
    model : AgeRegressor
        One with ``bin_centres`` (years) has bins.
    """
    block: dict[str, Any] = {'quantity': 'age', 'unit': 'year', 'kind': 'scalar'}
    centres = getattr(model, 'bin_centres', None)
    if centres is None:
        return block
    half = float(centres[1] - centres[0]) / 2
    edges = [float(centres[0]) - half, float(centres[-1]) + half]
    return block | {'kind': 'bins', 'n_bins': len(centres), 'age_range': edges}


def untrained_metadata(
    arch: str,
    tag: str,
    options: dict[str, Any],
    *,
    shape: Sequence[int] | None = None,
    saliency: Sequence[str] = (),
    output: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a bundle with fresh weights, less what the exporter fills in.

    Parameters
    ----------
    arch, tag : str
        Parts of the bundle's name.
    options : dict
        ``arch_options``.
    shape : sequence of int or None
        Input grid; None takes the published one.  Another grid covers the same field of view
        with larger voxels, or a smaller one where a kind's voxels keep their size.
    saliency : sequence of str
        Methods that suit the architecture.
    output : dict or None
        Output block; None is one age in years.
    """
    info = model_info(arch)
    nodes = {'n_nodes': options['n_nodes']} if 'n_nodes' in options else {}
    return {
        'name': f'{arch}.{tag}',
        'version': '0',
        'arch': arch,
        'arch_options': options,
        'status': 'untrained',
        'title': f'{info.title} (untrained)',
        'description': 'Random initial weights.',
        'intended_use': 'Testing the software, or a start for training.',
        'limitations': 'The predicted ages mean nothing.',
        'license': 'Apache-2.0',
        'copyright': 'The bids_brainage developers',
        'reference': info.reference,
        'input': {**_input_block(info, shape), **nodes},
        'output': output or {'quantity': 'age', 'unit': 'year', 'kind': 'scalar'},
        'training': {
            'data': 'none',
            'simulated': False,
            'n': 0,
            'age_min': None,
            'age_max': None,
            'age_mean': None,
            'sex_female_fraction': None,
            'sites': [],
            'recipe': {},
        },
        'validation': [],
        'bias_correction': None,
        'conformal': None,
        'saliency': list(saliency),
        'tolerance_years': TOLERANCE_YEARS,
        'golden': {'seed': 0},
    }


def make_untrained_bundle(
    arch: str,
    tag: str,
    directory: Path | str,
    *,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    **options: Any,
) -> Bundle:
    """Write a bundle with fresh weights.

    Parameters
    ----------
    arch, tag : str
        Parts of the bundle's name.
    directory : path-like
        Folder of bundles; ``<arch>.<tag>`` is made in it.
    shape : sequence of int or None
        Input grid (X, Y, Z) when it should not be the published one, see
        `untrained_metadata`; handed to the architecture as well if that takes an
        ``input_shape``.
    seed : int
        Of the initial weights; the caller's random state is left alone.
    **options
        Options of the architecture.

    Returns
    -------
    Bundle
        With ``status`` ``untrained``.

    Raises
    ------
    OptionError, BundleError
        When the architecture or an option is unknown, or the bundle exists.
    """
    import torch

    info = model_info(arch)
    factory = getattr(import_module(info.module), info.factory)
    if shape is not None and 'input_shape' in inspect.signature(factory).parameters:
        options = {**options, 'input_shape': list(shape)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_model(arch, **options)
    model.set_output_bias(OUTPUT_BIAS_YEARS)
    metadata = untrained_metadata(
        arch,
        tag,
        options,
        shape=shape,
        saliency=model.saliency_methods,
        output=output_block(model),
    )
    return export_bundle(Path(directory) / f'{arch}.{tag}', model, metadata)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m bids_brainage.bundles.untrained', description='Write an untrained bundle.'
    )
    trainable = [name for name in list_models() if model_info(name).backend == 'torch']
    parser.add_argument('arch', choices=trainable, help='architecture')
    parser.add_argument('tag', help='second part of the name, after the dot')
    parser.add_argument('directory', type=Path, help='folder of bundles')
    parser.add_argument('--shape', type=int, nargs=3, help='input grid, voxels')
    parser.add_argument('--seed', type=int, default=0, help='of the initial weights')
    parser.add_argument(
        '--options', type=json.loads, default={}, metavar='JSON', help='of the architecture'
    )
    given = parser.parse_args(arguments)
    try:
        bundle = make_untrained_bundle(
            given.arch, given.tag, given.directory, shape=given.shape, seed=given.seed,
            **given.options,
        )  # fmt: skip
    except BrainAgeError as error:
        sys.stderr.write(f'{error}\n')
        return error.exit_code
    sys.stdout.write(f'{bundle.path}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
