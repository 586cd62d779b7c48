"""The conformance suite passes sound bundles of every architecture and fails broken ones."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from bids_brainage.bundles.bundle import METADATA_FILE, WEIGHTS_FILE, export_bundle, load_bundle
from bids_brainage.bundles.check import check_bundle, main
from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.models import list_models, model_info
from bids_brainage.models.vgg8 import VGG8

GRID = (32, 32, 32)
CHECKS = [
    'bundle',
    'input contract',
    'forward',
    'determinism',
    'golden age',
    'backward',
    'saliency',
]


@pytest.fixture
def bundle(tmp_path):
    return make_untrained_bundle('vgg8', 'test', tmp_path, shape=GRID)


def failed(path):
    return {
        result.name: result.detail for result in check_bundle(path).results if not result.passed
    }


def edit(bundle, **changes):
    file = bundle.path / METADATA_FILE
    file.write_text(json.dumps(bundle.metadata | changes))


def replace_weights(bundle, change):
    """Export the bundle again with changed tensors, everything else kept."""
    tensors = bundle.tensors()
    change(tensors)
    export_bundle(bundle.path, tensors, bundle.metadata, overwrite=True)


@pytest.mark.parametrize(
    'arch', [name for name in list_models() if model_info(name).backend == 'torch']
)
def test_fresh_bundle_of_every_architecture_conforms(arch, tmp_path):
    bundle = make_untrained_bundle(arch, 'fresh', tmp_path, shape=GRID)
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    assert [result.name for result in report.results] == CHECKS


def test_command_reports_every_check(bundle, capsys):
    assert main([str(bundle.path)]) == 0
    text = capsys.readouterr().out
    assert all(f'ok    {name}: ' in text for name in CHECKS)
    edit(bundle, golden={'seed': 0, 'age': 20.0})
    assert main([str(bundle.path)]) == 1
    assert 'FAIL  golden age: ' in capsys.readouterr().out


def test_damaged_bundle_fails_at_once(bundle):
    (bundle.path / WEIGHTS_FILE).write_bytes(b'x')
    assert list(failed(bundle.path)) == ['bundle']
    assert list(failed(bundle.path / 'absent')) == ['bundle']


def test_wrong_golden_age_is_found(bundle):
    edit(bundle, golden={'seed': 1, 'age': bundle.metadata['golden']['age'] + 1})
    found = failed(bundle.path)
    assert list(found) == ['golden age']
    assert 'expected' in found['golden age']


def test_not_a_number_weights_are_found(bundle):
    replace_weights(bundle, lambda tensors: tensors['head.4.bias'].fill(np.nan))
    found = failed(bundle.path)
    assert {'forward', 'golden age'} <= set(found)
    assert 'nan' in found['forward']


def test_constant_model_is_found(bundle):
    def flatten(tensors):
        tensors['head.0.weight'].fill(0)

    replace_weights(bundle, flatten)
    assert 'saliency' in failed(bundle.path)


def test_missing_tensor_is_found(bundle):
    tensors = bundle.tensors()
    del tensors['head.4.bias']
    save_file(tensors, bundle.weights_path)
    edit(bundle, weights_sha256=hashlib.sha256(bundle.weights_path.read_bytes()).hexdigest())
    assert 'head.4.bias' in failed(bundle.path)['bundle']


def test_foreign_input_kind_and_grid_are_found(bundle):
    edit(bundle, input=bundle.input | {'kind': 'modulated_gm'})
    assert list(failed(bundle.path)) == ['input contract']
    edit(bundle, input=bundle.input | {'shape': [40, 40, 40]})
    assert {'forward', 'golden age'} <= set(failed(bundle.path))
    affine = np.diag([2.0, 2.0, 2.0, 1.0]).tolist()
    edit(bundle, input=bundle.input | {'affine': affine})
    assert 'voxel size' in failed(bundle.path)['input contract']


def test_undeclared_saliency_support_is_found(bundle):
    edit(bundle, saliency=['attention'])
    assert 'attention_maps' in failed(bundle.path)['saliency']


@pytest.mark.parametrize('layer', ['', 'features.block9', 'head.0'])
def test_wrong_gradcam_layer_is_found(bundle, monkeypatch, layer):
    build = VGG8.__init__

    def built(self, **options):
        build(self, **options)
        self.gradcam_layer = layer

    monkeypatch.setattr(VGG8, '__init__', built)
    assert list(failed(bundle.path)) == ['saliency']


def test_random_model_is_found(bundle, monkeypatch):
    forward = VGG8.forward
    monkeypatch.setattr(VGG8, 'forward', lambda self, x: forward(self, x) + torch.rand(1))
    assert 'determinism' in failed(bundle.path)


def test_wrong_output_shape_is_found(bundle, monkeypatch):
    forward = VGG8.forward
    monkeypatch.setattr(VGG8, 'forward', lambda self, x: forward(self, x)[:, None])
    assert 'expected (1,)' in failed(bundle.path)['forward']


def test_golden_age_is_stable_over_a_reload(bundle):
    again = load_bundle(bundle.path)
    assert again.metadata['golden'] == bundle.metadata['golden']
    assert failed(again.path) == {}
