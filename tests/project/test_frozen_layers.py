"""A regression becomes the last layers of System D."""

import numpy as np
import pytest
import torch
from frozen_layers import STILL, LastLayers, put_line, ridge
from structural_start import OPTIONS

from bids_brainage.models.amagenet import AMAgeNet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AMAgeNet(fusion='structural', blocks=OPTIONS['blocks']).eval()


def test_ridge_without_penalty_is_least_squares_and_with_much_the_mean():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    y = x @ [1.0, -2.0, 3.0] + 50
    line, at_zero = ridge(x, y, np.ones(40), 1e-9)
    np.testing.assert_allclose([*line, at_zero], [1, -2, 3, 50], atol=1e-5)
    weight = np.linspace(0.5, 1.5, 40)
    line, at_zero = ridge(x, y, weight, 1e9)
    np.testing.assert_allclose(line, 0, atol=1e-6)
    assert at_zero == pytest.approx(np.average(y, weights=weight))


def test_the_network_says_what_the_regression_says(model):
    image = torch.rand(2, 1, 33, 34, 35)
    line = np.random.default_rng(0).normal(0, 0.05, 512)
    put_line(model, line, 47.0)
    still = model.image_encoder.stages[:STILL](model.image_encoder.stem(image))
    with torch.no_grad():
        expected = LastLayers(model)(still).double().numpy() @ line + 47
        np.testing.assert_allclose(model(image).numpy(), expected, atol=1e-3)


def test_normalisations_take_the_spread_of_all_and_keep_it(model):
    features = 3 * torch.rand(6, 1024, 2, 2, 2) + 1
    last = LastLayers(model)
    last.settle(features)
    first = last.stages[0].norm.running_mean
    torch.testing.assert_close(first, features.mean((0, 2, 3, 4)))
    before = last(features[:2])
    last(features[2:])
    torch.testing.assert_close(last(features[:2]), before)


def test_all_other_units_can_still_learn(model):
    put_line(model, np.zeros(512), 47.0)
    model(torch.rand(2, 1, 33, 34, 35)).sum().backward()
    assert model.regressor[2].weight.grad.abs().sum() > model.regressor[2].weight.grad[0, 0].abs()
