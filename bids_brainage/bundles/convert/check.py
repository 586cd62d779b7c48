"""Compare the tensors of a file with an architecture, name by name and shape by shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bids_brainage.bundles.convert.record import Layout
from bids_brainage.errors import BundleError
from bids_brainage.models.registry import create_model

if TYPE_CHECKING:
    from torch import Tensor

COUNTER = 'num_batches_tracked'
"""Counters of BatchNorm that files of old library versions and of Keras lack."""


def fit(
    state: Mapping[str, Tensor], layout: Layout, *, arch: str, title: str, source: str
) -> dict[str, Tensor]:
    """Rename, turn and check the tensors of one file.

    Parameters
    ----------
    state : mapping of str to Tensor
        As read from the file.
    layout : Layout
        What the file should hold.
    arch : str
        Registry name of the architecture.
    title : str
        What the file should be, for messages.
    source : str
        Name of the file, for messages.

    Returns
    -------
    dict of str to Tensor
        State dict of the architecture, floating-point weights in float32.

    Raises
    ------
    BundleError
        Names are missing or unknown, a shape differs, or a weight is not finite.
    """
    import torch

    with torch.device('meta'):
        expected = create_model(arch, **layout.options).state_dict()
    ours = dict(layout.names)
    missing = sorted(key for key in ours.keys() - state.keys() if not key.endswith(COUNTER))
    unknown = sorted(state.keys() - ours.keys() - layout.unused)
    if missing or unknown:
        raise BundleError(
            f'{source}: not the layout of {title}: expected {len(ours)} tensors, found '
            f'{len(state)}. Missing: {_some(missing)}. Unknown: {_some(unknown)}. Check that '
            'NAME and file belong together, and that the file is the whole network.'
        )
    converted = {}
    for public, own in ours.items():
        value = state.get(public, torch.tensor(0))
        if layout.turn is not None and public in state:
            value = layout.turn(public, value)
        if value.shape != expected[own].shape:
            raise BundleError(
                f'{source}: {public} has shape {tuple(value.shape)}, expected '
                f'{tuple(expected[own].shape)} in {title}. Check that NAME and file belong '
                'together.'
            )
        converted[own] = (value.float() if value.is_floating_point() else value).contiguous()
    _check_finite(converted, {own: public for public, own in ours.items()}, source)
    lacking = sorted(expected.keys() - converted.keys())
    if lacking:  # a record that forgets a layer
        raise BundleError(f'{source}: nothing was read for {_some(lacking)} of {arch}.')
    return converted


def _check_finite(tensors: Mapping[str, Tensor], public: Mapping[str, str], source: str) -> None:
    import torch

    bad = sorted(public[key] for key, value in tensors.items() if not torch.isfinite(value).all())
    if bad:
        raise BundleError(
            f'{source}: expected finite numbers, found others in {_some(bad)}. Download the file '
            'again and compare its hash.'
        )


def _some(names: Sequence[str], limit: int = 3) -> str:
    """First few names, and how many more there are."""
    if not names:
        return 'none'
    more = len(names) - limit
    return ', '.join(names[:limit]) + (f' and {more} more' if more > 0 else '')
