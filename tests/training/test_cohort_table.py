"""The table of cohorts counts people, and judges each once."""

import pytest

from bids_brainage.training.cohort_table import COLUMNS, cohort_table


def row(cohort, person, role, age, predicted, sex='F', fold=1):
    source = f'bids:raw:{person}-{age}'
    return {
        'cohort': cohort, 'participant_id': person, 'role': role, 'age': age, 'sex': sex,
        'predicted_age': predicted, 'fold': fold, 'source': source,
    }  # fmt: skip


ROWS = [
    row('a', 'sub-1', 'test', 40.0, 44.0),
    row('a', 'sub-1', 'test', 42.0, 44.0),  # a second visit
    row('a', 'sub-2', 'test', 61.0, 60.0, 'M'),
    row('a', 'sub-3', 'training', 30.0, 30.0, None),
    row('b', 'sub-4', 'unseen', 70.0, 60.0),
    row('b', 'sub-4', 'unseen', 70.0, 64.0, fold=2),
    row('b', 'sub-5', 'unseen', 20.0, 22.0),
]


def test_each_cohort_and_role_has_a_row_after_those_of_all():
    found = {(r['cohort'], r['role']): r for r in cohort_table(ROWS)}
    assert list(found) == [
        ('all', 'training'), ('all', 'test'), ('all', 'unseen'),
        ('a', 'training'), ('a', 'test'), ('b', 'unseen'),
    ]  # fmt: skip
    assert all(tuple(r) == COLUMNS for r in found.values())
    test = found['a', 'test']
    assert (test['people'], test['scans'], test['age_min'], test['age_max']) == (2, 3, 40, 61)
    assert test['female_share'] == 0.5 and test['age_mean'] == 50.5
    assert test['mae'] == pytest.approx((3 + 1) / 2) and test['me'] == pytest.approx(1)
    unseen = found['b', 'unseen']
    assert unseen['mae'] == pytest.approx((8 + 2) / 2) and unseen['people'] == 2


def test_one_cohort_has_no_row_of_all_and_one_person_no_spread():
    (only,) = cohort_table(ROWS[3:4])
    assert only['cohort'] == 'a' and only['age_sd'] is None and only['female_share'] is None
