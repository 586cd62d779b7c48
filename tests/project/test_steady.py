"""The lines of the default heed what is measured badly, and know the old from centiles."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bids_brainage.models.volumes import VolumesRegressor

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))
from steady import Centiles, Steady

AGES = np.linspace(20, 75, 160)
AGEING = np.array([0.01, 0.01, -0.005])
"""Change of three features a year."""


@pytest.fixture(scope='module')
def people():
    """Features of 160 people, the first two equally good at telling the age."""
    rng = np.random.default_rng(0)
    return np.outer(AGES, AGEING) + rng.normal(0, [0.1, 0.1, 0.2], (160, 3))


@pytest.fixture(scope='module')
def noise():
    """The second feature is measured badly."""
    return np.random.default_rng(1).normal(0, [0.02, 0.2, 0.02], (100, 3))


def test_what_is_measured_badly_counts_less():
    """Sixty people, thirty features that are equally good; half of them are measured badly."""
    rng = np.random.default_rng(2)
    age = np.linspace(20, 75, 60)
    features = 0.01 * age[:, None] + rng.normal(0, 0.15, (60, 30))
    badly = np.arange(30) < 15
    noise = rng.normal(0, np.where(badly, 0.2, 0.02), (100, 30))
    plain = Steady(0.02 * np.eye(30), None).fit(features, age).slopes
    heeded = Steady(noise, None).fit(features, age).slopes
    assert plain[badly].mean() == pytest.approx(plain[~badly].mean(), rel=0.4)
    assert heeded[badly].mean() < 0.6 * heeded[~badly].mean()
    assert abs(noise @ heeded).mean() < 0.7 * abs(noise @ plain).mean()


def test_rows_that_were_not_measured_twice_are_passed_over(people, noise):
    gaps = np.vstack([noise, [np.nan, 0, 0]])
    assert np.array_equal(
        Steady(gaps, None).fit(people, AGES).slopes, Steady(noise, None).fit(people, AGES).slopes
    )


def test_centiles_reach_beyond_the_people(people, noise):
    """Ageing is three times as fast from 75 on, as the centiles know on another scale."""
    years = np.arange(40.0, 94.0)
    fast = np.outer(years + 2 * np.maximum(years - 75, 0), AGEING)
    centiles = Centiles(years, fast + 3.0)
    old = np.outer([90.0 + 2 * 15], AGEING)
    alone = Steady(noise, None).fit(people, AGES).predict(old)[0]
    with_them = Steady(noise, centiles).fit(people, AGES).predict(old)[0]
    assert alone > 105 and abs(with_them - 90) < 0.7 * abs(alone - 90)


def test_the_bundle_tells_the_same_ages_and_goes_on_beyond(people, noise):
    fitted = Steady(noise, None).fit(people, AGES)
    model = VolumesRegressor(['a/brain', 'b/brain', 'c/brain'])
    model.load_tensors(fitted.tensors())
    far = np.outer([10.0, 50.0, 120.0], AGEING)
    np.testing.assert_allclose(model(far), fitted.predict(far), atol=1e-9)
    assert model.beyond(far[1]) == () and 'a/brain' in model.beyond(far[2])


def test_a_person_measured_twice_counts_once():
    """The same rows again under the same names change little; as other people they are learnt by
    heart, since each is judged by a copy of itself."""
    rng = np.random.default_rng(4)
    age = np.linspace(20, 75, 60)
    features = 0.01 * age[:, None] + rng.normal(0, 0.3, (60, 30))
    gaps, name = rng.normal(0, 0.02, (60, 30)), np.arange(60).astype(str)
    twice, ages = np.vstack([features, features]), np.tile(age, 2)
    once = Steady(gaps, None, name).fit(features, age)
    as_one = Steady(gaps, None, np.tile(name, 2)).fit(twice, ages)
    as_two = Steady(gaps, None).fit(twice, ages)
    np.testing.assert_allclose(as_one.slopes, once.slopes, rtol=0.25, atol=0.2)
    assert as_two.penalty < 0.5 * as_one.penalty


def test_what_was_done_to_an_image_moves_ages_less_if_it_was_seen(people, noise):
    """The first of two equally good features is another one in images that were corrected."""
    name = np.arange(len(AGES)).astype(str)
    corrected = people + np.random.default_rng(3).normal(0, [0.3, 0, 0], people.shape)
    alone = Steady(noise, None, name).fit(people, AGES)
    both = Steady(noise, None, np.tile(name, 2)).fit(
        np.vstack([people, corrected]), np.tile(AGES, 2)
    )
    moved = [np.abs(m.predict(corrected) - m.predict(people)).mean() for m in (alone, both)]
    assert moved[1] < 0.6 * moved[0]
