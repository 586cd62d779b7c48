"""The additive estimator: what it recovers, and what follows from its contributions."""

import numpy as np
import pytest

from bids_brainage.models.volumes import VolumesRegressor
from bids_brainage.training.additive import (
    balanced_weights,
    choose_penalties,
    contributions,
    feature_distribution,
    fit_additive,
    reference_curves,
)

N_FEATURES = 20


def cohort(n, seed=0, noise=0.05):
    """Correlated log ratios: the first bends with age, the next four fall, the others do not."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(18, 90, n)
    t = (age - 18) / 72
    law = np.zeros((n, N_FEATURES))
    law[:, 0], law[:, 1:5] = t**2, -0.2 * t[:, None]
    common = rng.normal(0, noise, (n, 1))
    return law + common + rng.normal(0, noise, (n, N_FEATURES)) - 4, age


@pytest.mark.parametrize(('n', 'most'), [(100, 6.0), (1000, 4.5)])
def test_new_people_are_predicted_although_features_are_many_and_correlated(n, most):
    """Mean absolute error of 1,000 new people, years; always saying the median gives 18."""
    features, age = cohort(n)
    model = VolumesRegressor([f'f{k}' for k in range(N_FEATURES)])
    model.load_tensors(fit_additive(features, age))
    new, true = cohort(1000, seed=1)
    predicted = model(new)
    assert np.abs(predicted - true).mean() < most
    assert np.corrcoef(predicted, true)[0, 1] > 0.95
    np.testing.assert_allclose(
        predicted,
        model.tensors['intercept'] + contributions(model.tensors, new).sum(axis=1),
        rtol=1e-12,
    )


def test_contributions_less_the_reference_average_zero_at_every_age():
    """Decade means of 1,000 people, within 1 year for each feature."""
    features, age = cohort(1000)
    tensors = fit_additive(features, age, penalties=(0.01, 0.1))
    curves = reference_curves(tensors, features, age)
    usual = np.stack([np.interp(age, curves['age'], c) for c in curves['contributions']], axis=1)
    assert len(curves['contributions']) == N_FEATURES and (np.diff(curves['age']) > 4).all()
    unusual = contributions(tensors, features) - usual
    for low in range(20, 90, 10):
        part = (age >= low) & (age < low + 10)
        assert np.abs(unusual[part].mean(axis=0)).max() < 1


def test_the_order_of_people_changes_nothing():
    features, age = cohort(80)
    order = np.random.default_rng(0).permutation(80)
    chosen = [choose_penalties(features[rows], age[rows]) for rows in (np.arange(80), order)]
    assert chosen[0] == chosen[1]
    tensors, again = (
        fit_additive(features[rows], age[rows], penalties=chosen[0])
        for rows in (np.arange(80), order)
    )
    for name, values in tensors.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-6, atol=1e-6)


def test_the_scans_of_a_person_weigh_as_much_as_one():
    people = ['a', 'a', 'a', 'b', 'c']
    weights = balanced_weights(np.array([31.0, 32.0, 33.0, 35.0, 58.0]), people)
    assert weights[:3].sum() == pytest.approx(weights[3])
    assert weights[4] == pytest.approx(2 * weights[3])


def test_decades_weigh_the_same_up_to_the_cap():
    age = np.r_[np.full(80, 25.0), np.full(19, 55.0), 85.0]
    weights = balanced_weights(age, cap=1e9)
    sums = [weights[age == a].sum() for a in (25, 55, 85)]
    np.testing.assert_allclose(sums, np.mean(sums))
    capped = balanced_weights(age, cap=5.0)
    assert weights.mean() == pytest.approx(1) and capped.mean() == pytest.approx(1)
    assert capped[-1] / capped[0] == pytest.approx(5 / (100 / 3 / 80))


@pytest.mark.parametrize('n', [15, 2000])
def test_the_distribution_of_features_tells_the_unusual_even_from_few_people(n):
    features, _ = cohort(n)
    found = feature_distribution(features)
    precision = np.array(found['precision'])
    assert np.linalg.eigvalsh(precision).min() > 0
    away = cohort(500, seed=3)[0] - np.array(found['mean'])
    distance = np.einsum('ni,ij,nj->n', away, precision, away)
    strange = away[0] + 1.0
    assert strange @ precision @ strange > np.quantile(distance, 0.99)
    if n > 100:  # expectation of chi² is its degrees of freedom
        assert distance.mean() == pytest.approx(N_FEATURES, rel=0.1)


def test_what_cannot_be_fitted_is_refused():
    features, age = cohort(40)
    with pytest.raises(ValueError, match='29 people are too few'):
        fit_additive(features[:29], age[:29])
    with pytest.raises(ValueError, match='20 people are too few'):
        fit_additive(features, age, people=[k // 2 for k in range(40)])
    features[:, 3] = 1.0
    with pytest.raises(ValueError, match='feature 3 is the same'):
        fit_additive(features, age)
    features[0, 3] = np.nan
    with pytest.raises(ValueError, match='finite'):
        fit_additive(features, age)
