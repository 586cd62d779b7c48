"""The most likely age: its formula, and shares that add up."""

import numpy as np
import pytest
from scipy.stats import multivariate_t

from bids_brainage.models.posterior import PosteriorRegressor, tables_model, volumes_model
from bids_brainage.models.registry import create_model
from bids_brainage.models.volumes import VolumesRegressor
from bids_brainage.models.waves import WavesRegressor

F, W, SHARE, FREEDOM = 5, 40, 0.25, 7.0
AGES = np.arange(10.0, 90.0, 2.0)
EXACT = 1e-9


@pytest.fixture
def shape():
    rng = np.random.default_rng(8)
    root = np.eye(F) + 0.3 * rng.normal(size=(F, F))
    return root @ root.T


@pytest.fixture
def usual():
    slopes = np.random.default_rng(9).normal(size=F)
    return (AGES[:, None] - 45) / 25 * slopes


@pytest.fixture
def tensors(shape, usual):
    rng = np.random.default_rng(1)
    turn = np.linalg.inv(np.linalg.cholesky(shape))
    centre, scale, tail = rng.normal(size=F), np.full(F, 0.5), np.array([3.0])
    return {
        'centre': centre, 'scale': scale, 'tail': tail, 'ages': AGES,
        'prior': -(((AGES - 30) / 40) ** 2), 'usual': usual @ turn.T, 'turn': turn,
        'freedom': np.array([FREEDOM]), 'waves_share': np.array([SHARE]),
        'waves_centre': centre, 'waves_scale': scale, 'waves_tail': tail,
        'waves_intercept': np.array([4.0]), 'waves_linear': 0.05 * rng.normal(size=F),
        'waves_directions': rng.normal(size=(W, F)), 'waves_phase': rng.uniform(0, 6, W),
        'waves_height': 0.03 * rng.normal(size=W), 'waves_offset_years': np.array([20.0]),
    }  # fmt: skip


@pytest.fixture
def model(tensors):
    made = tables_model([f'm{k}/brain' for k in range(F)], 'posterior')
    made.load_tensors(tensors)
    return made


def test_age_against_the_formula(model, tensors, shape, usual):
    waves = WavesRegressor(model.features)
    waves.load_tensors({
        k.removeprefix('waves_'): v for k, v in tensors.items() if k.startswith('waves_')
    })  # fmt: skip
    x = np.random.default_rng(2).normal(size=(7, F))
    for row, found in zip(x, model(x), strict=True):
        z = np.clip((row - tensors['centre']) / 0.5, -3, 3)
        likely = np.exp(tensors['prior']) * [
            multivariate_t.pdf(z, mean, shape, df=FREEDOM) for mean in usual
        ]
        own = likely @ AGES / likely.sum()
        expected = (1 - SHARE) * own + SHARE * waves(row[None])[0]
        assert found == pytest.approx(expected, abs=EXACT)


def test_shares_add_up_to_the_difference_of_ages(model):
    rng = np.random.default_rng(3)
    for x, reference in rng.normal(size=(20, 2, F)):
        parts = model.contributions(x, reference)
        difference = model(x[None])[0] - model(reference[None])[0]
        assert parts.sum() == pytest.approx(difference, abs=EXACT)
    np.testing.assert_allclose(model.contributions(x, x), 0, atol=EXACT)


def test_a_measure_that_is_the_same_has_no_share(model):
    x, reference = np.random.default_rng(4).normal(size=(2, F))
    x[2] = reference[2]
    assert model.contributions(x, reference)[2] == 0


def test_shares_are_those_of_the_straight_path(model, tensors):
    """Aumann-Shapley: the integral of the gradient from one person to the other."""
    model.tensors['waves_share'] = np.zeros(1)
    x, reference = 0.4 * np.random.default_rng(5).normal(size=(2, F)) + tensors['centre']
    steps, small, total = (np.arange(500) + 0.5) / 500, 1e-4, np.zeros(F)
    for t in steps:
        at = reference + t * (x - reference)
        nudged = np.concatenate([at + small * np.eye(F), at - small * np.eye(F)])
        total += np.subtract(*np.split(model(nudged), 2)) / (2 * small)
    expected = (x - reference) * total / len(steps)
    np.testing.assert_allclose(model.contributions(x, reference), expected, atol=1e-3)


def test_nobody_is_told_an_age_out_of_range_however_far_away(model, tensors):
    model.tensors['waves_share'] = np.zeros(1)
    x = tensors['centre'] + np.random.default_rng(6).normal(size=(50, F)) * 100
    assert np.all((model(x) >= AGES[0]) & (model(x) <= AGES[-1]))
    assert model.beyond(x[0]) == model.features


def test_straight_lines_are_mixed_like_waves(model, tensors):
    names, share = ['a/brain', 'b/brain', 'c/brain', 'd/brain', 'e/brain'], 0.5
    knots = np.tile([-1.0, 1.0], (F, 1))
    lines = {
        'intercept': np.array([50.0]), 'knots': knots, 'values': 3 * knots, 'offset': np.zeros(F),
    }  # fmt: skip
    alone, mixed = volumes_model(names), volumes_model(names, 'posterior')
    alone.load_tensors(lines)
    own = {name: value for name, value in tensors.items() if not name.startswith('waves_')}
    mixed.load_tensors(
        own
        | {'additive_share': np.array([share])}
        | {f'additive_{k}': v for k, v in lines.items()}
    )
    model.tensors['waves_share'] = np.zeros(1)
    x, reference = tensors['centre'] + 0.4 * np.random.default_rng(7).normal(size=(2, F))
    assert mixed(x[None]) == pytest.approx(share * (alone(x[None]) + model(x[None])), abs=EXACT)
    np.testing.assert_allclose(
        mixed.contributions(x, reference),
        share * (3 * (x - reference) + model.contributions(x, reference)),
        atol=EXACT,
    )

    sides = np.sign(x - reference)
    end, far = (mixed((tensors['centre'] + d * sides)[None]) for d in (1.5, 20.0))
    assert far == end, 'three standard deviations away lines are cut off, too'


def test_both_forms_are_made_by_name(model):
    assert isinstance(
        create_model('volumes', features=['a'], form='posterior'), PosteriorRegressor
    )
    assert isinstance(create_model('volumes', features=['a']), VolumesRegressor)
    assert isinstance(create_model('tables', features=['a'], form='posterior'), PosteriorRegressor)
    assert isinstance(create_model('tables', features=['a']), WavesRegressor)
    with pytest.raises(TypeError, match="form 'tree' is none of waves, posterior"):
        tables_model(['a'], form='tree')


@pytest.mark.parametrize(
    ('name', 'value'), [('turn', None), ('usual', np.ones((3, F))), ('prior', np.ones(2))]
)
def test_wrong_tensors_are_refused(model, tensors, name, value):
    given = {k: v for k, v in {**tensors, name: value}.items() if v is not None}
    with pytest.raises(ValueError, match=f"tensor '{name}' of shape"):
        tables_model(model.features, 'posterior').load_tensors(given)
