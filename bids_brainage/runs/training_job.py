"""What the trainings of age models and of the network of CBV maps share."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.places import model_dirs, user_model_dir
from bids_brainage.config import Config
from bids_brainage.errors import OptionError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.models.registry import model_info
from bids_brainage.outputs.dataset import dataset_name, read_description
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.preprocessing.bold.names import atlas_label
from bids_brainage.runs.claim import claimed

if TYPE_CHECKING:
    from bids_brainage.training.export import Cohort
    from bids_brainage.training.job import Job
    from bids_brainage.training.prepare import Prepared
    from bids_brainage.training.recipe import Recipe
    from bids_brainage.training.studies import Study

log = logging.getLogger(__name__)


def final_recipe(config: Config, arch: str) -> Recipe:
    """Return the paper's recipe with the changes of file and options.

    Raises
    ------
    OptionError
        They do not fit, or the start does not.
    """
    from bids_brainage.training.recipe import read_overrides
    from bids_brainage.training.recipe_check import make_recipe, own_options
    from bids_brainage.training.start import check_start, find_start, fine_tuning_changes

    train = config.train
    changes = read_overrides(train.recipe) if train.recipe else {}
    if isinstance(changes.get('model'), dict):
        changes['model'] = own_options(changes['model'], arch, train.arch)
    if train.epochs is not None:
        changes['run'] = {**changes.get('run', {}), 'epochs': train.epochs}
    if train.folds == 1:
        changes['split'] = {**changes.get('split', {}), 'method': 'random'}
    elif train.folds is not None:
        split = {**changes.get('split', {}), 'method': 'folds', 'folds': train.folds}
        changes['split'] = split
    start = train.start_from or changes.get('run', {}).pop('start_from', '')
    if not start:
        return make_recipe(arch, changes)
    bundle = find_start(start, model_dirs(config.workflow.model_dir))
    check_start(bundle, arch, changes)
    return make_recipe(arch, changes, fine_tuning_changes(bundle, changes))


def model_name(config: Config, arch: str) -> str:
    """Return ``<arch>.<tag>``."""
    return f'{arch}.{config.train.bundle_name}'


def work_folder(config: Config, arch: str) -> Path:
    """Return where a training keeps its job, its state and its inputs."""
    return config.execution.work_dir / 'train' / model_name(config, arch)


def claimed_training(config: Config, arch: str, recipe: Recipe) -> AbstractContextManager[None]:
    """Keep other runs off the folders of a training and of its prepared inputs."""
    from bids_brainage.training.prepare import cache_name, input_block

    if config.execution.dry_run:
        return nullcontext()
    names = [model_name(config, arch), cache_name(input_block(arch, recipe))]
    return claimed(config.execution.work_dir / 'train', names)


def studies(config: Config) -> list[Study]:
    """Return the datasets that train, or judge what trained.

    Raises
    ------
    OptionError
        The table of cohorts is not as expected.
    """
    from bids_brainage.training.studies import find_studies

    execution = config.execution
    return find_studies(config.train.cohorts, execution.bids_dir, execution.output_dir)


def training_dir(config: Config) -> Path:
    """Return where split, predictions, curves and report of the trainings go."""
    return config.execution.output_dir / 'logs' / 'training'


def prepare_job(config: Config, arch: str, recipe: Recipe) -> Job | None:
    """Check everything and write the job; None after a dry run."""
    from bids_brainage.dataset import find_scans
    from bids_brainage.training.job import Job, check_resumable
    from bids_brainage.training.prepare import input_of, prepare_training

    execution = config.execution
    data = [
        (study, find_scans(
            study.bids_dir,
            participant_labels=execution.participant_label or None if study.own else None,
            session_labels=execution.session_label or None,
            filters=execution.bids_filters or None,
            database_dir=execution.database_to_use if study.own else None,
            validate=not execution.skip_bids_validation,
            age_column=config.workflow.age_column,
        ))
        for study in studies(config)
    ]  # fmt: skip
    declared = input_of(arch, recipe, data, atlas_label(config.workflow.atlas))
    column, _, value = (config.group.reference_group or '').partition('=')
    # Architectures that are compared share the split of the first.
    first = config.train.arch[0]
    given = config.train.split
    if given is None and arch != first and not execution.dry_run:
        given = training_dir(config) / model_name(config, first) / 'split.tsv'
    prepared = prepare_training(
        data,
        execution.work_dir / 'train',
        recipe,
        declared,
        split_path=training_dir(config) / model_name(config, arch) / 'split.tsv',
        given_split=given,
        atlas=atlas_label(config.workflow.atlas),
        reference=(column, value) if column else None,
        seed=config.seeds.random_seed,
        workers=config.nipype.nprocs,
        check_only=execution.dry_run,
    )
    at_once = _announce_sizes(config, arch, recipe, declared, prepared)
    if execution.dry_run:
        log.log(IMPORTANT, 'Would train %s; nothing was written', model_name(config, arch))
        return None
    job = Job(
        name=model_name(config, arch),
        arch=arch,
        declared=declared,
        recipe=recipe,
        seed=config.seeds.random_seed,
        folder=str(work_folder(config, arch)),
        cache=str(prepared.cache),
        split=str(prepared.split),
        accelerator=_accelerator(config.nipype.device),
        devices=config.train.devices,
        num_nodes=config.train.num_nodes,
        at_once=at_once,
    )
    check_resumable(job, resume=config.train.resume)
    job.write()
    return job


def announce_training(config: Config) -> None:
    """Say what trains on what, and with which means."""
    nipype, train = config.nipype, config.train
    models = config.workflow.model_dir or user_model_dir()
    for head, text in (
        ('bids_brainage', config.environment.version),
        *(('dataset  ', _dataset_words(study)) for study in studies(config)),
        ('output   ', str(config.execution.output_dir)),
        ('inputs   ', f'from derivatives there, prepared in {config.execution.work_dir}'),
        (
            'models   ',
            f'{", ".join(model_name(config, arch) for arch in train.arch)}, in {models}',
        ),
    ):
        log.log(IMPORTANT, '%s %s', head, text)
    log.log(
        IMPORTANT,
        'resources %d processes x %d threads, %.1f GB, device %s (%s), seed %d',
        train.devices * train.num_nodes,
        nipype.omp_nthreads,
        nipype.memory_gb,
        nipype.device,
        _accelerator(nipype.device),
        config.seeds.random_seed,
    )


def _announce_sizes(
    config: Config, arch: str, recipe: Recipe, declared: Mapping[str, Any], prepared: Prepared
) -> int | None:
    """Say who trains, chooses and tests, and what the training takes.

    Returns
    -------
    int or None
        Scans that go through the network at once; None for whole batches.
    """
    from bids_brainage.training.estimate import (
        estimate_words,
        last_layer_words,
        row_bytes,
        rows_at_once,
        split_words,
        try_step,
    )
    from bids_brainage.training.recipe import LAST_LAYER

    left_out = f'; {prepared.left_out} scans are left out' if prepared.left_out else ''
    alone = recipe.run.fit == LAST_LAYER
    roles = split_words(prepared.assignments, 'penalty' if alone else 'epoch')
    log.log(IMPORTANT, 'split     %s%s', roles, left_out)
    arrays = len({a.item.source for a in prepared.assignments})
    arrays *= 2 if arch in ARCHITECTURES else 1  # image and map
    at_once = None
    words = [f'{arrays * row_bytes(declared) / 1024**3:.2g} GB of disk for inputs']
    if arch in ARCHITECTURES:
        words.append('time and memory are told after the first epoch')
    elif model_info(arch).backend == 'torch':
        step = try_step(arch, recipe, declared, _accelerator(config.nipype.device))
        processes = config.train.devices * config.train.num_nodes
        limit = config.nipype.memory_gb
        if alone:
            words += last_layer_words(step, recipe, prepared.assignments, limit)
        else:
            if _accelerator(config.nipype.device) == 'cpu':
                at_once = rows_at_once(step, recipe, limit, processes)
            words += estimate_words(step, recipe, prepared.assignments, processes, at_once)
    else:
        words.append('less than 1 GB of memory, and seconds')
    log.log(IMPORTANT, 'estimate  %s', '; '.join(words))
    if at_once is not None:
        log.log(
            IMPORTANT,
            'memory    batches go through the network in parts of at most %d, as --mem demands; '
            'normalisations over a batch see the scans of a part',
            at_once,
        )
    return at_once


def _accelerator(device: str) -> str:
    """Turn ``--device`` into what the trainer understands."""
    import torch

    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    kind = device.partition(':')[0]
    if kind == 'cuda' and not torch.cuda.is_available():
        raise OptionError('--device cuda: no GPU can be used here. Give auto or cpu.')
    return kind


def histories(job: Job) -> dict[int, list[dict[str, float]]]:
    """Return the history of each fold: one row an epoch, none for models without epochs."""
    from bids_brainage.training.job import fold_sources
    from bids_brainage.tsv import is_missing, read_tsv

    return {
        fold: [
            {name: float('nan') if is_missing(text) else float(text) for name, text in row.items()}
            for row in read_tsv(job.fold_folder(fold) / 'history.tsv')
        ]
        for fold in fold_sources(job)
        if (job.fold_folder(fold) / 'history.tsv').is_file()
    }


def _dataset_words(study: Study) -> str:
    """Name a dataset, and the cohort that it is."""
    cohort = f' ({study.name}, {study.role or "train"})' if study.name else ''
    return f'{study.bids_dir}{cohort}'


def training_people(config: Config, *, mixed: bool = False) -> Cohort:
    """Return what is said of the people: names of the datasets, and whether any is simulated.

    Where simulated people are `mixed` with real ones, it is said of the real ones.
    """
    from bids_brainage.training.export import Cohort

    found = studies(config)
    trains = [study.bids_dir for study in found if not study.role]
    if mixed:
        trains = [folder for folder in trains if not _is_simulated(folder)] or trains
    return Cohort(
        name=', '.join(map(dataset_name, trains)),
        simulated=not mixed and any(map(_is_simulated, trains)),
        datasets={
            '' if study.own else study.name: dataset_name(study.bids_dir) for study in found
        },
    )


def _is_simulated(bids_dir: Path) -> bool:
    content = read_description(bids_dir)
    made_by = json.dumps(content.get('GeneratedBy', [])) + str(content.get('Name', ''))
    return 'simulat' in made_by.lower()
