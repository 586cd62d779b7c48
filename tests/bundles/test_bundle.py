"""Bundles: round trip, refusal of what is damaged, discovery, listing."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bids_brainage.bundles.bundle import (
    METADATA_FILE,
    WEIGHTS_FILE,
    export_bundle,
    find_bundles,
    golden_age,
    load_bundle,
    resolve_bundle,
)
from bids_brainage.bundles.contract import (
    check_volume,
    config_hash,
    golden_input,
    metadata_problems,
)
from bids_brainage.bundles.listing import COLUMNS, model_rows
from bids_brainage.bundles.untrained import main as untrained_command
from bids_brainage.bundles.untrained import make_untrained_bundle, untrained_metadata
from bids_brainage.errors import BundleError, OptionError
from bids_brainage.models import create_model

GRID = (32, 32, 32)
FLOAT16_TOLERANCE_YEARS = 0.05


def small_metadata(tag='test', **changes):
    options = {'input_shape': list(GRID)}
    metadata = untrained_metadata('vgg8', tag, options, shape=GRID, saliency=('gradcam',))
    return metadata | changes


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return create_model('vgg8', input_shape=GRID).eval()


@pytest.fixture(scope='module')
def stored(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp('models')
    return export_bundle(folder / 'vgg8.test', model, small_metadata())


@pytest.fixture
def copied(stored, tmp_path):
    """Give every test that breaks a bundle a bundle of its own."""
    folder = tmp_path / stored.name
    folder.mkdir()
    for file in (METADATA_FILE, WEIGHTS_FILE):
        (folder / file).write_bytes((stored.path / file).read_bytes())
    return folder


def edit(folder, **changes):
    file = folder / METADATA_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_round_trip_keeps_every_bit(stored, model):
    again = load_bundle(stored.path)
    assert again == stored
    loaded = again.instantiate()
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    x = torch.rand(1, 1, *GRID)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_exporter_fills_in_what_it_knows(stored, model):
    metadata = stored.metadata
    assert metadata_problems(metadata) == []
    assert metadata['pytorch_version'] == torch.__version__
    assert metadata['config_hash'] == config_hash(metadata)
    assert len(stored.weights_sha256) == 64
    assert metadata['network_data_format']['inputs']['image']['spatial_shape'] == list(GRID)
    with torch.no_grad():
        expected = float(model(torch.from_numpy(golden_input(metadata)[0])))
    assert metadata['golden']['age'] == pytest.approx(expected, abs=1e-6)
    assert golden_age(stored) == metadata['golden']['age']
    assert (stored.arch, stored.label, stored.status) == ('vgg8', 'vgg8test', 'untrained')


def test_half_precision_is_stored_small_and_loaded_wide(tmp_path, stored, model):
    half = export_bundle(tmp_path / 'vgg8.half', model, small_metadata('half'), dtype='float16')
    size = [bundle.weights_path.stat().st_size for bundle in (half, stored)]
    assert size[0] < 0.51 * size[1]
    tensors = half.tensors()
    assert tensors['head.0.weight'].dtype == np.float16
    assert tensors['features.block1.norm.num_batches_tracked'].dtype == np.int64
    loaded = half.instantiate()
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert abs(golden_age(half) - golden_age(stored)) < FLOAT16_TOLERANCE_YEARS
    assert half.metadata['golden']['age'] == golden_age(half)


def test_opening_needs_no_torch(stored):
    code = (
        'import sys\n'
        'from bids_brainage.bundles.bundle import load_bundle\n'
        f'bundle = load_bundle({str(stored.path)!r})\n'
        'assert len(bundle.tensors()) > 10\n'
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_instantiate_leaves_the_random_state_alone(stored):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    stored.instantiate()
    assert torch.equal(torch.rand(3), expected)


def test_existing_bundle_is_kept_unless_told_otherwise(copied, model):
    with pytest.raises(BundleError, match='exists already'):
        export_bundle(copied, model, small_metadata())
    replaced = export_bundle(copied, model, small_metadata(version='2'), overwrite=True)
    assert replaced.version == '2'


def test_refused_export_leaves_nothing_behind(tmp_path, model):
    metadata = small_metadata()
    del metadata['license']
    with pytest.raises(BundleError, match='`license` is missing'):
        export_bundle(tmp_path / 'vgg8.test', model, metadata)
    with pytest.raises(BundleError, match='lack `arch`'):
        export_bundle(tmp_path / 'vgg8.test', model, {'name': 'vgg8.test', 'version': '1'})
    assert list(tmp_path.iterdir()) == []


def test_tampered_weights_are_refused(copied):
    weights = copied / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match='SHA-256 is'):
        load_bundle(copied)
    assert load_bundle(copied, verify=False).name == 'vgg8.test'


def test_cut_weights_are_a_clear_error(copied):
    weights = copied / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BundleError, match='not a readable safetensors file'):
        load_bundle(copied, verify=False).tensors()


def test_weights_of_another_size_are_refused(copied):
    edit(copied, arch_options={'input_shape': [64, 64, 64]})
    with pytest.raises(BundleError, match='do not fit architecture'):
        load_bundle(copied).instantiate()


def by_age(ages):
    widths = {'age': ages, 'half_width_years': [4.0, 5.0, 6.0]}
    plain = {'level': 0.9, 'half_width_years': 5.0, 'n': 60, 'source': 's'}
    return {**plain, 'by_predicted_age': widths}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'license': None}, '`license` is NoneType, expected str'),
        ({'schema': 'other'}, '`schema` must be one of'),
        ({'status': 'good'}, '`status` must be one of trained, untrained'),
        ({'name': 'sfcn.test'}, 'expected `vgg8.<tag>`'),
        ({'saliency': ['lime']}, 'unknown methods'),
        ({'tolerance_years': 0}, 'must be positive'),
        ({'status': 'trained'}, 'must state `training.n`'),
        ({'validation': [{'dataset': 'x'}]}, '`validation` lacks n, mae'),
        ({'conformal': {'level': 0.9}}, '`conformal` lacks half_width_years'),
        ({'conformal': by_age([20.0, 80.0])}, 'must hold equally long lists'),
        ({'conformal': by_age([20.0, 20.0, 30.0])}, 'must hold increasing ages'),
        ({'conformal': by_age(None)}, 'must hold lists of numbers|equally long'),
        ({'golden': {'seed': 1}}, '`golden.age` is missing'),
    ],
)
def test_incomplete_metadata_are_refused(copied, changes, message):
    edit(copied, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copied)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'kind': 'ct'}, '`input.kind` must be one of'),
        ({'shape': [32, 32]}, '`input.shape` is'),
        ({'voxel_size_mm': None}, 'must have three values'),
        ({'orientation': 'LAS'}, 'must be RAS'),
        ({'kind': 't1w_connectivity'}, '`input.n_nodes` is missing'),
        ({'affine': [[1, 0], [0, 1]]}, 'must be 4 x 4'),
        ({'structural_only': 'yes'}, '`input.structural_only` must be true or false'),
    ],
)
def test_wrong_input_blocks_are_refused(copied, stored, changes, message):
    edit(copied, input=stored.input | changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copied)


def test_unknown_architecture_and_renamed_folder(copied):
    edit(copied, arch='vgg9', name='vgg9.test')
    with pytest.raises(BundleError, match="unknown architecture 'vgg9'"):
        load_bundle(copied)
    edit(copied, arch='vgg8', name='vgg8.other')
    with pytest.raises(BundleError, match='rename the folder'):
        load_bundle(copied)


def test_absent_and_unreadable_files(tmp_path, copied):
    with pytest.raises(BundleError, match=r'no metadata\.json'):
        load_bundle(tmp_path)
    (copied / WEIGHTS_FILE).unlink()
    with pytest.raises(BundleError, match='absent'):
        load_bundle(copied)
    (copied / METADATA_FILE).write_text('{')
    with pytest.raises(BundleError, match='not readable as JSON'):
        load_bundle(copied)
    (copied / METADATA_FILE).write_text('[]')
    with pytest.raises(BundleError, match='expected a JSON object'):
        load_bundle(copied)


def test_names_are_resolved_in_order_and_errors_list_what_exists(stored, copied, tmp_path):
    directories = [tmp_path / 'absent', copied.parent, stored.path.parent]
    assert find_bundles(directories) == {'vgg8.test': copied}
    assert resolve_bundle('vgg8.test', directories).path == copied
    with pytest.raises(BundleError, match=r'Available: vgg8\.test'):
        resolve_bundle('vgg8.best', directories)
    with pytest.raises(BundleError, match='is an architecture'):
        resolve_bundle('vgg8', directories)
    with pytest.raises(BundleError, match=r'Available: none \(searched nowhere\)'):
        resolve_bundle('vgg8.test', [])


def test_listing(copied):
    table = [
        {'dataset': 'a', 'n': 10, 'mae': 5.0, 'bias': 0, 'r': 0.9, 'median_baseline_mae': 15},
        {'dataset': 'b', 'n': 90, 'mae': 6.5, 'bias': 0, 'r': 0.9, 'median_baseline_mae': 15},
        {'dataset': 's', 'n': 500, 'mae': 3.0, 'bias': 0, 'r': 0.9, 'median_baseline_mae': 15},
    ]
    table = [row | {'method': 'held out', 'simulated': row['dataset'] == 's'} for row in table]
    edit(copied, validation=table)
    rows = {row['name']: row for row in model_rows([copied.parent])}
    assert all(tuple(row) == COLUMNS for row in rows.values())
    row = rows['vgg8.test']
    assert (row['status'], row['n_train']) == ('untrained', 0)
    assert (row['mae_simulated'], row['mae_real']) == (3.0, 6.5)
    assert rows['resnet_crossvit']['status'] == 'trainable only'
    assert 'vgg8' not in rows
    edit(copied, license=None)
    broken = {row['name']: row for row in model_rows([copied.parent])}['vgg8.test']
    assert broken['status'] == 'unusable'


def test_volume_contract(stored):
    declared = stored.input | {'affine': None, 'voxel_size_mm': [1.0, 1.0, 1.0]}
    check_volume(declared, GRID, np.eye(4), 'x.nii.gz')
    check_volume(declared, GRID, np.diag([1.0009, 1, 1, 1]), 'x.nii.gz')
    with pytest.raises(BundleError, match=r'x\.nii\.gz: shape \(32, 32, 33\)'):
        check_volume(declared, (32, 32, 33), np.eye(4), 'x.nii.gz')
    with pytest.raises(BundleError, match='voxel size'):
        check_volume(declared, GRID, np.diag([1.002, 1, 1, 1]), 'x.nii.gz')
    with pytest.raises(BundleError, match='not RAS'):
        check_volume(declared, GRID, np.diag([-1.0, 1, 1, 1]), 'x.nii.gz')
    fixed = declared | {'affine': np.eye(4).tolist()}
    moved = np.eye(4)
    moved[0, 3] = 4
    with pytest.raises(BundleError, match='affine differs'):
        check_volume(fixed, GRID, moved, 'x.nii.gz')


def test_golden_input_is_the_same_everywhere(stored):
    (image,) = golden_input(stored.metadata)
    assert image.shape == (1, 1, *GRID)
    assert image.dtype == np.float32
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(image[0, 0], rng.random(GRID, dtype=np.float32))
    scaled = stored.metadata | {'golden': {'seed': 0, 'scale': 3.0}}
    np.testing.assert_allclose(golden_input(scaled)[0], 3 * image)
    graph = stored.metadata | {'input': stored.input | {'kind': 't1w_connectivity', 'n_nodes': 7}}
    _, matrix = golden_input(graph)
    assert matrix.shape == (1, 7, 7)
    np.testing.assert_allclose(matrix[0], matrix[0].T)
    np.testing.assert_allclose(np.diag(matrix[0]), 1, rtol=1e-6)
    table = stored.metadata | {'input': stored.input | {'kind': 'volumes', 'shape': [9]}}
    assert golden_input(table)[0].shape == (1, 9)


def test_config_hash_follows_the_computation_only(stored):
    metadata = stored.metadata
    assert config_hash(metadata | {'title': 'other'}) == config_hash(metadata)
    changed = metadata | {'input': stored.input | {'normalisation': 'none'}}
    assert config_hash(changed) != config_hash(metadata)


def test_untrained_bundles_repeat_and_say_what_they_are(tmp_path):
    made = [
        make_untrained_bundle('vgg8', tag, tmp_path, shape=GRID, seed=seed)
        for tag, seed in (('a', 1), ('b', 1), ('c', 2))
    ]
    hashes = [bundle.weights_sha256 for bundle in made]
    assert hashes[0] == hashes[1] != hashes[2]
    assert made[0].status == 'untrained'
    assert 'mean nothing' in made[0].metadata['limitations']
    assert made[0].metadata['arch_options'] == {'input_shape': list(GRID)}
    with pytest.raises(OptionError, match='Unknown architecture'):
        make_untrained_bundle('nothing', 'a', tmp_path)


def test_untrained_command(tmp_path, capsys):
    arguments = ['vgg8', 'cli', str(tmp_path), '--shape', '32', '32', '32']
    assert untrained_command(arguments) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / 'vgg8.cli')
    assert untrained_command(arguments) == BundleError.exit_code
    assert 'exists already' in capsys.readouterr().err
    arguments = ['resnet_only', 'cli', str(tmp_path), '--options', '{"blocks_per_stage": 1}']
    assert untrained_command(arguments) == 0
    made = load_bundle(tmp_path / 'resnet_only.cli')
    assert made.metadata['arch_options'] == {'blocks_per_stage': 1}
