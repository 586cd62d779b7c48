"""SFCN: size, distribution over ages, and input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.inputs.sfcn import prepare_sfcn
from bids_brainage.models.sfcn import INPUT_SHAPE, SFCN

AGE_TOLERANCE = 1e-3


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
