"""SFCN: size, distribution over ages, input, and conversion of the public layout."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.convert_sfcn import convert_state_dict, key_map, main, read_state_dict
from bids_brainage.errors import BundleError, OptionError, UnusableImageError
from bids_brainage.inputs.sfcn import prepare_sfcn
from bids_brainage.models.sfcn import INPUT_SHAPE, SFCN

AGE_TOLERANCE = 1e-3
CHANNELS = (1, 32, 64, 128, 256, 256, 64)


def public_layout() -> nn.Module:
    """Build a network whose state dict has the names and shapes of the public file."""
    features = nn.Sequential()
    for index, (before, after) in enumerate(pairwise(CHANNELS)):
        last = index == 5
        kernel = 1 if last else 3
        parts = [nn.Conv3d(before, after, kernel, padding=kernel // 2), nn.BatchNorm3d(after)]
        parts += [] if last else [nn.MaxPool3d(2, stride=2)]
        features.add_module(f'conv_{index}', nn.Sequential(*parts, nn.ReLU()))
    classifier = nn.Sequential()
    classifier.add_module('average_pool', nn.AvgPool3d([1, 2, 1]))
    classifier.add_module('dropout', nn.Dropout(0.5))
    classifier.add_module('conv_6', nn.Conv3d(64, 40, 1))
    network = nn.Module()
    network.feature_extractor = features
    network.classifier = classifier
    return network


@pytest.fixture(scope='module')
def public():
    torch.manual_seed(0)
    network = public_layout()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 2)
    nn.init.normal_(network.classifier.conv_6.weight, std=0.5)
    return network.eval()


@pytest.fixture
def state_file(public, tmp_path):
    path = tmp_path / 'run_best.p'
    torch.save({f'module.{k}': v for k, v in public.state_dict().items()}, path)
    return path


def run(path, out_dir, *extra):
    required = ['--tag', 'made', '--training-data', 'none, a test', '--training-n', '1']
    return main([str(path), str(out_dir), *required, *extra])


def test_parameter_count_and_shapes():
    with torch.device('meta'):
        network = SFCN().eval()
        assert sum(p.numel() for p in network.parameters()) == 2_952_936
        x = torch.empty(1, 1, *INPUT_SHAPE)
        assert tuple(network.blocks(x).shape) == (1, 64, 5, 6, 5)
        assert network.log_probabilities(x).shape == (1, 40)


def test_bins_cover_42_to_82_and_age_is_the_expectation():
    torch.manual_seed(0)
    network = SFCN().eval()
    np.testing.assert_allclose(network.bin_centres, np.arange(42.5, 82))
    with torch.no_grad():
        x = torch.rand(2, 1, 32, 32, 32)
        probabilities = network.log_probabilities(x).exp()
        ages = network(x)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    expected = (probabilities.double() * torch.arange(42.5, 82)).sum(1)
    torch.testing.assert_close(ages.double(), expected, atol=AGE_TOLERANCE, rtol=0)


def test_one_certain_bin_gives_its_centre():
    network = SFCN(age_range=(0, 100), n_bins=10).eval()
    nn.init.zeros_(network.head.weight)
    with torch.no_grad():
        network.head.bias.fill_(-1e4)[3] = 0
        assert network(torch.rand(1, 1, 32, 32, 32)).item() == pytest.approx(35)


def test_bad_bins_are_refused():
    with pytest.raises(OptionError, match='rising'):
        SFCN(age_range=(80, 40))


def test_input_is_divided_by_the_mean_of_the_whole_grid():
    data = np.zeros((182, 218, 182), dtype=np.float32)
    data[30:150, 30:190, 20:150] = np.random.default_rng(0).random((120, 160, 130))
    affine = np.eye(4)
    affine[:3, 3] = (-91, -126, -72)
    volume, new = prepare_sfcn(data, affine)
    assert volume.shape == INPUT_SHAPE
    np.testing.assert_allclose(new[:3, 3], (-80, -113, -61))
    np.testing.assert_allclose(
        volume, data[11:171, 13:205, 11:171] / data.mean(dtype=float), rtol=1e-6
    )
    with pytest.raises(UnusableImageError, match='mean'):
        prepare_sfcn(np.zeros_like(data), affine)
    with pytest.raises(UnusableImageError, match='shape'):
        prepare_sfcn(data[:100], affine)


@pytest.mark.parametrize('order', ['LAS', 'RAS'])
def test_converted_network_predicts_as_the_original(public, state_file, order):
    state = read_state_dict(state_file)
    network = SFCN().eval()
    network.load_state_dict(convert_state_dict(state, source='test', array_order=order))
    ras = torch.rand(1, 1, 32, 64, 32, generator=torch.Generator().manual_seed(0))
    stored = ras.flip(2) if order == 'LAS' else ras
    with torch.no_grad():
        scores = public.classifier(public.feature_extractor(stored)).flatten(1)
        expected = (scores.softmax(1) * torch.arange(42.5, 82)).sum().item()
        assert network(ras).item() == pytest.approx(expected, abs=AGE_TOLERANCE)


def test_key_map_covers_the_whole_network(public):
    assert set(key_map()) == set(public.state_dict())
    with torch.device('meta'):
        assert set(key_map().values()) == set(SFCN().state_dict())


def test_counters_of_old_files_may_be_absent(public):
    state = {k: v for k, v in public.state_dict().items() if not k.endswith('tracked')}
    assert convert_state_dict(state, source='test')['blocks.0.norm.num_batches_tracked'] == 0


def test_wrong_layouts_are_explained(public):
    state = dict(public.state_dict())
    removed = {k: v for k, v in state.items() if 'conv_3' not in k}
    with pytest.raises(BundleError, match=r'file\.p.*Missing: feature_extractor\.conv_3'):
        convert_state_dict(removed, source='file.p')
    with pytest.raises(BundleError, match=r'Unknown: classifier\.extra'):
        convert_state_dict({**state, 'classifier.extra': torch.zeros(1)}, source='file.p')
    wrong = {**state, 'feature_extractor.conv_0.0.weight': torch.zeros(32, 1, 5, 5, 5)}
    with pytest.raises(BundleError, match=r'\(32, 1, 5, 5, 5\), expected \(32, 1, 3, 3, 3\)'):
        convert_state_dict(wrong, source='file.p')
    wrong = {**state, 'feature_extractor.conv_0.0.bias': torch.full((32,), torch.nan)}
    with pytest.raises(BundleError, match='finite'):
        convert_state_dict(wrong, source='file.p')


def test_whole_networks_and_rubbish_are_not_unpickled(public, tmp_path, capsys):
    torch.save(public, tmp_path / 'network.p')
    (tmp_path / 'rubbish.p').write_bytes(b'no weights at all')
    torch.save({'epoch': 3, 'state': {}}, tmp_path / 'checkpoint.p')
    for name, words in [
        ('network.p', 'without running its code'),
        ('rubbish.p', 'without running its code'),
        ('checkpoint.p', 'state dict alone'),
        ('absent.p', 'no such file'),
    ]:
        assert run(tmp_path / name, tmp_path) == 66
        message = capsys.readouterr().err
        assert name in message
        assert words in message


def test_command_writes_a_bundle_that_loads(state_file, tmp_path, capsys):
    assert run(state_file, tmp_path / 'models', '--license', 'CC-BY-4.0') == 0
    path = capsys.readouterr().out.strip()
    assert path == str(tmp_path / 'models' / 'sfcn.made')
    bundle = load_bundle(path)
    assert bundle.metadata['output']['kind'] == 'bins'
    assert bundle.metadata['license'] == 'CC-BY-4.0'
    assert bundle.input['space'] == 'MNI152NLin6Asym'
    assert 42 < bundle.metadata['golden']['age'] < 82
    weights = bundle.instantiate().state_dict()
    original = read_state_dict(state_file)
    assert torch.equal(weights['head.weight'], original['classifier.conv_6.weight'])
    assert run(state_file, tmp_path / 'models') != 0
    assert 'exists' in capsys.readouterr().err


def test_falling_age_range_is_refused(state_file, tmp_path, capsys):
    assert run(state_file, tmp_path, '--age-range', '80', '40') == 2
    assert 'rising' in capsys.readouterr().err
