"""Published networks: random files of their layout give the ages of a second build."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.check import check_bundle
from bids_brainage.bundles.convert.catalogue import find
from bids_brainage.bundles.convert.make import convert
from bids_brainage.bundles.convert.record import NOT_RUN, Choices
from bids_brainage.errors import BundleError, OptionError

AGE_TOLERANCE = 1e-5
GRID = (32, 40, 33)
CHANNELS = (1, 32, 64, 128, 256, 256, 64)
OTHER = Choices(training_data='none, a test', training_n=1)


def randomised(network, seed=0):
    """Fill every weight and running statistic, so that no layer is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for name, value in [*module.named_parameters(recurse=False)]:
            scale = max(value[0].numel(), 1) ** -0.5 if value.ndim > 1 else 0.1
            shift = 1.0 if value.ndim == 1 and name == 'weight' else 0.0
            nn.init.normal_(value, shift, scale, generator=generator)
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
    return network.eval()


def image(seed=0):
    return torch.rand(1, 1, *GRID, generator=torch.Generator().manual_seed(seed))


def small(name):
    """The record of a network, with a grid on which the golden age takes a second."""
    return replace(find(name), shape=(32, 32, 32))


def converted(name, paths, folder, choices=OTHER, **options):
    return convert(small(name), paths, folder, choices=choices, accept_licence=True, **options)


@pytest.fixture(scope='module')
def synthba():
    nets = pytest.importorskip('monai.networks.nets', reason='MONAI is the independent build')
    return randomised(nets.DenseNet201(3, 1, 1, dropout_prob=0))


@pytest.mark.parametrize('order', ['LAS', 'RAS'])
def test_synthba_predicts_as_the_network_of_monai(synthba, tmp_path, order):
    torch.save(synthba.state_dict(), tmp_path / 'synthba-g.pth')
    choices = replace(OTHER, array_order=order)
    bundle = converted('synthba', [tmp_path / 'synthba-g.pth'], tmp_path, choices)
    ras = image()
    with torch.no_grad():
        stored = ras.flip(2) if order == 'LAS' else ras
        expected = synthba(stored).item() * 100
        assert bundle.instantiate()(ras).item() == pytest.approx(expected, rel=AGE_TOLERANCE)
        if order == 'LAS':  # the order matters: a stride of 2 sees other voxels from the right
            assert abs(synthba(ras).item() * 100 - expected) > 100 * AGE_TOLERANCE
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    assert bundle.name == 'densenet201.synthba'
    assert bundle.metadata['training']['n'] == 1
    assert bundle.metadata['limitations'].startswith(NOT_RUN)


def test_synthba_refuses_another_densenet(tmp_path):
    nets = pytest.importorskip('monai.networks.nets', reason='MONAI is the independent build')
    torch.save(nets.DenseNet121(3, 1, 1).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(
        BundleError, match=r'layout of SynthBA: expected .* tensors, found .* Miss'
    ):
        converted('synthba', [tmp_path / 'other.pth'], tmp_path)
    with pytest.raises(BundleError, match=r'expected synthba-g\.pth \(recommended, git blob 40e2'):
        converted('synthba', [tmp_path / 'other.pth'], tmp_path, choices=Choices())
    with pytest.raises(OptionError, match='--accept-licence'):
        convert(find('synthba'), [tmp_path / 'other.pth'], tmp_path, choices=OTHER)


class KerasSFCN(nn.Module):
    """A second build of pyment's SFCN from the arrays of an HDF5 file, in the order of Keras."""

    def __init__(self, arrays, n_outputs):
        super().__init__()
        self.arrays, self.n_outputs = arrays, n_outputs

    def forward(self, x):
        for block in range(6):
            name = f'block{block + 1}' if block < 5 else 'top'
            kernel = np.moveaxis(self.arrays[f'{name}/conv/kernel'], (4, 3), (0, 1))
            get = {k: torch.from_numpy(self.arrays[f'{name}/{k}']) for k in (
                'conv/bias', 'norm/gamma', 'norm/beta', 'norm/moving_mean', 'norm/moving_variance'
            )}  # fmt: skip
            x = nn.functional.conv3d(
                x, torch.from_numpy(kernel.copy()), get['conv/bias'], padding='same'
            )
            mean, variance, gamma, beta = (
                get[f'norm/{k}'].reshape(1, -1, 1, 1, 1)
                for k in ('moving_mean', 'moving_variance', 'gamma', 'beta')
            )
            x = ((x - mean) / (variance + 1e-3).sqrt() * gamma + beta).relu()
            x = nn.functional.max_pool3d(x, 2) if block < 5 else x
        pooled = x.mean(dim=(2, 3, 4)).numpy()
        return pooled @ self.arrays['predictions/kernel'] + self.arrays['predictions/bias']


def keras_arrays(n_outputs, seed=0):
    """Random arrays with the names and shapes that Keras gives the layers."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for block in range(6):
        before, after = CHANNELS[block : block + 2]
        size = 3 if block < 5 else 1
        name = f'block{block + 1}' if block < 5 else 'top'
        spread = (before * size**3) ** -0.5
        shape = (size, size, size, before, after)
        arrays[f'{name}/conv/kernel'] = rng.normal(0, spread, shape)
        for field, low, high in [
            ('conv/bias', -0.1, 0.1), ('norm/gamma', 0.5, 2), ('norm/beta', -0.1, 0.1),
            ('norm/moving_mean', -0.1, 0.1), ('norm/moving_variance', 0.5, 2),
        ]:  # fmt: skip
            arrays[f'{name}/{field}'] = rng.uniform(low, high, after)
    arrays['predictions/kernel'] = rng.normal(0, 0.1, (CHANNELS[-1], n_outputs))
    arrays['predictions/bias'] = rng.normal(40 if n_outputs == 1 else 0, 0.1, n_outputs)
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def write_keras(path, arrays, model='Regression3DSFCN', separator='/', first=1):
    """Write arrays as Keras 2 does: a group for each layer, the name of the layer repeated."""
    with h5py.File(path, 'w') as file:
        for name, value in arrays.items():
            layer, _, field = name.rpartition('/')
            if layer.startswith('block'):
                number, _, rest = layer.removeprefix('block').partition('/')
                dash = '-' if first == 0 else ''
                layer = f'block{dash}{int(number) - 1 + first}/{rest}'
            layer = f'{model}/{layer}'.replace('/', separator)
            file[f'{layer}/{layer}/{field}:0'] = value
        file.create_group(f'{model}{separator}restrict')
    return path


NAMINGS = {
    'published': {},
    'later code': {'model': 'sfcn-reg', 'separator': '_', 'first': 0},
}


@pytest.mark.parametrize('naming', NAMINGS)
@pytest.mark.parametrize('order', ['LAS', 'RAS'])
def test_pyment_regression_predicts_as_a_second_build(tmp_path, naming, order):
    arrays = keras_arrays(1)
    path = write_keras(tmp_path / 'w.h5', arrays, **NAMINGS[naming])
    choices = replace(OTHER, array_order=order)
    bundle = converted('pyment-regression', [path], tmp_path, choices)
    ras = image()
    with torch.no_grad():
        scores = KerasSFCN(arrays, 1)(ras.flip(2) if order == 'LAS' else ras)
        expected = float(np.clip(scores[0, 0], 0, 92)) + 3
        assert 4 < expected < 94
        assert bundle.instantiate()(ras).item() == pytest.approx(expected, rel=AGE_TOLERANCE)


@pytest.mark.parametrize(('bias', 'age'), [(-1e4, 3), (1e4, 95)])
def test_pyment_regression_is_cut_off_at_its_range(tmp_path, bias, age):
    arrays = keras_arrays(1)
    arrays['predictions/bias'][:] = bias
    path = write_keras(tmp_path / 'w.h5', arrays)
    bundle = converted('pyment-regression', [path], tmp_path)
    assert bundle.instantiate()(image()).item() == age
    report = check_bundle(bundle.path)  # an age that is cut off has a gradient all the same
    assert report.passed, str(report)


def test_pyment_ranking_counts_as_a_second_build(tmp_path):
    arrays = keras_arrays(91)
    path = write_keras(tmp_path / 'w.h5', arrays, model='Ranking3DSFCN')
    bundle = converted('pyment-ranking', [path], tmp_path)
    with torch.no_grad():
        scores = KerasSFCN(arrays, 91)(image().flip(2))
    expected = 3 + (1 / (1 + np.exp(-scores))).round().sum()
    assert 10 < expected < 90
    assert bundle.instantiate()(image()).item() == pytest.approx(expected, abs=AGE_TOLERANCE)
    report = check_bundle(bundle.path)
    assert report.passed, str(report)


def test_wrong_keras_files_are_explained(tmp_path):
    arrays = keras_arrays(1)
    convert_one = lambda name, path: converted(name, [path], tmp_path)  # noqa: E731
    with pytest.raises(BundleError, match=r'\(1, 64\), expected \(91, 64\) in Ranking SFCN'):
        convert_one('pyment-ranking', write_keras(tmp_path / 'w.h5', arrays))
    lacking = {k: v for k, v in arrays.items() if not k.startswith('top/norm')}
    with pytest.raises(BundleError, match=r'Missing: block5\.norm\.beta'):
        convert_one('pyment-regression', write_keras(tmp_path / 'x.h5', lacking))
    arrays['block2/conv/bias'][0] = np.inf
    with pytest.raises(BundleError, match=r'finite .* block1\.conv\.bias'):
        convert_one('pyment-regression', write_keras(tmp_path / 'y.h5', arrays))
    (tmp_path / 'z.h5').write_text('<html>not found</html>')
    with pytest.raises(BundleError, match=r'z\.h5: expected HDF5 .* as a file and not as a page'):
        convert_one('pyment-regression', tmp_path / 'z.h5')
    torch.save({'a': torch.zeros(1)}, tmp_path / 'w.pth')
    with pytest.raises(BundleError, match='expected HDF5'):
        convert_one('pyment-regression', tmp_path / 'w.pth')


def public_mednext():
    """The authors' network from the blocks of MONAI, with their widening: 2, 3, 4, 4, 4."""
    blocks = pytest.importorskip(
        'monai.networks.blocks.mednext_block', reason='MONAI is the independent build'
    )
    encoder = nn.Module()
    encoder.stem = nn.Conv3d(1, 32, 1)
    encoder.dummy_tensor = nn.Parameter(torch.ones(1))
    encoder.out_0 = blocks.MedNeXtOutBlock(32, 1, '3d')
    ratios = (2, 3, 4, 4, 4)
    order = []
    for level, ratio in enumerate(ratios):
        width = 32 * 2**level
        stage = nn.Sequential(
            *(blocks.MedNeXtBlock(width, width, ratio, 3, norm_type='group') for _ in range(2))
        )
        name = 'bottleneck' if level == 4 else f'enc_block_{level}'
        encoder.add_module(name, stage)
        order.append(stage)
        if level < 4:
            down = blocks.MedNeXtDownBlock(width, 2 * width, ratios[level + 1], 3, True)
            encoder.add_module(f'down_{level}', down)
            order.append(down)
    network = nn.Module()
    network.mednextv1 = encoder
    network.regression_fc = nn.Sequential(
        nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.0), nn.Linear(64, 1)
    )

    def age(x):
        x = encoder.stem(x)
        for part in order:
            x = part(x)
        return network.regression_fc(x.mean(dim=(2, 3, 4))).squeeze()

    return network, age


def test_brainagenext_predicts_the_median_of_five(tmp_path):
    network, age = public_mednext()
    paths, ages = [], []
    stored = image().flip(2)
    for seed in range(5):
        randomised(network, seed)
        nn.init.constant_(network.regression_fc[3].bias, 30 + 7.0 * seed**2)
        paths.append(tmp_path / f'BrainAge_{seed + 1}.pth')
        torch.save(network.state_dict(), paths[-1])
        with torch.no_grad():
            ages.append(age(stored).item())
    bundle = converted('brainagenext', paths, tmp_path, choices=Choices())
    with torch.no_grad():
        found = bundle.instantiate()(image()).item()
    assert found == pytest.approx(float(np.median(ages)), rel=AGE_TOLERANCE)
    assert abs(np.mean(ages) - found) > 1
    metadata = load_bundle(bundle.path).metadata
    assert metadata['arch_options']['combine'] == 'median'
    assert metadata['converted_from']['published'] is None
    assert metadata['training']['n'] == 11574
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    with pytest.raises(OptionError, match=r'expected 5 files .*BrainAge_1\.pth.* found 4'):
        converted('brainagenext', paths[:4], tmp_path)
    with pytest.raises(BundleError, match='same content twice'):
        converted('brainagenext', [*paths[:4], paths[0]], tmp_path)
    torch.save({'mednextv1.stem.weight': torch.zeros(1)}, paths[0])
    with pytest.raises(BundleError, match=r'BrainAge_1\.pth: not the layout of BrainAgeNeXt'):
        converted('brainagenext', paths, tmp_path, tag='second')
