"""A regression becomes the last layers of System D."""

from pathlib import Path

import frozen_layers
import numpy as np
import pytest
import torch
from frozen_layers import STILL, LastLayers, fit_last_layers, put_line
from structural_start import OPTIONS
from training_phantom import phantom_job

from bids_brainage.models.amagenet import AMAgeNet
from bids_brainage.training.cache import open_cache
from bids_brainage.training.job import fold_sources
from bids_brainage.training.network import start_model
from bids_brainage.training.predictions import predict_rows, trained_model
from bids_brainage.training.splits import TRAINING


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AMAgeNet(fusion='structural', blocks=OPTIONS['blocks']).eval()


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


def test_a_fold_is_fitted_and_its_first_layers_stay(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(frozen_layers, 'GUISES', 1)
    changes = {'model': {'fusion': 'structural', 'blocks': OPTIONS['blocks']}}
    job = phantom_job(tmp_path, 'amagenet', changes, n=20, grid=(33, 34, 35))
    fit_last_layers(job, tmp_path)
    cache = open_cache(Path(job.cache))
    model, begun = trained_model(job, cache, 1), start_model(job, cache.ages, 1)
    for name, value in begun.image_encoder.stem.state_dict().items():
        assert torch.equal(value, model.image_encoder.stem.state_dict()[name]), name
    rows = cache.rows_of(fold_sources(job)[1][TRAINING])
    told = predict_rows(model, cache, rows=rows)[rows]
    assert np.corrcoef(told, cache.ages[rows])[0, 1] > 0.9
