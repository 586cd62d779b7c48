"""The device that networks run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bids_brainage.errors import BundleError, TemporaryError


def choose_device(wanted: str) -> str:
    """Return the torch device to run on.

    Parameters
    ----------
    wanted : str
        ``'auto'``, ``'cpu'``, ``'cuda[:N]'`` or ``'mps'``; only ``'auto'`` falls back.

    Raises
    ------
    BundleError
        If a device other than ``'auto'`` was asked for and is not there.
    """
    import torch

    if wanted == 'cpu':
        return 'cpu'
    if wanted == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    there = torch.backends.mps.is_available() if wanted == 'mps' else torch.cuda.is_available()
    if not there:
        raise BundleError(
            f'--device {wanted} was asked for, but torch sees no such device here. Use --device '
            'cpu, or check the driver and that torch was installed with GPU support.'
        )
    return wanted


@contextmanager
def careful_with_gpus(what: str) -> Iterator[None]:
    """Compute on a GPU as precisely as on a CPU, and give its memory back.

    What torch would keep for its next step is missed by other processes; and where the memory
    does not suffice, it is said what to do.

    Parameters
    ----------
    what : str
        Whom the memory was for.

    Raises
    ------
    TemporaryError
        If the GPU is out of memory.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TemporaryError(
            f'the GPU ran out of memory for {what}: {error}. Run again with --device cpu, or when '
            'the GPU is free.'
        ) from error
    finally:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
