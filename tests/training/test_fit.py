"""Training itself: it learns, it resumes exactly, processes agree, the bundle conforms."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from training_phantom import GRID, ageing_head, phantom_job

from bids_brainage.bundles.check import check_bundle
from bids_brainage.errors import OptionError, OutputError
from bids_brainage.inference.predict import predict
from bids_brainage.outputs.files import read_json
from bids_brainage.training.cache import open_cache
from bids_brainage.training.calibrate import calibrate_predictions
from bids_brainage.training.data import EpochPlan, MixedPlan, least_rows
from bids_brainage.training.export import Cohort, export_training, model_card
from bids_brainage.training.fit import fit_job
from bids_brainage.training.job import check_resumable, fold_sources, read_job
from bids_brainage.training.network import start_model
from bids_brainage.training.predictions import columns, of_role, prediction_rows
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.splits import TEST, TRAINING

pytestmark = pytest.mark.usefixtures('one_thread')

FAST = {'run': {'epochs': 4, 'batch_size': 4, 'patience': 0}}
TESTS = Path(__file__).parents[1]


def weights(job, name='last.pt', fold=1):
    path = job.fold_folder(fold) / name
    return torch.load(path, weights_only=True)['model']


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_plan_visits_every_row_once_whatever_the_processes():
    rows = np.arange(10, 33)
    alone = EpochPlan(rows, 6, seed=1)
    seen = [row for batch in alone for row in batch]
    assert sorted(seen) == rows.tolist() != seen
    assert len(alone) == len(list(alone)) == 4
    pair = [list(EpochPlan(rows, 6, seed=1, rank=rank, world=2)) for rank in (0, 1)]
    together = [sorted(a + b) for a, b in zip(*pair, strict=True)]
    expected = [sorted(batch) for batch in alone]
    assert together[:-1] == expected[:-1]
    assert set(together[-1]) >= set(expected[-1])
    assert all(len(a) == len(b) for a, b in zip(*pair, strict=True))


def test_plan_continues_where_it_was():
    plan, later = EpochPlan(range(9), 4, seed=1), EpochPlan(range(9), 4, seed=1, first_epoch=3)
    plan.set_epoch(3)
    assert list(plan) == list(later)
    plan.set_epoch(2)
    assert list(plan) != list(later)


def mixed(share, batch, **more):
    """Ten real rows, from 0, and seven simulated ones, from 100."""
    return MixedPlan(range(10), batch, simulated=range(100, 107), share=share, seed=1, **more)


@pytest.mark.parametrize(('share', 'batch'), [(0.25, 4), (0.3, 10), (0.5, 3), (0.8, 5)])
def test_mixed_plan_gives_each_batch_its_share(share, batch):
    batches = list(mixed(share, batch))
    assert sorted(row for rows in batches for row in rows if row < 100) == list(range(10))
    for rows in batches[:-1]:
        assert sum(row >= 100 for row in rows) == pytest.approx(share * batch, abs=0.5)
    assert len(mixed(share, batch)) == len(batches)


def test_mixed_plan_goes_on_where_it_was_until_all_have_had_their_turn():
    plan, later = mixed(0.25, 4), mixed(0.25, 4, first_epoch=1)
    first = [row for batch in plan for row in batch if row >= 100]
    plan.set_epoch(1)
    assert list(plan) == list(later)
    second = [row for batch in plan for row in batch if row >= 100]
    assert len(set(first)) == len(first) == 4
    assert set(first + second) == set(range(100, 107))


def test_mixed_plan_is_the_same_whatever_the_processes():
    alone = list(mixed(0.5, 6))
    pair = [list(mixed(0.5, 6, rank=rank, world=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*pair, strict=True)] == list(map(sorted, alone))


def test_last_batch_is_dropped_only_where_a_normalisation_needs_it():
    from bids_brainage.models import create_model

    assert len(EpochPlan(range(9), 4, seed=0, least=2)) == 2
    assert len(EpochPlan(range(9), 4, seed=0)) == 3
    image = torch.zeros(1, 1, 32, 32, 32)
    assert least_rows(create_model('vgg8', input_shape=(32, 32, 32)), [image]) == 1
    assert least_rows(create_model('densenet169_clinical'), [image[..., :16, :16, :16]]) == 2


def test_altered_cache_is_refused(tmp_path):
    job = phantom_job(tmp_path, 'vgg8', n=20)
    path = Path(job.cache) / 'input-0.bin'
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(OutputError, match='altered'):
        open_cache(Path(job.cache))


def test_output_starts_at_the_mean_age_unless_asked_not_to(tmp_path):
    job = phantom_job(tmp_path, 'vgg8', n=20)
    cache = open_cache(Path(job.cache))
    ages = cache.ages
    assert start_model(job, ages, 1).head[-1].bias.item() == pytest.approx(ages.mean(), rel=1e-6)
    recipe = replace(job.recipe, run=replace(job.recipe.run, output_bias='none'))
    assert abs(start_model(replace(job, recipe=recipe), ages, 1).head[-1].bias.item()) < 1


class Killed(Exception):
    pass


def test_stopped_and_resumed_equals_never_stopped(tmp_path, monkeypatch):
    """The whole recipe of A: dropout, drop-path, warm-up, auxiliary loss; stopped in epoch 2."""
    from bids_brainage.training import module

    changes = {
        'run': {'epochs': 2, 'batch_size': 4},
        'schedule': {'warmup_epochs': 1},
        'augmentation': {'mirror': 0.5, 'shift_voxels': [2, 2, 2]},
        'model': {'token_keep_rate': 0.5},
        'optimiser': {'learning_rate': 1e-3},
    }
    whole = phantom_job(tmp_path / 'whole', 'resnet_crossvit', changes, n=20, grid=(20, 20, 20))
    fit_job(whole)
    job = phantom_job(tmp_path / 'part', 'resnet_crossvit', changes, n=20, grid=(20, 20, 20))
    original = module.AgeTraining.training_step

    def stop(self, batch, batch_idx):
        if self.epoch == 1 and batch_idx == 1:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(module.AgeTraining, 'training_step', stop)
    with pytest.raises(Killed):
        fit_job(job)
    monkeypatch.undo()
    torch.manual_seed(12345)  # the state of the generator at the restart must not matter
    fit_job(job)
    assert same(weights(whole), weights(job)) and same(
        weights(whole, 'best.pt'), weights(job, 'best.pt')
    )
    assert not same(
        weights(whole), start_model(whole, open_cache(Path(whole.cache)).ages, 1).state_dict()
    )


@pytest.mark.slow
def test_killed_process_loses_at_most_its_epoch(tmp_path):
    changes = {'run': {'epochs': 6, 'batch_size': 2}}
    whole = phantom_job(tmp_path / 'whole', 'vgg8', changes, n=24)
    fit_job(whole)
    job = phantom_job(tmp_path / 'part', 'vgg8', changes, n=24)
    command = [sys.executable, '-m', 'bids_brainage.training.fit', str(job.write())]
    process = subprocess.Popen(
        command, env={**os.environ, 'OMP_NUM_THREADS': '1'}, stderr=subprocess.DEVNULL
    )
    history = job.fold_folder(1) / 'history.tsv'
    for _ in range(600):
        if history.is_file() and len(history.read_text().splitlines()) > 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    epochs = len(history.read_text().splitlines()) - 1
    assert 2 <= epochs < 6 and not (job.fold_folder(1) / 'done.json').exists()
    fit_job(read_job(job.write()))
    assert read_json(job.fold_folder(1) / 'done.json')['epochs'] == 6
    assert same(weights(whole), weights(job))


def test_resuming_another_training_is_refused(tmp_path):
    job = phantom_job(tmp_path, 'vgg8', FAST, n=20)
    check_resumable(job, resume=False)
    job.write()
    with pytest.raises(OptionError, match='--resume'):
        check_resumable(job, resume=False)
    check_resumable(job, resume=True)
    with pytest.raises(OptionError, match='another seed'):
        check_resumable(replace(job, seed=9), resume=True)


def test_frozen_backbone_does_not_move_then_does(tmp_path):
    changes = {'run': {'epochs': 2, 'freeze_backbone_epochs': 1, 'batch_size': 8}}
    job = phantom_job(tmp_path, 'resnet_only', changes, n=20, grid=(20, 20, 20))
    start = start_model(job, open_cache(Path(job.cache)).ages, 1).state_dict()
    one = replace(job, recipe=replace(job.recipe, run=replace(job.recipe.run, epochs=1)))
    fit_job(replace(one, folder=str(tmp_path / 'one')))
    frozen = weights(replace(one, folder=str(tmp_path / 'one')))
    fit_job(job)
    backbone = [key for key in start if key.startswith('backbone')]
    assert all(torch.equal(start[key], frozen[key]) for key in backbone)
    assert not torch.equal(start['head.weight'], frozen['head.weight'])
    assert not all(torch.equal(start[key], weights(job)[key]) for key in backbone)


def test_folds_train_export_as_ensemble_and_calibrate(tmp_path):
    changes = {
        'split': {'method': 'folds', 'folds': 2, 'selection': 'nested'},
        'run': {'epochs': 12, 'batch_size': 4},
        'optimiser': {'learning_rate': 5e-4},
    }
    job = phantom_job(tmp_path, 'vgg8', changes, n=48)
    fit_job(job)
    cache = open_cache(Path(job.cache))
    rows = prediction_rows(job, cache)
    tested = of_role(rows, TEST)
    assert len(tested) == len({row['participant_id'] for row in tested}) == 48
    result = calibrate_predictions(rows, dataset='phantom', method='2 folds', simulated=True)
    assert result.validation['mae'] < result.validation['median_baseline_mae'] / 2
    assert result.validation['r'] > 0.8
    assert result.conformal['n'] == 48 and result.bias_correction['n'] == 6
    age, predicted = columns(tested)
    inside = np.abs(predicted - age) <= result.conformal['half_width_years']
    assert inside.mean() >= 0.9
    bundle = export_training(
        tmp_path / 'models' / 'vgg8.phantom', job, cache, rows, Cohort('phantom', True), result
    )
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    model = bundle.instantiate()
    image = torch.from_numpy(np.array(cache.arrays[0][:1])).float()
    with torch.inference_mode():
        ages = model.member_ages(image)
        assert ages.shape == (2, 1) and ages[0] != ages[1]
        torch.testing.assert_close(model(image), ages.mean(dim=0))
    training = bundle.metadata['training']
    # A few people only ever chose epochs or tested.
    assert training['simulated'] and 40 <= training['n'] <= 48
    assert set(training['sites']) == {'site0', 'site1', 'site2'}
    assert 'simulated' in model_card(bundle.metadata)


def test_fold_killed_after_its_last_epoch_is_closed_without_training(tmp_path):
    job = phantom_job(tmp_path, 'vgg8', {'run': {'epochs': 2, 'patience': 0}}, n=20)
    fit_job(job)
    folder, before = job.fold_folder(1), weights(job)
    kept = {name: (folder / name).read_text() for name in ('done.json', 'history.tsv')}
    (folder / 'done.json').unlink()
    (folder / 'history.tsv').write_text(kept['history.tsv'].rpartition('\n2.0')[0] + '\n')
    fit_job(job)
    assert kept == {name: (folder / name).read_text() for name in kept}
    assert same(before, weights(job))


def test_trained_bins_are_stated_and_predict(tmp_path):
    changes = {'data': {'coarsen': 5}, 'run': {'epochs': 2}}
    block = input_block('sfcn', make_recipe('sfcn', changes))
    job = phantom_job(tmp_path, 'sfcn', changes, n=20, declared=block, grid=block['shape'])
    fit_job(job)
    cache = open_cache(Path(job.cache))
    rows = prediction_rows(job, cache)
    result = calibrate_predictions(rows, dataset='phantom', method='held out', simulated=True)
    path, cohort = tmp_path / 'models' / job.name, Cohort('phantom', True)
    bundle = export_training(path, job, cache, rows, cohort, result)
    output = bundle.metadata['output']
    assert output['kind'] == 'bins' and output['n_bins'] == np.ptp(output['age_range'])
    training = cache.ages[cache.rows_of(fold_sources(job)[1][TRAINING])]
    assert output['age_range'] == [np.floor(training.min()) - 2, np.ceil(training.max()) + 2]
    report = check_bundle(path)
    assert report.passed, str(report)
    brain = tmp_path / 'brain.nii.gz'
    head = ageing_head(50.0, np.random.default_rng(0), (64, 76, 64))[0]
    affine = np.array([[2.5, 0, 0, -80], [0, 2.5, 0, -113], [0, 0, 2.5, -61], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(head, affine), brain)
    said = predict(bundle, {'t1w': brain}, device='cpu')
    assert output['age_range'][0] < said.age < output['age_range'][1]


# Rates and epochs are for a minute on tiny grids; the rest is the papers'.
ARCHES = {
    'resnet_crossvit': {
        'run': {'epochs': 8},
        'schedule': {'warmup_epochs': 1},
        'optimiser': {'learning_rate': 1e-3},
    },
    'vgg8': {'run': {'epochs': 15, 'batch_size': 4}, 'optimiser': {'learning_rate': 5e-4}},
    'resnet_only': {'run': {'epochs': 10}, 'schedule': {'warmup_epochs': 1}},
    'vit_only': {'run': {'epochs': 20}, 'schedule': {'warmup_epochs': 1}},
    'resnet_vit': {'run': {'epochs': 10}, 'schedule': {'warmup_epochs': 1}},
    'densenet169_clinical': {'run': {'epochs': 12, 'batch_size': 8},
                             'augmentation': {'shift_voxels': [1, 1, 1]}},
    'amagenet': {'run': {'epochs': 10}},
    'sfcn': {'run': {'epochs': 15}},
}  # fmt: skip

GRIDS = {'densenet169_clinical': (24, 24, 24)}


@pytest.mark.slow
@pytest.mark.parametrize('arch', list(ARCHES))
def test_learns_the_phantom(arch, tmp_path):
    learn(arch, ARCHES[arch], tmp_path)


def learn(arch, changes, folder):
    """Train to a validation r above 0.8, export, and check the bundle."""
    split = {'method': 'random', 'validation': 0.2, 'test': 0.2}
    job = phantom_job(folder, arch, {**changes, 'split': split}, n=60, grid=GRIDS.get(arch, GRID))
    fit_job(job)
    history = (job.fold_folder(1) / 'history.tsv').read_text().splitlines()
    r = [float(line.split('\t')[history[0].split('\t').index('val_r')]) for line in history[1:]]
    assert max(r) > 0.8, r
    cache = open_cache(Path(job.cache))
    rows = prediction_rows(job, cache)
    result = calibrate_predictions(rows, dataset='phantom', method='held out', simulated=True)
    assert result.validation['mae'] < result.validation['median_baseline_mae']
    path, cohort = folder / 'models' / job.name, Cohort('phantom', True)
    bundle = export_training(path, job, cache, rows, cohort, result)
    report = check_bundle(bundle.path)
    assert report.passed, str(report)


@pytest.mark.slow
def test_system_a_trains_at_half_resolution(tmp_path):
    """Section 11.13 of the models specification: r above 0.8 after 120 steps of batch 8."""
    changes = {'run': {'epochs': 15}, 'split': {'validation': 0.2, 'test': 0.2}}
    job = phantom_job(tmp_path, 'resnet_crossvit', changes, n=107, grid=(42, 51, 42))
    fit_job(job)
    header, *rows = (job.fold_folder(1) / 'history.tsv').read_text().splitlines()
    place = header.split('\t').index('val_r')
    assert len(rows) == 15 and max(float(row.split('\t')[place]) for row in rows) > 0.8


@pytest.mark.slow
def test_two_processes_share_the_work_and_end_alike(tmp_path):
    changes = {'run': {'epochs': 3, 'batch_size': 8}, 'optimiser': {'learning_rate': 5e-4}}
    job = replace(phantom_job(tmp_path, 'vgg8', changes, n=24), devices=2)
    command = [sys.executable, '-m', 'bids_brainage.training.fit', str(job.write())]
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'NODE_RANK')
    }
    environment |= {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(TESTS.parent)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=180, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert read_json(job.fold_folder(1) / 'done.json')['epochs'] == 3
    alone = replace(job, devices=1, folder=str(tmp_path / 'alone'))
    fit_job(alone)
    cache = open_cache(Path(job.cache))
    train = cache.rows_of(fold_sources(job)[1][TRAINING])
    first, second = (
        float((j.fold_folder(1) / 'history.tsv').read_text().splitlines()[1].split('\t')[2])
        for j in (job, alone)
    )
    # Normalisation sees half batches on each process, so the losses agree but not exactly.
    assert len(train) > 8 and first == pytest.approx(second, rel=0.1)
