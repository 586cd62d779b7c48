"""`train --start-from`: weights, grid and options of a bundle are where a training begins."""

import logging

import pytest
import torch
from training_phantom import write_study

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.cli.request import parse
from bids_brainage.errors import OptionError
from bids_brainage.runs.train import run_train
from bids_brainage.runs.training_job import final_recipe
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.training.start import start_state

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A study of 40 people on a tiny grid, with models of one network and of two folds."""
    root = tmp_path_factory.mktemp('start')
    write_study(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, more in (('first', ()), ('two', ('--folds', '2'))):
            options = ['--arch', 'resnet_only', '--bundle-name', name, '--epochs', '1', *more]
            assert run_train(settings(*options, '--recipe', 'recipe.toml')) == 0
    return root


@pytest.fixture
def study(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def settings(*options):
    common = '--model-dir models --work-dir work --device cpu --nprocs 1'
    return parse(['bids', 'out', 'train', *common.split(), *options], {})


def start(bundle, name, *options):
    fixed = ['--arch', 'resnet_only', '--start-from', bundle, '--bundle-name', name]
    return settings(*fixed, '--epochs', '1', *options)


def biggest_step(before, after):
    """Return the largest change of a weight; running averages are not weights."""
    return max(
        float((before[name] - after[name]).abs().max())
        for name in before
        if before[name].is_floating_point() and 'running' not in name
    )


def test_the_start_is_the_bundle_and_its_grid(study):
    (study / 'still.toml').write_text('[optimiser]\nlearning_rate = 1e-9\n')
    assert run_train(start('resnet_only.first', 'on', '--recipe', 'still.toml')) == 0
    first, then = (load_bundle(study / f'models/resnet_only.{n}') for n in ('first', 'on'))
    assert then.input['shape'] == first.input['shape'] == [21, 25, 21]
    assert then.input['voxel_size_mm'] == [8, 8, 8]
    assert biggest_step(start_state(first, 1), start_state(then, 1)) < 1e-5
    said = then.metadata['training']
    assert said['start'] == {
        'name': 'resnet_only.first', 'version': '1', 'weights_sha256': first.weights_sha256,
    }  # fmt: skip
    assert said['recipe']['run']['start_from'] == 'resnet_only.first'
    assert 'from the weights of another bundle' in then.metadata['description']


def test_it_learns_on(study):
    path = str(study / 'models/resnet_only.first')
    assert run_train(start(path, 'learnt')) == 0
    first, then = (load_bundle(study / f'models/resnet_only.{n}') for n in ('first', 'learnt'))
    assert biggest_step(start_state(first, 1), start_state(then, 1)) > 1e-5


def test_each_fold_starts_from_a_member_of_an_ensemble(study):
    (study / 'still.toml').write_text('[optimiser]\nlearning_rate = 1e-9\n')
    config = start('resnet_only.two', 'folds', '--recipe', 'still.toml', '--folds', '3')
    assert run_train(config) == 0
    before, after = (load_bundle(study / f'models/resnet_only.{n}') for n in ('two', 'folds'))
    one, two = start_state(before, 1), start_state(before, 2)
    assert biggest_step(one, two) > 1e-4
    for fold, begun in ((1, one), (2, two), (3, one)):
        assert biggest_step(begun, start_state(after, fold)) < 1e-5


def test_recipe_of_few_people_unless_the_user_says_otherwise(study):
    (study / 'own.toml').write_text('[schedule]\nname = "none"\n[loss]\nmain = "mse"\n')
    recipe = final_recipe(start('resnet_only.first', 'x', '--recipe', 'own.toml'), 'resnet_only')
    assert recipe.loss.weights == 'decades' and recipe.augmentation.mirror == 0.5
    assert (recipe.schedule.name, recipe.loss.main, recipe.run.epochs) == ('none', 'mse', 1)
    assert final_recipe(settings('--arch', 'vgg8', '--bundle-name', 'x'), 'vgg8').run.epochs == 100


def test_the_last_layer_alone(study, caplog):
    caplog.set_level(logging.INFO)
    (study / 'last.toml').write_text('[run]\nfit = "last_layer"\n')
    assert run_train(start('resnet_only.first', 'last', '--recipe', 'last.toml')) == 0
    assert '6 to choose the penalty' in caplog.text and 'validation MAE' in caplog.text
    assert 'GB of memory; about' in caplog.text
    first, then = (load_bundle(study / f'models/resnet_only.{n}') for n in ('first', 'last'))
    before, after = start_state(first, 1), start_state(then, 1)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {'head.weight', 'head.bias'}
    recipe = then.metadata['training']['recipe']
    assert recipe['run']['fit'] == 'last_layer' and recipe['loss']['weights'] == 'none'
    assert recipe['augmentation']['mirror'] == 0.5
    report = (study / 'out/logs/training/resnet_only.last/report.html').read_text()
    assert 'choice of the penalty' in report and 'choice of the epoch' not in report


@pytest.mark.parametrize(
    ('options', 'recipe', 'words'),
    [
        (('--arch', 'vgg8', '--start-from', 'resnet_only.first'), '', '--arch resnet_only'),
        (('--arch', 'volumes', '--start-from', 'volumes.adults'), '', 'has no start'),
        (('--arch', 'vgg8', '--start-from', 'vgg8.nothing'), '', 'Available: .*vgg8.lifespan'),
        (
            ('--arch', 'vgg8', '--start-from', 'vgg8.lifespan-reduced'),
            '[data]\ncoarsen = 4\n',
            r'coarsen has no effect.*45 x 54 x 45',
        ),
        (
            ('--arch', 'vgg8', '--start-from', 'vgg8.lifespan-reduced'),
            '[data]\nmodality = "aicbv"\n',
            'has learnt from t1w images',
        ),
        (
            ('--arch', 'vgg8', '--start-from', 'vgg8.lifespan-reduced'),
            '[model]\nblocks = 2\n[run]\nfit = "last_layer"\n',
            r'no weights for head\.0\.weight',
        ),
        (
            ('--arch', 'vgg8'),
            '[run]\nfit = "last_layer"\n',
            r'no weights for features.*--start-from',
        ),
    ],
)
def test_wrong_starts_are_refused_before_any_input_is_read(study, options, recipe, words):
    (study / 'wrong.toml').write_text(recipe)
    config = settings(*options, '--bundle-name', 'wrong', '--recipe', 'wrong.toml')
    with pytest.raises(OptionError, match=words) as caught:
        run_train(config)
    assert caught.value.exit_code == 2
    assert not (study / 'work/train' / f'{options[1]}.wrong').exists()


def test_too_few_people_are_told_before_inputs_are_prepared(study, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError('inputs were prepared')

    monkeypatch.setattr('bids_brainage.training.prepare.build_cache', never)
    config = start('resnet_only.first', 'few', '--participant-label', '10', '11', '12')
    with pytest.raises(TrainingInputError, match='at least 8 are needed'):
        run_train(config)


def test_decades_count_the_same():
    from bids_brainage.training.recipe import Recipe, merged_recipe
    from bids_brainage.training.weights import row_weights

    ages = torch.tensor([25.0] * 9 + [75.0, 33.0, 34.0]).double().numpy()
    training = torch.arange(12).numpy()
    assert row_weights(Recipe(), ages, training, []).tolist() == [1.0] * 12
    recipe = merged_recipe(Recipe(), {'loss': {'weights': 'decades'}}, [])
    weights = row_weights(recipe, ages, training, [])
    assert weights[9] > weights[10] > weights[0]
    assert weights.mean() == pytest.approx(1.0)
