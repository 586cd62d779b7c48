"""The train level for a generator of cerebral blood volume maps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.bundles.places import user_model_dir
from bids_brainage.config import Config
from bids_brainage.errors import OptionError
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.runs.training_job import (
    announce_training,
    claimed_training,
    final_recipe,
    histories,
    model_name,
    prepare_job,
    training_dir,
    training_people,
)

if TYPE_CHECKING:
    from bids_brainage.training.job import Job

log = logging.getLogger(__name__)


def run_generator(config: Config) -> int:
    """Train the generator that ``--arch`` names and write its weights.

    Parameters
    ----------
    config : Config
        Settings of the run.

    Returns
    -------
    int
        0.

    Raises
    ------
    OptionError
        The recipe or the names do not fit (exit status 2).
    MissingInputError
        There are no derivatives (66).
    TrainingInputError
        Maps are missing, or people or images cannot be trained on (65).
    TemporaryError
        Another run trains it, or on inputs in the same folder (75).
    """
    from bids_brainage.training.fit import fit_in_processes
    from bids_brainage.training.synthesis import check_generator

    (arch,) = config.train.arch
    recipe = final_recipe(config, arch)
    name = model_name(config, arch)
    path = (config.workflow.model_dir or user_model_dir()) / f'{name}.safetensors'
    if path.exists():
        if not config.train.resume:
            raise OptionError(
                f'{path} exists already. Choose another --bundle-name, or remove it.'
            )
        log.log(IMPORTANT, '%s is trained and exported already', name)
        return 0
    if config.train.devices * config.train.num_nodes > 1:
        raise OptionError(
            f'{arch} is trained by one process. Leave --devices and --num-nodes out.'
        )
    if config.train.cohorts is not None:
        raise OptionError(f'{arch} is trained on one dataset. Leave --cohorts out.')
    check_generator(arch, recipe)
    announce_training(config)
    with claimed_training(config, arch, recipe):
        job = prepare_job(config, arch, recipe)
        if job is not None:
            fit_in_processes(job)
            _finish(config, job, path)
    return 0


def _finish(config: Config, job: Job, path: Path) -> None:
    """Measure on held-out people, and write table, history, card and weights."""
    from bids_brainage.outputs.files import write_tsv
    from bids_brainage.training.cache import open_cache
    from bids_brainage.training.synthesis_export import (
        COLUMNS,
        export_generator,
        generator_card,
        held_out_errors,
        trained_generator,
    )

    cache = open_cache(Path(job.cache), verify=False)
    model = trained_generator(job)
    errors = held_out_errors(job, cache, model)
    folder = training_dir(config) / job.name
    write_tsv(folder / 'errors.tsv', errors, COLUMNS)
    write_tsv(folder / 'history.tsv', histories(job)[1])
    card = generator_card(job, cache, errors, training_people(config))
    check = export_generator(path, job, model, card)['validation'][0]
    log.log(
        IMPORTANT,
        '%s: r %.2f, error %.3g of the brightest 1 %% on %d held-out people (the mean map: %.3g); '
        '--aicbv-weights %s',
        job.name, check['r'], check['mae'], check['n'], check['mean_map_mae'], path,
    )  # fmt: skip
    if not check['mae'] < check['mean_map_mae']:
        log.warning('%s is no better than the mean map of the training people.', job.name)
