"""The default's most likely age: centiles where people are few, people where they are many."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bids_brainage.models.posterior import volumes_model

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))
from likely import AGES as TOLD
from likely import Likely
from steady import Centiles

YEARS = np.arange(18.0, 94.0)
SPREAD = 0.1


def course(age):
    """Three shares: one falls, one rises faster and faster, one stays."""
    age = np.asarray(age, float)
    return np.stack([-0.01 * age, 0.0003 * (age - 18) ** 2, 0 * age], axis=1)


def people(age, seed=0):
    return course(age) + np.random.default_rng(seed).normal(0, SPREAD, (len(age), 3))


@pytest.fixture(scope='module')
def noise():
    return np.random.default_rng(1).normal(0, 0.02, (100, 3))


def fitted(noise, age, centiles, **options):
    source = np.where(np.arange(len(age)) % 2, 'a', 'b')
    return Likely(noise, centiles, source, **options).fit(people(age), age)


def test_ages_nobody_was_seen_at_are_told_from_centiles_of_another_scale(noise):
    """People of 20 to 65; centiles that lie higher.  Those of 80 are told within ten years."""
    age = np.linspace(20, 65, 60)
    known = fitted(noise, age, Centiles(YEARS, course(YEARS) + 5.0))
    old = known.predict(people(np.full(200, 80.0), seed=2))
    assert abs(old.mean() - 80) < 10


def test_people_have_their_say_against_wrong_centiles(noise):
    """Centiles that know no ageing: the softer they are held, the closer the ages."""
    age = np.tile(np.linspace(20, 90, 400), 5)
    wrong = Centiles(YEARS, 0 * course(YEARS))
    new = np.linspace(25, 85, 200)
    errors = [
        np.abs(fitted(noise, age, wrong, stiffness=s).predict(people(new, seed=3)) - new).mean()
        for s in (1e6, 1e3, 1.0)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_the_bundle_tells_the_same_ages(noise):
    age = np.linspace(20, 90, 120)
    known = fitted(noise, age, Centiles(YEARS, course(YEARS)))
    model = volumes_model(['a/brain', 'b/brain', 'c/brain'], 'posterior')
    model.load_tensors(known.tensors)
    found = model(people(age, seed=4))
    np.testing.assert_array_equal(found, known.predict(people(age, seed=4)))
    assert np.abs(found - age).mean() < 8
    assert known.tensors['ages'][0] == TOLD[0] == 16


def test_what_sources_add_does_not_count_as_what_people_differ_by(noise):
    """Two sources a long way apart: the spread of people stays what it is within one."""
    age = np.linspace(20, 90, 200)
    source = np.where(np.arange(200) % 2, 'a', 'b')
    apart = people(age) + np.where(source == 'a', 1.0, -1.0)[:, None] * [0, 0, 1]
    centiles = Centiles(YEARS, course(YEARS))
    one, two = (
        Likely(noise, centiles, who).fit(apart, age).tensors
        for who in (source, np.full(200, 'all'))
    )
    # the turn is the inverse root of the covariance: a wide spread turns a share down
    third = [np.linalg.norm(t['turn'][:, 2] / t['scale'][2]) for t in (one, two)]
    assert third[0] > third[1]


def test_rows_of_one_person_count_as_one(noise):
    """Everybody twice: against wrong centiles their word is worth no more than before."""
    age = np.linspace(20, 90, 60)
    name = np.arange(60).astype(str)
    wrong = Centiles(YEARS, 0 * course(YEARS))
    options = {'stiffness': 100.0}
    once = Likely(noise, wrong, np.full(60, 'a'), name, **options).fit(people(age), age)
    twice, ages = np.vstack([people(age)] * 2), np.tile(age, 2)
    as_one = Likely(noise, wrong, np.full(120, 'a'), np.tile(name, 2), **options).fit(twice, ages)
    as_two = Likely(noise, wrong, np.full(120, 'a'), **options).fit(twice, ages)
    for key in ('centre', 'scale'):
        np.testing.assert_allclose(as_one.tensors[key], once.tensors[key])

    def course_told(model):
        usual = np.linalg.solve(model.tensors['turn'], model.tensors['usual'].T).T
        return usual[-1] - usual[0]

    one, same, other = (course_told(m) for m in (once, as_one, as_two))
    assert np.abs(same - one).max() < 0.05 * np.abs(one).max()
    assert np.abs(other - one).max() > 0.1 * np.abs(one).max()
