"""From a finished training to a bundle with everything needed to judge it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle, export_bundle, load_bundle
from bids_brainage.bundles.people import DIGITS, LEARNT_FROM, UNSEEN, Person, people_block
from bids_brainage.bundles.untrained import output_block
from bids_brainage.inference.interval import half_width_text
from bids_brainage.models.registry import model_info
from bids_brainage.training.cache import Cache
from bids_brainage.training.calibrate import Calibration
from bids_brainage.training.job import Job, fold_sources, learnt_sources
from bids_brainage.training.network import model_options
from bids_brainage.training.predictions import Row, of_role, per_person, trained_model
from bids_brainage.training.recipe import LAST_LAYER
from bids_brainage.training.splits import SIMULATED, TRAINING
from bids_brainage.training.studies import study_of

TOLERANCE_YEARS = 0.01


@dataclass(frozen=True)
class Cohort:
    """What is said of the training people.

    Attributes
    ----------
    name : str
        Name of the dataset.
    simulated : bool
        Whether its images are simulated.
    datasets : mapping
        Cohort of the people -> name of its dataset, see `bids_brainage.training.studies.study_of`;
        `name` where none is given.
    """

    name: str
    simulated: bool
    datasets: Mapping[str, str] = field(default_factory=dict)


def bundle_metadata(
    job: Job,
    rows: Sequence[Row],
    cohort: Cohort,
    calibration: Calibration,
    options: Mapping[str, Any],
    fusion: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the metadata of the bundle, less what model and exporter fill in.

    Parameters
    ----------
    job : Job
        What was trained.
    rows : sequence of dict
        Its predictions.
    cohort : Cohort
        The people.
    calibration : Calibration
        What was measured on held-out people.
    options : mapping
        ``arch_options``.
    fusion : mapping or None
        System B's regressions.
    """
    info = model_info(job.arch)
    modality = job.recipe.data.modality
    seen = {} if modality == 't1w' else {'modality': modality}
    metadata: dict[str, Any] = {
        'name': job.name,
        'version': '1',
        'arch': job.arch,
        'arch_options': dict(options),
        'status': 'trained',
        'title': f'{info.title}, trained on {cohort.name}',
        'description': _description(job, cohort),
        'intended_use': (
            'Research on how old a brain looks, in people and scanners like those of the '
            'training. Not a medical device.'
        ),
        'limitations': _limitations(cohort, calibration),
        'license': 'not stated: to be chosen by the owner of the training data',
        'copyright': 'The owner of the training data',
        'reference': info.reference,
        'input': {**job.declared, **seen},
        'training': _training(job, rows, cohort),
        'validation': [calibration.validation],
        'bias_correction': calibration.bias_correction,
        'conformal': calibration.conformal,
        'tolerance_years': TOLERANCE_YEARS,
        'golden': {'seed': 0},
    }
    if fusion is not None:
        metadata['fusion'] = dict(fusion)
    return metadata


def export_training(
    path: Path,
    job: Job,
    cache: Cache,
    rows: Sequence[Row],
    cohort: Cohort,
    calibration: Calibration,
    fusion: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write the bundle of a finished training: one network, or the ensemble of its folds.

    Parameters
    ----------
    path : Path
        Folder ``<arch>.<tag>`` to make; it must not exist.
    job, cache, rows, cohort, calibration, fusion
        See `bundle_metadata`.

    Raises
    ------
    BundleError
        The folder exists.
    """
    from bids_brainage.models.fold_ensemble import FoldEnsemble

    folds = fold_sources(job)
    members = [trained_model(job, cache, fold) for fold in folds]
    ages = [cache.ages[cache.rows_of(learnt_sources(roles))] for roles in folds.values()]
    choices = [model_options(job, values) for values in ages]
    model = members[0] if len(members) == 1 else FoldEnsemble(members)
    options = choices[0] if len(members) == 1 else {'members': choices}
    metadata = bundle_metadata(job, rows, cohort, calibration, options, fusion)
    metadata['output'] = output_block(model)
    metadata['saliency'] = list(model.saliency_methods)
    path.parent.mkdir(parents=True, exist_ok=True)
    return export_bundle(path, model, metadata)


def _description(job: Job, cohort: Cohort) -> str:
    recipe = job.recipe
    count = len(fold_sources(job))
    parts = f'the mean of {count} networks (one per fold)' if count > 1 else 'one network'
    start = 'from the weights of another bundle ' if recipe.run.start_from else ''
    share = recipe.run.simulated_share
    mixed = f' and, {share:.0%} of each batch, simulated people,' if share else ''
    if recipe.run.fit == LAST_LAYER:
        beside = f', and to simulated people, who count {share:.0%} together' if share else ''
        return (
            f'Brain age by {parts} of architecture {job.arch}. All layers but the last are those '
            f'of another bundle; ridge regression has fitted the last one on {cohort.name}, to '
            f'each image as it is and {recipe.run.epochs} times changed at random{beside}.'
        )
    return (
        f'Brain age by {parts} of architecture {job.arch}, trained {start}on {cohort.name}{mixed} '
        f'with {recipe.optimiser.name}, {recipe.loss.main} loss and at most {recipe.run.epochs} '
        'epochs.'
    )


def _limitations(cohort: Cohort, calibration: Calibration) -> str:
    n = calibration.validation['n']
    parts = [f'Accuracy and intervals were measured on {n} held-out people of the same cohort.']
    if cohort.simulated:
        parts.append('The training images are simulated; expect other errors on real scans.')
    parts.append('Other scanners and populations can be off by years; calibrate on your own.')
    return ' '.join([*parts, *calibration.notes])


def _training(job: Job, rows: Sequence[Row], cohort: Cohort) -> dict[str, Any]:
    people = per_person(of_role(rows, TRAINING))
    simulated = len(per_person(of_role(rows, SIMULATED)))
    ages = np.array([row['age'] for row in people], dtype=float)
    sexes = [row['sex'] for row in people if row['sex'] in ('F', 'M')]
    return {
        'data': cohort.name,
        'simulated': cohort.simulated,
        'n': len(people),
        **({'n_simulated': simulated} if simulated else {}),
        'age_min': float(ages.min()),
        'age_max': float(ages.max()),
        'age_mean': float(ages.mean()),
        'sex_female_fraction': sexes.count('F') / len(sexes) if sexes else None,
        'sites': sorted(
            {row['cohort'] for row in people if row['cohort'] not in ('', 'n/a', None)}
        ),
        'people': _people(job, rows, cohort),
        'recipe': job.recipe.as_dict(),
        'seed': job.seed,
        **({} if job.at_once is None else {'scans_at_once': job.at_once}),
        **_start(job),
    }


def _people(job: Job, rows: Sequence[Row], cohort: Cohort) -> dict[str, str | list[str]]:
    roles: dict[str, set[Person]] = defaultdict(set)
    for row in rows:
        learnt = TRAINING if row['role'] == SIMULATED else row['role']
        role = learnt if learnt in LEARNT_FROM else UNSEEN
        person = str(row['participant_id']).removeprefix('sub-')
        name, label = study_of(person)
        own = name not in cohort.datasets  # a label of one's own may have the mark, too
        dataset = cohort.datasets.get('' if own else name, cohort.name)
        roles[role].add((dataset, person if own else label))
    salt = hashlib.sha256(Path(job.split).read_bytes()).hexdigest()[:DIGITS]
    return people_block(salt, roles)


def _start(job: Job) -> dict[str, Any]:
    if not job.recipe.run.start_from:
        return {}
    bundle = load_bundle(job.recipe.run.start_from, verify=False)
    recipe = job.recipe.as_dict()
    recipe['run']['start_from'] = bundle.name  # the folder says nothing elsewhere
    facts = {'name': bundle.name, 'version': bundle.version}
    return {'recipe': recipe, 'start': {**facts, 'weights_sha256': bundle.weights_sha256}}


def _mixed_in(training: Mapping[str, Any]) -> str:
    """Say how many simulated people have taught the network beside the real ones."""
    if 'n_simulated' not in training:
        return ''
    run = training['recipe']['run']
    what = 'all that is fitted' if run['fit'] == LAST_LAYER else 'each batch'
    share = run['simulated_share']
    return f'; {training["n_simulated"]} simulated people in {share:.0%} of {what}'


def model_card(metadata: Mapping[str, Any]) -> str:
    """Write a bundle's metadata as a page of Markdown to publish beside it."""
    training, check = metadata['training'], metadata['validation'][0]

    def number(value: Any, unit: str = '') -> str:
        return 'n/a' if value is None else f'{value:.2f}{unit}'

    lines = [
        f'# {metadata["name"]}',
        '',
        metadata['description'],
        '',
        f'Method: {metadata["reference"]["text"]}'
        + (f' (doi:{metadata["reference"]["doi"]})' if metadata['reference'].get('doi') else ''),
        '',
        '## Use',
        '',
        metadata['intended_use'],
        '',
        f'Limits: {metadata["limitations"]}',
        '',
        f'Licence: {metadata["license"]}',
        '',
        '## Training people',
        '',
        f'{training["n"]} people, {training["age_min"]:.1f} to {training["age_max"]:.1f} years '
        f'(mean {training["age_mean"]:.1f}); data: {training["data"]}'
        + (' (simulated)' if training['simulated'] else '')
        + _mixed_in(training),
        '',
        '## Accuracy on held-out people',
        '',
        '| people | mean absolute error | bias | r | always the median age |',
        '| --- | --- | --- | --- | --- |',
        f'| {check["n"]} | {number(check["mae"], " y")} | {number(check["bias"], " y")} | '
        f'{number(check["r"])} | {number(check["median_baseline_mae"], " y")} |',
        '',
        f'Method: {check["method"]}.',
    ]
    conformal = metadata['conformal']
    if conformal:
        lines.append(
            f'Interval: ± {half_width_text(conformal)} years hold '
            f'{100 * conformal["level"]:.0f} % of new people like these (n = {conformal["n"]}).'
        )
    declared = metadata['input']
    unit = 'voxels' if len(declared['shape']) == 3 else 'log ratios'
    lines += [
        '',
        '## Input',
        '',
        f'{declared["kind"]}, {" x ".join(map(str, declared["shape"]))} {unit}'
        + (f', space {declared["space"]}' if declared['space'] else ''),
    ]
    return '\n'.join(lines)
