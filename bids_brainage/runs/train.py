"""The train level: from derivatives and ages to a bundle that the participant level loads."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.places import user_model_dir
from bids_brainage.config import Config
from bids_brainage.errors import OptionError, WorkflowError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.runs.cbv_network import run_generator
from bids_brainage.runs.training_job import (
    announce_training,
    claimed_training,
    final_recipe,
    histories,
    model_name,
    prepare_job,
    training_dir,
    training_people,
    work_folder,
)

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
    if processes == 1 or global_rank() == 0:
        announce_training(config)
    trainings: dict[str, list[Row]] = {}
    for arch, recipe in recipes.items():
        name = model_name(config, arch)
        if name in done:
            log.log(IMPORTANT, '%s is trained and exported already', name)
            trainings[name] = read_predictions(training_dir(config) / name / 'predictions.tsv')
            continue
        if processes > 1 and global_rank() > 0:
            _join(work_folder(config, arch))
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
    from bids_brainage.outputs.files import write_json, write_text, write_tsv
    from bids_brainage.reports.training import write_training_report
    from bids_brainage.training import cohort_table, fold_table
    from bids_brainage.training.cache import open_cache
    from bids_brainage.training.calibrate import calibrate_predictions
    from bids_brainage.training.export import model_card
    from bids_brainage.training.fusing import fit_fusions, partner_predictions
    from bids_brainage.training.methods import method_of
    from bids_brainage.training.predictions import write_predictions

    method = method_of(job.arch)
    folder = training_dir(config) / job.name
    cache = open_cache(Path(job.cache), verify=False)
    rows = method.predict(job, cache)
    write_predictions(folder / 'predictions.tsv', rows)
    write_tsv(folder / 'folds.tsv', fold_table.fold_table(rows), fold_table.COLUMNS)
    write_tsv(folder / 'cohorts.tsv', cohort_table.cohort_table(rows), cohort_table.COLUMNS)
    cohort = training_people(config, mixed=job.recipe.run.simulated_share > 0)
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


def _method(recipe: Recipe) -> str:
    from bids_brainage.training.recipe import LAST_LAYER

    if recipe.split.method == 'folds':
        return f'{recipe.split.folds} folds, each person by a model that has not seen them'
    if recipe.split.selection == 'none':
        return 'people held out of training'
    chosen = 'penalty' if recipe.run.fit == LAST_LAYER else 'epoch'
    return f'people held out of training and of the choice of the {chosen}'


def _number(value: Any) -> str:
    return 'n/a' if value is None else f'{value:.2f}'


def _compare(config: Config, trainings: dict[str, list[Row]]) -> None:
    """Print and write the comparison of several architectures."""
    from bids_brainage.outputs.files import write_tsv
    from bids_brainage.reports.comparison import write_comparison
    from bids_brainage.training.comparison import (
        COLUMNS,
        comparison_rows,
        comparison_text,
        judged_scans,
    )

    rows = comparison_rows(trainings)
    path = training_dir(config) / f'comparison-{config.train.bundle_name}.tsv'
    write_tsv(path, rows, COLUMNS)
    page = write_comparison(
        path.with_suffix('.html'), list(trainings), judged_scans(trainings), rows
    )
    sys.stdout.write(comparison_text(rows) + '\n')
    log.log(IMPORTANT, 'Comparison: %s and %s', path, page)
