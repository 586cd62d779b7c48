"""Fit a generator of cerebral blood volume maps on pairs of T1w and map.

All that a training remembers is in the weights, the optimiser and the history; order, patches,
dropout and learning rates follow from these and the seed.  On a CPU a training that goes on
from the end of an epoch is therefore bit for bit the one that never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import BrainAgeError, OptionError, TemporaryError, WorkflowError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.training.cache import Cache, open_cache
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.pairs import Pair, draw_patch, draw_slice
from bids_brainage.training.recipe import Recipe
from bids_brainage.training.splits import TRAINING, VALIDATION

log = logging.getLogger(__name__)

FOLD = 1
"""A generator is one network."""
VALIDATION_DRAWS = 1_000_000
"""Begins the seeds of the patches that choose the epoch, beyond all epochs."""
PROGRESS_SECONDS = 30.0

Rows = npt.NDArray[np.intp]


def build_generator(arch: str, recipe: Recipe, seed: int = 0) -> Any:
    """Build a generator with its initial weights.

    Parameters
    ----------
    arch : str
        Key of `bids_brainage.inference.aicbv.ARCHITECTURES`.
    recipe : Recipe
        Its `model` holds the options.
    seed : int
        Of the weights.

    Raises
    ------
    OptionError
        An option of `[model]` cannot be.
    """
    import torch

    module, name = ARCHITECTURES[arch]
    factory = getattr(import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return factory(**recipe.model)
        except (BrainAgeError, RuntimeError, TypeError, ValueError) as error:
            raise OptionError(f'[model] of {arch}: {error} Correct --recipe.') from error


def check_generator(arch: str, recipe: Recipe) -> None:
    """Refuse options of the network before any input is prepared; see `build_generator`."""
    import torch

    with torch.device('meta'):
        build_generator(arch, recipe)


def fit_generator(job: Job) -> None:
    """Train a generator to its end; its folder then holds ``best.pt`` and ``done.json``.

    Parameters
    ----------
    job : Job
        What to train; a training that was begun goes on where it was.

    Raises
    ------
    TemporaryError
        The GPU is out of memory.
    WorkflowError
        The training has diverged.
    """
    import torch

    try:
        _fit(job, open_cache(Path(job.cache)))
    except torch.cuda.OutOfMemoryError as error:
        raise TemporaryError(
            f'{job.name}: the GPU is out of memory ({error}). Lower batch_size in [run] of '
            '--recipe, or take preset = "lite" in [model].'
        ) from error


def _fit(job: Job, cache: Cache) -> None:
    from bids_brainage.training.fit import read_state
    from bids_brainage.training.keeper import LAST, close_fold
    from bids_brainage.training.module import make_optimiser

    folder = job.fold_folder(FOLD)
    folder.mkdir(parents=True, exist_ok=True)
    roles = fold_sources(job)[FOLD]
    rows, chosen = (cache.rows_of(roles[role]) for role in (TRAINING, VALIDATION))
    model = build_generator(job.arch, job.recipe, job.seed).to(job.accelerator)
    optimiser = make_optimiser(list(model.parameters()), job.recipe.optimiser)
    history: list[dict[str, float]] = []
    state = read_state(folder / LAST)
    if state is not None:
        model.load_state_dict(state['model'])
        optimiser.load_state_dict(state['optimiser'])
        history = list(state['history'])
        log.log(25, '%s goes on after epoch %d', job.name, len(history))
    while not close_fold(folder, history, job.recipe.run):
        begun = time.monotonic()
        rate, train = _train(job, cache, rows, model, optimiser, history)
        row = {
            'epoch': float(len(history) + 1),
            'learning_rate': rate,
            'train_loss': train,
            'val_loss': _validate(job, cache, chosen, model),
        }
        _refuse_divergence(row)
        history.append({**row, 'seconds': round(time.monotonic() - begun, 3)})
        _keep(job, model, optimiser, history)


def _keep(job: Job, model: Any, optimiser: Any, history: list[dict[str, float]]) -> None:
    """Write the best weights, then the last state, and say how far the training is."""
    from bids_brainage.outputs.files import write_tsv
    from bids_brainage.training.keeper import (
        BEST,
        HISTORY,
        LAST,
        duration,
        monitored,
        replace_state,
    )
    from bids_brainage.training.schedule import best_epoch

    folder, run = job.fold_folder(FOLD), job.recipe.run
    best = best_epoch(monitored(history, run))
    weights = model.state_dict()
    if best == len(history) - 1:
        replace_state(folder / BEST, {'model': weights, 'history': history})
    state = {'model': weights, 'optimiser': optimiser.state_dict(), 'history': history}
    replace_state(folder / LAST, state)
    write_tsv(folder / HISTORY, history)
    seconds = [row['seconds'] for row in history[-5:]]
    left = (run.epochs - len(history)) * sum(seconds) / len(seconds)
    log.log(
        25, '%s: epoch %d of at most %d, validation loss %.4g (best epoch %d); at most %s left',
        job.name, len(history), run.epochs, history[-1]['val_loss'], best + 1, duration(left),
    )  # fmt: skip


def _train(
    job: Job,
    cache: Cache,
    rows: Rows,
    model: Any,
    optimiser: Any,
    history: list[dict[str, float]],
) -> tuple[float, float]:
    """Run one epoch; return its last learning rate and mean loss."""
    import torch

    from bids_brainage.training.module import hash_seed
    from bids_brainage.training.schedule import learning_rate

    epoch, run = len(history), job.recipe.run
    order = np.random.default_rng([job.seed, epoch]).permutation(
        np.repeat(rows, job.recipe.data.patches)
    )
    steps = range(0, len(order), run.batch_size)
    losses = [row['val_loss'] for row in history]
    total, rate, spoken = 0.0, 0.0, time.monotonic()
    model.train()
    for step, first in enumerate(steps):
        torch.manual_seed(hash_seed(job.seed, epoch, step))
        rate = learning_rate(job.recipe, epoch * len(steps) + step, len(steps), losses)
        for group in optimiser.param_groups:
            group['lr'] = rate
        batch = order[first : first + run.batch_size]
        loss = _loss(job, cache, model, [(row, (epoch, first + k)) for k, row in enumerate(batch)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(batch)
        if time.monotonic() - spoken > PROGRESS_SECONDS:
            spoken = time.monotonic()
            log.log(25, '%s: epoch %d, step %d of %d', job.name, epoch + 1, step + 1, len(steps))
    return rate, total / len(order)


def _validate(job: Job, cache: Cache, rows: Rows, model: Any) -> float:
    """Return the mean loss on patches that are the same in every epoch."""
    import torch

    model.eval()
    draws = [(row, (VALIDATION_DRAWS, int(row), k)) for row in rows for k in range(_draws(job))]
    size, total = job.recipe.run.batch_size, 0.0
    with torch.no_grad():
        for first in range(0, len(draws), size):
            batch = draws[first : first + size]
            total += float(_loss(job, cache, model, batch)) * len(batch)
    return total / len(draws)


def _draws(job: Job) -> int:
    """Return how many patches of each validation scan choose the epoch."""
    return max(job.recipe.data.patches, 4)


def _loss(job: Job, cache: Cache, model: Any, draws: Sequence[tuple[Any, tuple[int, ...]]]) -> Any:
    """Return the loss over the brain voxels of a batch, each sample drawn by its own seed."""
    import torch
    from torch.nn import functional

    pairs = [_draw(job, cache, row, model, seed) for row, seed in draws]
    x, y = (torch.from_numpy(np.stack(parts)) for parts in zip(*pairs, strict=True))
    x, y = x.to(job.accelerator), y.to(job.accelerator)
    brain = x != 0
    errors = {
        'smooth_l1': functional.smooth_l1_loss,
        'l1': functional.l1_loss,
        'mse': functional.mse_loss,
    }
    return errors[job.recipe.loss.main](model(x)[brain], y[brain])


def _draw(job: Job, cache: Cache, row: int, model: Any, seed: tuple[int, ...]) -> Pair:
    t1w, cbv = (array[row, 0] for array in cache.arrays)
    rng = np.random.default_rng([job.seed, *seed])
    if job.arch == 'aicbv_mamba':
        return draw_patch(t1w, cbv, rng, model.size.patch)
    return draw_slice(t1w, cbv, rng)


def _refuse_divergence(row: dict[str, float]) -> None:
    if not math.isfinite(row['train_loss'] + row['val_loss']):
        raise WorkflowError(
            f'The loss is not a number after epoch {row["epoch"]:.0f} (training '
            f'{row["train_loss"]:g}, validation {row["val_loss"]:g}): the training has diverged. '
            'Lower learning_rate in [optimiser] of --recipe.'
        )
