"""The regression on waves: its formula, and shares that add up."""

import numpy as np
import pytest

from bids_brainage.models.waves import WavesRegressor

F, W = 5, 40
EXACT = 1e-9


@pytest.fixture
def tensors():
    rng = np.random.default_rng(1)
    return {
        'intercept': np.array([4.0]), 'centre': rng.normal(size=F), 'scale': np.full(F, 0.5),
        'tail': np.array([3.0]), 'linear': 0.05 * rng.normal(size=F),
        'directions': rng.normal(size=(W, F)), 'phase': rng.uniform(0, 6, W),
        'height': 0.03 * rng.normal(size=W), 'offset_years': np.array([20.0]),
    }  # fmt: skip


@pytest.fixture
def model(tensors):
    made = WavesRegressor([f'm{k}/brain' for k in range(F)])
    made.load_tensors(tensors)
    return made


def test_age_against_the_formula(model, tensors):
    x = np.random.default_rng(2).normal(size=(7, F))
    for row, found in zip(x, model(x), strict=True):
        z = np.clip((row - tensors['centre']) / 0.5, -3, 3)
        waves = [
            h * np.cos(d @ z + p)
            for h, d, p in zip(
                tensors['height'], tensors['directions'], tensors['phase'], strict=True
            )
        ]
        assert found == pytest.approx(np.exp(4 + z @ tensors['linear'] + sum(waves)) - 20)


def test_shares_add_up_to_the_difference_of_ages(model):
    rng = np.random.default_rng(3)
    for x, reference in rng.normal(size=(20, 2, F)):
        parts = model.contributions(x, reference)
        assert parts.sum() == pytest.approx(
            model(x[None])[0] - model(reference[None])[0], abs=EXACT
        )
    np.testing.assert_allclose(model.contributions(x, x), 0, atol=EXACT)


def test_a_measure_that_is_the_same_has_no_share(model):
    x, reference = np.random.default_rng(4).normal(size=(2, F))
    x[2] = reference[2]
    assert model.contributions(x, reference)[2] == 0


def test_shares_are_those_of_the_straight_path(model, tensors):
    """Aumann-Shapley: the integral of the gradient from one person to the other."""
    x, reference = 0.4 * np.random.default_rng(5).normal(size=(2, F)) + tensors['centre']
    steps = (np.arange(4000) + 0.5) / 4000
    z0, z1 = ((v - tensors['centre']) / 0.5 for v in (reference, x))
    total = np.zeros(F)
    for t in steps:
        phase = tensors['directions'] @ (z0 + t * (z1 - z0)) + tensors['phase']
        total += tensors['linear'] - (tensors['height'] * np.sin(phase)) @ tensors['directions']
    shares = (z1 - z0) * total / len(steps)
    found = model.contributions(x, reference)
    np.testing.assert_allclose(found / found.sum(), shares / shares.sum(), rtol=1e-5)


def test_measures_far_from_all_people_are_cut_off(model, tensors):
    x = tensors['centre'] + np.array([0, 4, 0, -10, 1.0]) * 0.5
    assert model.beyond(x) == ('m1/brain', 'm3/brain')
    cut = tensors['centre'] + np.array([0, 3, 0, -3, 1.0]) * 0.5
    assert model(x[None])[0] == model(cut[None])[0]


@pytest.mark.parametrize(
    ('name', 'value'), [('height', None), ('scale', np.ones(2)), ('directions', np.ones((W, 2)))]
)
def test_wrong_tensors_are_refused(tensors, name, value):
    given = {k: v for k, v in {**tensors, name: value}.items() if v is not None}
    with pytest.raises(ValueError, match=f"tensor '{name}' of shape"):
        WavesRegressor([f'm{k}' for k in range(F)]).load_tensors(given)
