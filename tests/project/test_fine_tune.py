"""Who learns, who chooses the epoch and who is left out when packaged networks go on."""

import numpy as np
import pandas as pd
import pytest
from fine_tune import EVERYBODY, assignments_of, groups_of
from fit_regions import People

N = 60


@pytest.fixture
def study():
    """Sixty people of four sources, the first two of whom look alike."""
    rng = np.random.default_rng(0)
    names = [f'sub-{k:02}' for k in range(N)]
    source = np.array(['a'] * 40 + ['b'] * 12 + ['c'] * 5 + ['d'] * 3)
    family = np.array(['sub-00', 'sub-00', *names[2:]])
    people = People(np.zeros((N, 1)), rng.uniform(20, 80, N), source, family)
    table = pd.DataFrame({'scan': names, 'participant_id': names, 'sex': 'F'})
    return table, people


def roles(study, view):
    table, people = study
    found = {}
    for one in assignments_of(table, people, groups_of(people, view)):
        found.setdefault(one.fold, {}).setdefault(one.role, set()).add(one.item.source)
    return found


@pytest.mark.parametrize('view', ['people', 'sources'])
def test_everybody_is_left_out_once(study, view):
    folds = roles(study, view)
    left_out = [source for parts in folds.values() for source in parts['test']]
    assert sorted(left_out) == study[0]['scan'].tolist()
    for parts in folds.values():
        assert sum(map(len, parts.values())) == N
        assert len(parts['validation']) == pytest.approx((N - len(parts['test'])) / 10, abs=1)
        alike = [role for role, sources in parts.items() if {'sub-00', 'sub-01'} & sources]
        assert len(alike) == 1


def test_sources_of_few_people_are_left_out_together(study):
    people = study[1]
    assert set(groups_of(people, 'sources')[people.source == 'd']) == {4}
    assert len(roles(study, 'sources')) == 4
    assert len(roles(study, 'people')) == 5


def test_the_network_of_everybody_leaves_nobody_out(study):
    (parts,) = roles(study, EVERYBODY).values()
    assert set(parts) == {'training', 'validation'}
    assert sum(map(len, parts.values())) == N
