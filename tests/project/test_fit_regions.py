"""Who the default learns from when somebody is left out."""

import numpy as np
import pytest
from fit_regions import People, folds_of, left_out

N = 40


class Remembers:
    """Tells the age of the known row that is nearest: right for whoever was learnt from."""

    def fit(self, features, age):
        self.features, self.age = features, age
        return self

    def predict(self, features):
        away = np.abs(features[:, None] - self.features).sum(axis=2)
        return self.age[away.argmin(axis=1)]


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    source = np.where(np.arange(N) % 4, 'here', 'there')
    names = np.array([f'p{k}' for k in range(N)])
    return People(rng.random((N, 3)), np.linspace(20, 80, N), source, names)


def corrected(people):
    return People(people.features + 1e-6, people.age, people.source, people.family)


@pytest.mark.parametrize('view', ['people', 'sources'])
def test_nobody_is_told_by_their_own_corrected_image(people, view):
    groups = folds_of(people) if view == 'people' else people.source
    seen = []

    def make(known, learnt):
        seen.append(learnt)
        return Remembers()

    found = left_out(make, people, corrected(people), groups)
    assert np.abs(found - people.age).min() > 1
    for group, learnt in zip(np.unique(groups), seen, strict=True):
        others = set(people.family[groups != group])
        assert set(learnt.family) == others and len(learnt.age) == 2 * len(others)


def test_one_person_has_one_name_in_both_images(people):
    both = people.and_also(corrected(people))
    assert len(np.unique(both.person)) == N
    old = People(people.features, people.age + 10, people.source, people.family)
    assert len(np.unique(people.and_also(old).person)) == 2 * N
