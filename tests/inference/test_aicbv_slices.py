"""Two-dimensional AICBV generator: size, slices, weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_brainage.errors import BundleError, OptionError, UnusableImageError
from bids_brainage.inference.aicbv import load_generator, save_generator
from bids_brainage.inference.aicbv_slices import (
    EDGE,
    fit_slices,
    restore_slices,
    synthesise_uptake,
)
from bids_brainage.models.aicbv_resattunet2d import AICBVResAttUNet2d


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return AICBVResAttUNet2d(base=4).eval()


def test_parameter_count_and_shape():
    with torch.device('meta'):
        network = AICBVResAttUNet2d().eval()
        assert sum(p.numel() for p in network.parameters()) == 142_557_680
        assert network(torch.empty(2, 1, EDGE, EDGE)).shape == (2, 1, EDGE, EDGE)


def test_every_parameter_learns():
    network = AICBVResAttUNet2d(base=4)
    network(torch.rand(2, 1, 32, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with pytest.raises(OptionError, match='multiples of 32'):
        network(torch.zeros(1, 1, 32, 40))


@pytest.mark.parametrize('shape', [(7, 9, 3), (5, 6, 3), (8, 8, 3), (10, 4, 3)])
def test_slices_are_centred_and_come_back(shape):
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    square = fit_slices(volume, 7)
    assert square.shape == (7, 7, 3)
    restored = restore_slices(square, shape)
    kept = restored != 0
    assert kept.sum() == min(shape[0], 7) * min(shape[1], 7) * 3
    np.testing.assert_array_equal(restored[kept], volume[kept])


def test_padding_repeats_the_border():
    square = fit_slices(np.full((3, 3, 2), 5, dtype=np.float32), 8)
    assert (square == 5).all()


def test_map_covers_the_brain_and_reports_progress(network):
    mask = np.zeros((40, 30, 9), dtype=bool)
    mask[5:35, 4:26, 2:7] = True
    t1w = np.random.default_rng(0).random(mask.shape)
    seen = []
    generated = synthesise_uptake(
        t1w, mask, network, edge=64, batch=2, on_slice=lambda *x: seen.append(x)
    )
    np.testing.assert_array_equal(generated != 0, mask)
    assert seen == [(2, 5), (4, 5), (5, 5)]
    bright = synthesise_uptake(t1w * 100, mask, network, edge=64)
    np.testing.assert_allclose(bright, generated, atol=1e-5)


def test_useless_input_is_refused(network):
    with pytest.raises(UnusableImageError, match='not empty'):
        synthesise_uptake(np.ones((3, 3, 3)), np.zeros((3, 3, 3), dtype=bool), network)
    with pytest.raises(UnusableImageError, match='no positive value'):
        synthesise_uptake(np.zeros((3, 3, 3)), np.ones((3, 3, 3), dtype=bool), network)


def test_weights_come_back_as_this_network(network, tmp_path):
    path = tmp_path / 'generator.safetensors'
    save_generator(network, path, {'base': 4})
    loaded = load_generator(path)
    assert isinstance(loaded, AICBVResAttUNet2d)
    assert torch.equal(loaded.head.weight, network.head.weight)
    with pytest.raises(BundleError, match='found Linear'):
        save_generator(torch.nn.Linear(1, 1), path, {})
