"""`train --arch volumes`: region volumes and ages become a bundle that predicts."""

import numpy as np
import pytest
from region_cohort import region_volumes, side_file, write_region_study, write_regions

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.check import check_bundle
from bids_brainage.cli.request import parse
from bids_brainage.errors import MissingInputError, OptionError
from bids_brainage.inference.interval import conformal_interval
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.runs.train import run_train
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.usefixtures('one_thread')
NEW_PEOPLE = 300


@pytest.fixture
def study(tmp_path, monkeypatch):
    write_region_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*options):
    common = '--arch volumes --bundle-name mine --model-dir models --work-dir work --nprocs 1'
    return parse(['bids', 'out', 'train', *common.split(), *options], {})


def test_five_folds_make_a_bundle_that_predicts_new_people_and_covers_them(study):
    assert run_train(settings('--folds', '5')) == 0
    path, folder = study / 'models/volumes.mine', study / 'out/logs/training/volumes.mine'
    assert check_bundle(path).passed, str(check_bundle(path))
    bundle = load_bundle(path)
    rows = read_tsv(folder / 'predictions.tsv')
    tested = [row for row in rows if row['role'] == 'test']
    assert len(tested) == len({row['participant_id'] for row in tested}) == 60
    assert {row['role'] for row in rows} == {'training', 'test'}
    training, check = bundle.metadata['training'], bundle.metadata['validation'][0]
    assert training['n'] == check['n'] == bundle.metadata['conformal']['n'] == 60
    assert training['simulated'] and set(training['recipe']['split']) >= {'folds', 'method'}
    assert 'optimiser' not in training['recipe'] and training['recipe']['penalty']['slope'] > 0
    assert check['r'] > 0.9 and check['mae'] < check['median_baseline_mae'] / 2
    model, rng = bundle.instantiate(), np.random.default_rng(1)
    inside, ages, predicted = [], rng.uniform(20, 83, NEW_PEOPLE), []
    for age in ages:
        write_regions(study, 'new', region_volumes(age, rng))
        features = prepare_input(bundle.input, {'region_volumes': side_file(study, 'new')}).arrays[
            0
        ]
        predicted.append(float(model(features[None])[0]))
        low, high, level = conformal_interval(predicted[-1], bundle.metadata['conformal'])
        inside.append(low <= age <= high)
    assert np.corrcoef(ages, predicted)[0, 1] > 0.9
    # 60 people calibrate the interval: its coverage has a standard deviation of 4 %.
    assert level == 0.9 and 0.8 <= np.mean(inside) <= 1
    assert len(bundle.metadata['conformal']['by_predicted_age']['age']) > 5
    report = (folder / 'report.html').read_text()
    assert 'volumes.mine' in report and 'Training curves' not in report
    assert '38 log ratios' in (path / 'README.md').read_text()
    with pytest.raises(OptionError, match='exists already'):
        run_train(settings())


def test_one_split_exports_the_model_of_its_training_people(study):
    (study / 'recipe.toml').write_text(
        '[split]\ntest = 0.3\n[model]\nfeatures = ["lateral_ventricle/brain", "thalamus/brain"]\n'
    )
    options = ('--folds', '1', '--recipe', 'recipe.toml', '--reference-group', 'group=CN')
    assert run_train(settings(*options)) == 0
    bundle = load_bundle(study / 'models/volumes.mine')
    rows = read_tsv(study / 'out/logs/training/volumes.mine/predictions.tsv')
    roles = {row['source']: row['role'] for row in rows}
    assert len(roles) == 55 and bundle.metadata['training']['n'] == 38
    assert list(roles.values()).count('test') == bundle.metadata['validation'][0]['n'] == 17
    assert 'by_predicted_age' not in bundle.metadata['conformal']
    assert bundle.input['features'] == ['lateral_ventricle/brain', 'thalamus/brain']
    model, row = bundle.instantiate(), rows[0]
    files = {'region_volumes': side_file(study, row['participant_id'].removeprefix('sub-'))}
    age = model(prepare_input(bundle.input, files).arrays[0][None])[0]
    assert age == pytest.approx(float(row['predicted_age']), abs=1e-9)


@pytest.mark.parametrize(
    ('options', 'recipe', 'message'),
    [
        (['--epochs', '5'], '', 'run.epochs has no effect on volumes'),
        (['--device', 'cuda'], '', 'fitted on the CPU'),
        (['--devices', '2'], '', 'one process'),
        ([], '[optimiser]\nlearning_rate = 0.1\n', 'no effect on volumes'),
        ([], '[split]\nselection = "halves"\n', 'no effect on volumes'),
        ([], '[model]\nfeatures = ["nose/brain"]\n', 'ratios such as .* lack nose'),
        ([], '[model]\nfeatures = ["thalamus"]\n', 'ratios such as'),
    ],
)
def test_options_without_sense_for_a_table_are_refused_before_anything_is_prepared(
    study, options, recipe, message
):
    (study / 'recipe.toml').write_text(recipe)
    with pytest.raises(OptionError, match=message):
        run_train(settings(*options, '--recipe', 'recipe.toml'))
    assert not (study / 'work').exists() and not (study / 'models').exists()


def test_too_few_people_and_people_without_volumes_are_refused(study):
    labels = [f'{k:02d}' for k in range(30)]
    with pytest.raises(TrainingInputError, match='24 people for training, at least 30'):
        run_train(settings('--participant-label', *labels))
    side_file(study, '07').unlink()
    with pytest.raises(TrainingInputError, match=r'1 scan: .*participant level .*sub-07'):
        run_train(settings('--dry-run'))
    for k in range(60):
        side_file(study, f'{k:02d}').unlink(missing_ok=True)
    with pytest.raises(MissingInputError, match='participant level first'):
        run_train(settings())


def test_volumes_of_another_network_are_refused_by_name(study):
    rng = np.random.default_rng(0)
    for subject in ('03', '04'):
        write_regions(study, subject, region_volumes(40, rng), Version='7', WeightsSHA256='f' * 64)
    with pytest.raises(TrainingInputError) as caught:
        run_train(settings('--dry-run'))
    text = str(caught.value)
    assert '2 scans: the regions were measured by' in text and ' 7 with weights ffff' in text
    assert 'participant level again with this version' in text
    assert 'sub-03_T1w.nii.gz, sub-04_T1w.nii.gz' in text
