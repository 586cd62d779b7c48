"""Training of a generator of cerebral blood volume maps on pairs of T1w and map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from bids_brainage.errors import BrainAgeError, OptionError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.training.cache import Cache
from bids_brainage.training.data import EpochPlan
from bids_brainage.training.job import Job
from bids_brainage.training.module import Training
from bids_brainage.training.pairs import Pair, draw_patch, draw_slice
from bids_brainage.training.recipe import Recipe

FOLD = 1
"""A generator is one network."""
VALIDATION_EPOCH = 1_000_000
"""Stands in the seeds of the draws that choose the epoch, beyond all epochs."""
ERRORS = {
    'smooth_l1': functional.smooth_l1_loss,
    'l1': functional.l1_loss,
    'mse': functional.mse_loss,
}

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
    with torch.device('meta'):
        build_generator(arch, recipe)


class Draws:
    """What a generator sees of some pairs: patches around brain voxels, or axial slices.

    Each is drawn by a seed of its own, so that it does not depend on what was drawn before.

    Parameters
    ----------
    cache : Cache
        Prepared pairs.
    rows : ndarray of int
        Which of them.
    each : int
        Draws of each pair.
    seed : int
        Of all draws.
    edge : int or None
        Voxels along each axis of a patch; None for slices.
    """

    def __init__(self, cache: Cache, rows: Rows, each: int, seed: int, edge: int | None) -> None:
        self.cache, self.rows, self.each, self.seed, self.edge = cache, rows, each, seed, edge

    def __len__(self) -> int:
        return len(self.rows) * self.each

    def batch(self, numbers: Sequence[int], epoch: int) -> tuple[Tensor, Tensor]:
        """Return T1w and maps, both (B, 1, ...), of some draws of an epoch, numbered from 0."""
        pairs = [self._draw(number, np.random.default_rng([self.seed, epoch, number]))
                 for number in numbers]  # fmt: skip
        t1w, cbv = zip(*pairs, strict=True)
        return torch.from_numpy(np.stack(t1w)), torch.from_numpy(np.stack(cbv))

    def _draw(self, number: int, rng: np.random.Generator) -> Pair:
        t1w, cbv = (array[self.rows[number // self.each], 0] for array in self.cache.arrays)
        if self.edge is None:
            return draw_slice(t1w, cbv, rng)
        return draw_patch(t1w, cbv, rng, self.edge)


class MapTraining(Training):
    """Train a generator on the brain voxels of what is drawn; a batch holds numbers of draws."""

    def __init__(self, *common: Any, training: Draws, validation: Draws) -> None:
        super().__init__(*common)
        self.training_draws, self.validation_draws = training, validation
        self.error = ERRORS[self.recipe.loss.main]

    def _loss(self, draws: Draws, numbers: Tensor, epoch: int) -> Tensor:
        t1w, cbv = (x.to(self.device) for x in draws.batch(numbers.tolist(), epoch))
        brain = t1w != 0
        return self.error(self.model(t1w)[brain], cbv[brain])

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of new draws."""
        return self._count(self._loss(self.training_draws, batch, self.epoch), len(batch))

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Add the loss of draws that are the same in every epoch."""
        loss = self._loss(self.validation_draws, batch, VALIDATION_EPOCH).double()
        self._sums += torch.stack([loss.new_tensor(len(batch)), loss * len(batch)])


def map_training(
    job: Job,
    cache: Cache,
    model: Any,
    rows: tuple[Rows, Rows],
    fold: int,
    resumed: Mapping[str, Any] | None,
) -> tuple[MapTraining, Any, Any]:
    """Return the module that trains a generator, and the batches of its two sets of rows."""
    patches, size = job.recipe.data.patches, job.recipe.run.batch_size
    edge = None if model.by_slices else model.size.patch
    training, validation = (
        Draws(cache, part, each, job.seed, edge)
        for part, each in zip(rows, (patches, max(patches, 4)), strict=True)
    )
    first = len(resumed['history']) if resumed else 0
    plan = EpochPlan(range(len(training)), size, seed=job.seed, first_epoch=first)
    module = MapTraining(
        model, job.recipe, job.seed, len(plan), resumed, training=training, validation=validation
    )
    return module, _numbers(plan), _numbers(EpochPlan(range(len(validation)), size))


def _numbers(plan: EpochPlan) -> Any:
    """Return a loader that gives the numbers of a plan themselves."""
    numbers: Any = np.arange(len(plan.rows))
    return DataLoader(numbers, sampler=plan, batch_size=None)
