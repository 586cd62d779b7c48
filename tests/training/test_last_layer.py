"""The last layer fitted alone: the right line, the other layers untouched, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from training_phantom import phantom_job

from bids_brainage.bundles.check import check_bundle
from bids_brainage.errors import OptionError
from bids_brainage.outputs.files import read_json, write_tsv
from bids_brainage.training.cache import open_cache
from bids_brainage.training.calibrate import calibrate_predictions
from bids_brainage.training.estimate import Step, last_layer_words
from bids_brainage.training.export import Cohort, export_training
from bids_brainage.training.fit import fit_job
from bids_brainage.training.job import fold_sources
from bids_brainage.training.last_layer import PENALTIES, _lines, _People, features_of, ridge
from bids_brainage.training.network import check_network, load_start, start_model
from bids_brainage.training.predictions import (
    columns,
    of_role,
    predict_rows,
    prediction_rows,
    trained_model,
)
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.splits import SIMULATED, TEST, TRAINING, Assignment, Item
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.usefixtures('one_thread')

GRID = (32, 32, 32)
CUT = {'model': {'blocks': 2, 'hidden': []}}


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """A VGG8 that has learnt a little from phantoms, as a bundle; and its cohort's folder."""
    folder = tmp_path_factory.mktemp('first')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        changes = {'run': {'epochs': 2, 'patience': 0}}
        job = phantom_job(folder, 'vgg8', changes, n=20, grid=GRID, name='first')
        fit_job(job)
        return exported(job, folder / 'models' / 'vgg8.first')


def exported(job, path):
    cache = open_cache(Path(job.cache))
    rows = prediction_rows(job, cache)
    result = calibrate_predictions(rows, dataset='phantom', method='split', simulated=True)
    return export_training(path, job, cache, rows, Cohort('phantom', True), result)


def last_layer_job(folder, bundle, changes=CUT, n=40):
    run = {'fit': 'last_layer', 'epochs': 2, 'start_from': str(bundle.path)}
    more = {'n': n, 'grid': GRID, 'name': 'second'}
    return phantom_job(folder, 'vgg8', {**changes, 'run': run}, **more)


@pytest.mark.parametrize(('n', 'd'), [(30, 8), (20, 60)], ids=['by variables', 'by rows'])
def test_ridge_is_that_of_scikit_learn(n, d):
    rng = np.random.default_rng(n)
    x, y, weights = rng.normal(3, 2, (n, d)), rng.normal(50, 9, n), rng.uniform(0.5, 2, n)
    middle = np.average(x, axis=0, weights=weights)
    size = np.average(((x - middle) ** 2).sum(1), weights=weights)
    for penalty, (line, at_zero) in zip((0.01, 1.0), ridge(x, y, weights, (0.01, 1)), strict=True):
        other = Ridge(penalty * size).fit(x, y, weights)
        assert line == pytest.approx(other.coef_, abs=1e-8)
        assert at_zero == pytest.approx(other.intercept_, abs=1e-6)


def test_ridge_without_penalty_is_least_squares_and_with_much_the_mean():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    y = x @ [1.0, -2.0, 3.0] + 50
    ((line, at_zero),) = ridge(x, y, np.ones(40), (1e-9,))
    np.testing.assert_allclose([*line, at_zero], [1, -2, 3, 50], atol=1e-5)
    weight = np.linspace(0.5, 1.5, 40)
    ((line, at_zero),) = ridge(x, y, weight, (1e9,))
    np.testing.assert_allclose(line, 0, atol=1e-6)
    assert at_zero == pytest.approx(np.average(y, weights=weight))


def test_it_tells_ages_and_leaves_the_other_layers(first, tmp_path):
    job = last_layer_job(tmp_path, first)
    fit_job(job)
    cache = open_cache(Path(job.cache))
    model = trained_model(job, cache, 1)
    begun = first.instantiate().state_dict()
    own = model.state_dict()
    assert len(own['head.0.weight'][0]) == 32 * 8**3 and 'features.block3.conv.weight' not in own
    for name, value in own.items():
        counts = name.endswith('num_batches_tracked')  # no weight, and in no bundle
        assert name.startswith('head.') or counts or torch.equal(value, begun[name]), name
    age, told = columns(of_role(prediction_rows(job, cache), TEST))
    assert np.abs(told - age).mean() < np.abs(age - np.median(age)).mean() / 2
    assert np.corrcoef(told, age)[0, 1] > 0.8
    done = read_json(job.fold_folder(1) / 'done.json')
    assert done['penalty'] in PENALTIES and done['inputs'] == 32 * 8**3 and done['val_mae'] > 0


def test_the_bundle_conforms_and_says_how_it_was_fitted(first, tmp_path):
    job = last_layer_job(tmp_path, first)
    fit_job(job)
    bundle = exported(job, tmp_path / 'models' / 'vgg8.second')
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    assert bundle.metadata['arch_options'] == {
        'input_shape': list(GRID), 'blocks': 2, 'hidden': [],
    }  # fmt: skip
    assert bundle.metadata['training']['start']['name'] == 'vgg8.first'
    assert 'ridge regression has fitted the last one' in bundle.metadata['description']
    assert 'adam' not in bundle.metadata['description']
    # and it can be where another one starts, with its own options
    again = last_layer_job(tmp_path / 'again', bundle, {})
    assert start_model(again, open_cache(Path(again.cache)).ages, 1).gradcam_layer == (
        'features.block2.conv'
    )


def test_same_seed_same_weights_and_another_one_other_guises(first, tmp_path):
    changes = {**CUT, 'augmentation': {'noise': 0.1}}
    jobs = [last_layer_job(tmp_path / str(k), first, changes) for k in range(2)]
    jobs.append(replace(jobs[0], seed=5, folder=str(tmp_path / 'other')))
    lines = []
    for job in jobs:
        fit_job(job)
        state = torch.load(job.fold_folder(1) / 'best.pt', weights_only=True)['model']
        lines.append(state['head.0.weight'])
    assert torch.equal(lines[0], lines[1]) and not torch.equal(lines[0], lines[2])


def test_guises_follow_the_recipe(first, tmp_path):
    job = last_layer_job(tmp_path, first)
    cache = open_cache(Path(job.cache))
    model = start_model(job, cache.ages, 1).eval()
    rows = np.arange(3)
    plain, changed = (features_of(model, job, cache, rows, guise) for guise in (0, 1))
    # the published recipe of VGG8, which this job has, changes no image
    assert np.array_equal(plain, changed)
    turned = make_recipe(
        'vgg8',
        {**CUT, 'augmentation': {'mirror': 1.0}, 'run': {'start_from': str(first.path)}},
    )
    mirrored = features_of(model, replace(job, recipe=turned), cache, rows, 1)
    image = torch.from_numpy(np.array(cache.arrays[0][:3])).float().flip(2)
    with torch.inference_mode():
        expected = model.features(image).flatten(1).numpy()
    np.testing.assert_allclose(mirrored, expected, atol=1e-5)


def test_people_with_weights_pull_the_line(first, tmp_path):
    plain = last_layer_job(tmp_path / 'plain', first)
    heavy = last_layer_job(tmp_path / 'heavy', first, {**CUT, 'loss': {'weights': 'decades'}})
    for job in (plain, heavy):
        fit_job(job)
    one, two = (
        trained_model(job, open_cache(Path(job.cache)), 1).state_dict()['head.0.weight']
        for job in (plain, heavy)
    )
    assert not torch.equal(one, two)


def with_simulated(job, share):
    """Return a job in which a third of those who train are simulated, and count `share`."""
    rows = read_tsv(job.split)
    train = [row for row in rows if row['role'] == TRAINING]
    for row in train[::3]:
        row['role'] = SIMULATED
    path = Path(job.split).with_name('mixed.tsv')
    write_tsv(path, rows)
    run = replace(job.recipe.run, simulated_share=share)
    return replace(
        job, split=str(path), recipe=replace(job.recipe, run=run), folder=f'{job.folder}-{share}'
    )


def test_simulated_people_count_their_share(first, tmp_path):
    job = last_layer_job(tmp_path, first, n=30)
    cache = open_cache(Path(job.cache))
    alone = {}
    for share in (0.001, 0.5, 0.999):
        mixed = with_simulated(job, share)
        fit_job(mixed)
        alone[share] = trained_model(mixed, cache, 1)
    roles = fold_sources(mixed)[1]
    rows = {role: cache.rows_of(roles[role]) for role in (TRAINING, SIMULATED)}
    errors = {
        (share, role): np.abs(predict_rows(model, cache, rows=rows[role])[rows[role]]
                              - cache.ages[rows[role]]).mean()
        for share, model in alone.items() for role in rows
    }  # fmt: skip
    assert errors[0.001, TRAINING] < errors[0.999, TRAINING]
    assert errors[0.999, SIMULATED] < errors[0.001, SIMULATED]
    assert errors[0.999, SIMULATED] <= errors[0.5, SIMULATED] <= errors[0.001, SIMULATED]


def test_weights_of_parts_add_up_to_their_shares():
    rng = np.random.default_rng(0)
    real = _People(rng.random((3, 4, 2), np.float32), rng.random(4), np.array([1.0, 3, 1, 1]))
    simulated = _People(rng.random((1, 5, 2), np.float32), rng.random(5), np.ones(5))
    x = np.concatenate([real.seen.reshape(12, 2), simulated.seen[0]])
    y = np.concatenate([np.tile(real.ages, 3), simulated.ages])
    w = np.concatenate([np.tile(real.weights, 3) * 0.8 / 18, np.full(5, 0.2 / 5)])
    (expected,) = ridge(x, y, w / w.mean(), (0.1,))
    (found,) = _lines([real, simulated], 0.2, (0.1,))
    assert found[0] == pytest.approx(expected[0]) and found[1] == pytest.approx(expected[1])


def test_what_is_done_is_not_fitted_again(first, tmp_path, monkeypatch):
    job = last_layer_job(tmp_path, first)
    fit_job(job)

    def never(*args, **kwargs):
        raise AssertionError('a fold was fitted again')

    monkeypatch.setattr('bids_brainage.training.last_layer.fit_last_layer', never)
    fit_job(job)
    assert list(fold_sources(job)) == [1]


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'optimiser': {'learning_rate': 1e-3}}, 'optimiser.learning_rate has no effect'),
        ({'schedule': {'name': 'none'}}, 'schedule.name has no effect'),
        ({'loss': {'main': 'l1'}}, 'loss.main has no effect with run.fit = "last_layer"'),
        ({'run': {'batch_size': 4}}, 'run.batch_size has no effect'),
        ({'run': {'simulated_share': 1.0}}, 'leaves no share to real people'),
        ({'fusion': {'fit': 'train+val'}}, 'told nearly their own age. Take "oof"'),
    ],
)
def test_keys_without_effect_are_refused(changes, words):
    run = {**changes.get('run', {}), 'fit': 'last_layer'}
    with pytest.raises(OptionError, match=words):
        make_recipe('vgg8', {**changes, 'run': run})


def test_regressions_of_system_b_are_fitted_to_people_left_out():
    assert make_recipe('vgg8', {}).fusion.fit == 'train+val'
    assert make_recipe('vgg8', {'run': {'fit': 'last_layer'}}).fusion.fit == 'oof'
    alone = {'run': {'fit': 'last_layer'}, 'fusion': {'fit': 'none'}}
    assert make_recipe('vgg8', alone).fusion.fit == 'none'
    assert make_recipe('resnet_only', {'run': {'fit': 'last_layer'}}).fusion.fit == 'none'


def test_layers_without_weights_of_the_start_are_refused(first):
    def check(model, processes=1, start=str(first.path)):
        changes = {'model': model, 'run': {'fit': 'last_layer', 'start_from': start}}
        check_network('vgg8', make_recipe('vgg8', changes), first.input, processes)

    check({'blocks': 2, 'hidden': []})
    check({})
    with pytest.raises(OptionError, match=r'no weights for head\.0\.bias, head\.0\.weight'):
        check({'blocks': 3, 'hidden': [64]})
    with pytest.raises(OptionError, match='start has no weights for features'):
        check({'blocks': 2, 'hidden': []}, start='')
    with pytest.raises(OptionError, match='takes one process, found 2'):
        check({'blocks': 2, 'hidden': []}, processes=2)


def test_a_network_that_shares_no_layer_with_the_start_is_refused(first):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with pytest.raises(OptionError, match='no layer is as in the bundle'):
        load_start(model, first, 1, whole=False)


def test_an_age_that_is_not_what_the_last_layer_says_is_refused(first, tmp_path):
    job = last_layer_job(tmp_path, first)
    cache = open_cache(Path(job.cache))
    model = start_model(job, cache.ages, 1).eval()
    plain = type(model).forward

    class Squared(type(model)):
        def forward(self, x):
            return plain(self, x) ** 2

    model.__class__ = Squared
    with pytest.raises(OptionError, match='not what its last layer says'):
        features_of(model, job, cache, np.arange(2), 0)


def test_memory_is_told_and_too_much_is_refused_before(first):
    people = [
        Assignment(Item(str(k), str(k), None, 40.0, 'F', ''), 1, 'training') for k in range(500)
    ]
    recipe = make_recipe('vgg8', {'run': {'fit': 'last_layer', 'epochs': 6}})
    step = Step(forward=0.01, whole=0.03, row_gb=0.1, weights_gb=0.1, inputs=50_000)
    words = ' '.join(last_layer_words(step, recipe, people, 4.0))
    assert '2.8 GB' in words and '40 s' in words
    with pytest.raises(OptionError, match=r'takes 2\.8 GB.*3500 images.*fewer epochs'):
        last_layer_words(step, recipe, people, 2.0)
