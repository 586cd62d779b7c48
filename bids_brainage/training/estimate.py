"""What a training will take: disk, memory and time, from one step on noise."""

from __future__ import annotations

import math
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
from bids_brainage.training.network import arch_options
from bids_brainage.training.recipe import LAST_LAYER, Recipe
from bids_brainage.training.splits import (
    LONGITUDINAL,
    RETEST,
    SIMULATED,
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
    SIMULATED: 'simulated to train on, too',
    VALIDATION: 'to choose the {chosen}',
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
    least : int
        Fewest rows that can be normalised together.
    inputs : int
        Of the last layer, 0 where the network has none that tells years.
    """

    forward: float
    whole: float
    row_gb: float
    weights_gb: float
    least: int = 1
    inputs: int = 0


def split_words(assignments: Iterable[Assignment], chosen: str = 'epoch') -> str:
    """Say how many people of the first fold do what, and how many folds there are.

    Validation people choose the epoch, or what is `chosen`.
    """
    people: dict[str, set[str]] = {}
    folds = Counter(a.fold for a in assignments if a.role in TASKS)
    first = min(folds, default=1)
    for a in assignments:
        if a.fold == first and a.role in TASKS:
            people.setdefault(a.role, set()).add(a.item.participant)
    words = [
        f'{len(people[role])} {task.format(chosen=chosen)}'
        for role, task in TASKS.items()
        if role in people
    ]
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
        least=n,
        inputs=model.get_submodule(model.output_layer).in_features if model.output_layer else 0,
    )


def _now(accelerator: str) -> float:
    """Return the time when all work that was handed to the accelerator is done."""
    import torch

    if accelerator == 'cuda':
        torch.cuda.synchronize()
    return time.monotonic()


def memory_gb(step: Step, rows: int) -> float:
    """Return the least memory of a process that has so many rows at once, GB of 2^30 bytes."""
    return LIBRARIES_GB + step.weights_gb + step.row_gb * rows


def rows_at_once(step: Step, recipe: Recipe, limit_gb: float, processes: int = 1) -> int | None:
    """Return how many scans of its batch a process can take through the network together.

    Parameters
    ----------
    step : Step
    recipe : Recipe
    limit_gb : float
        Of all processes together, GB of 2^30 bytes.
    processes : int
        That train together.

    Returns
    -------
    int or None
        None if the whole batch fits.

    Raises
    ------
    OptionError
        Not even the fewest do, with what to change.
    """
    batch = math.ceil(recipe.run.batch_size / processes)
    if memory_gb(step, batch) <= limit_gb / processes:
        return None
    # parts of a batch differ by one row, and the smaller ones must be normalised, too
    fewest = min(2 * step.least - 1, batch)
    fits = int((limit_gb / processes - LIBRARIES_GB - step.weights_gb) / step.row_gb)
    if fits >= fewest:
        return fits
    raise OptionError(
        f'The training takes at least {processes * memory_gb(step, fewest):.1f} GB of memory for '
        f'{fewest} scan{"s" * (fewest > 1)} at once in each process, and the run may take '
        f'{limit_gb:.1f} GB (--mem): give coarsen = 2 or more in [data] of --recipe, or fewer '
        '--devices.'
    )


def estimate_words(
    step: Step,
    recipe: Recipe,
    assignments: Sequence[Assignment],
    processes: int = 1,
    at_once: int | None = None,
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
    at_once : int or None
        From `rows_at_once`.
    """
    run = recipe.run
    rows = Counter(a.role for a in assignments)
    folds = max(len({a.fold for a in assignments if a.role == TRAINING}), 1)
    again = 0.0 if at_once is None else step.forward
    trained = rows[TRAINING] / (1 - run.simulated_share)
    seconds = trained * (step.whole + again) + rows[VALIDATION] * step.forward
    epoch = seconds / folds / processes
    batch = math.ceil(run.batch_size / processes)
    parts = '' if at_once is None else f', {at_once} scan{"s" * (at_once > 1)} at once'
    return [
        f'at least {memory_gb(step, at_once or batch):.1f} GB of memory in each process, for '
        f'batches of {run.batch_size}{parts}',
        f'about {duration(max(epoch, 1))} an epoch without reading and augmentation, at most '
        f'{duration(max(epoch * folds * run.epochs, 1))} for {run.epochs} epochs'
        + (f' of {folds} folds' if folds > 1 else ''),
    ]


def last_layer_words(
    step: Step, recipe: Recipe, assignments: Sequence[Assignment], limit_gb: float
) -> list[str]:
    """Say how much memory and time it takes to fit the last layer of a network alone.

    Parameters
    ----------
    step : Step
    recipe : Recipe
        Number of epochs, which are guises here.
    assignments : sequence of Assignment
        Scans of all folds.
    limit_gb : float
        What the run may take, GB of 2^30 bytes.

    Raises
    ------
    OptionError
        It takes more.
    """
    folds = Counter(a.fold for a in assignments if a.role in (TRAINING, VALIDATION))
    guises = 1 + recipe.run.epochs
    simulated = Counter(a.fold for a in assignments if a.role == SIMULATED)
    rows = max((n * guises + simulated[fold] for fold, n in folds.items()), default=0)
    # what the layer is given, those who train of it, centred, and what is solved
    gb = LIBRARIES_GB + (3 * rows * step.inputs * 4 + 3 * min(rows, step.inputs) ** 2 * 8) / GIB
    if gb > limit_gb:
        raise OptionError(
            f'run.fit = "{LAST_LAYER}" takes {gb:.1f} GB of memory for {rows} images of '
            f'{step.inputs} values, and the run may take {limit_gb:.1f} GB (--mem): give fewer '
            'epochs in [run] of --recipe, or fit = "steps".'
        )
    seen = sum(folds.values()) * guises + sum(simulated.values()) + len(assignments)
    seconds = seen * step.forward
    return [
        f'at least {gb:.1f} GB of memory',
        f'about {duration(max(seconds, 1))} without reading and augmentation',
    ]
