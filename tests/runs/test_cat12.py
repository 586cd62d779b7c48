"""Grey matter of CAT12, as a person runs it: what models are shown, told, and learn from."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from program import run
from training_phantom import write_study

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.cli.request import parse
from bids_brainage.names import side_file
from bids_brainage.outputs import read_brainage
from bids_brainage.preprocessing.image import load_image
from bids_brainage.preprocessing.resample import onto_grid
from bids_brainage.runs.train import run_train
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.tsv import read_tsv

FLAGS = ['cat12_maps', 'cat12_quality', 'cat12_resampled', 'cat12_unlike_model']
MAPS = '*_label-GM_desc-modulated_probseg'
CAT12_BOX = (
    (113, 137, 113),
    np.array([[1.5, 0, 0, -84], [0, 1.5, 0, -120], [0, 0, 1.5, -72], [0, 0, 0, 1.0]]),
)
"""Shape and affine of CAT12's usual maps."""


def participant(root, out, *more):
    options = ('--nprocs', '2', '--sloppy', '-w', 'work', '--models', 'resnet_only.test')
    return run('bids', out, 'participant', *options, '--model-dir', 'models', *more, cwd=root)


def only(root, pattern):
    (path,) = root.rglob(pattern)
    return path


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """One simulated head, whose map is written as CAT12 would and given back, half as bright."""
    root = tmp_path_factory.mktemp('cat12')
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '1',
            '--seed', '3', '--resolution', '3',
        ],
        cwd=root, check=True,
    )  # fmt: skip
    make_untrained_bundle('resnet_only', 'test', root / 'models', shape=(28, 34, 28))
    process = participant(root, 'own')
    assert process.returncode == 0, process.stderr
    data, affine = load_image(only(root / 'own', f'{MAPS}.nii.gz'))
    image = nib.Nifti1Image(onto_grid(data, affine, *CAT12_BOX) * 0.9, CAT12_BOX[1])
    left_first = nib.orientations.axcodes2ornt('LAS')
    for folder in ('mri', 'report'):
        (root / 'cat' / folder).mkdir(parents=True)
    nib.save(image.as_reoriented(left_first), root / 'cat/mri/mwp1sub-01_T1w.nii')
    (root / 'cat/report/cat_sub-01_T1w.xml').write_text(
        '<S><qualityratings><IQR>3.1</IQR></qualityratings></S>'
    )
    process = participant(root, 'out', '--derivatives', 'cat12=cat')
    assert process.returncode == 0, process.stderr
    return root


def test_the_model_is_shown_the_map_of_cat12_and_the_row_says_so(study):
    (own,) = read_brainage(only(study / 'own', '*_brainage.tsv'))
    (row,) = read_brainage(only(study / 'out', '*_brainage.tsv'))
    assert [f for f in row['qc_flag'].split(';') if f in FLAGS] == FLAGS
    assert not set(own['qc_flag'].split(';')) & set(FLAGS)
    assert row['predicted_age'] != own['predicted_age']
    side = json.loads(only(study / 'out', '*_brainage.json').read_text())
    assert side['Quality']['cat12_quality_percent'] == pytest.approx(74.0)
    assert side['Quality']['cat12_voxel_mm'] == 1.5
    assert 'bids:cat12:mri/mwp1sub-01_T1w.nii' in side['Sources']
    assert 'CAT12' in only(study / 'out', 'CITATION.md').read_text()


def test_the_map_keeps_its_place_and_its_amount(study):
    path = only(study / 'out', f'{MAPS}.nii.gz')
    (own, grid), (taken, affine) = (
        load_image(only(study / out, f'{MAPS}.nii.gz')) for out in ('own', 'out')
    )
    np.testing.assert_allclose(affine, grid)
    assert np.corrcoef(own.ravel(), taken.ravel())[0, 1] > 0.98
    assert taken.sum() == pytest.approx(0.9 * own.sum(), rel=0.01)
    side = json.loads(side_file(path).read_text())
    assert side['MadeBy'] == 'cat12'
    assert side['Sources'] == [
        'bids:cat12:mri/mwp1sub-01_T1w.nii', 'bids:cat12:report/cat_sub-01_T1w.xml',
    ]  # fmt: skip


def test_a_corrected_report_is_read_again_and_a_map_of_nothing_refused(study):
    (study / 'cat/report/cat_sub-01_T1w.xml').write_text(
        '<S><qualityratings><IQR>2.9</IQR></qualityratings></S>'
    )
    process = participant(study, 'out', '--derivatives', 'cat12=cat')
    assert process.returncode == 0, process.stderr
    (row,) = read_brainage(only(study / 'out', '*_brainage.tsv'))
    assert 'cat12_quality' not in row['qc_flag']
    path = study / 'cat/mri/mwp1sub-01_T1w.nii'
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) / 99, image.affine), path)
    process = participant(study, 'out', '--derivatives', 'cat12=cat')
    assert process.returncode == 65
    assert 'mwp1sub-01_T1w.nii: holds' in process.stderr


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Forty people with maps of CAT12; the last two have our own, and one a low rating."""
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    for k, path in enumerate(sorted(tmp_path.rglob(f'{MAPS}.nii.gz'))):
        if k < 42:
            side_file(path).write_text(json.dumps({'MadeBy': 'cat12'}))
        quality = {'cat12_maps': 1.0, 'cat12_quality_percent': 70.0 if k == 20 else 85.0}
        stem = path.name.partition('_space-')[0]
        path.with_name(f'{stem}_brainage.json').write_text(json.dumps({'Quality': quality}))
    return tmp_path


def train(*more):
    options = '--model-dir models --work-dir work --recipe recipe.toml --device cpu --nprocs 1'
    words = ['bids', 'out', 'train', '--arch', 'resnet_only', *options.split(), *more]
    return run_train(parse(words, {}))


@pytest.mark.usefixtures('one_thread')
def test_training_leaves_low_ratings_out_and_refuses_a_mixture(cohort):
    with pytest.raises(TrainingInputError) as caught:
        train('--bundle-name', 'mixed', '--epochs', '1')
    assert '2 scans: its grey matter was made by this program' in str(caught.value)
    recipe = cohort / 'recipe.toml'
    recipe.write_text(recipe.read_text().replace('[data]', '[data]\non_problem = "leave_out"'))
    assert train('--bundle-name', 'mine', '--epochs', '1') == 0
    assert load_bundle(cohort / 'models/resnet_only.mine').input['maps_by'] == 'cat12'
    table = read_tsv(cohort / 'out/logs/training/resnet_only.mine/split.tsv')
    reasons = [row['reason'] for row in table if row['role'] == 'excluded']
    assert sum('flagged cat12_quality' in reason for reason in reasons) == 1
    assert sum('made by this program' in reason for reason in reasons) == 2
