"""The prediction node: its command, its process, and what is written of its answer."""

import json
import shlex
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.bundles.bundle import resolve_bundle
from bids_brainage.bundles.facts import model_facts
from bids_brainage.bundles.places import model_dirs
from bids_brainage.inference.row import prediction_row
from bids_brainage.interfaces import prediction
from bids_brainage.interfaces.prediction import (
    PredictAge,
    SavePrediction,
    figure_path,
)
from bids_brainage.outputs.tables import read_brainage

SCAN = {
    'participant_id': 'sub-01', 'session_id': 'ses-1', 'run': None, 'modality': 'T1w',
    'source': 'bids:raw:sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz', 'age': 70.0,
    'age_source': 'sessions.tsv', 'age_censored': False, 'sex': 'F',
}  # fmt: skip
SAME_MAP = 0.02  # correlation lost by bringing a map to the person and back


@pytest.fixture(scope='module')
def bundle():
    return resolve_bundle('volumes.lifespan', model_dirs(None)[-1:])


@pytest.fixture(scope='module')
def predicted(bundle, derivatives, tmp_path_factory):
    """Run the node, in its own process, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp('node') / 'with space'
    folder.mkdir()
    volumes = shutil.copy(derivatives['volumes'], folder / 'my volumes.json')
    node = PredictAge(
        bundle=str(bundle.path), weights_sha256=bundle.weights_sha256, volumes=str(volumes),
        mask=str(derivatives['mask']), mask_native=str(derivatives['mask_native']),
    )  # fmt: skip
    return node.run(cwd=str(folder)).outputs.prediction


@pytest.fixture(scope='module')
def saved(predicted, bundle, derivatives, archive, tmp_path_factory):
    from bids_brainage.preprocessing.template import find_template

    root = tmp_path_factory.mktemp('out')
    node = SavePrediction(
        prediction=predicted, bundle=str(bundle.path), quality=str(derivatives['quality']),
        facts=str(derivatives['facts']), scan=SCAN,
        source_file='/data/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz',
        provenance={'ConfigurationHash': 'abc'}, made_from={'RandomSeed': 0},
        base_directory=str(root),
        transform=str(derivatives['transform']), mask_native=str(derivatives['mask_native']),
        template=str(find_template(archive, resolution=2).t1w),
    )  # fmt: skip
    return root, node.run(cwd=str(tmp_path_factory.mktemp('save'))).outputs


def test_command_survives_spaces_and_asks_for_no_maps(bundle, tmp_path, monkeypatch):
    table = tmp_path / 'my volumes.json'
    table.write_text('{}')
    node = PredictAge(
        bundle=str(bundle.path), weights_sha256='0', volumes=str(table), saliency=[], seed=3
    )
    words = shlex.split(node.cmdline)
    assert words[:4] == [sys.executable, '-m', 'bids_brainage.inference', str(bundle.path)]
    assert words[words.index('--volumes') + 1] == str(table)
    assert words[words.index('--seed') + 1] == '3'
    assert words[words.index('--saliency') + 1 :][:1] in ([], *[[w] for w in words if w[0] == '-'])
    node.inputs.saliency = ['gradcam', 'attention']
    assert '--saliency gradcam attention' in node.cmdline


def test_interpreter_may_live_in_a_folder_with_a_space(monkeypatch, bundle):
    import importlib

    monkeypatch.setattr(sys, 'executable', '/home/me/my project/.venv/bin/python')
    try:
        node = importlib.reload(prediction).PredictAge(bundle=str(bundle.path), weights_sha256='0')
        assert shlex.split(node.cmdline)[0] == sys.executable
    finally:
        monkeypatch.undo()
        importlib.reload(prediction)


def test_node_writes_what_the_bundle_says(predicted, bundle):
    with open(predicted) as stream:  # noqa: PTH123 - a path of Nipype
        content = json.load(stream)
    total = bundle.tensors()['intercept'][0] + sum(content['contributions'].values())
    assert content['predicted_age'] == pytest.approx(total)
    assert [m['method'] for m in content['maps']] == ['contribution']


def test_row_has_age_interval_and_the_flags_of_all_steps(saved, predicted):
    _, outputs = saved
    (row,) = read_brainage(outputs.table)
    with open(predicted) as stream:  # noqa: PTH123
        content = json.load(stream)
    assert row['predicted_age'] == pytest.approx(content['predicted_age'])
    assert row['brain_age_gap'] == pytest.approx(content['predicted_age'] - 70)
    assert row['interval_low'] < row['predicted_age'] < row['interval_high']
    assert row['in_training_range'] is True
    assert row['status'] == 'ok'
    assert row['qc_flag'].split(';')[0] == 'anisotropic'
    assert 'untrained_model' not in row['qc_flag']


def test_side_file_names_input_model_and_contributions(saved, bundle, derivatives):
    root, outputs = saved
    side = json.loads((root / 'sub-01/ses-1/anat/sub-01_ses-1_brainage.json').read_text())
    assert outputs.table.endswith('sub-01/ses-1/anat/sub-01_ses-1_brainage.tsv')
    assert side['InputSHA256'] == json.loads(derivatives['facts'].read_text())['sha256']
    assert side['Sources'] == [SCAN['source']]
    assert side['ConfigurationHash'] == 'abc'
    assert side['Quality']['overlap'] > 0.9
    facts = side['Models'][bundle.name]
    assert facts['WeightsSHA256'] == bundle.weights_sha256
    assert facts['MadeFrom'] == {'RandomSeed': 0, 'InputSHA256': side['InputSHA256']}
    assert 'Lateral ventricles' in facts['Contributions']
    assert facts['Validation'] == bundle.metadata['validation']


def test_maps_are_written_in_both_spaces(saved, derivatives, predicted):
    root, outputs = saved
    folder = root / 'sub-01/ses-1/anat'
    name = 'sub-01_ses-1_space-{}_model-volumeslifespan_desc-contribution_saliency.nii.gz'
    native = nib.load(folder / name.format('T1w'))
    normal = nib.load(folder / name.format('MNI152NLin2009aSym_res-1'))
    assert outputs.native_maps == [str(folder / name.format('T1w'))]
    assert outputs.units == ['year']
    mask = nib.load(derivatives['mask_native'])
    outside = np.asarray(mask.dataobj) == 0
    assert native.shape == mask.shape
    assert (np.asarray(native.dataobj)[outside] == 0).all()
    # the template grid is the map's own grid here
    from pathlib import Path

    own = nib.load(Path(predicted).with_name('contribution.nii.gz'))
    a, b = np.asarray(own.dataobj), np.asarray(normal.dataobj)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 1 - SAME_MAP
    side = json.loads((folder / name.format('T1w').replace('.nii.gz', '.json')).read_text())
    assert side['Units'] == 'year'
    assert side['FractionOutsideBrain'] == 0
    assert not list(folder.glob('*.nii'))


def test_native_map_is_the_template_map_seen_through_the_transform(saved, derivatives, predicted):
    from pathlib import Path

    from bids_brainage.preprocessing.transforms import load_transform, sample_image, voxel_points

    _, outputs = saved
    native = nib.load(outputs.native_maps[0])
    mask = np.asarray(nib.load(derivatives['mask_native']).dataobj) > 0
    own = nib.load(Path(predicted).with_name('contribution.nii.gz'))
    transform = load_transform(derivatives['transform'])
    points = transform.to_template(voxel_points(mask, native.affine))
    expected = sample_image(np.asarray(own.dataobj, np.float32), own.affine, points)
    found = np.asarray(native.dataobj)[mask]
    assert np.corrcoef(found, expected)[0, 1] > 1 - SAME_MAP


def test_row_of_an_unknown_age(bundle):
    content = {'predicted_age': 40.0, 'predicted_age_sd': 1.5, 'interval': None}
    row = prediction_row({**SCAN, 'age': None}, content, bundle, [])
    assert row['brain_age_gap'] is None
    assert row['in_training_range'] is None
    assert row['interval_low'] is None
    assert row['qc_flag'] is None
    assert row['predicted_age_sd'] == 1.5
    child = prediction_row({**SCAN, 'age': 9.0}, content, bundle, ['a', 'b'])
    assert child['in_training_range'] is False
    assert child['qc_flag'] == 'a;b'
    assert child['brain_age_gap'] == 31


def test_model_facts_are_json(bundle):
    facts = json.loads(json.dumps(model_facts(bundle)))
    assert facts['TrainingAgeRange'] == [18.0, 93.0]
    assert facts['ModelStatus'] == 'trained'


def test_figures_are_named_after_the_scan(tmp_path):
    path = figure_path(str(tmp_path), '/x/sub-01_ses-1_T1w.nii.gz', 'mask')
    assert path == tmp_path / 'sub-01/figures/sub-01_ses-1_desc-mask_T1w.svg'
