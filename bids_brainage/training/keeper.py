"""Checkpoints, the history on disk, the end of training, and how long it will take."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from bids_brainage.outputs.files import write_json, write_tsv
from bids_brainage.outputs.logs import IMPORTANT, duration
from bids_brainage.training.module import Row, Training
from bids_brainage.training.recipe import RunRecipe
from bids_brainage.training.schedule import best_epoch, finished

log = logging.getLogger(__name__)

LAST, BEST, DONE, HISTORY = 'last.pt', 'best.pt', 'done.json', 'history.tsv'
PROGRESS_SECONDS = 30.0


class Keeper(pl.Callback):
    """Keep the last and the best state of a fold.

    Files appear whole or not at all: each is written beside its place, then renamed.  The best
    weights are written before the last state, so that a training killed between the two
    repeats the epoch and arrives at the same.

    Parameters
    ----------
    folder : Path
        Of the fold.
    title : str
        For the messages, such as ``vgg8.mine, fold 1 of 5``.
    card : dict
        Facts of the model stored in each checkpoint.
    total_left : callable, optional
        Turns the seconds left of this fold into those of the whole training.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        card: dict[str, Any],
        total_left: Callable[[float], float] | None = None,
    ) -> None:
        self.folder, self.title, self.card = folder, title, card
        self.total_left = total_left
        self.started = self.spoken = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self.started = self.spoken = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say within long epochs how far they are."""
        now = time.monotonic()
        if now - self.spoken < PROGRESS_SECONDS or not trainer.is_global_zero:
            return
        self.spoken = now
        assert isinstance(pl_module, Training)
        done, steps = batch_idx + 1, pl_module.steps_per_epoch
        left = (now - self.started) / done * (steps - done)
        log.log(
            IMPORTANT,
            '%s: epoch %d, step %d of %d, the epoch ends in about %.1f min',
            self.title, pl_module.epoch + 1, done, steps, left / 60,
        )  # fmt: skip

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what was reached, and decide whether that is the end."""
        assert isinstance(pl_module, Training)
        row = pl_module.summarise()
        row['seconds'] = round(time.monotonic() - self.started, 3)
        history = pl_module.history
        history.append(row)
        run = pl_module.recipe.run
        values = monitored(history, run)
        over = finished(values, run.epochs, run.patience)
        if trainer.is_global_zero:
            self._save(trainer, pl_module, best_epoch(values) == len(values) - 1)
            self._tell(pl_module, values, over)
        if over:
            trainer.should_stop = True

    def _save(self, trainer: pl.Trainer, module: Training, is_best: bool) -> None:
        weights = module.model.state_dict()
        if is_best:
            best = {'model': weights, 'history': module.history, 'card': self.card}
            replace_state(self.folder / BEST, best)
        state = {
            'model': weights,
            'optimiser': trainer.optimizers[0].state_dict(),
            'history': module.history,
            'seed': module.seed,
            'card': self.card,
        }
        replace_state(self.folder / LAST, state)
        write_tsv(self.folder / HISTORY, module.history)

    def _tell(self, module: Training, values: list[float], over: bool) -> None:
        best = best_epoch(values)
        run = module.recipe.run
        seconds = [float(row['seconds']) for row in module.history]
        left = (run.epochs - len(values)) * sum(seconds[-5:]) / len(seconds[-5:])
        if self.total_left is not None:
            left = self.total_left(left)
        log.log(
            IMPORTANT,
            '%s: epoch %d of at most %d, %s (best epoch %d); %s',
            self.title, len(values), run.epochs, module.reached(), best + 1,
            'done' if over else f'at most {duration(left)} left',
        )  # fmt: skip
        if over:
            _say_done(self.folder, values)


def replace_state(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_name(f'.{path.name}.partial')
    with partial.open('wb') as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def monitored(history: Sequence[Row], run: RunRecipe) -> list[float]:
    """Return what chooses the best epoch, one value an epoch, lower is better."""
    return [float(row[f'val_{run.monitor}']) for row in history]


def close_fold(folder: Path, history: Sequence[Row], run: RunRecipe) -> bool:
    """Finish a fold that was killed after its last epoch, and tell whether it was such a one.

    Parameters
    ----------
    folder : Path
        Of the fold.
    history : sequence of dict
        From its last state.
    run : RunRecipe
        Says when training ends.
    """
    values = monitored(history, run)
    if not finished(values, run.epochs, run.patience):
        return False
    write_tsv(folder / HISTORY, history)
    _say_done(folder, values)
    return True


def _say_done(folder: Path, values: Sequence[float]) -> None:
    write_json(folder / DONE, {'epochs': len(values), 'best_epoch': best_epoch(values) + 1})
