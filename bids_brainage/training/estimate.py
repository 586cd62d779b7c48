"""What a training will take: disk, memory and time, from one step on noise."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bids_brainage.bundles.contract import golden_input
from bids_brainage.errors import OptionError
from bids_brainage.models.registry import create_model
from bids_brainage.outputs.logs import duration
from bids_brainage.training.fit import arch_options
from bids_brainage.training.recipe import Recipe
from bids_brainage.training.splits import (
    LONGITUDINAL,
    RETEST,
    TEST,
    TRAINING,
    UNSEEN,
    VALIDATION,
    Assignment,
)

GIB = 1024.0**3
LIBRARIES_GB = 0.6
"""What Python and PyTorch take before the first network, GB of 2^30 bytes."""

COPIES = 4
"""Weights, their gradients, and the two moments of the optimiser."""

TASKS = {
    TRAINING: 'to train on',
    VALIDATION: 'to choose the epoch',
    TEST: 'to test',
    LONGITUDINAL: 'to judge change',
    RETEST: 'to judge repeats',
    UNSEEN: 'of unseen cohorts',
}


@dataclass(frozen=True)
class Step:
    """What one step of a network takes.

    Attributes
    ----------
    forward, whole : float
        Seconds a row without and with gradients.
    row_gb, weights_gb : float
        GB of 2^30 bytes that a row holds until its gradients are there, and that the network
        holds with gradients and optimiser.
    """

    forward: float
    whole: float
    row_gb: float
    weights_gb: float


def split_words(assignments: Iterable[Assignment]) -> str:
    """Say how many people of the first fold do what, and how many folds there are."""
    people: dict[str, set[str]] = {}
    folds = Counter(a.fold for a in assignments if a.role in TASKS)
    first = min(folds, default=1)
    for a in assignments:
        if a.fold == first and a.role in TASKS:
            people.setdefault(a.role, set()).add(a.item.participant)
    words = [f'{len(people[role])} {task}' for role, task in TASKS.items() if role in people]
    more = f', in the first of {len(folds)} folds' if len(folds) > 1 else ''
    return f'{", ".join(words)} (people){more}'


def row_bytes(declared: Mapping[str, Any]) -> int:
    """Return what the prepared inputs of one scan take on disk, bytes."""
    arrays = golden_input({'input': declared, 'golden': {'seed': 0}})
    return sum(a[0].size * (8 if a[0].ndim == 1 else 2) for a in arrays)


def try_step(
    arch: str, recipe: Recipe, declared: Mapping[str, Any], accelerator: str = 'cpu'
) -> Step:
    """Build a network, let it make one step on noise, and measure.

    Parameters
    ----------
    arch : str
        Registry name of a network.
    recipe : Recipe
    declared : mapping
        The ``input`` block of the bundle.
    accelerator : str
        ``cpu``, ``cuda`` or ``mps``.
    """
    import torch

    from bids_brainage.training.data import least_rows

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(arch, **arch_options(arch, recipe, declared, (20.0, 80.0)))
        one = golden_input({'input': declared, 'golden': {'seed': 0}})
        n = least_rows(model, tuple(map(torch.from_numpy, one)))
        model = model.to(accelerator).train()
        rows = [torch.from_numpy(np.repeat(array, n, axis=0)).to(accelerator) for array in one]
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        begun = _now(accelerator)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            ages = model(*rows)
        middle = _now(accelerator)
        ages.sum().backward()
        end = _now(accelerator)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Step(
        forward=(middle - begun) / n,
        whole=(end - begun) / n,
        row_gb=sum(kept.values()) / n / GIB,
        weights_gb=COPIES * weights / GIB,
    )


def _now(accelerator: str) -> float:
    """Return the time when all work that was handed to the accelerator is done."""
    import torch

    if accelerator == 'cuda':
        torch.cuda.synchronize()
    return time.monotonic()


def memory_gb(step: Step, batch_size: int, processes: int = 1) -> float:
    """Return the least memory of one of the processes that train together, GB of 2^30 bytes."""
    return LIBRARIES_GB + step.weights_gb + step.row_gb * batch_size / processes


def check_memory(step: Step, recipe: Recipe, limit_gb: float, processes: int = 1) -> None:
    """Refuse a training that cannot fit into the memory of the run.

    Parameters
    ----------
    step : Step
    recipe : Recipe
    limit_gb : float
        Of all processes together, GB of 2^30 bytes.
    processes : int
        That train together.

    Raises
    ------
    OptionError
        With what to change: the batch, if a smaller one fits, else the grid.
    """
    size = recipe.run.batch_size
    needed = processes * memory_gb(step, size, processes)
    if needed <= limit_gb:
        return
    left = limit_gb - processes * (LIBRARIES_GB + step.weights_gb)
    fits = int(left / step.row_gb) // processes * processes
    advice = (
        f'batch_size = {fits} in [run] of --recipe fits'
        if fits > 0
        else 'not even one scan for each process fits: give coarsen = 2 or more in [data] of '
        '--recipe, or fewer --devices'
    )
    raise OptionError(
        f'The training takes at least {needed:.1f} GB of memory for batches of {size}, and the '
        f'run may take {limit_gb:.1f} GB (--mem): {advice}.'
    )


def estimate_words(
    step: Step, recipe: Recipe, assignments: Sequence[Assignment], processes: int = 1
) -> list[str]:
    """Say how much memory and time a training takes.

    Parameters
    ----------
    step : Step
    recipe : Recipe
        Batch and number of epochs.
    assignments : sequence of Assignment
        Scans of all folds.
    processes : int
        That train together.
    """
    run = recipe.run
    rows = Counter(a.role for a in assignments)
    folds = max(len({a.fold for a in assignments if a.role == TRAINING}), 1)
    seconds = rows[TRAINING] * step.whole + rows[VALIDATION] * step.forward
    epoch = seconds / folds / processes
    memory = memory_gb(step, run.batch_size, processes)
    return [
        f'at least {memory:.1f} GB of memory in each process, for batches of {run.batch_size}',
        f'about {duration(max(epoch, 1))} an epoch without reading and augmentation, at most '
        f'{duration(max(epoch * folds * run.epochs, 1))} for {run.epochs} epochs'
        + (f' of {folds} folds' if folds > 1 else ''),
    ]
