"""Every system learns from simulated people, and predicts new ones from their scans."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from simulated_cohort import cached_cohort, normalised, take_scan, write_derivatives

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.check import check_bundle
from bids_brainage.cli.request import parse
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.outputs import read_brainage
from bids_brainage.runs.train import run_train
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.tsv import read_tsv

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('one_thread')]

PEOPLE = 60
#: Validation r that every system must pass.
LEAST_R = 0.8
#: Correlation of inputs made from truth with those that the participant level makes.
LEAST_ALIKE = {'modulated_gm': 0.95, 't1w_brain': 0.98, 't1w_connectivity': 0.98}
#: Relative error of their grey matter volume.
VOLUME_TOLERANCE = 0.06
NEWCOMERS = {'sub-a': (28.0, 'F'), 'sub-b': (78.0, 'M')}

SPLIT = '[split]\nmethod = "random"\nvalidation = 0.2\ntest = 0.2\n'
# Grids, rates and epochs are for minutes on a CPU; the rest is the papers'.
RECIPES = {
    'resnet_crossvit': """
[data]
coarsen = 4
[schedule]
warmup_epochs = 1
[optimiser]
learning_rate = 1e-3
[run]
epochs = 20
""",
    'vgg8': """
[data]
coarsen = 5
[optimiser]
learning_rate = 5e-4
[run]
epochs = 20
batch_size = 4
""",
    'densenet169_clinical': """
[data]
coarsen = 3
[augmentation]
shift_voxels = [1, 1, 0]
[optimiser]
learning_rate = 5e-4
[run]
epochs = 8
batch_size = 8
[model]
view_shift = [1, 1, 0]
""",
    'amagenet': """
[data]
coarsen = 4
[optimiser]
learning_rate = 3e-4
[run]
epochs = 8
batch_size = 4
""",
}


@pytest.fixture(scope='module')
def cohort(request, tmp_path_factory):
    """60 people with derivatives; kept by pytest's cache as long as the code is the same."""
    cache = getattr(request.config, 'cache', None)
    folder = tmp_path_factory.mktemp('cohort')
    return cached_cohort(cache.mkdir('simulated') if cache else folder, PEOPLE)


@pytest.fixture(scope='module')
def newcomers(tmp_path_factory):
    """Two people as scanned (``bids``), and the same from truth (``truth``)."""
    root = tmp_path_factory.mktemp('newcomers')
    (root / 'bids').mkdir()
    lines = ['participant_id\tage\tsex']
    for number, (name, (age, sex)) in enumerate(NEWCOMERS.items()):
        scan, _, _ = take_scan((99, number), age, sex, bias=True)
        (root / 'bids' / name / 'anat').mkdir(parents=True)
        nib.save(scan.image, root / 'bids' / name / 'anat' / f'{name}_T1w.nii.gz')
        clean, transform, _ = take_scan((99, number), age, sex)
        write_derivatives(root / 'truth', name[4:], clean, normalised(clean, transform))
        lines.append(f'{name}\t{age}\t{sex}')
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    description = {'Name': 'Newcomers', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (root / 'bids' / 'dataset_description.json').write_text(json.dumps(description))
    predict(root)
    return root


def predict(root, *models):
    """Run the participant level on the newcomers, as a user does."""
    options = ['--nprocs', '1', '-w', 'work', '--device', 'cpu']
    chosen = ['--models', *models, '--model-dir', 'models'] if models else []
    process = subprocess.run(
        [sys.executable, '-m', 'bids_brainage', 'bids', 'out', 'participant', *options, *chosen],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2]), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr


def files_of(folder, name):
    anat = folder / name / 'anat'
    return {
        't1w': next(anat.glob('*_space-MNI*_desc-affine_T1w.nii.gz')),
        'gm_modulated': next(anat.glob('*_label-GM_desc-modulated_probseg.nii.gz')),
    }


@pytest.mark.parametrize('name', NEWCOMERS)
def test_derivatives_from_truth_are_those_of_the_participant_level(name, newcomers):
    own, quick = (files_of(newcomers / folder, name) for folder in ('out', 'truth'))
    for arch, factor in (('resnet_crossvit', 4), ('vgg8', 5), ('amagenet', 4)):
        block = input_block(arch, make_recipe(arch, {'data': {'coarsen': factor}}))
        first, second = (prepare_input(block, files).arrays[0] for files in (own, quick))
        inside = (first > 0) | (second > 0)
        alike = np.corrcoef(first[inside], second[inside])[0, 1]
        assert alike > LEAST_ALIKE[block['kind']], (arch, alike)
    volumes = []
    for files in (own, quick):
        image = nib.load(files['gm_modulated'])
        volumes.append(image.get_fdata().sum() * abs(np.linalg.det(image.affine[:3, :3])))
    assert volumes[1] == pytest.approx(volumes[0], rel=VOLUME_TOLERANCE)


@pytest.mark.parametrize('arch', RECIPES)
def test_learns_exports_and_predicts(arch, cohort, newcomers, tmp_path):
    models = newcomers / 'models'
    models.mkdir(exist_ok=True)
    (tmp_path / 'recipe.toml').write_text(SPLIT + RECIPES[arch])
    (tmp_path / 'out').mkdir()
    for person in (cohort / 'out').iterdir():
        (tmp_path / 'out' / person.name).symlink_to(person)
    options = [
        cohort / 'bids', tmp_path / 'out', 'train', '--arch', arch, '--bundle-name', 'sim',
        '--recipe', tmp_path / 'recipe.toml', '--model-dir', models, '-w', tmp_path,
        '--device', 'cpu', '--nprocs', '1',
    ]  # fmt: skip
    assert run_train(parse([str(option) for option in options], {})) == 0
    name = f'{arch}.sim'
    history = read_tsv(tmp_path / 'train' / name / 'fold-1' / 'history.tsv')
    assert max(float(row['val_r']) for row in history) > LEAST_R
    bundle = load_bundle(models / name)
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    check = bundle.metadata['validation'][0]
    assert check['n'] == 12 and check['mae'] < check['median_baseline_mae']
    predict(newcomers, name)
    rows = [
        row
        for path in (newcomers / 'out').rglob('*_brainage.tsv')
        for row in read_brainage(path)
        if row['model'] == name
    ]
    ages = {row['participant_id']: row['predicted_age'] for row in rows}
    assert all(row['status'] == 'ok' for row in rows) and set(ages) == set(NEWCOMERS)
    # Without the connectivity that it was trained with, a network's order means nothing.
    if not any('missing_modality' in row['qc_flag'].split(';') for row in rows):
        assert ages['sub-a'] < ages['sub-b']
