"""Accuracy by fold and role."""

import pytest

from bids_brainage.training.fold_table import COLUMNS, fold_table

MAES = (3.50, 3.61, 3.66, 3.72, 3.81)
"""Of the specification: mean 3.66, limits 3.515465 and 3.804535."""


def rows_of(fold, role, error, people=4, scans=1):
    return [
        {
            'fold': str(fold), 'role': role, 'participant_id': f'{role}{fold}-{k}',
            'source': f'{k}-{scan}', 'age': 20.0 + 10 * k,
            'predicted_age': 20.0 + 10 * k + error * (-1) ** k,
        }
        for k in range(people)
        for scan in range(scans)
    ]  # fmt: skip


@pytest.fixture
def table():
    predictions = []
    for fold, error in enumerate(MAES, start=1):
        predictions += rows_of(fold, 'test', error) + rows_of(fold, 'training', 1.0, people=6)
    predictions += rows_of(1, 'validation', 2.0, scans=3)
    return fold_table(predictions)


def chosen(table, role, fold):
    (row,) = [r for r in table if (r['role'], r['fold']) == (role, fold)]
    return row


def test_mean_and_limits_of_the_specification(table):
    assert chosen(table, 'test', 'mean')['mae'] == pytest.approx(3.66)
    assert chosen(table, 'test', 'low')['mae'] == pytest.approx(3.515465, abs=1e-6)
    assert chosen(table, 'test', 'high')['mae'] == pytest.approx(3.804535, abs=1e-6)
    assert chosen(table, 'test', 'sd')['mae'] == pytest.approx(0.104115, abs=1e-6)  # over 5


def test_each_fold_has_its_own_error_and_people(table):
    assert [chosen(table, 'test', fold)['mae'] for fold in range(1, 6)] == pytest.approx(MAES)
    assert chosen(table, 'training', 3)['n'] == 6
    assert chosen(table, 'training', 'mean')['n'] == 30
    assert all(set(row) == set(COLUMNS) for row in table)


def test_one_fold_has_no_mean_and_a_person_counts_once(table):
    assert [r['fold'] for r in table if r['role'] == 'validation'] == [1]
    assert chosen(table, 'validation', 1)['n'] == 4
