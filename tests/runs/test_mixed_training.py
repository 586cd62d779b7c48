"""`[run] simulated_share`: simulated people train with real ones, who alone choose and test."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_phantom import write_study

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.people import in_training
from bids_brainage.cli.request import parse
from bids_brainage.errors import OptionError
from bids_brainage.runs.train import run_train
from bids_brainage.training import module
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.training.fit import fit_job
from bids_brainage.training.job import read_job
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.usefixtures('one_thread')

REAL, MADE_UP = 24, 14
MIXED = '[run]\nsimulated_share = 0.25\n'
"""Of batches of four (`training_phantom.RECIPE`)."""


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """24 people, and 14 of whom all images say that nobody was scanned; with equal labels."""
    root = tmp_path_factory.mktemp('mixed')
    write_study(root, people=REAL)
    write_study(root / 'made', people=MADE_UP, seed=1, name='Simulated people', ages=(20, 95))
    (root / 'made/bids/T1w.json').write_text(json.dumps({'Simulated': True}))
    table = 'cohort\trole\tbids_dir\toutput_dir\nmade\ttrain\tmade/bids\tmade/out\n'
    (root / 'cohorts.tsv').write_text(table)
    path = root / 'bids/dataset_description.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'GeneratedBy': []}))
    return root


@pytest.fixture(scope='module')
def trained(study):
    """Two folds with simulated people in each batch."""
    (study / 'changes.toml').write_text(recipe(study, MIXED))
    run_train(settings(study, 'mixed', '--folds', '2'))
    return study


def recipe(root, more):
    """Return the recipe of the phantoms with further keys of its section [run]."""
    return (root / 'recipe.toml').read_text().replace('[run]\n', more or '[run]\n')


def settings(root, name, *options):
    more = ('--cohorts', f'{root}/cohorts.tsv', '--arch', 'resnet_only', '--epochs', '2')
    return alone(root, name, *more, *options)


def alone(root, name, *options, dataset=''):
    """Return the settings of a training on one dataset."""
    folder = root / dataset
    words = (
        f'{folder}/bids {folder}/out train --bundle-name {name} --model-dir {root}/models '
        f'--work-dir {root}/work --recipe {root}/changes.toml --device cpu --nprocs 1'
    )
    return parse([*words.split(), *options], {})


def test_real_people_alone_choose_the_epoch_and_test(trained):
    rows = read_tsv(trained / 'out/logs/training/resnet_only.mixed/split.tsv')
    for fold in ('1', '2'):
        made = {row['role'] for row in rows if row['fold'] == fold and row['cohort'] == 'made'}
        real = {row['role'] for row in rows if row['fold'] == fold and row['cohort'] != 'made'}
        assert made == {'simulated'}
        assert real == {'training', 'validation', 'test', 'longitudinal'}


def test_bundle_says_how_many_of_each(trained):
    bundle = load_bundle(trained / 'models/resnet_only.mixed')
    training, check = (bundle.metadata[name] for name in ('training', 'validation'))
    rows = read_tsv(trained / 'out/logs/training/resnet_only.mixed/predictions.tsv')
    tested = {row['participant_id'] for row in rows if row['role'] == 'test'}
    assert training['n_simulated'] == MADE_UP
    assert training['n'] == len({r['participant_id'] for r in rows if r['role'] == 'training'})
    assert training['data'] == 'Phantoms'
    assert not training['simulated'] and not check[0]['simulated']
    assert check[0]['n'] == len(tested) and not any('made' in name for name in tested)
    ages = [float(row['age']) for row in rows if row['role'] == 'training']
    assert training['age_max'] <= max(ages) < 85
    assert '25% of each batch, simulated people' in bundle.metadata['description']
    assert f'{MADE_UP} simulated people in 25% of each batch' in (
        bundle.path / 'README.md'
    ).read_text('utf-8')
    assert in_training(training, 'Simulated people', '01') == 'true'


def test_each_batch_holds_the_share(trained, tmp_path, monkeypatch):
    """Three real ones and a simulated one; an epoch sees each real one once."""
    job = read_job(trained / 'work/train/resnet_only.mixed/job.json')
    folds = [row for row in read_tsv(job.split) if row['fold'] == '1']
    role = {row['source']: row['role'] for row in folds}
    sources = json.loads(Path(job.cache, 'cache.json').read_text())['sources']
    seen = []
    original = module.AgeTraining.training_step

    def note(self, batch, batch_idx):
        seen.append([role[sources[k]] for k in batch[2].tolist()])
        return original(self, batch, batch_idx)

    monkeypatch.setattr(module.AgeTraining, 'training_step', note)
    fit_job(replace(job, folder=str(tmp_path / 'again')))
    whole = [batch for batch in seen if len(batch) == 4]
    assert whole and all(batch.count('simulated') == 1 for batch in whole)
    epoch = seen[: len(seen) // 4]
    n = sum(row['role'] == 'training' for row in folds)
    assert sum(batch.count('training') for batch in epoch) == n
    assert len({tuple(batch) for batch in whole}) > 1  # not always at the same place


class Killed(Exception):
    pass


def test_stopped_and_resumed_equals_never_stopped(trained, tmp_path, monkeypatch):
    job = read_job(trained / 'work/train/resnet_only.mixed/job.json')
    whole, part = (replace(job, folder=str(tmp_path / name)) for name in ('whole', 'part'))
    fit_job(whole)
    original = module.AgeTraining.training_step

    def stop(self, batch, batch_idx):
        if self.epoch == 1 and batch_idx == 1:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(module.AgeTraining, 'training_step', stop)
    with pytest.raises(Killed):
        fit_job(part)
    monkeypatch.undo()
    fit_job(part)
    for fold in (1, 2):
        first, second = (
            torch.load(one.fold_folder(fold) / 'last.pt', weights_only=True)['model']
            for one in (whole, part)
        )
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_share_counts(trained):
    """Without the key simulated people train, choose and test like others."""
    (trained / 'changes.toml').write_text(recipe(trained, ''))
    run_train(settings(trained, 'alike'))
    rows = read_tsv(trained / 'out/logs/training/resnet_only.alike/split.tsv')
    made = {row['role'] for row in rows if row['cohort'] == 'made'}
    assert {'training', 'validation', 'test'} <= made and 'simulated' not in made
    training = load_bundle(trained / 'models/resnet_only.alike').metadata['training']
    assert training['simulated'] and 'n_simulated' not in training


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ('1.5', 'must lie between 0 and 1'),
        ('-0.1', 'must lie between 0 and 1'),
        ('1.0', 'less than one simulated or one real scan'),
        ('0.2', 'less than one simulated or one real scan'),
    ],
)
def test_share_that_no_batch_can_have(study, value, words):
    (study / 'changes.toml').write_text(recipe(study, f'[run]\nsimulated_share = {value}\n'))
    with pytest.raises(OptionError, match=words):
        run_train(settings(study, 'wrong'))


def test_nobody_simulated_or_nobody_real(study, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError('inputs were prepared')

    monkeypatch.setattr('bids_brainage.training.prepare.build_cache', never)
    (study / 'changes.toml').write_text(recipe(study, MIXED))
    arch = ('--arch', 'resnet_only')
    with pytest.raises(TrainingInputError, match='none of the 28 scans is of a simulated person'):
        run_train(alone(study, 'wrong', *arch))
    with pytest.raises(TrainingInputError, match='no scan of a real person is left'):
        run_train(alone(study, 'wrong', *arch, dataset='made'))


@pytest.mark.parametrize('more', ['', MIXED])
def test_a_split_that_says_otherwise_is_refused(trained, more):
    logs = trained / 'out/logs/training'
    given = 'mixed' if not more else 'alike'
    (trained / 'changes.toml').write_text(recipe(trained, more))
    config = settings(trained, 'wrong', '--split', str(logs / f'resnet_only.{given}/split.tsv'))
    with pytest.raises(TrainingInputError, match='scans have the role simulated and should not'):
        run_train(config)


def test_models_without_batches_refuse_the_share(study):
    (study / 'changes.toml').write_text(MIXED)
    with pytest.raises(OptionError, match='simulated_share has no effect on volumes'):
        run_train(alone(study, 'wrong', '--arch', 'volumes'))


def test_decades_count_the_same_among_real_and_among_simulated(trained):
    from bids_brainage.training.cache import open_cache
    from bids_brainage.training.fit import age_training
    from bids_brainage.training.job import fold_sources
    from bids_brainage.training.network import start_model
    from bids_brainage.training.recipe import merged_recipe

    job = read_job(trained / 'work/train/resnet_only.mixed/job.json')
    recipe = merged_recipe(job.recipe, {'loss': {'weights': 'decades'}}, [])
    job = replace(job, recipe=recipe)
    cache, roles = open_cache(Path(job.cache)), fold_sources(job)[1]
    rows = {role: cache.rows_of(roles[role]) for role in ('training', 'validation', 'simulated')}
    model = start_model(job, cache.ages, 1)
    fitted, *_ = age_training(job, cache, model, (rows['training'], rows['validation']), 1, None)
    for role in ('training', 'simulated'):
        weights = fitted.weights[rows[role]].numpy()
        assert weights.mean() == pytest.approx(1) and np.ptp(weights) > 0
