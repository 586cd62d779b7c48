"""Trainings that start from the weights of a bundle (fine-tuning).

Grid, input and options of the architecture are then the bundle's; an ensemble of folds gives one
of its members to each fold.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle, load_bundle, resolve_bundle
from bids_brainage.errors import BundleError, OptionError
from bids_brainage.models.registry import model_info
from bids_brainage.training.recipe import LAST_LAYER

if TYPE_CHECKING:
    from torch import Tensor

MEMBERS = 'members'
"""Option of the architecture that lists those of an ensemble's members, and the start of the
names of their weights."""

GUISES = 6
"""How often each image is changed at random where the last layer alone is fitted, unless the
recipe says otherwise."""


def find_start(name: str, model_dirs: Iterable[Path | str]) -> Bundle:
    """Open the bundle of a name as ``--models`` takes it, or of a folder.

    Raises
    ------
    OptionError
        There is none, or it is damaged.
    """
    try:
        if Path(name).is_dir():
            return load_bundle(name)
        return resolve_bundle(name, model_dirs)
    except BundleError as error:
        raise OptionError(f'--start-from: {error}') from error


def check_start(bundle: Bundle, arch: str, changes: Mapping[str, Any]) -> None:
    """Refuse a start that does not fit, before any input is prepared.

    Parameters
    ----------
    bundle : Bundle
        Where to start.
    arch : str
        What is to be trained.
    changes : mapping
        What the user changes in the recipe, section → key → value.

    Raises
    ------
    OptionError
        Another architecture, kind of image or grid, or no network.
    """
    start = f'--start-from {bundle.name}'
    if model_info(arch).backend != 'torch':
        raise OptionError(
            f'{start}: {arch} is fitted at once and has no start. Leave --start-from out.'
        )
    if bundle.arch != arch:
        raise OptionError(
            f'{start}: expected weights of {arch}, as --arch says, found those of {bundle.arch}. '
            f'Give --arch {bundle.arch}, or another bundle.'
        )
    data = changes.get('data', {})
    wanted, found = data.get('modality', 't1w'), bundle.input.get('modality', 't1w')
    if wanted != found:
        raise OptionError(
            f'{start}: it has learnt from {found} images, and the recipe says data.modality = '
            f'"{wanted}". Take a bundle of such images.'
        )
    if 'coarsen' in data:
        raise OptionError(
            f'{start}: data.coarsen has no effect, the grid is that of the bundle '
            f'({" x ".join(map(str, bundle.input["shape"]))} voxels). Leave it out of --recipe.'
        )


def fine_tuning_changes(bundle: Bundle, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the recipe of any network changes with a start, before the user's own changes."""
    path = files('bids_brainage') / 'data' / 'recipes' / 'fine_tuning.toml'
    first: dict[str, Any] = tomllib.loads(path.read_text('utf-8'))
    if changes.get('run', {}).get('fit') == LAST_LAYER:
        first = {'augmentation': first['augmentation'], 'run': {'epochs': GUISES}}
    first['run']['start_from'] = str(bundle.path)
    return first


def start_options(bundle: Bundle) -> dict[str, Any]:
    """Return the options of the network, or of a member of the ensemble."""
    options = bundle.metadata['arch_options']
    return dict(options[MEMBERS][0] if MEMBERS in options else options)


def start_state(bundle: Bundle, fold: int) -> dict[str, Tensor]:
    """Return the weights that a fold (from 1) starts from, single precision."""
    import torch

    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in ((n, torch.from_numpy(v)) for n, v in bundle.tensors().items())
    }
    members = bundle.metadata['arch_options'].get(MEMBERS)
    if members is None:
        return tensors
    head = f'{MEMBERS}.{(fold - 1) % len(members)}.'
    return {n.removeprefix(head): v for n, v in tensors.items() if n.startswith(head)}
