"""Training of a generator of cerebral blood volume maps: it learns, resumes, exports, refuses."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_brainage.cli.request import parse
from bids_brainage.dataset import find_scans
from bids_brainage.errors import OptionError, WorkflowError
from bids_brainage.inference.aicbv import load_generator
from bids_brainage.inference.generate import generate, main
from bids_brainage.inputs.intensity import scale_by_top_percent
from bids_brainage.models import aicbv_mamba
from bids_brainage.names import derivative_path
from bids_brainage.outputs import sha256_file
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.runs.cbv import select_cbv
from bids_brainage.runs.train import run_train
from bids_brainage.training import pairs, synthesis
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.training.network import check_network
from bids_brainage.training.pairs import draw_patch, draw_slice
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.synthesis_export import map_errors
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.usefixtures('one_thread')

GRID = (14, 16, 12)
TINY = aicbv_mamba.Size((8, 16, 16, 16), 16, 4, 16)
RECIPE = """
[data]
patches = 2
[run]
batch_size = 4
[optimiser]
learning_rate = 3e-3
[model]
preset = "test"
n_blocks = 1
drop_path = 0.1
"""


def head(rng):
    """An ellipsoid of smooth structure of its own, and its map: high where the T1w is dark."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID), indexing='ij')
    brain = sum(axis**2 for axis in axes) < 0.9
    waves = sum(np.sin(rng.uniform(2, 4) * axis + rng.uniform(0, 6)) for axis in axes)
    t1w = brain * (100 + 25 * waves)
    return t1w.astype(np.float32), (brain * (t1w / 50 - 4) ** 2).astype(np.float32)


def place(root, subject, desc):
    entities = {'sub': subject, 'space': DEFAULT_SPACE, 'res': '1', 'desc': desc, 'suffix': 'T1w'}
    return root / 'out' / derivative_path(entities, 'anat')


@pytest.fixture
def study(tmp_path, monkeypatch):
    """14 people without ages, with derivatives on a tiny grid."""
    monkeypatch.setattr(pairs, 'GRID', GRID)
    monkeypatch.setitem(aicbv_mamba.SIZES, 'test', TINY)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(14):
        subject = f'{k:02d}'
        raw = tmp_path / f'bids/sub-{subject}/anat/sub-{subject}_T1w.nii.gz'
        raw.parent.mkdir(parents=True)
        raw.write_bytes(b'not read by training')
        for desc, data in zip(('affine', 'aicbv'), head(rng), strict=True):
            path = place(tmp_path, subject, desc)
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    description = {'Name': 'Phantoms', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw',
                   'GeneratedBy': [{'Name': 'bids_brainage.simulation'}]}  # fmt: skip
    (tmp_path / 'bids/dataset_description.json').write_text(json.dumps(description))
    (tmp_path / 'recipe.toml').write_text(RECIPE)
    return tmp_path


def settings(*options, arch='aicbv_mamba', name='mine'):
    common = '--model-dir models --work-dir work --recipe recipe.toml --device cpu --nprocs 1'
    names = ['--arch', arch, '--bundle-name', name]
    return parse(['bids', 'out', 'train', *names, *common.split(), *options], {})


def test_generator_learns_and_its_file_is_what_the_participant_level_takes(study):
    assert run_train(settings('--epochs', '25')) == 0
    path = study / 'models/aicbv_mamba.mine.safetensors'
    card = json.loads(path.with_suffix('.json').read_text())
    (check,) = card['validation']
    assert check['mae'] < 0.7 * check['mean_map_mae'] and check['r'] > 0.8, check
    assert check['ssim'] <= 1 and check['n'] == check['n_scans'] == 2
    assert card['training']['n'] == 10 and card['training']['simulated']
    assert card['training']['data'] == 'Phantoms' and 'simulated' in card['limitations']
    history = read_tsv(study / 'out/logs/training/aicbv_mamba.mine/history.tsv')
    assert len(history) == 25
    # The option takes the file, and the outputs name it by the hash of the card.
    given = ['bids', 'out', 'participant', '--aicbv-weights', str(path)]
    (scan, *_) = find_scans(study / 'bids', validate=False)
    maps = select_cbv(parse(given, {}), [scan], lambda path, _: sha256_file(path))
    source = maps.sources[scan.uri]
    assert source.path == path and source.sha256 == card['weights_sha256'] == sha256_file(path)
    # The command of the node makes the map that was measured.
    row = read_tsv(study / 'out/logs/training/aicbv_mamba.mine/errors.tsv')[0]
    subject = row['participant_id'].removeprefix('sub-')
    t1w, cbv = (nib.load(place(study, subject, desc)) for desc in ('affine', 'aicbv'))
    nib.save(nib.Nifti1Image((t1w.get_fdata() != 0).astype(np.uint8), t1w.affine), 'mask.nii.gz')
    files = [str(path), str(place(study, subject, 'affine')), 'mask.nii.gz', 'made.nii.gz']
    assert main([*files, '--device', 'cpu']) == 0
    measured = scale_by_top_percent(cbv.get_fdata())
    brain = t1w.get_fdata() != 0
    made = nib.load('made.nii.gz').get_fdata().astype(np.float32)
    # The training reads half precision.
    assert map_errors(made, measured, brain)['mae'] == pytest.approx(float(row['mae']), rel=0.02)
    with pytest.raises(OptionError, match='exists already'):
        run_train(settings('--epochs', '25'))
    assert run_train(settings('--epochs', '25', '--resume')) == 0


class Killed(Exception):
    pass


def test_stopped_and_resumed_equals_never_stopped(study, monkeypatch):
    assert run_train(settings('--epochs', '3', name='whole')) == 0
    original, calls = synthesis.MapTraining._loss, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 12:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(synthesis.MapTraining, '_loss', stop)
    with pytest.raises(Killed):
        run_train(settings('--epochs', '3', name='part'))
    monkeypatch.setattr(synthesis.MapTraining, '_loss', original)
    history = study / 'work/train/aicbv_mamba.part/fold-1/history.tsv'
    assert len(read_tsv(history)) == 1
    with pytest.raises(OptionError, match='--resume'):
        run_train(settings('--epochs', '3', name='part'))
    torch.manual_seed(12345)  # the state of the generator at the restart must not matter
    assert run_train(settings('--epochs', '3', '--resume', name='part')) == 0
    whole, part = (
        load_generator(study / f'models/aicbv_mamba.{name}.safetensors').state_dict()
        for name in ('whole', 'part')
    )
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    # Killed after the last epoch, before the weights were written.
    weights = study / 'models/aicbv_mamba.part.safetensors'
    weights.unlink()
    assert run_train(settings('--epochs', '3', '--resume', name='part')) == 0
    again = load_generator(weights).state_dict()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_training_that_diverges_says_so_and_exports_nothing(study):
    changes = '[optimiser]\nname = "sgd"\nlearning_rate = 10.0\n[loss]\nmain = "mse"\n'
    (study / 'recipe.toml').write_text(changes + '[model]\npreset = "test"\nn_blocks = 1\n')
    with pytest.raises(WorkflowError, match=r'not a number after epoch \d .* has diverged'):
        run_train(settings('--epochs', '5'))
    assert not (study / 'models').exists()


def test_maps_that_are_missing_or_generated_are_refused_before_anything_is_prepared(study):
    place(study, '03', 'aicbv').unlink()
    side = place(study, '04', 'aicbv').with_name(
        place(study, '04', 'aicbv').name.replace('.nii.gz', '.json')
    )
    side.write_text(json.dumps({'GeneratorWeights': 'other.safetensors'}))
    with pytest.raises(TrainingInputError) as caught:
        run_train(settings('--dry-run'))
    text = str(caught.value)
    for words in ('no map of cerebral blood volume', 'sub-03_', 'itself generated (with other.',
                  '--derivatives aicbv=PATH', 'on_problem'):  # fmt: skip
        assert words in text, text
    assert not (study / 'work').exists()
    (study / 'recipe.toml').write_text(
        RECIPE.replace('[data]', '[data]\non_problem = "leave_out"')
    )
    with pytest.raises(TrainingInputError, match='at least 8 are needed'):
        run_train(settings('--participant-label', '03', '04', '05', '06'))


@pytest.mark.parametrize(
    ('options', 'toml', 'words'),
    [
        (['--folds', '3'], '', 'split.folds has no effect on aicbv_mamba'),
        (['--devices', '2'], '', 'trained by one process'),
        ([], '[run]\nprecision = "bf16"\n', 'run.precision has no effect'),
        ([], '[loss]\nmain = "soft_bins"\n', 'soft_bins is for ages'),
        ([], '[model]\npreset = "huge"\n', 'full, lite, test'),
        ([], '[model]\nbase = 4\n', 'no such option'),
    ],
)
def test_what_means_nothing_to_a_generator_is_refused(study, options, toml, words):
    (study / 'recipe.toml').write_text(toml)
    with pytest.raises(OptionError, match=words):
        run_train(settings(*options))


def test_age_models_refuse_what_is_for_generators():
    for changes in ({'data': {'patches': 2}}, {'loss': {'main': 'smooth_l1'}}):
        with pytest.raises(OptionError, match=r'no effect on vgg8|smooth_l1 is for generators'):
            make_recipe('vgg8', changes)


def test_generators_are_trained_alone(study, capsys):
    with pytest.raises(SystemExit):
        parse(['bids', 'out', 'train', '--arch', 'vgg8', 'aicbv_mamba', '--bundle-name', 'x'], {})
    assert 'trained alone' in capsys.readouterr().err


def test_recipe_is_that_of_the_specification():
    recipe = make_recipe('aicbv_mamba', {})
    assert recipe.loss.main == 'smooth_l1' and recipe.run.batch_size == 2
    assert (recipe.optimiser.name, recipe.optimiser.learning_rate) == ('adamw', 1e-4)
    assert recipe.schedule.name == 'warmup_cosine' and recipe.schedule.warmup_epochs == 0
    assert make_recipe('aicbv_resattunet2d', {}).model == {}


def test_patches_lie_around_brain_voxels_and_slices_as_in_inference():
    t1w, cbv = head(np.random.default_rng(1))
    for seed in range(5):
        x, y = draw_patch(t1w, cbv, np.random.default_rng(seed), 16)
        assert x.shape == y.shape == (1, 16, 16, 16) and x[0, 8, 8, 8] > 0
        assert np.array_equal(x != 0, np.isin(x, t1w[t1w != 0])) and y[x == 0].max() == 0
    x, y = draw_slice(t1w, cbv, np.random.default_rng(0))
    assert x.shape == y.shape == (1, 352, 352) and 0 < x.max() <= 1
    plane = next(k for k in range(GRID[2]) if np.allclose(t1w[..., k].sum() / t1w.max(), x.sum()))
    assert np.allclose(cbv[..., plane].sum(), y.sum())


def test_slices_train_too(study):
    (study / 'recipe.toml').write_text(
        '[data]\npatches = 1\n[run]\nbatch_size = 10\n[model]\nbase = 2\n'
    )
    assert run_train(settings('--epochs', '1', arch='aicbv_resattunet2d')) == 0
    t1w, _ = head(np.random.default_rng(0))
    weights = study / 'models/aicbv_resattunet2d.mine.safetensors'
    made = generate(weights, t1w, t1w != 0, device='cpu')
    assert made.shape == GRID and np.isfinite(made).all() and made[t1w == 0].max() == 0


@pytest.mark.parametrize(
    ('arch', 'coarsen'),
    [('densenet169_clinical', 4), ('sfcn', 6), ('resnet_only', 5), ('amagenet', 5), ('vgg8', 6)],
)
def test_grids_too_small_to_halve_are_refused_before_inputs_are_prepared(arch, coarsen):
    recipe = make_recipe(arch, {'data': {'coarsen': coarsen}})
    with pytest.raises(OptionError, match=f'coarsen = {coarsen} is too much for {arch}'):
        check_network(arch, recipe, input_block(arch, recipe))
