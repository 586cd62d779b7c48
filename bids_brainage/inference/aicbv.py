"""Cerebral blood volume maps from T1w scans, with weights that the user supplies.

No weights of the published generator are public (Jomsky et al., arXiv:2412.01865).  Without
weights or a map there is no map: nothing is ever made up in its place.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import BundleError, MissingInputError, OptionError, UnusableImageError

if TYPE_CHECKING:
    from torch import nn

    from bids_brainage.inference.sliding_window import Progress
    from bids_brainage.models.aicbv_mamba import AICBVMamba

LOGGER = logging.getLogger(__name__)

#: Module and class of each generator.
ARCHITECTURES = {
    'aicbv_mamba': ('bids_brainage.models.aicbv_mamba', 'AICBVMamba'),
    'aicbv_resattunet2d': ('bids_brainage.models.aicbv_resattunet2d', 'AICBVResAttUNet2d'),
}
#: Entry of the file's header that says how to build the network.
HEADER = 'bids_brainage'
#: Distance between patches in voxels; the authors of the paper evaluate at half of it.
STRIDE = 32
#: A forecast above this is a warning, below it a note.
WARN_SECONDS = 120.0


def save_generator(model: nn.Module, path: Path, options: dict[str, object]) -> None:
    """Write the weights of a generator with what is needed to build it again.

    Parameters
    ----------
    model : Module
        Trained generator, of a class in `ARCHITECTURES`.
    path : Path
        File to write, ``.safetensors``.
    options : dict
        Keyword options with which the model was built.

    Raises
    ------
    BundleError
        The model is no generator.
    """
    from safetensors.torch import save_file

    names = {factory: arch for arch, (_, factory) in ARCHITECTURES.items()}
    arch = names.get(type(model).__name__)
    if arch is None:
        raise BundleError(
            f'{path}: expected a generator ({", ".join(names)}), found {type(model).__name__}.'
        )
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    # One entry: several are written in any order, and the file's hash must not depend on it.
    built = json.dumps({'arch': arch, 'options': options}, sort_keys=True)
    save_file(tensors, path, metadata={HEADER: built})


def load_generator(path: Path, *, device: str = 'cpu') -> nn.Module:
    """Read the weights of a generator.

    Parameters
    ----------
    path : Path
        File written by `save_generator`.
    device : str
        Torch device.

    Returns
    -------
    Module
        Generator of a class in `ARCHITECTURES`, in eval mode.

    Raises
    ------
    MissingInputError
        There is no such file.
    BundleError
        The file holds no weights of such an architecture.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingInputError(f'{path}: no such file. Give the weights of an AICBV generator.')
    try:
        with safe_open(path, framework='pt') as stream:
            header = json.loads((stream.metadata() or {}).get(HEADER, '{}'))
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        arch = header.get('arch', 'no name')
        if arch not in ARCHITECTURES:
            raise BundleError(
                f'{path}: expected weights of {" or ".join(ARCHITECTURES)}, found {arch!r} in '
                'the header.'
            )
        module, factory = ARCHITECTURES[arch]
        model: nn.Module = getattr(import_module(module), factory)(**header.get('options', {}))
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, TypeError, ValueError, OptionError) as error:
        raise BundleError(
            f'{path}: the weights do not fit their architecture: {error}. Export them again.'
        ) from error
    return model.eval().to(device)


def brain_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Smallest box around a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Brain.

    Returns
    -------
    tuple of slice
        One an axis.

    Raises
    ------
    UnusableImageError
        The mask is empty.
    """
    if not mask.any():
        raise UnusableImageError('The brain mask is empty. Look at the brain extraction.')
    spans = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != axis)))
        spans.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _matching_box(
    shape: tuple[int, ...], mask: npt.NDArray[np.bool_]
) -> tuple[slice, slice, slice]:
    """Return the brain box of a mask that has the shape of the scan."""
    if shape != mask.shape:
        raise UnusableImageError(
            f'AICBV: the mask is {mask.shape}, expected {shape}. Resample the mask.'
        )
    return brain_box(mask)


def _probe_edge(patch: int) -> int:
    """Return a third of a patch, in the multiples of 8 that the network needs."""
    return max(8, patch // 3 // 8 * 8)


def _announce(progress: Progress) -> None:
    """Log the forecast that comes before the first patch."""
    if progress.done == 0:
        level = logging.WARNING if progress.remaining_s > WARN_SECONDS else logging.INFO
        minutes = progress.remaining_s / 60
        message = 'AICBV map: %d patches, about %.0f min on this CPU'
        LOGGER.log(level, message, progress.total, minutes)


def synthesise_aicbv(
    t1w: npt.NDArray[np.floating],
    mask: npt.NDArray[np.bool_],
    model: AICBVMamba,
    *,
    stride: int = STRIDE,
    batch: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Generate the map of one scan.

    Overlapping patches of the brain box are averaged.  On a CPU the time is forecast first.

    Parameters
    ----------
    t1w : ndarray, shape (X, Y, Z)
        Skull-stripped, RAS+ order, 1 mm, divided by the mean of its top 1 % of values.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain.
    model : AICBVMamba
        Generator in eval mode.
    stride, batch, on_progress
        See `bids_brainage.inference.sliding_window.sliding_window`.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Cerebral blood volume in the units of the training maps, 0 outside the brain.

    Raises
    ------
    UnusableImageError
        Shapes differ or the mask is empty.
    """
    import torch

    from bids_brainage.inference.sliding_window import sliding_window

    box = _matching_box(t1w.shape, mask)
    device = next(model.parameters()).device

    def report(progress: Progress) -> None:
        _announce(progress)
        if on_progress is not None:
            on_progress(progress)

    volume = torch.from_numpy(np.ascontiguousarray((t1w * mask)[box], dtype=np.float32))
    patch = model.size.patch
    generated = sliding_window(
        volume.to(device),
        model,
        patch=patch,
        stride=min(stride, patch),
        batch=batch,
        probe=_probe_edge(patch) if device.type == 'cpu' else None,
        on_progress=report,
    )
    result = np.zeros_like(t1w, dtype=np.float32)
    result[box] = generated.cpu().numpy() * mask[box]
    return result
