"""Which architectures exist, read from one table and imported only when one is built.

A new architecture is one file in this folder (a class that derives from
:class:`bids_brainage.models.base.AgeRegressor`) and one entry in ``data/architectures.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from bids_brainage.errors import OptionError


@dataclass(frozen=True)
class ModelInfo:
    """What is known of an architecture without importing it.

    Attributes
    ----------
    name : str
        Registry name, the first part of a bundle's name.
    module, factory : str
        Where the class (or function) stands that builds the model from keyword options.
    backend : str
        ``'torch'`` or ``'numpy'``.
    system : str
        Letter of the reproduced system (A, B, C, D), or ``'-'``.
    title : str
        One line for people.
    reference : dict
        ``text`` and ``doi`` of the source.
    input : dict
        Default input grid: ``kind``, ``shape`` (voxels), ``voxel_size_mm`` and, where it
        applies, ``n_nodes``.
    trainable : bool
        False for a network of others that is only converted (``bids_brainage convert``).
    """

    name: str
    module: str
    factory: str
    backend: str
    system: str
    title: str
    reference: dict[str, str | None]
    input: dict[str, Any]
    trainable: bool = True


@cache
def _table() -> dict[str, ModelInfo]:
    text = (files('bids_brainage') / 'data' / 'architectures.json').read_text('utf-8')
    return {name: ModelInfo(name=name, **entry) for name, entry in json.loads(text).items()}


def list_models() -> list[str]:
    """Return the registry names of all architectures, sorted."""
    return sorted(_table())


def trainable_models() -> list[str]:
    """Return the registry names of the architectures that this program trains, sorted."""
    return [name for name, info in sorted(_table().items()) if info.trainable]


def model_info(name: str) -> ModelInfo:
    """Return the table entry of an architecture.

    Parameters
    ----------
    name : str
        Registry name, for example ``'resnet_crossvit'``.

    Raises
    ------
    OptionError
        When no such architecture exists; the message lists those that do.
    """
    table = _table()
    if name not in table:
        raise OptionError(
            f'Unknown architecture {name!r}. Known architectures: {", ".join(sorted(table))}.'
        )
    return table[name]


def create_model(name: str, **options: Any) -> Any:
    """Build an architecture with fresh weights.

    Parameters
    ----------
    name : str
        Registry name.
    **options
        Keyword options of the architecture's factory (the ``arch_options`` of a bundle); or
        ``members``, a list of such options, for an ensemble of trainings, with ``combine``
        (``'mean'`` or ``'median'``) if it is not their mean.

    Returns
    -------
    torch.nn.Module
        The model in training mode (architectures whose backend is ``'numpy'`` return their
        own estimator instead).

    Raises
    ------
    OptionError
        When the architecture is unknown or does not take one of the options.
    """
    info = model_info(name)
    if isinstance(options.get('members'), list):
        from bids_brainage.models.fold_ensemble import FoldEnsemble

        members = [create_model(name, **member) for member in options['members']]
        return FoldEnsemble(members, combine=options.get('combine', 'mean'))
    factory = getattr(import_module(info.module), info.factory)
    try:
        return factory(**options)
    except TypeError as error:
        raise OptionError(f'Architecture {name!r} cannot be built: {error}.') from error
