"""Which pairs of scans are test–retest, and which are longitudinal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

DAYS_PER_YEAR = 365.25

CLOCKS_AGREE_YEARS = 1.5
"""Largest difference of dates and (possibly whole-year) ages that counts as agreement."""

UNKNOWN_INTERVAL = (
    'time since the earlier session unknown: no acq_time, and the age is the same or missing; '
    'state test-retest sessions with --retest-sessions'
)


@dataclass(frozen=True)
class Pairs:
    """Scans of one model, sorted into visits and pairs.

    Attributes
    ----------
    visits : DataFrame
        One row per person and session in order of person and time: ``person``, ``session``,
        ``age`` (years), ``years`` (the person's clock; NaN if unknown), ``role``
        (``longitudinal``, ``retest``: within the limit after the visit before, ``unknown``)
        and ``anchor`` (row of the visit that a retest repeats, else -1).
    visit : (n_scans,) int array
        Row of `visits` for each scan.
    retest : DataFrame
        One row per pair: ``person``, ``first``, ``second`` (scan positions in order of time),
        ``days`` (NaN if unknown), ``kind`` (``sessions`` or ``runs``), ``session_a``,
        ``session_b``.
    longitudinal : DataFrame
        Consecutive pairs: ``person``, ``first``, ``second`` (rows of `visits`), ``years``.
    """

    visits: pd.DataFrame
    visit: NDArray[np.intp]
    retest: pd.DataFrame
    longitudinal: pd.DataFrame


def pair_scans(
    scans: pd.DataFrame,
    max_days: float = 90,
    retest_sessions: Sequence[tuple[str, str]] = (),
) -> Pairs:
    """Find the pairs of scans of one model.

    Runs of one session with otherwise equal names are test–retest.  Sessions are test–retest
    when they are at most `max_days` after the first of their cluster, or, if
    `retest_sessions` is given, only when named there.  All others are longitudinal.  The
    interval comes from ``acq_days`` when all sessions of the person have it and it does not
    contradict the ages, else from ages; equal ages are no interval of zero but an unknown one.

    Parameters
    ----------
    scans : DataFrame
        Columns ``person`` (int), ``session`` (str, empty if none), ``series`` (hashable: the
        name without session and run), ``run`` (str), ``age`` (years), ``acq_days`` (days).
    max_days : float
        Limit between test–retest and longitudinal.
    retest_sessions : sequence of (str, str)
        Session labels as in ``session``, earlier first.
    """
    visits, visit = _visits(scans)
    if retest_sessions:
        visits = _named_roles(visits, retest_sessions)
    else:
        visits = _timed_roles(visits, max_days / DAYS_PER_YEAR)
    return Pairs(visits, visit, _retest(scans, visits, visit), _longitudinal(visits))


def natural_ranks(labels: Sequence[str]) -> dict[str, int]:
    """Rank labels so that ``ses-2`` comes before ``ses-10``.

    Examples
    --------
    >>> natural_ranks(['10', '2'])
    {'2': 0, '10': 1}
    """

    def key(label: str) -> list[tuple[int, int, str]]:
        parts = re.findall(r'\d+|\D+', label)
        return [(0, int(x), '') if x.isdecimal() else (1, 0, x) for x in parts]

    return {label: rank for rank, label in enumerate(sorted(set(labels), key=key))}


def _visits(scans: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Collect visits in order of person and time, and the visit of each scan."""
    ranks = natural_ranks(scans['session'].unique().tolist())
    rank = scans['session'].map(ranks).to_numpy(np.int64)
    key = scans['person'].to_numpy(np.int64) * max(len(ranks), 1) + rank
    grouped = scans.assign(key=key, rank=rank).groupby('key', sort=True)
    visits = grouped.agg(
        person=('person', 'first'),
        session=('session', 'first'),
        rank=('rank', 'first'),
        age=('age', 'mean'),
        acq_days=('acq_days', 'min'),
    )
    visits['years'] = _clock(visits)
    visits = visits.sort_values(['person', 'years', 'rank'], kind='stable', na_position='last')
    position = visits.index.get_indexer(key)
    return visits.drop(columns='rank').reset_index(drop=True), position


def _clock(visits: pd.DataFrame) -> NDArray[np.float64]:
    """Return the time of each visit on its person's clock, years; NaN where unknown."""
    by = visits.groupby('person')
    dates, ages = by['acq_days'], by['age']
    all_dated = dates.transform('count') == by['person'].transform('size')
    date_span = (dates.transform('max') - dates.transform('min')) / DAYS_PER_YEAR
    age_span = (ages.transform('max') - ages.transform('min')).fillna(0)
    agree = (age_span == 0) | ((date_span - age_span).abs() <= CLOCKS_AGREE_YEARS)
    by_date = all_dated & (date_span > 0) & agree
    from_dates = (visits['acq_days'] - dates.transform('min')) / DAYS_PER_YEAR
    from_ages = visits['age'].where(age_span > 0)
    return np.where(by_date, from_dates, from_ages).astype(np.float64)


def _timed_roles(visits: pd.DataFrame, limit: float) -> pd.DataFrame:
    """Call a visit a retest when it follows its anchor within `limit` years.

    Goes through the visits of all persons at once, one visit number after the other.
    """
    person = visits['person'].to_numpy()
    years = visits['years'].to_numpy(np.float64)
    number = visits.groupby('person').cumcount().to_numpy()
    role = np.full(person.size, 'longitudinal', dtype=object)
    anchor = np.full(person.size, -1, dtype=np.int64)
    current = np.flatnonzero(number == 0)
    owner = np.searchsorted(person[current], person)
    for k in range(1, int(number.max(initial=0)) + 1):
        rows = np.flatnonzero(number == k)
        before = current[owner[rows]]
        gap = years[rows] - years[before]
        unknown = ~(gap > 0)
        retest = ~unknown & (gap <= limit)
        role[rows[unknown]] = 'unknown'
        role[rows[retest]] = 'retest'
        anchor[rows[retest]] = before[retest]
        moved = ~unknown & ~retest
        current[owner[rows[moved]]] = rows[moved]
    return visits.assign(role=role, anchor=anchor)


def _named_roles(visits: pd.DataFrame, named: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Call the second session of each named pair a retest of the first."""
    role = np.full(len(visits), 'longitudinal', dtype=object)
    anchor = np.full(len(visits), -1, dtype=np.int64)
    rows = visits.reset_index(names='row')[['row', 'person', 'session']]
    for a, b in named:
        both = rows[rows['session'] == a].merge(
            rows[rows['session'] == b], on='person', suffixes=('_a', '_b')
        )
        role[both['row_b'].to_numpy()] = 'retest'
        anchor[both['row_b'].to_numpy()] = both['row_a'].to_numpy()
    several = visits.groupby('person')['person'].transform('size').to_numpy() > 1
    first = ~visits.duplicated('person').to_numpy()
    lost = several & ~first & (role == 'longitudinal') & visits['years'].isna().to_numpy()
    role[lost] = 'unknown'
    return visits.assign(role=role, anchor=anchor)


def _retest(scans: pd.DataFrame, visits: pd.DataFrame, visit: NDArray[np.intp]) -> pd.DataFrame:
    """Match scans of equal series between retest visits, and runs within visits."""
    import pandas as pd

    ranks = natural_ranks(scans['run'].unique().tolist())
    table = pd.DataFrame(
        {
            'scan': np.arange(len(scans)),
            'visit': visit,
            'series': scans['series'].to_numpy(),
            'acq_days': scans['acq_days'].to_numpy(np.float64),
            'run': scans['run'].map(ranks).to_numpy(np.int64),
        }
    ).sort_values(['visit', 'series', 'acq_days', 'run', 'scan'], kind='stable')
    number = table.groupby(['visit', 'series']).cumcount()
    first, second = table[number == 0], table[number == 1]
    runs = first.merge(second, on=['visit', 'series'], suffixes=('_a', '_b'))
    runs = runs.assign(visit_a=runs['visit'], visit_b=runs['visit'], kind='runs')
    repeated = np.flatnonzero(visits['anchor'].to_numpy() >= 0)
    links = pd.DataFrame({'visit_a': visits['anchor'].to_numpy()[repeated], 'visit_b': repeated})
    slim = first[['scan', 'visit', 'series', 'acq_days']]
    sessions = links.merge(slim.rename(columns={'visit': 'visit_a'}), on='visit_a').merge(
        slim.rename(columns={'visit': 'visit_b'}), on=['visit_b', 'series'], suffixes=('_a', '_b')
    )
    sessions = sessions.drop_duplicates(['visit_a', 'visit_b']).assign(kind='sessions')
    columns = ['visit_a', 'visit_b', 'scan_a', 'scan_b', 'acq_days_a', 'acq_days_b', 'kind']
    pairs = pd.concat([sessions[columns], runs[columns]], ignore_index=True)
    a, b = pairs['visit_a'].to_numpy(np.int64), pairs['visit_b'].to_numpy(np.int64)
    years = visits['years'].to_numpy(np.float64)
    days = np.where(
        a == b, pairs['acq_days_b'] - pairs['acq_days_a'], (years[b] - years[a]) * DAYS_PER_YEAR
    )
    session = visits['session'].to_numpy(object)
    return pd.DataFrame(
        {
            'person': visits['person'].to_numpy()[a],
            'first': pairs['scan_a'].to_numpy(np.int64),
            'second': pairs['scan_b'].to_numpy(np.int64),
            'days': np.where((a != b) & ~(days > 0), np.nan, days),
            'kind': pairs['kind'].to_numpy(object),
            'session_a': session[a],
            'session_b': session[b],
        }
    )


def _longitudinal(visits: pd.DataFrame) -> pd.DataFrame:
    """Pair each longitudinal visit with the next one of the same person."""
    import pandas as pd

    rows = np.flatnonzero((visits['role'] == 'longitudinal').to_numpy())
    person = visits['person'].to_numpy()[rows]
    years = visits['years'].to_numpy(np.float64)
    same = person[1:] == person[:-1]
    first, second = rows[:-1][same], rows[1:][same]
    return pd.DataFrame(
        {
            'person': person[:-1][same],
            'first': first,
            'second': second,
            'years': years[second] - years[first],
        }
    )
