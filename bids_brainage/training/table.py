"""Train a model on a table of features: fit the folds and everybody, predict, export.

The counterpart of `fit`, `predictions` and `export` for architectures that are no networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.bundles.bundle import WEIGHTS_FILE, Bundle, export_bundle
from bids_brainage.bundles.untrained import output_block
from bids_brainage.errors import OptionError, ProcessingError
from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.models.registry import create_model
from bids_brainage.outputs.files import read_json, write_json
from bids_brainage.segmentation.regions import OUTER_FLUID, load_regions
from bids_brainage.segmentation.weights import card
from bids_brainage.training.additive import (
    balanced_weights,
    choose_penalties,
    feature_distribution,
    fit_additive,
    reference_curves,
)
from bids_brainage.training.cache import Cache, open_cache
from bids_brainage.training.calibrate import Calibration
from bids_brainage.training.export import Cohort, bundle_metadata
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.predictions import Row, fold_rows
from bids_brainage.training.recipe import Recipe
from bids_brainage.training.recipe_check import TABLE_KEYS
from bids_brainage.training.splits import TRAINING, USED
from bids_brainage.tsv import read_tsv

TOLERANCE_YEARS = 1e-6
FACTS = 'fit.json'
Array = npt.NDArray[np.float64]


def default_features() -> list[str]:
    """Return the log ratios of a model that names none: each region over the brain.

    The fluid around the brain is left out: what is measured of it depends on how an image was
    stripped.
    """
    return [f'{r.name}/brain' for r in load_regions() if r.name != OUTER_FLUID]


def table_block(published: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the ``input`` block of a model on region volumes.

    Parameters
    ----------
    published : mapping
        Entry of the architecture.
    recipe : Recipe
        May name ``features`` in ``[model]``.
    """
    features = list(recipe.model.get('features') or default_features())
    return {
        'orientation': None,
        'affine': None,
        **published,
        'shape': [len(features)],
        'features': features,
        'segmentation': {key: card()[key] for key in ('name', 'weights_sha256')},
    }


def check_table(arch: str, declared: Mapping[str, Any], device: str, processes: int) -> None:
    """Refuse what makes no sense for a table, before any input is prepared.

    Raises
    ------
    OptionError
        A GPU or several processes are asked for, or a feature cannot be made of the regions.
    """
    if processes > 1:
        raise OptionError(
            f'{arch} is fitted by one process in seconds, but {processes} were asked for. Leave '
            '--devices and --num-nodes out.'
        )
    if device not in ('auto', 'cpu'):
        raise OptionError(f'{arch} is fitted on the CPU, found --device {device}. Leave it out.')
    try:
        log_ratios({region.name: 1.0 for region in load_regions()}, declared['features'])
    except (ProcessingError, ValueError, AttributeError) as error:
        raise OptionError(
            f'features in [model] of --recipe: expected ratios such as "thalamus/brain" of the '
            f'regions {", ".join(r.name for r in load_regions())}, brain and intracranial. {error}'
        ) from error


def fit_table_job(job: Job) -> None:
    """Fit every fold on its training people, and the model that is exported.

    Their weights lie in the folders of the folds and in that of the job.
    """
    cache = open_cache(Path(job.cache))
    for fold, roles in fold_sources(job).items():
        _fit(job, cache, roles[TRAINING], job.fold_folder(fold))
    _fit(job, cache, exported_sources(job), Path(job.folder))


def exported_sources(job: Job) -> set[str]:
    """Return the scans of the exported model: with several folds those of everybody."""
    folds = fold_sources(job)
    roles = USED if len(folds) > 1 else (TRAINING,)
    return {source for fold in folds.values() for role in roles for source in fold[role]}


def table_prediction_rows(job: Job, cache: Cache) -> list[Row]:
    """Predict all scans by all folds; see `bids_brainage.training.predictions`."""
    return fold_rows(job, cache, lambda fold: _model(job, job.fold_folder(fold))(_features(cache)))


def export_table(
    path: Path,
    job: Job,
    cache: Cache,
    rows: list[Row],
    cohort: Cohort,
    calibration: Calibration,
) -> Bundle:
    """Write the bundle of a finished training.

    Parameters
    ----------
    path : Path
        Folder ``<arch>.<tag>`` to make; it must not exist.
    job, cache, rows, cohort, calibration
        See `bids_brainage.training.export.bundle_metadata`.
    """
    folder = Path(job.folder)
    model = _model(job, folder)
    chosen = cache.rows_of(exported_sources(job))
    features, age = _features(cache)[chosen], cache.ages[chosen]
    weights = balanced_weights(age, _people(job, cache, chosen))
    distribution = feature_distribution(features, weights)
    options = {'features': list(job.declared['features'])}
    metadata = bundle_metadata(job, rows, cohort, calibration, options)
    metadata |= {
        'description': (
            f'Age as the sum of one smooth function for each of {len(options["features"])} ratios '
            f'of region volumes, fitted on {cohort.name}. What each adds in years is exact.'
        ),
        'output': output_block(model),
        'saliency': ['contribution'],
        'tolerance_years': TOLERANCE_YEARS,
        'golden': {'seed': 0, 'scale': distribution['mean']},
    }
    metadata['training'] |= {
        'recipe': _recipe(job, read_json(folder / FACTS)),
        'feature_distribution': distribution,
        'reference_curves': reference_curves(model.tensors, features, age, weights),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    return export_bundle(path, model.tensors, metadata, dtype='float64')


def _fit(job: Job, cache: Cache, sources: set[str], folder: Path) -> None:
    from safetensors.numpy import save_file

    rows = cache.rows_of(sources)
    features, age, people = _features(cache)[rows], cache.ages[rows], _people(job, cache, rows)
    penalties = choose_penalties(features, age, people=people)
    tensors = fit_additive(features, age, people=people, penalties=penalties)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE)
    write_json(folder / FACTS, dict(zip(('slope', 'deviation'), penalties, strict=True)))


def _model(job: Job, folder: Path) -> Any:
    from safetensors.numpy import load_file

    model = create_model(job.arch, features=job.declared['features'])
    model.load_tensors(load_file(folder / WEIGHTS_FILE))
    return model


def _features(cache: Cache) -> Array:
    return np.asarray(cache.arrays[0], np.float64)


def _people(job: Job, cache: Cache, rows: npt.NDArray[np.intp]) -> list[str]:
    """Return whose scan each row of the cache is."""
    person = {row['source']: row['participant_id'] for row in read_tsv(job.split)}
    return [person[cache.sources[row]] for row in rows]


def _recipe(job: Job, penalties: Mapping[str, float]) -> dict[str, Any]:
    """Return the keys of the recipe that count, and the penalties that were chosen."""
    sections: dict[str, Any] = {}
    stored = job.recipe.as_dict()
    for section, key in (dotted.split('.') for dotted in TABLE_KEYS):
        sections.setdefault(section, {})[key] = stored[section][key]
    return {**sections, 'model': stored['model'], 'penalty': dict(penalties)}
