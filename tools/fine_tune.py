"""Go on with a network that has learnt from generated people, on real ones.

    python tools/fine_tune.py MEASURED_TSV WORK --view people
    python tools/fine_tune.py MEASURED_TSV WORK --view sources
    python tools/fine_tune.py MEASURED_TSV WORK --export MODELS

With ``--start BUNDLE`` (a name or a folder) from another one than ``vgg8.lifespan-reduced``.
``MEASURED_TSV`` comes from ``tools/measure_regions.py`` and says who there is; the inputs in
``WORK`` are from ``tools/real_inputs.py``.  Both views are trainings of this program with folds:
five over people, where people who look alike stay together, and one for each source that is left
out.  A tenth of the training people chooses the epoch.  A training that was stopped goes on where
it was.

With ``--simulated INPUTS`` (a folder of `tools/lifespan_cohort.py`) generated people are learnt
from beside the real ones, in every fold; ``simulated_share`` of the recipe says how much they
count.

With ``--last-layers`` (System D) only these are fitted, see `frozen_layers`.

The mean of the five networks over people is exported, with the figures of both views; or
(``--one``) the one of ``--view everybody``.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import fit_regions
import numpy as np
import pandas as pd
import torch
from fit_regions import People, family_of, folds_of, member_rows, table_of
from frozen_layers import fit_last_layers, told

from bids_brainage.bundles.bundle import export_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.bundles.untrained import output_block
from bids_brainage.bundles.validation import SOURCE_LEFT_OUT
from bids_brainage.models.fold_ensemble import FoldEnsemble
from bids_brainage.outputs.files import read_json
from bids_brainage.statistics.conformal import leave_one_out_half_widths_by_age
from bids_brainage.training.cache import Cache, CacheRow, open_cache, write_rows
from bids_brainage.training.calibrate import LEVEL, calibrate_predictions
from bids_brainage.training.export import Cohort, bundle_metadata
from bids_brainage.training.fit import fit_job
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.network import model_options
from bids_brainage.training.predictions import (
    Row,
    fold_rows,
    predict_rows,
    trained_model,
    write_predictions,
)
from bids_brainage.training.recipe import read_overrides
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.split_table import write_split
from bids_brainage.training.splits import (
    SIMULATED,
    TEST,
    TRAINING,
    VALIDATION,
    Assignment,
    Item,
)
from bids_brainage.training.start import find_start, fine_tuning_changes
from bids_brainage.tsv import is_missing, read_tsv

LOG = logging.getLogger('fine_tune')
VIEWS = ('people', 'sources')
EVERYBODY = 'everybody'
START, TAG = 'vgg8.lifespan-reduced', 'adults'
FEW = 5
"""Sources with fewer people are left out together."""

CHOOSES = 10
"""One family in so many chooses the epoch."""


def people_of(measured: Path) -> tuple[pd.DataFrame, People]:
    """Return one scan of each healthy person, and who they are."""
    table = member_rows(measured, 'all')
    family = np.array([family_of(name) for name in table['participant_id']])
    age, source = table['age'].to_numpy(float), table['source'].to_numpy(str)
    return table, People(np.zeros((len(age), 1)), age, source, family)


def groups_of(people: People, view: str) -> np.ndarray:
    """Return the number of the fold, from 1, in which each person is left out; 0 for none."""
    if view == EVERYBODY:
        return np.zeros(len(people.age), int)
    if view == 'people':
        fit_regions.FOLDS = 5
        return folds_of(people) + 1
    names, counts = np.unique(people.source, return_counts=True)
    large = {name: k for k, name in enumerate(names[counts >= FEW], start=1)}
    return np.array([large.get(name, len(large) + 1) for name in people.source])


def assignments_of(table: pd.DataFrame, people: People, groups: np.ndarray) -> list[Assignment]:
    """Return who trains, chooses and tests in each fold."""
    found = []
    families, first = np.unique(people.family, return_index=True)
    for fold in np.unique(np.maximum(groups, 1)).tolist():
        mine = [f for f, i in zip(families, first, strict=True) if groups[i] != fold]
        by_age = sorted(mine, key=lambda f: people.age[people.family == f].min())
        choose = set(by_age[(fold + 3) % CHOOSES :: CHOOSES])
        for k, row in enumerate(table.itertuples()):
            item = Item(row.scan, row.participant_id.removeprefix('sub-'), None, people.age[k],
                        row.sex if row.sex in ('F', 'M') else '', people.source[k])  # fmt: skip
            trains = VALIDATION if people.family[k] in choose else TRAINING
            found.append(Assignment(item, fold, TEST if groups[k] == fold else trains))
    return found


def job_of(view: str, table: pd.DataFrame, people: People, options: argparse.Namespace) -> Job:
    """Write inputs and split of a view; return its training."""
    bundle = find_start(options.start, model_dirs(None))
    changes = read_overrides(options.recipe) if options.recipe else {}
    recipe = make_recipe(bundle.arch, changes, fine_tuning_changes(bundle, changes))
    kind = bundle.input['kind']
    cache, split = options.work / f'inputs-{kind}', options.work / f'{view}.tsv'
    generated = open_cache(options.simulated, verify=False) if options.simulated else None
    if not (cache / 'cache.json').is_file():
        rows = (
            (scan, age, (image[None],))
            for scan, age in zip(table['scan'], people.age.tolist(), strict=True)
            for image in np.load(options.work / kind / f'{scan}.npy')
        )
        write_rows(cache, bundle.input, chain(rows, rows_of(generated)), 'people')
    assignments = assignments_of(table, people, groups_of(people, view))
    for fold in sorted({a.fold for a in assignments}):
        for source, age, _ in rows_of(generated):
            item = Item(source, source, None, age, '', 'generated')
            assignments.append(Assignment(item, fold, SIMULATED))
    write_split(split, assignments)
    return Job(
        name=f'{bundle.arch}.{TAG}', arch=bundle.arch, declared=bundle.input, recipe=recipe,
        folder=str(options.work / f'training-{bundle.arch}-{view}'), seed=0,
        cache=str(cache), split=str(split),
        accelerator='cuda' if torch.cuda.is_available() else 'cpu',
    )  # fmt: skip


def rows_of(generated: Cache | None) -> Iterator[CacheRow]:
    """Yield name, age and inputs of generated people."""
    if generated is not None:
        for k, (name, age) in enumerate(zip(generated.sources, generated.ages, strict=True)):
            yield f'generated-{name}', float(age), tuple(a[k] for a in generated.arrays)


def rows_left_out(job: Job) -> list[Row]:
    """Return the predictions of a training; NaN but for those whom a fold has left out.

    They are kept beside the training.
    """
    path = Path(job.folder) / 'predictions.tsv'
    if not path.is_file():
        cache, sources = open_cache(Path(job.cache), verify=False), fold_sources(job)
        write_predictions(path, fold_rows(job, cache, lambda fold: predict_rows(
            trained_model(job, cache, fold), cache, rows=cache.rows_of(sources[fold][TEST])
        )))  # fmt: skip
    return [
        {**row, 'age': float(row['age']), 'predicted_age': number(row['predicted_age'])}
        for row in read_tsv(path)
    ]


def number(text: str) -> float:
    """Return a number, NaN where there is none."""
    return float('nan') if is_missing(text) else float(text)


def left_out(job: Job, table: pd.DataFrame) -> np.ndarray:
    """Return the age of each person by the network that has not seen them."""
    told = {r['source']: r['predicted_age'] for r in rows_left_out(job) if r['role'] == TEST}
    return np.array([told[scan] for scan in table['scan']])


def export(options: argparse.Namespace, table: pd.DataFrame, people: People) -> None:
    """Judge both views, calibrate, and write the bundle of the folds over people."""
    job = job_of('people', table, people, options)
    found = {view: left_out(job_of(view, table, people, options), table) for view in VIEWS}
    cache, rows = open_cache(Path(job.cache), verify=False), rows_left_out(job)
    card = read_json(Path(__file__).with_name('fine_tune_cards.json'))[job.name]
    data = card['training']['data']
    calibration = calibrate_predictions(
        rows, dataset=data, method='5 folds over people', simulated=False
    )
    choices = model_options(job, cache.ages)
    if options.one:
        model = trained_model(job_of(EVERYBODY, table, people, options), cache, 1)
    else:
        members = [trained_model(job, cache, fold) for fold in range(1, 6)]
        model, choices = FoldEnsemble(members), {'members': [choices] * len(members)}
    metadata = bundle_metadata(job, rows, Cohort(data, False), calibration, choices)
    metadata['training'].pop('people')  # labels of this copy of the data, which nobody else has
    training = {**metadata['training'], **card.pop('training')}
    if options.last_layers:
        training['recipe'] = told(job)
    half = leave_one_out_half_widths_by_age(
        found['people'] - people.age, found['people'], LEVEL, groups=list(people.family)
    )
    tables = {
        'people left out (5 folds)': table_of(
            people, found['people'], np.abs(found['people'] - people.age) <= half
        ),
        SOURCE_LEFT_OUT: table_of(people, found['sources']),
    }
    checks = [
        {
            'dataset': f'real scans, {row["people"]}', 'method': view, 'simulated': False,
            **{k: row[k] for k in ('n', 'mae', 'bias', 'r', 'median_baseline_mae')},
            **({'interval_coverage': row['inside']} if 'inside' in row else {}),
        }
        for view, part in tables.items()
        for row in part.replace({np.nan: None}).to_dict('records')
        if row['n'] >= FEW
    ]  # fmt: skip
    for view, part in tables.items():
        LOG.info('%s\n%s', view, part.to_string())
        part.to_csv(options.export / f'{job.name}-{view.split()[0]}.tsv', sep='\t', index=False)
    # Grad-CAM of a reduced network has a few voxels; guided backpropagation has them all
    finest, known = 'guided_backprop', list(model.saliency_methods)
    metadata |= {
        **card, 'training': training, 'output': output_block(model),
        'saliency': [finest if finest in known else known[0]], 'bias_correction': None,
        'validation': [{**calibration.validation, **checks[0]}, *checks[1:]],
    }  # fmt: skip
    pd.DataFrame({'scan': table['scan'], 'age': people.age, **found}).to_csv(
        options.export / f'{job.name}.tsv', sep='\t', index=False
    )
    export_bundle(options.export / job.name, model.eval(), metadata, dtype='float16')
    (options.export / f'{job.name}.json').write_text(json.dumps(checks, indent=1) + '\n')


def main() -> None:
    """Train one view, or export."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    for name in ('measured', 'work'):
        parser.add_argument(name, type=Path)
    parser.add_argument('--start', default=START, metavar='BUNDLE')
    parser.add_argument('--view', choices=(*VIEWS, EVERYBODY))
    parser.add_argument('--one', action='store_true', help='export the network of everybody')
    parser.add_argument('--last-layers', action='store_true', help='hold the others still')
    parser.add_argument('--recipe', type=Path)
    parser.add_argument('--simulated', type=Path, metavar='INPUTS')
    parser.add_argument('--export', type=Path, metavar='MODELS')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(1)
    table, people = people_of(options.measured)
    if options.view:
        job = job_of(options.view, table, people, options)
        job.write()
        if options.last_layers:
            fit_last_layers(job, options.work)
        else:
            fit_job(job)
        if options.view in VIEWS:
            found = left_out(job, table)
            LOG.info('%s left out\n%s', options.view, table_of(people, found).to_string())
    if options.export:
        options.export.mkdir(parents=True, exist_ok=True)
        export(options, table, people)


if __name__ == '__main__':
    main()
