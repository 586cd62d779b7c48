"""The Lightning modules: one network, one recipe, one fold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bids_brainage.errors import WorkflowError
from bids_brainage.training.augment import augment
from bids_brainage.training.data import Batch
from bids_brainage.training.losses import AgeLoss
from bids_brainage.training.parts import by_parts
from bids_brainage.training.recipe import OptimiserRecipe, Recipe
from bids_brainage.training.schedule import learning_rate

Row = dict[str, float]


class Training(pl.LightningModule):
    """Train a network by a recipe; a subclass says what a step is.

    All that a training remembers is in the weights, the optimiser and `history`; learning
    rates, order, augmentation and dropout follow from these and the seed.  A training that
    goes on from the end of an epoch is therefore bit for bit the one that never stopped.

    Parameters
    ----------
    model : torch.nn.Module
        The network.
    recipe : Recipe
        How to train.
    seed : int
        Of everything random.
    steps_per_epoch : int
        Optimiser steps of one epoch.
    resumed : mapping or None
        Content of a checkpoint: ``optimiser`` and ``history``; the weights are in `model`.
    """

    n_sums = 2
    """How many sums validation fills: number and loss of the samples, then the subclass' own."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        seed: int,
        steps_per_epoch: int,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.history: list[Row] = list(resumed['history']) if resumed else []
        self.first_epoch = len(self.history)
        self._optimiser_state = resumed['optimiser'] if resumed else None
        self._sums = self._train_sums = torch.zeros(0)

    @property
    def epoch(self) -> int:
        """Epoch from 0, counted over interruptions."""
        return self.first_epoch + int(self.trainer.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the recipe's optimiser, in the state where it was left."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = make_optimiser(weights, self.recipe.optimiser)
        if self._optimiser_state is not None:
            optimiser.load_state_dict(self._optimiser_state)
        return optimiser

    def on_train_epoch_start(self) -> None:
        """Begin to sum."""
        self.model.train()
        self._train_sums = torch.zeros(2, device=self.device, dtype=torch.float64)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed this step on this process, and set its learning rate."""
        torch.manual_seed(hash_seed(self.seed, self.epoch, batch_idx, self.global_rank))
        step = self.epoch * self.steps_per_epoch + batch_idx
        losses = [row['val_loss'] for row in self.history]
        self.rate = learning_rate(self.recipe, step, self.steps_per_epoch, losses)
        for group in self.trainer.optimizers[0].param_groups:
            group['lr'] = self.rate

    def _count(self, loss: Tensor, n: int) -> Tensor:
        """Add the loss of a training batch of `n` samples to the sums, and return it."""
        self._train_sums += torch.stack([loss.detach().double() * n, loss.new_tensor(n).double()])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to sum."""
        self._sums = torch.zeros(self.n_sums, device=self.device, dtype=torch.float64)

    def summarise(self) -> Row:
        """Return the row of the finished epoch, the same on every process.

        Raises
        ------
        WorkflowError
            The weights are not numbers any more.
        """
        both = torch.cat([self._sums, self._train_sums])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(both)
        n, error, *further, train, n_train = both.tolist()
        if not math.isfinite(error + train):
            half = self.recipe.run.precision != '32'
            raise WorkflowError(
                f'The loss is not a number after epoch {self.epoch + 1} (training {train:g}, '
                f'validation {error:g}): the training has diverged. Lower learning_rate in '
                f'[optimiser] of --recipe{", or use precision = 32 in [run]" if half else ""}; '
                'what was exported before is untouched.'
            )
        return {
            'epoch': float(self.epoch + 1),
            'learning_rate': self.rate,
            'train_loss': train / n_train,
            'val_loss': error / n,
            **self.measures(n, *further),
        }

    def measures(self, n: float, *sums: float) -> Row:
        """Return what validation measures besides the loss, from its further sums."""
        return {}

    def reached(self) -> str:
        """Say in words what the last epoch has reached."""
        return f'validation loss {self.history[-1]["val_loss"]:.4g}'


class AgeTraining(Training):
    """Train a regressor of age; see `Training`.

    Parameters
    ----------
    unit_years : float
        Years that count as 1 in the loss.
    weights : array_like, shape (n_rows,), or None
        What each row counts in the main loss of the training; 1 without them.
    at_once : int or None
        Scans of a batch that go through the network together; None for all.
    """

    n_sums = 8

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        seed: int,
        steps_per_epoch: int,
        unit_years: float = 1.0,
        resumed: Mapping[str, Any] | None = None,
        *,
        weights: npt.ArrayLike | None = None,
        at_once: int | None = None,
    ) -> None:
        super().__init__(model, recipe, seed, steps_per_epoch, resumed)
        self.at_once = at_once
        self.loss = AgeLoss(recipe.loss, unit_years)
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float32)

    def _frozen(self) -> bool:
        return self.epoch < self.recipe.run.freeze_backbone_epochs

    def on_train_epoch_start(self) -> None:
        """Hold the backbone still while it is frozen, too."""
        super().on_train_epoch_start()
        if self._frozen():
            self.model.get_submodule('backbone').eval()

    def _ready(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bring stored inputs to single precision and the chosen memory layout."""
        ready = tuple(x.float() for x in inputs)
        if self.recipe.run.channels_last:
            image = ready[0].contiguous(memory_format=torch.channels_last_3d)
            ready = (image, *ready[1:])
        return ready

    def _errors(self, inputs: tuple[Tensor, ...], age: Tensor) -> tuple[Tensor, Tensor]:
        """Return the main loss of each sample and the predicted ages, both (B,)."""
        if self.recipe.loss.main == 'soft_bins':
            scores = self._say(self.model.log_probabilities, inputs)  # type: ignore[arg-type]
            centres: Tensor = self.model.bin_centres  # type: ignore[assignment]
            return self.loss.distribution(scores, age, centres), scores.exp() @ centres
        predicted = self._say(self.model, inputs)
        return self.loss.main(predicted, age), predicted

    def _say(self, call: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        return by_parts(self.model, call, inputs, self.at_once).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment, predict, and return the loss of a batch."""
        inputs, age, rows = batch
        ready = self._ready(inputs)
        image = augment(ready[0], rows.tolist(), self.recipe.augmentation, self.seed, self.epoch)
        errors, predicted = self._errors((image, *ready[1:]), age)
        if self.weights is not None:
            errors = errors * self.weights[rows.cpu()].to(errors)
        loss = errors.mean() + self.loss.auxiliary(predicted, age)
        return self._count(loss, len(age))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave a frozen backbone as it is."""
        if self._frozen():
            for weight in self.model.get_submodule('backbone').parameters():
                weight.grad = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums of errors and moments."""
        inputs, age, _ = batch
        errors, predicted = self._errors(self._ready(inputs), age)
        y, p = age.double(), predicted.double()
        moments = [
            torch.ones_like(y),
            errors.double(),
            (p - y).abs(),
            p,
            y,
            p * p,
            y * y,
            p * y,
        ]
        self._sums += torch.stack([m.sum() for m in moments])

    def measures(self, n: float, *sums: float) -> Row:
        """Return the mean absolute error, years, and the correlation with age."""
        size, p, y, pp, yy, py = sums
        spread = math.sqrt(max(pp / n - (p / n) ** 2, 0) * max(yy / n - (y / n) ** 2, 0))
        r = (py / n - p * y / n**2) / spread if spread > 0 else float('nan')
        return {
            'val_mae': size / n,
            'val_r': max(-1.0, min(1.0, r)) if math.isfinite(r) else r,
        }

    def reached(self) -> str:
        """Say in words what the last epoch has reached."""
        row = self.history[-1]
        return f'validation MAE {row["val_mae"]:.2f} years, r {row["val_r"]:.3f}'


def make_optimiser(weights: Sequence[nn.Parameter], recipe: OptimiserRecipe) -> Any:
    """Build an optimiser over some weights."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.name == 'sgd':
        return torch.optim.SGD(weights, rate, momentum=recipe.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if recipe.name == 'adamw' else torch.optim.Adam
    betas = (recipe.beta1, recipe.beta2)
    return kind(weights, rate, betas=betas, eps=recipe.eps, weight_decay=decay)


def hash_seed(*numbers: int) -> int:
    """Turn some numbers into one seed, evenly spread."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
