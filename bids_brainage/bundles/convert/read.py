"""Open files of weights without running any code that they may hold."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.errors import BundleError, MissingInputError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = 'module.'
"""What data-parallel training puts before every name."""

CHUNK = 1 << 20
"""Bytes that are read at once."""

_KERAS_FIELDS = 'kernel|bias|gamma|beta|moving_mean|moving_variance'
_KERAS_LAYER = re.compile(r'(?:block[-_]?(\d+)|(top))[/_](conv|norm)(?:/|$)|(predictions)(?:/|$)')
_KERAS_FIELD = re.compile(rf'/({_KERAS_FIELDS})(?::0)?$')
_KERAS_OTHER = ('optimizer_weights', 'top_level_model_weights')


@dataclass(frozen=True)
class Identity:
    """What tells one file from another.

    Attributes
    ----------
    name : str
        Name of the file.
    size : int
        Bytes.
    sha256 : str
        Of the content.
    git_blob : str
        Object id that git gives the content.
    """

    name: str
    size: int
    sha256: str
    git_blob: str


def identify(path: Path) -> Identity:
    """Return size and hashes of a file.

    Raises
    ------
    MissingInputError
        There is no such file.
    """
    if not path.is_file():
        raise MissingInputError(f'{path}: no such file. Give the file of weights to convert.')
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    git_blob = hashlib.sha1(f'blob {size}\0'.encode(), usedforsecurity=False)
    with path.open('rb') as stream:
        while block := stream.read(CHUNK):
            sha256.update(block)
            git_blob.update(block)
    return Identity(path.name, size, sha256.hexdigest(), git_blob.hexdigest())


def read_torch(path: Path) -> dict[str, Tensor]:
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
        raise MissingInputError(f'{path}: no such file. Give the file of weights to convert.')
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


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the weights that Keras 2 wrote to an HDF5 file.

    Parameters
    ----------
    path : Path
        File of ``save_weights`` or of ``save``, of an SFCN whose layers are called block, top
        and predictions.

    Returns
    -------
    dict of str to Tensor
        ``block0.conv.kernel`` to ``block5.norm.moving_variance`` (the last block is ``top``) and
        ``predictions.kernel``, whatever the prefix of the names and the number of the first
        block; arrays with other names keep them.  Axes are those of Keras.

    Raises
    ------
    MissingInputError
        There is no such file.
    BundleError
        It is no HDF5 file, or two arrays have one name.
    """
    import h5py

    if not path.is_file():
        raise MissingInputError(f'{path}: no such file. Give the file of weights to convert.')
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and name.split('/')[0] not in _KERAS_OTHER:
            found[name] = item[()]

    try:
        with h5py.File(path, 'r') as file:
            file.visititems(keep)
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(
            f'{path}: expected HDF5 weights of Keras 2, found a file that cannot be read as such '
            f'({type(error).__name__}). Download it again, as a file and not as a page.'
        ) from error
    return _keras_names(found, path)


def _keras_names(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Give the arrays names that do not depend on the name of the model."""
    import numpy as np
    import torch

    parts = {name: (_last_layer(name), _KERAS_FIELD.search(name)) for name in found}
    numbers = {int(layer[1]) for layer, _ in parts.values() if layer and layer[1]}
    order = {number: index for index, number in enumerate(sorted(numbers))}
    named: dict[str, Tensor] = {}
    for name, (layer, field) in parts.items():
        known = name
        if layer and field:
            block = order[int(layer[1])] if layer[1] else len(order)
            known = layer[4] or f'block{block}.{layer[3]}'
            known = f'{known}.{field[1]}'
        if known in named:
            raise BundleError(
                f'{path}: found two arrays for {known}, expected one. Give a file of one network.'
            )
        array = np.asarray(found[name])
        if array.dtype.kind not in 'fiu':
            raise BundleError(
                f'{path}: {name} holds {array.dtype}, expected numbers. Download the file again.'
            )
        named[known] = torch.from_numpy(np.array(array))
    return named


def _last_layer(name: str) -> re.Match[str] | None:
    """Return the last mention of a layer: Keras repeats it as group and as array."""
    matches = list(_KERAS_LAYER.finditer(name))
    return matches[-1] if matches else None


READERS = {'torch': read_torch, 'keras': read_keras}
"""Format → function that reads it."""
