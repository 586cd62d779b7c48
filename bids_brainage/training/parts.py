"""Batches that go through a network a part at a time, to take less memory.

What the layers remember for the gradients is dropped after each part and computed again when its
gradients are due (Chen et al., arXiv:1604.06174).  Loss and step are those of the whole batch;
only normalisations over a batch see the scans of a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def by_parts(
    network: nn.Module, call: Callable[..., Tensor], inputs: Sequence[Tensor], most: int | None
) -> Tensor:
    """Return what a network says of a batch, a part at a time.

    Parameters
    ----------
    network : Module
    call : callable
        The network, or a method of it that takes the same inputs.
    inputs : sequence of Tensor, shape (B, ...)
    most : int or None
        Scans at once; None for the whole batch.

    Returns
    -------
    Tensor, shape (B, ...)
    """
    n = len(inputs[0])
    if most is None or n <= most:
        return call(*inputs)
    pieces = zip(*(x.tensor_split(math.ceil(n / most)) for x in inputs), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([call(*piece) for piece in pieces])
    return torch.cat(
        [
            checkpoint(
                call,
                *piece,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), _running_means_held(network)),
            )
            for piece in pieces
        ]
    )


@contextmanager
def _running_means_held(network: nn.Module) -> Iterator[None]:
    """Keep the second look at a part from counting in the running means and variances."""
    kept = {m: m.momentum for m in network.modules() if isinstance(m, _BatchNorm)}
    for module in kept:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in kept.items():
            module.momentum = momentum
