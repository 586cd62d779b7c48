"""One bundle on one scan: age, interval, typicality, explanation, and its own process."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_brainage.bundles.bundle import export_bundle, resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.errors import BundleError, MissingInputError
from bids_brainage.inference.__main__ import main
from bids_brainage.inference.interval import conformal_interval, corrected_age
from bids_brainage.inference.predict import predict
from bids_brainage.inference.result import ExplanationMap, fraction_outside, save_prediction
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.preprocessing.template import DEFAULT_SPACE

SUM_TOLERANCE = 1e-9
SHAPES = {
    'resnet_crossvit': (32, 32, 32),
    'resnet_only': (32, 32, 32),
    'vit_only': (32, 32, 32),
    'resnet_vit': (32, 32, 32),
    'vgg8': (32, 32, 32),
    'densenet169_clinical': (32, 32, 32),
    'amagenet': (32, 32, 32),
    'sfcn': (64, 64, 64),
}
NODES = 90


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope='module')
def files(derivatives, tmp_path_factory):
    path = tmp_path_factory.mktemp('predict') / 'connectivity.tsv'
    matrix = np.corrcoef(np.random.default_rng(0).standard_normal((NODES, 60)))
    lines = ['\t'.join(f'r{k}' for k in range(NODES))]
    lines += ['\t'.join(f'{v:.6f}' for v in row) for row in matrix]
    path.write_text('\n'.join(lines) + '\n')
    roles = ('t1w', 'gm_modulated', 'volumes', 't1w_uncorrected', 'mask_native', 'mask')
    return {role: derivatives[role] for role in roles} | {'connectivity': path}


@pytest.fixture(scope='module')
def volumes_bundle():
    return resolve_bundle('volumes.lifespan', model_dirs(None)[-1:])


@pytest.fixture(scope='module')
def volumes_age(volumes_bundle, files):
    return predict(volumes_bundle, files)


@pytest.mark.parametrize('arch', SHAPES)
def test_every_architecture_predicts_and_explains(arch, files, tmp_path):
    bundle = make_untrained_bundle(arch, 'small', tmp_path, shape=SHAPES[arch])
    found = predict(bundle, files, device='cpu')
    prepared = prepare_input(bundle.input, files)
    inputs = [torch.from_numpy(np.ascontiguousarray(a))[None] for a in prepared.arrays]
    with torch.no_grad():
        assert found.age == float(bundle.instantiate()(*inputs)[0])
    assert (found.interval, found.typicality, found.contributions) == (None, None, {})
    assert (found.device, found.note) == ('cpu', '')
    (method,) = bundle.metadata['saliency'][:1]
    assert found.maps
    for item in found.maps:
        assert item.method.split('-')[0] == method
        assert item.data.shape == SHAPES[arch]
        np.testing.assert_allclose(item.affine, prepared.affine)
        assert item.space == ('T1w' if arch == 'densenet169_clinical' else DEFAULT_SPACE)
        assert item.aligned == (arch in ('vgg8', 'amagenet', 'sfcn'))
        assert np.isfinite(item.data).all()
        assert item.unit == 'arbitrary'
        assert item.sanity is None or -1 <= item.sanity <= 1


def test_all_declared_methods_and_none_on_request(files, tmp_path):
    bundle = make_untrained_bundle('amagenet', 'small', tmp_path, shape=(32, 32, 32))
    every = predict(bundle, files, saliency=bundle.metadata['saliency'])
    assert {m.method.split('-')[0] for m in every.maps} == set(bundle.metadata['saliency'])
    assert predict(bundle, files, saliency=()).maps == ()
    assert predict(bundle, files, saliency=('contribution',)).maps == ()


def test_missing_modality_is_noted_and_still_predicted(files, tmp_path):
    bundle = make_untrained_bundle('amagenet', 'small', tmp_path, shape=(32, 32, 32))
    alone = predict(bundle, {'t1w': files['t1w']})
    assert np.isfinite(alone.age)
    assert alone.note == 'predicted without connectivity'
    assert [m.method for m in alone.maps] == ['gradcam']  # attention needs both modalities
    graph = predict(bundle, {'connectivity': files['connectivity']})
    assert np.isfinite(graph.age)
    assert graph.maps == ()


def test_result_repeats_whatever_was_drawn_before(files, tmp_path):
    bundle = make_untrained_bundle('resnet_only', 'small', tmp_path, shape=(32, 32, 32))
    first = predict(bundle, files, seed=1)
    torch.rand(100)
    again = predict(bundle, files, seed=1)
    assert again.age == first.age
    np.testing.assert_array_equal(again.maps[0].data, first.maps[0].data)
    assert again.maps[0].sanity == first.maps[0].sanity


def test_contributions_add_up_to_the_age(volumes_bundle, volumes_age):
    intercept = volumes_bundle.tensors()['intercept'][0]
    total = intercept + sum(volumes_age.contributions.values())
    assert volumes_age.age == pytest.approx(total, abs=SUM_TOLERANCE)
    assert list(volumes_age.contributions) == volumes_bundle.input['features']


def test_interval_and_typicality_are_the_bundles(volumes_bundle, volumes_age):
    conformal = volumes_bundle.metadata['conformal']
    low, high, level = volumes_age.interval
    assert low + high == pytest.approx(2 * volumes_age.age)
    assert high - low == pytest.approx(2 * conformal['half_width_years'])
    assert level == conformal['level']
    assert 0 <= volumes_age.typicality <= 1


def test_impossible_brain_is_untypical(volumes_bundle, files, tmp_path):
    table = json.loads(files['volumes'].read_text())
    table['volumes_ml']['lateral_ventricle'] *= 20
    table['volumes_ml']['hippocampus'] /= 5
    (tmp_path / 'volumes.json').write_text(json.dumps(table))
    found = predict(volumes_bundle, {'volumes': tmp_path / 'volumes.json'})
    assert found.typicality > 0.999


def test_contribution_map_lies_inside_the_mask(volumes_age, files):
    (item,) = volumes_age.maps
    assert (item.method, item.unit, item.space) == ('contribution', 'year', DEFAULT_SPACE)
    mask = nib.load(files['mask'])
    inside = np.asarray(mask.dataobj) > 0
    assert mask.shape == item.data.shape  # both on the 2 mm grid of the atlas
    np.testing.assert_allclose(mask.affine, item.affine)
    assert (item.data[~inside] == 0).all()
    assert (item.data[inside] != 0).mean() > 0.5
    assert fraction_outside(item, inside, mask.affine) == 0


def test_contribution_map_shows_the_years_of_each_structure(volumes_age):
    from bids_brainage.preprocessing.atlas import load_atlas

    (item,) = volumes_age.maps
    atlas = load_atlas()
    names = [s.name for s in atlas.structures]
    core = (atlas.priors[names.index('thalamus')] > 0.999) & (item.data != 0)
    expected = volumes_age.contributions['thalamus/brain']
    np.testing.assert_allclose(item.data[core], expected, atol=0.02 * abs(expected) + 0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is there')
def test_absent_device_is_refused(files, tmp_path):
    bundle = make_untrained_bundle('vgg8', 'small', tmp_path, shape=(32, 32, 32))
    with pytest.raises(BundleError, match=r'--device cuda was asked for.*--device cpu'):
        predict(bundle, files, device='cuda')


def test_age_that_is_no_number_is_refused(files, tmp_path):
    bundle = make_untrained_bundle('vgg8', 'small', tmp_path, shape=(32, 32, 32))
    tensors = bundle.tensors()
    last = max(key for key in tensors if key.endswith('bias'))
    tensors[last] = np.full_like(tensors[last], np.nan)
    broken = export_bundle(
        bundle.path, tensors, bundle.metadata | {'golden': {'seed': 0, 'age': 45.0}},
        overwrite=True,
    )  # fmt: skip
    with pytest.raises(BundleError, match=r'gives nan .*bundles\.check'):
        predict(broken, files, saliency=())


def test_fraction_outside_counts_absolute_values():
    data = np.zeros((6, 6, 6), np.float32)
    data[1, 1, 1], data[4, 4, 4] = -3, 1
    mask = np.zeros((6, 6, 6), bool)
    mask[:3] = True
    item = ExplanationMap('gradcam', data, np.eye(4), 'T1w', 'arbitrary', None)
    assert fraction_outside(item, mask, np.eye(4)) == pytest.approx(0.25)
    empty = ExplanationMap('gradcam', 0 * data, np.eye(4), 'T1w', 'arbitrary', None)
    assert fraction_outside(empty, mask, np.eye(4)) == 0


def test_saved_prediction_holds_everything(volumes_age, files, tmp_path):
    mask = nib.load(files['mask'])
    masks = {DEFAULT_SPACE: (np.asarray(mask.dataobj) > 0, mask.affine)}
    content = json.loads(save_prediction(volumes_age, tmp_path / 'new', masks).read_text())
    assert content['predicted_age'] == volumes_age.age
    assert content['interval'] == list(volumes_age.interval)
    assert content['contributions'] == volumes_age.contributions
    (item,) = content['maps']
    assert item['outside_brain'] == 0
    stored = nib.load(tmp_path / 'new' / item['file'])
    np.testing.assert_array_equal(stored.dataobj, volumes_age.maps[0].data)
    np.testing.assert_allclose(stored.affine, volumes_age.maps[0].affine)


def test_command_writes_the_prediction(volumes_bundle, volumes_age, files, tmp_path):
    arguments = [str(volumes_bundle.path), str(tmp_path / 'out')]
    for role in ('volumes', 'mask'):
        arguments += [f'--{role}', str(files[role])]
    assert main(arguments) == 0
    content = json.loads((tmp_path / 'out' / 'prediction.json').read_text())
    assert content['predicted_age'] == volumes_age.age
    assert content['maps'][0]['outside_brain'] == 0
    assert (tmp_path / 'out' / 'contribution.nii.gz').is_file()
    assert main([*arguments, '--saliency']) == 0  # none
    assert json.loads((tmp_path / 'out' / 'prediction.json').read_text())['maps'] == []


def test_command_tells_errors_by_name_and_status(volumes_bundle, tmp_path, capsys):
    assert main([str(volumes_bundle.path), str(tmp_path)]) == MissingInputError.exit_code
    assert capsys.readouterr().err.startswith('MissingInputError: the model needs the derivative')
    shutil.copytree(volumes_bundle.path, tmp_path / 'volumes.other')
    assert main([str(tmp_path / 'volumes.other'), str(tmp_path)]) == BundleError.exit_code
    assert 'rename the folder' in capsys.readouterr().err
    assert not (tmp_path / 'prediction.json').exists()


def test_calibration_of_an_age():
    conformal = {'half_width_years': 5.0, 'level': 0.9, 'n': 30, 'source': 'x'}
    assert conformal_interval(40.0, conformal) == (35.0, 45.0, 0.9)
    assert conformal_interval(40.0, None) is None
    widths = {'age': [20.0, 60.0, 80.0], 'half_width_years': [4.0, 8.0, 10.0]}
    by_age = {**conformal, 'by_predicted_age': widths}
    assert conformal_interval(40.0, by_age) == (34.0, 46.0, 0.9)
    assert conformal_interval(3.0, by_age) == (0.0, 7.0, 0.9)
    assert conformal_interval(90.0, by_age) == (80.0, 100.0, 0.9)
    correction = {'slope': 0.8, 'intercept': 10.0, 'n': 30, 'source': 'x'}
    # at 70 the model says 66 on average, so 60 means six years younger than usual
    assert corrected_age(60.0, 70.0, correction) == pytest.approx(64.0)
    assert corrected_age(60.0, None, correction) is None
    assert corrected_age(60.0, 70.0, None) is None
