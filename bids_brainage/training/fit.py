"""Fit the folds of a job, on one process or many.

``python -m bids_brainage.training.fit JOB`` is what each process runs when several train
together; the one that is started first starts the others.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.errors import BrainAgeError, OptionError, TemporaryError, WorkflowError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.training.cache import Cache, open_cache
from bids_brainage.training.job import JOB_FILE, Job, fold_sources, learnt_sources, read_job
from bids_brainage.training.network import start_model
from bids_brainage.training.recipe import LAST_LAYER, Recipe
from bids_brainage.training.splits import SIMULATED, TRAINING, VALIDATION
from bids_brainage.training.weights import Rows, cohorts_of, row_weights

log = logging.getLogger(__name__)

RANK_VARIABLES = ('RANK', 'LOCAL_RANK', 'SLURM_PROCID')


def fit_in_processes(job: Job) -> None:
    """Fit in this process, or in as many as the job wants.

    Raises
    ------
    WorkflowError
        One of several processes has failed.
    """
    if job.world == 1 or _started_together():
        fit_job(job)
        return
    path = Path(job.folder) / JOB_FILE
    command = [sys.executable, '-m', 'bids_brainage.training.fit', str(path)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise WorkflowError(
            f'Training {job.name} with {job.world} processes ended with status {status}; see the '
            'messages above. What was reached is kept: go on with --resume.'
        )


def _started_together() -> bool:
    """Tell whether a scheduler has started all processes (srun, torchrun)."""
    counts = (os.environ.get('WORLD_SIZE', '1'), os.environ.get('SLURM_NTASKS', '1'))
    return any(count.isdigit() and int(count) > 1 for count in counts)


def fit_job(job: Job) -> None:
    """Fit every fold that is not done yet; a fold that was begun goes on where it was.

    Raises
    ------
    TemporaryError
        The GPU is out of memory.
    OptionError
        The recipe's precision does not work on this device.
    """
    import torch

    from bids_brainage.training.last_layer import fit_last_layer

    if job.accelerator == 'cpu' and job.recipe.run.precision == 'bf16':
        raise OptionError(
            'precision = "bf16" gives gradients that are not numbers on the CPU (seen with torch '
            '2.13). Set precision = "32" in [run] of --recipe, or train on a GPU.'
        )

    cache = open_cache(Path(job.cache), verify=global_rank() == 0)
    folds = fold_sources(job)
    for place, fold in enumerate(folds):
        if (job.fold_folder(fold) / 'done.json').is_file():
            log.info('%s: fold %d is done', job.name, fold)
            continue
        try:
            if job.recipe.run.fit == LAST_LAYER:
                fit_last_layer(job, cache, fold)
            else:
                fit_fold(job, cache, fold, later_folds=len(folds) - place - 1)
        except torch.cuda.OutOfMemoryError as error:
            other = 'precision = "bf16" in [run]'
            if job.arch in ARCHITECTURES:
                other = 'preset = "lite" in [model]'
            raise TemporaryError(
                f'{job.name}: the GPU is out of memory ({error}). Lower batch_size in [run] of '
                f'--recipe, or use {other}.'
            ) from error


def fit_fold(job: Job, cache: Cache, fold: int, *, later_folds: int = 0) -> None:
    """Train one fold to its end; its folder then holds ``best.pt`` and ``done.json``.

    Parameters
    ----------
    job : Job
        What to train.
    cache : Cache
        Prepared inputs.
    fold : int
        Number of the fold, from 1.
    later_folds : int
        Folds still to come, for the estimate.
    """
    from bids_brainage.training.keeper import LAST, Keeper, close_fold
    from bids_brainage.training.synthesis import build_generator, map_training

    folder = job.fold_folder(fold)
    folder.mkdir(parents=True, exist_ok=True)
    roles = fold_sources(job)[fold]
    rows, chosen = cache.rows_of(roles[TRAINING]), cache.rows_of(roles[VALIDATION])
    resumed = read_state(folder / LAST)
    generates = job.arch in ARCHITECTURES
    if generates:
        model = build_generator(job.arch, job.recipe, job.seed)
    else:
        model = start_model(job, cache.ages[cache.rows_of(learnt_sources(roles))], fold)
    if resumed is not None:
        if close_fold(folder, resumed['history'], job.recipe.run):
            return
        model.load_state_dict(resumed['model'])
        done = len(resumed['history'])
        log.log(IMPORTANT, '%s: fold %d goes on after epoch %d', job.name, fold, done)
    make = map_training if generates else age_training
    module, *loaders = make(job, cache, model, (rows, chosen), fold, resumed)
    total = sum(1 for _ in fold_sources(job))
    keeper = Keeper(
        folder,
        f'{job.name}, fold {fold} of {total}' if total > 1 else job.name,
        {
            'name': job.name,
            'arch': job.arch,
            'input': job.declared,
            'recipe': job.recipe.as_dict(),
        },
        lambda left: left * (1 + later_folds),
    )
    trainer = make_trainer(job, keeper, job.recipe.run.epochs - module.first_epoch)
    trainer.fit(module, *loaders)
    trainer.strategy.barrier()


def age_training(
    job: Job,
    cache: Cache,
    model: Any,
    rows: tuple[Rows, Rows],
    fold: int,
    resumed: Mapping[str, Any] | None,
) -> tuple[Any, Any, Any]:
    """Return the module that trains an age model, and the batches of its two sets of rows."""
    import torch

    from bids_brainage.training.data import EpochPlan, MixedPlan, least_rows, loader
    from bids_brainage.training.module import AgeTraining

    rank = global_rank() if job.world > 1 else 0
    batch = whole_batch(job.recipe, job.world)
    training, chosen = rows
    sample = tuple(torch.from_numpy(np.array(a[training[:1]])).float() for a in cache.arrays)
    simulated = cache.rows_of(fold_sources(job)[fold].get(SIMULATED, set()))
    share = job.recipe.run.simulated_share
    mix = partial(MixedPlan, simulated=simulated, share=share) if share else EpochPlan
    plan = mix(
        training, batch, seed=job.seed, first_epoch=len(resumed['history']) if resumed else 0,
        least=least_rows(model, sample), rank=rank, world=job.world,
    )  # fmt: skip
    validation = EpochPlan(chosen[rank :: job.world], max(1, batch // job.world))
    learnt = cache.ages[[*training, *simulated]]
    unit = float(np.ptp(learnt)) if job.recipe.loss.scale == 'range' else 1.0
    weights = np.ones(len(cache.ages))
    for part in filter(len, (training, simulated)):  # each has its own decades and cohorts
        weights[part] = row_weights(job.recipe, cache.ages, part, cohorts_of(job, cache))[part]
    pin, workers = job.accelerator == 'cuda', job.recipe.run.workers
    return (
        AgeTraining(
            model,
            job.recipe,
            job.seed + fold - 1,
            len(plan),
            unit,
            resumed,
            weights=weights,
            at_once=job.at_once,
        ),
        loader(cache, plan, workers=workers, pin=pin),
        loader(cache, validation, workers=workers, pin=pin),
    )


def read_state(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, None if there is none."""
    import torch

    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
    return state


def whole_batch(recipe: Recipe, world: int) -> int:
    """Return the batch size over all processes.

    Raises
    ------
    OptionError
        It cannot be divided among the processes.
    """
    batch = recipe.run.batch_size
    if batch % world:
        raise OptionError(
            f'batch_size {batch} cannot be shared by {world} processes; choose a multiple in '
            '[run] of --recipe.'
        )
    return batch


def make_trainer(job: Job, keeper: Any, epochs: int) -> Any:
    """Build the trainer: everything that is kept or told goes through `keeper`."""
    import lightning.pytorch as pl
    from lightning.pytorch.plugins.environments import LightningEnvironment

    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', module='lightning')
    alone = job.world == 1
    return pl.Trainer(
        accelerator=job.accelerator,
        devices=job.devices,
        num_nodes=job.num_nodes,
        strategy='auto' if alone else 'ddp',
        # One process in a cluster job is one process, whatever the job's size.
        plugins=[LightningEnvironment()] if alone else None,
        precision='bf16-mixed' if job.recipe.run.precision == 'bf16' else '32-true',
        max_epochs=epochs,
        callbacks=[keeper],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=job.folder,
    )


def global_rank() -> int:
    """Return the number of this process among those that train together."""
    for name in RANK_VARIABLES:
        if os.environ.get(name, '').isdigit():
            return int(os.environ[name])
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the job of a file."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=IMPORTANT, format='%(asctime)s %(name)s %(message)s')
    try:
        fit_job(read_job(given[0]))
    except BrainAgeError as error:
        sys.stderr.write(f'{type(error).__name__}: {error}\n')
        return error.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main())
