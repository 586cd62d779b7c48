"""Splits keep people whole and groups alike, and survive the way through a table."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bids_brainage.training.recipe import SplitRecipe
from bids_brainage.training.split_table import read_split, split_problems, write_split
from bids_brainage.training.splits import (
    LONGITUDINAL,
    RETEST,
    TEST,
    TRAINING,
    VALIDATION,
    Assignment,
    Item,
    decile_edges,
    divergence,
    make_split,
    repeated_people,
)


def cohort(n=200, seed=0, scans=1):
    rng = np.random.default_rng(seed)
    items = []
    for k in range(n):
        age, sex, site = float(rng.uniform(6, 94)), 'FM'[rng.integers(2)], f's{rng.integers(2)}'
        items += [Item(f'bids:raw:{k}-{s}', f'{k}', None, age, sex, site) for s in range(scans)]
    return items


def roles_by_person(assignments, fold=1):
    roles = {}
    for a in assignments:
        if a.fold == fold:
            roles.setdefault(a.item.participant, set()).add(a.role)
    return roles


@pytest.mark.parametrize('method', ['random', 'kl', 'folds'])
@pytest.mark.parametrize('selection', ['halves', 'nested', 'fold_val'])
def test_nobody_stands_in_two_roles(method, selection):
    recipe = SplitRecipe(method=method, selection=selection)
    assignments = make_split(cohort(scans=3), recipe, 1)
    assert split_problems(assignments) == []
    for fold in {a.fold for a in assignments}:
        assert all(len(roles) == 1 for roles in roles_by_person(assignments, fold).values())


def test_random_shares_are_met_and_ages_alike():
    assignments = make_split(cohort(400), SplitRecipe(), 3)
    counts = Counter(a.role for a in assignments)
    assert counts == {TRAINING: 280, VALIDATION: 60, TEST: 60}
    ages = {role: [a.item.age for a in assignments if a.role == role] for role in counts}
    deciles = {
        role: np.histogram(values, np.arange(0, 101, 10))[0] / len(values)
        for role, values in ages.items()
    }
    # One person of 60 is 0.017; each decade is met within two people.
    assert np.abs(deciles[TRAINING] - deciles[TEST]).max() < 0.05
    females = {r: np.mean([a.item.sex == 'F' for a in assignments if a.role == r]) for r in counts}
    assert abs(females[TRAINING] - females[TEST]) < 0.1


def test_same_seed_same_split():
    first, again, other = (make_split(cohort(), SplitRecipe(), seed) for seed in (5, 5, 6))
    assert first == again != other


def test_kl_chooses_the_two_partitions_most_like_the_whole():
    items = cohort(200)
    assignments = make_split(items, SplitRecipe(method='kl'), 0)
    counts = Counter(a.role for a in assignments)
    assert counts == {TRAINING: 160, VALIDATION: 20, TEST: 20}
    edges = decile_edges([item.age for item in items])

    def strata(role):
        chosen = [a.item for a in assignments if role in (a.role, None)]
        return Counter(
            (int(np.searchsorted(edges[1:-1], x.age, side='right')), x.cohort) for x in chosen
        )

    whole = strata(None)
    test, validation = (divergence(strata(r), whole) for r in (TEST, VALIDATION))
    rng = np.random.default_rng(0)
    chance = []
    for _ in range(50):
        drawn = rng.choice(len(items), 20, replace=False)
        part = Counter(
            (int(np.searchsorted(edges[1:-1], items[k].age, side='right')), items[k].cohort)
            for k in drawn
        )
        chance.append(divergence(part, whole))
    assert test <= validation < np.mean(chance)


def test_divergence_of_the_specification():
    value = divergence({'a': 0.4, 'b': 0.4, 'c': 0.2}, {'a': 0.5, 'b': 0.3, 'c': 0.2})
    assert value == pytest.approx(0.025815408, abs=1e-9)


def test_decile_edges_merge_duplicates():
    assert decile_edges([1, 1, 1, 1, 1, 1, 1, 1, 1, 2]) == pytest.approx([1, 1.1, 2])


def test_each_person_tests_once_over_the_folds():
    recipe = SplitRecipe(method='folds', folds=5, selection='nested')
    assignments = make_split(cohort(100), recipe, 0)
    tested = Counter(a.item.participant for a in assignments if a.role == TEST)
    assert len(tested) == 100 and set(tested.values()) == {1}
    first = Counter(a.role for a in assignments if a.fold == 1)
    assert first == {TRAINING: 72, VALIDATION: 8, TEST: 20}


def test_halves_divide_the_held_out_fifth():
    assignments = make_split(cohort(100), SplitRecipe(method='folds', selection='halves'), 0)
    for fold in range(1, 6):
        counts = Counter(a.role for a in assignments if a.fold == fold)
        assert counts == {TRAINING: 80, VALIDATION: 10, TEST: 10}


def test_people_with_sessions_are_kept_out():
    items = cohort(60)
    items += [
        Item('bids:raw:a1', 'a', '1', 30.0), Item('bids:raw:a2', 'a', '2', 33.0),
        Item('bids:raw:b1', 'b', '1', 40.0), Item('bids:raw:b2', 'b', '2', 40.1),
    ]  # fmt: skip
    assert repeated_people(items, 90) == {'a': LONGITUDINAL, 'b': RETEST}
    # three years apart with the same whole age: dates tell, and without them nothing does
    same = [Item(f'bids:raw:c{s}', 'c', s, 50.0) for s in '12']
    assert repeated_people(same, 90) == {}
    dated = [replace(one, acq_days=day) for one, day in zip(same, (0.0, 1100.0), strict=True)]
    assert repeated_people(dated, 90) == {'c': LONGITUDINAL}
    near = [replace(one, acq_days=day) for one, day in zip(same, (0.0, 20.0), strict=True)]
    assert repeated_people(near, 90) == {'c': RETEST}
    assignments = make_split(items, SplitRecipe(reserve_repeated=True), 0)
    roles = roles_by_person(assignments)
    assert roles['a'] == {LONGITUDINAL} and roles['b'] == {RETEST}
    free = roles_by_person(make_split(items, SplitRecipe(), 0))
    assert len(free['a']) == 1 and free['a'] <= {TRAINING, VALIDATION, TEST}


def test_split_by_scan_may_tear_people():
    assignments = make_split(cohort(60, scans=4), SplitRecipe(unit='scan'), 0)
    assert any(len(roles) > 1 for roles in roles_by_person(assignments).values())
    assert any('several roles' in problem for problem in split_problems(assignments))
    assert split_problems(assignments, by_scan=True) == []


def test_table_comes_back(tmp_path):
    items = cohort(60)
    assignments = make_split(items, SplitRecipe(method='folds', folds=3), 0)
    path = tmp_path / 'split.tsv'
    write_split(path, assignments, [(Item('bids:raw:x', 'x', None, 20.0), 'no image')])
    problems = []
    back = read_split(path, items, problems)
    assert problems == []
    assert {(a.item, a.fold, a.role) for a in back} == {
        (a.item, a.fold, a.role) for a in assignments
    }


def test_table_problems_are_told_together(tmp_path):
    items = cohort(40)
    assignments = [Assignment(item, 1, TRAINING) for item in items[:30]]
    assignments += [Assignment(Item('bids:raw:gone', 'gone', None, 1.0), 1, TEST)]
    write_split(tmp_path / 's.tsv', assignments)
    text = (tmp_path / 's.tsv').read_text().replace('training', 'pupil', 1)
    (tmp_path / 's.tsv').write_text(text)
    problems = []
    read_split(tmp_path / 's.tsv', items, problems)
    assert any('unknown roles pupil' in p for p in problems)
    assert any('bids:raw:gone' in p for p in problems)


def test_leaks_and_small_groups_are_found():
    items = cohort(20, scans=2)
    torn = [Assignment(item, 1, TRAINING if k % 2 else TEST) for k, item in enumerate(items)]
    problems = split_problems(torn)
    assert any('20 people stand in several roles' in p for p in problems)
    assert any('0 people for validation' in p for p in problems)
