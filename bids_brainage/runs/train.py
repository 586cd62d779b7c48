"""The train level: from derivatives and ages to a bundle that the participant level loads."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.places import user_model_dir
from bids_brainage.config import Config
from bids_brainage.errors import OptionError, WorkflowError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.runs.cbv_network import run_generator
from bids_brainage.runs.claim import claimed

if TYPE_CHECKING:
    from bids_brainage.training.job import Job
    from bids_brainage.training.predictions import Row
    from bids_brainage.training.recipe import Recipe

log = logging.getLogger(__name__)

WAIT_SECONDS = 24 * 3600.0


def run_train(config: Config) -> int:
    """Run the train level.

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
        The people or images cannot be trained on (65).
    TemporaryError
        Another run trains the model, or on inputs in the same folder (75).
    """
    if config.train.arch[0] in ARCHITECTURES:
        return run_generator(config)
    recipes = {arch: final_recipe(config, arch) for arch in config.train.arch}
    models = config.workflow.model_dir or user_model_dir()
    done = _exported(config, models)
    from bids_brainage.training.fit import global_rank
    from bids_brainage.training.methods import method_of
    from bids_brainage.training.predictions import read_predictions
    from bids_brainage.training.prepare import input_block

    processes = config.train.devices * config.train.num_nodes
    for arch, recipe in recipes.items():
        declared = input_block(arch, recipe)
        method_of(arch).check(arch, recipe, declared, config.nipype.device, processes)
    trainings: dict[str, list[Row]] = {}
    for arch, recipe in recipes.items():
        name = model_name(config, arch)
        if name in done:
            log.log(IMPORTANT, '%s is trained and exported already', name)
            trainings[name] = read_predictions(training_dir(config) / name / 'predictions.tsv')
            continue
        if processes > 1 and global_rank() > 0:
            _join(_work(config, arch))
            continue
        with claimed_training(config, arch, recipe):
            job = prepare_job(config, arch, recipe)
            if job is not None:
                method_of(arch).fit(job)
                trainings[job.name] = _finish(config, job, models)
    if len(trainings) > 1:
        _compare(config, trainings)
    return 0


def _exported(config: Config, models: Path) -> set[str]:
    """Return the names that a resumed run need not train again.

    Raises
    ------
    OptionError
        A bundle is there, and not from the training that is resumed.
    """
    names = [model_name(config, arch) for arch in config.train.arch]
    there = [name for name in names if (models / name).exists()]
    for name in there:
        own = (training_dir(config) / name / 'predictions.tsv').is_file()
        if not (config.train.resume and own):
            raise OptionError(
                f'{models / name} exists already. Choose another --bundle-name, or remove it.'
            )
    # The report is written last: without it, the end of the training is done again.
    return {name for name in there if (training_dir(config) / name / 'report.html').is_file()}


def final_recipe(config: Config, arch: str) -> Recipe:
    """Return the paper's recipe with the changes of file and options."""
    from bids_brainage.training.recipe import make_recipe, read_overrides

    train = config.train
    changes = read_overrides(train.recipe) if train.recipe else {}
    if train.epochs is not None:
        changes['run'] = {**changes.get('run', {}), 'epochs': train.epochs}
    if train.folds == 1:
        changes['split'] = {**changes.get('split', {}), 'method': 'random'}
    elif train.folds is not None:
        split = {**changes.get('split', {}), 'method': 'folds', 'folds': train.folds}
        changes['split'] = split
    return make_recipe(arch, changes)


def model_name(config: Config, arch: str) -> str:
    """Return ``<arch>.<tag>``."""
    return f'{arch}.{config.train.bundle_name}'


def _work(config: Config, arch: str) -> Path:
    return config.execution.work_dir / 'train' / model_name(config, arch)


def claimed_training(config: Config, arch: str, recipe: Recipe) -> AbstractContextManager[None]:
    """Keep other runs off the folders of a training and of its prepared inputs."""
    from bids_brainage.training.prepare import cache_name, input_block

    if config.execution.dry_run:
        return nullcontext()
    names = [model_name(config, arch), cache_name(input_block(arch, recipe))]
    return claimed(config.execution.work_dir / 'train', names)


def training_dir(config: Config) -> Path:
    """Return where split, predictions, curves and report of the trainings go."""
    return config.execution.output_dir / 'logs' / 'training'


def prepare_job(config: Config, arch: str, recipe: Recipe) -> Job | None:
    """Check everything and write the job; None after a dry run."""
    from bids_brainage.dataset import find_scans
    from bids_brainage.training.job import Job, check_resumable
    from bids_brainage.training.prepare import input_block, prepare_training

    execution = config.execution
    scans = find_scans(
        execution.bids_dir,
        participant_labels=execution.participant_label or None,
        session_labels=execution.session_label or None,
        filters=execution.bids_filters or None,
        database_dir=execution.database_to_use,
        validate=not execution.skip_bids_validation,
        age_column=config.workflow.age_column,
    )
    declared = input_block(arch, recipe)
    column, _, value = (config.group.reference_group or '').partition('=')
    # Architectures that are compared share the split of the first.
    first = config.train.arch[0]
    given = config.train.split
    if given is None and arch != first:
        given = training_dir(config) / model_name(config, first) / 'split.tsv'
    prepared = prepare_training(
        scans,
        execution.bids_dir,
        execution.output_dir,
        execution.work_dir / 'train',
        recipe,
        declared,
        split_path=training_dir(config) / model_name(config, arch) / 'split.tsv',
        given_split=given,
        reference=(column, value) if column else None,
        seed=config.seeds.random_seed,
        workers=config.nipype.nprocs,
        check_only=execution.dry_run,
    )
    if execution.dry_run:
        log.log(IMPORTANT, 'Would train %s on %d T1w scans', model_name(config, arch), len(scans))
        return None
    job = Job(
        name=model_name(config, arch),
        arch=arch,
        declared=declared,
        recipe=recipe,
        seed=config.seeds.random_seed,
        folder=str(_work(config, arch)),
        cache=str(prepared.cache),
        split=str(prepared.split),
        accelerator=_accelerator(config.nipype.device),
        devices=config.train.devices,
        num_nodes=config.train.num_nodes,
    )
    check_resumable(job, resume=config.train.resume)
    job.write()
    return job


def _accelerator(device: str) -> str:
    """Turn ``--device`` into what the trainer understands."""
    import torch

    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    kind = device.partition(':')[0]
    if kind == 'cuda' and not torch.cuda.is_available():
        raise OptionError('--device cuda: no GPU can be used here. Give auto or cpu.')
    return kind


def _join(folder: Path) -> None:
    """Take part in a training that the first process prepares."""
    from bids_brainage.training.fit import fit_job
    from bids_brainage.training.job import JOB_FILE, read_job

    begun = time.time()
    path = folder / JOB_FILE
    while not (path.is_file() and path.stat().st_mtime >= begun - 60):
        if time.time() - begun > WAIT_SECONDS:
            raise WorkflowError(f'{path} did not appear; the first process has stopped.')
        time.sleep(1)
    fit_job(read_job(path))


def _finish(config: Config, job: Job, models: Path) -> list[Row]:
    """Predict, calibrate, export and report; return the predictions."""
    from bids_brainage.bundles.bundle import load_bundle
    from bids_brainage.outputs.files import write_json, write_text
    from bids_brainage.reports.training import write_training_report
    from bids_brainage.training.cache import open_cache
    from bids_brainage.training.calibrate import calibrate_predictions
    from bids_brainage.training.export import Cohort, model_card
    from bids_brainage.training.fusing import fit_fusions, partner_predictions
    from bids_brainage.training.methods import method_of
    from bids_brainage.training.predictions import write_predictions

    method = method_of(job.arch)
    folder = training_dir(config) / job.name
    cache = open_cache(Path(job.cache), verify=False)
    rows = method.predict(job, cache)
    write_predictions(folder / 'predictions.tsv', rows)
    cohort = Cohort(*dataset_facts(config))
    calibration = calibrate_predictions(
        rows, dataset=f'held-out people of {cohort.name}', method=_method(job.recipe),
        simulated=cohort.simulated,
    )  # fmt: skip
    fusion: dict[str, Any] = {}
    plan = job.recipe.fusion
    if plan.fit != 'none':
        partner = partner_predictions(training_dir(config), plan.partner) if plan.partner else ()
        fusion = fit_fusions(rows, job.recipe.data.modality, plan.fit, partner)
        if plan.partner:
            other = load_bundle(models / plan.partner, verify=False)
            fusion['partner'] = {'name': other.name, 'weights_sha256': other.weights_sha256}
        write_json(folder / 'fusion.json', fusion)
    path = models / job.name
    if path.exists():
        bundle = load_bundle(path)
    else:
        facts = {'fusion': fusion} if fusion else {}
        bundle = method.export(path, job, cache, rows, cohort, calibration, **facts)
    card = model_card(bundle.metadata)
    write_text(bundle.path / 'README.md', card)
    write_json(folder / 'recipe.json', bundle.metadata['training']['recipe'])
    report = write_training_report(
        folder / 'report.html', bundle.metadata, rows, histories(job), calibration.notes
    )
    check = calibration.validation
    log.log(
        IMPORTANT,
        '%s: MAE %s years on %d held-out people (always the median age: %s); bundle %s, report %s',
        job.name, _number(check['mae']), check['n'], _number(check['median_baseline_mae']),
        bundle.path, report,
    )  # fmt: skip
    for note in calibration.notes:
        log.warning('%s', note)
    return rows


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


def dataset_facts(config: Config) -> tuple[str, bool]:
    """Return the name of the dataset, and whether it says that it is simulated."""
    path = config.execution.bids_dir / 'dataset_description.json'
    try:
        content = json.loads(path.read_text('utf-8-sig'))
    except (OSError, ValueError):
        content = {}
    made_by = json.dumps(content.get('GeneratedBy', [])) + str(content.get('Name', ''))
    name = str(content.get('Name') or config.execution.bids_dir.name)
    return name, 'simulat' in made_by.lower()


def _method(recipe: Recipe) -> str:
    if recipe.split.method == 'folds':
        return f'{recipe.split.folds} folds, each person by a model that has not seen them'
    if recipe.split.selection == 'none':
        return 'people held out of training'
    return 'people held out of training and of the choice of the epoch'


def _number(value: Any) -> str:
    return 'n/a' if value is None else f'{value:.2f}'


def _compare(config: Config, trainings: dict[str, list[Row]]) -> None:
    """Print and write the comparison of several architectures."""
    from bids_brainage.outputs.files import write_tsv
    from bids_brainage.training.comparison import COLUMNS, comparison_rows, comparison_text

    rows = comparison_rows(trainings)
    path = training_dir(config) / f'comparison-{config.train.bundle_name}.tsv'
    write_tsv(path, rows, COLUMNS)
    sys.stdout.write(comparison_text(rows) + '\n')
    log.log(IMPORTANT, 'Comparison: %s', path)
