"""Guided backpropagation changes the gradient and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bids_brainage.errors import BrainAgeError
from bids_brainage.inference.guided_backprop import (
    GuidedActivation,
    guided_activations,
    guided_backprop,
)
from bids_brainage.models.densenet169_clinical import DenseNet169Clinical


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return DenseNet169Clinical().eval()


@pytest.fixture(scope='module')
def volume():
    return torch.randn(1, 1, 32, 32, 16, generator=torch.Generator().manual_seed(1))


def test_168_modules_are_replaced_forward_is_identical_and_all_are_restored(network, volume):
    before = {name: module for name, module in network.named_modules()}
    with torch.no_grad():
        plain = network(volume)
        with guided_activations(network) as count:
            guided = network(volume)
            inside = sum(isinstance(m, GuidedActivation) for m in network.modules())
            assert not any(isinstance(m, nn.LeakyReLU) for m in network.modules())
    assert count == inside == 168
    assert torch.equal(plain, guided)
    assert {name: module for name, module in network.named_modules()} == before


def test_modules_are_restored_after_an_error(network):
    with pytest.raises(RuntimeError, match='stop'), guided_activations(network):
        raise RuntimeError('stop')
    assert sum(isinstance(m, nn.LeakyReLU) for m in network.modules()) == 168


def test_map_differs_from_the_plain_gradient(network, volume):
    leaf = volume.clone().requires_grad_(True)
    (plain,) = torch.autograd.grad(network(leaf).sum(), leaf)
    guided = guided_backprop(network, volume)
    assert guided.shape == volume.shape
    assert guided.isfinite().all()
    assert guided.abs().max() > 0
    assert torch.nn.functional.cosine_similarity(plain.flatten(), guided.flatten(), 0) < 0.99


@pytest.mark.parametrize(('slope', 'at_negative'), [(None, 0.1), (0.0, 0.0)])
def test_rule_on_four_known_values(slope, at_negative):
    model = nn.Sequential(nn.LeakyReLU(0.1))
    x = torch.tensor([2.0, 2.0, -2.0, -2.0], requires_grad=True)
    with guided_activations(model, negative_slope=slope):
        model(x).backward(torch.tensor([3.0, -3.0, 3.0, -3.0]))
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([3.0, 0.0, 3.0 * at_negative, 0.0])


def test_in_place_relu_is_made_safe_and_put_back():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 1)
    )
    inplace = model[1]
    guided_backprop(model, torch.randn(1, 1, 4, 4, 4))
    assert model[1] is inplace
    assert model.training


def test_works_where_gradients_are_switched_off(network, volume):
    expected = guided_backprop(network, volume)
    with torch.inference_mode():
        assert torch.equal(guided_backprop(network, volume * 1), expected)


def test_other_activations_and_batches_are_refused(network):
    with pytest.raises(BrainAgeError, match='GELU'), guided_activations(nn.Sequential(nn.GELU())):
        pass
    with pytest.raises(BrainAgeError, match='no activation'), guided_activations(nn.Identity()):
        pass
    with pytest.raises(BrainAgeError, match='one volume'):
        guided_backprop(network, torch.zeros(2, 1, 16, 16, 16))
