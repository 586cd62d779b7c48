"""Sorting of sessions and runs into test–retest and longitudinal pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_brainage.statistics.pairing import natural_ranks, pair_scans


def scans(*rows):
    """Build scans from (person, session, run, age, acq_days[, series])."""
    table = pd.DataFrame(
        [r if len(r) == 6 else (*r, 'T1w') for r in rows],
        columns=['person', 'session', 'run', 'age', 'acq_days', 'series'],
    )
    return table.astype({'age': float, 'acq_days': float})


N = np.nan


def test_dates_separate_retest_from_longitudinal():
    pairs = pair_scans(
        scans(
            (0, '1', '', 50.0, 0),
            (0, '2', '', 50.1, 30),
            (0, '3', '', 52.0, 730),
            (0, '4', '', 52.2, 800),
        )
    )
    assert pairs.visits['role'].tolist() == ['longitudinal', 'retest', 'longitudinal', 'retest']
    assert pairs.retest[['first', 'second', 'days']].to_numpy().tolist() == [
        [0, 1, pytest.approx(30)],
        [2, 3, pytest.approx(70)],
    ]
    assert pairs.longitudinal[['first', 'second']].to_numpy().tolist() == [[0, 2]]
    assert pairs.longitudinal['years'][0] == pytest.approx(730 / 365.25)


@pytest.mark.parametrize(('days', 'role'), [(90, 'retest'), (91, 'longitudinal')])
def test_the_limit_is_inclusive(days, role):
    pairs = pair_scans(scans((0, '1', '', 50, 0), (0, '2', '', 50, days)), max_days=90)
    assert pairs.visits['role'].tolist()[1] == role


def test_ages_serve_when_dates_are_missing():
    pairs = pair_scans(scans((0, '2', '', 53.5, N), (0, '1', '', 50.0, 3), (1, '1', '', 60, N)))
    assert pairs.longitudinal['years'].tolist() == [3.5]
    assert pairs.visits['session'].tolist() == ['1', '2', '1']
    assert pairs.visit.tolist() == [1, 0, 2]


def test_equal_or_missing_ages_are_unknown_not_zero():
    for age in (50.0, N):
        pairs = pair_scans(scans((0, '1', '', age, N), (0, '2', '', age, N)))
        assert pairs.visits['role'].tolist() == ['longitudinal', 'unknown']
        assert pairs.retest.empty and pairs.longitudinal.empty


def test_dates_that_contradict_the_ages_are_not_used():
    pairs = pair_scans(scans((0, '1', '', 50, 0), (0, '2', '', 60, 1)))
    assert pairs.longitudinal['years'].tolist() == [10]


def test_equal_dummy_dates_are_unknown():
    pairs = pair_scans(scans((0, '1', '', 50, 7), (0, '2', '', 50, 7)))
    assert pairs.visits['role'].tolist()[1] == 'unknown'


def test_named_sessions_replace_the_limit():
    table = scans(
        (0, 'a', '', 50, N),
        (0, 'b', '', 50, N),
        (0, 'c', '', 52, N),
        (1, 'a', '', 60, 0),
        (1, 'c', '', 60, 20),
    )
    pairs = pair_scans(table, retest_sessions=[('a', 'b')])
    assert pairs.retest[['person', 'session_a', 'session_b']].to_numpy().tolist() == [
        [0, 'a', 'b']
    ]
    assert np.isnan(pairs.retest['days'][0])
    assert pairs.longitudinal['person'].tolist() == [0, 1]


def test_runs_of_a_session_are_retests_of_equal_series_only():
    pairs = pair_scans(
        scans(
            (0, '', '10', 50, N),
            (0, '', '2', 50, N),
            (1, '', '1', 50, N, 'mprage'),
            (1, '', '1', 50, N, 'spgr'),
        )
    )
    assert pairs.retest[['first', 'second', 'kind']].to_numpy().tolist() == [[1, 0, 'runs']]
    assert np.isnan(pairs.retest['days'][0])


def test_sessions_are_compared_in_the_same_series():
    pairs = pair_scans(
        scans(
            (0, '1', '', 50, 0, 'a'),
            (0, '1', '', 50, 0, 'b'),
            (0, '2', '', 50, 9, 'b'),
            (1, '1', '', 50, 0, 'a'),
            (1, '2', '', 50, 9, 'b'),
        )
    )
    assert pairs.retest[['first', 'second']].to_numpy().tolist() == [[1, 2]]


def test_one_session_and_no_scans():
    assert pair_scans(scans((0, '', '', N, N))).retest.empty
    empty = pair_scans(scans((0, '', '', N, N)).iloc[:0])
    assert len(empty.visits) == len(empty.longitudinal) == 0


def test_natural_order():
    assert list(natural_ranks(['ses-10', 'ses-2', 'ses-pre', ''])) == [
        '',
        'ses-2',
        'ses-10',
        'ses-pre',
    ]


@pytest.mark.parametrize('seed', range(5))
def test_order_of_rows_is_irrelevant(seed):
    rng = np.random.default_rng(seed)
    n = 60
    table = scans(
        *{
            (int(p), str(s)): (int(p), str(s), '', 40.0 + s * 0.1, 36.5 * float(s))
            for p, s in rng.integers(0, 12, (n, 2))
        }.values()
    )
    mixed = table.sample(frac=1, random_state=seed).reset_index(drop=True)

    def view(t):
        pairs = pair_scans(t)
        first, second = t.loc[pairs.retest['first']], t.loc[pairs.retest['second']]
        return sorted(
            zip(first['person'], first['session'], second['session'], strict=True)
        ), sorted(
            zip(pairs.longitudinal['person'], pairs.longitudinal['years'].round(9), strict=True)
        )

    assert view(table) == view(mixed)
