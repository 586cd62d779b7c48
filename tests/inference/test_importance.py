"""Regional and nodal importances of System D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bids_brainage.errors import BrainAgeError
from bids_brainage.inference.importance import image_gradient, region_means


class Weighted(nn.Module):
    """Age whose gradient is known: weights times a scalar from the second input."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, image, other=None):
        factor = 1 if other is None else other.sum()
        return (image[:, 0] * self.weights).sum((1, 2, 3)) * factor


def test_gradient_is_that_of_the_prediction_and_absolute():
    weights = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    model = Weighted(weights).train()
    image = torch.rand(1, 1, 3, 4, 5)
    np.testing.assert_allclose(image_gradient(model, image), weights.abs(), rtol=1e-6)
    with torch.inference_mode():
        found = image_gradient(model, image, torch.full((1, 2), 2.0))
    np.testing.assert_allclose(found, 4 * weights.abs(), rtol=1e-6)
    np.testing.assert_allclose(image_gradient(model, image, None), weights.abs(), rtol=1e-6)
    assert model.training
    with pytest.raises(BrainAgeError, match='one scan'):
        image_gradient(model, torch.rand(2, 1, 3, 4, 5))


def test_region_means_in_the_order_of_the_labels():
    atlas = np.array([[[0, 1, 1, 7, 7, 7, -1]]])
    values = np.array([[[9.0, 1, 3, 4, 5, 6, 9]]])
    np.testing.assert_array_equal(region_means(values, atlas, [7, 1, 30]), [5, 2, np.nan])


def test_wrong_atlases_are_refused():
    with pytest.raises(BrainAgeError, match='atlas of shape'):
        region_means(np.zeros((2, 2, 2)), np.zeros((2, 2, 3), dtype=int), [1])
    with pytest.raises(BrainAgeError, match='positive labels'):
        region_means(np.zeros((2, 2, 2)), np.zeros((2, 2, 2), dtype=int), [0, 1])
