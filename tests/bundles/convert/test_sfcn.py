"""SFCN from a file of its public layout: same ages, wrong files explained, the command."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.convert.catalogue import find
from bids_brainage.bundles.convert.check import fit
from bids_brainage.bundles.convert.read import identify, read_torch
from bids_brainage.bundles.convert.record import NOT_RUN, Choices
from bids_brainage.bundles.convert.sfcn import key_map
from bids_brainage.bundles.listing import details_text, model_rows
from bids_brainage.cli.main import main
from bids_brainage.errors import BundleError
from bids_brainage.models.sfcn import SFCN

AGE_TOLERANCE = 1e-5
CHANNELS = (1, 32, 64, 128, 256, 256, 64)
RECORD = find('sfcn')


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
    """Convert other weights than the published ones."""
    other = ['--training-data', 'none, a test', '--training-n', '1']
    options = ['--out', str(out_dir), '--tag', 'made', *other, *extra]
    return main(['convert', 'sfcn', str(path), *options])


def convert(state, source='test', **choices):
    layout = RECORD.layout(state, Choices(**choices))
    return fit(state, layout, arch='sfcn', title=RECORD.title, source=source)


@pytest.mark.parametrize('order', ['LAS', 'RAS'])
def test_converted_network_predicts_as_the_original(public, state_file, order):
    network = SFCN().eval()
    network.load_state_dict(convert(read_torch(state_file), array_order=order))
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
    assert convert(state)['blocks.0.norm.num_batches_tracked'] == 0


def test_wrong_layouts_are_explained(public):
    state = dict(public.state_dict())
    removed = {k: v for k, v in state.items() if 'conv_3' not in k}
    with pytest.raises(BundleError, match=r'file\.p.*Missing: feature_extractor\.conv_3'):
        convert(removed, 'file.p')
    with pytest.raises(BundleError, match=r'Unknown: classifier\.extra'):
        convert({**state, 'classifier.extra': torch.zeros(1)}, 'file.p')
    wrong = {**state, 'feature_extractor.conv_0.0.weight': torch.zeros(32, 1, 5, 5, 5)}
    with pytest.raises(BundleError, match=r'\(32, 1, 5, 5, 5\), expected \(32, 1, 3, 3, 3\)'):
        convert(wrong, 'file.p')
    wrong = {**state, 'feature_extractor.conv_0.0.bias': torch.full((32,), torch.nan)}
    with pytest.raises(BundleError, match=r'finite .* feature_extractor\.conv_0\.0\.bias'):
        convert(wrong, 'file.p')


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
    models = tmp_path / 'models'
    assert run(state_file, models, '--licence', 'CC-BY-4.0') == 0
    out = capsys.readouterr()
    path = out.out.strip()
    assert path == str(models / 'sfcn.made')
    assert NOT_RUN in out.err
    bundle = load_bundle(path)
    assert bundle.metadata['output']['kind'] == 'bins'
    assert bundle.metadata['license'] == 'CC-BY-4.0'
    assert bundle.metadata['copyright'] == 'unknown'
    assert bundle.metadata['limitations'].startswith(f'{NOT_RUN}. The file is not the published')
    assert bundle.metadata['training']['age_min'] == 42
    assert bundle.input['space'] == 'MNI152NLin6Asym'
    assert 42 < bundle.metadata['golden']['age'] < 82
    (file,) = bundle.metadata['converted_from']['files']
    assert file['sha256'] == identify(state_file).sha256
    weights = bundle.instantiate().state_dict()
    original = read_torch(state_file)
    assert torch.equal(weights['head.weight'], original['classifier.conv_6.weight'])
    (row,) = (row for row in model_rows([models]) if row['name'] == 'sfcn.made')
    assert (row['status'], row['n_train'], row['ages']) == ('converted', 1, '42 to 82')
    assert NOT_RUN in details_text('sfcn.made', [models])
    assert run(state_file, models) != 0
    assert 'exists' in capsys.readouterr().err


def test_another_file_is_refused_unless_it_is_told_what_it_is(state_file, tmp_path, capsys):
    assert main(['convert', 'sfcn', str(state_file), '--out', str(tmp_path)]) == 66
    message = capsys.readouterr().err
    for words in (
        'expected run_20190719_00_epoch_best_mae.p (git blob 3631938002f789a84',
        f'found git blob {identify(state_file).git_blob}',
        '--training-data',
    ):
        assert words in message
    assert not (tmp_path / 'sfcn.ukb').exists()


def test_falling_age_range_is_refused(state_file, tmp_path, capsys):
    assert run(state_file, tmp_path, '--age-range', '80', '40') == 2
    assert 'rising' in capsys.readouterr().err
