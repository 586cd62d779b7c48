"""The points behind the figures of the group page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bids_brainage.statistics.bias import regress
from bids_brainage.statistics.nested import FitRefusedError
from bids_brainage.statistics.pairing import Pairs

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.statistics.tables.options import GroupOptions


BAND_POINTS = 25
"""Ages at which the confidence band of a line is drawn."""


def plot_data(
    models: Mapping[str, tuple[pd.DataFrame, Pairs]], options: GroupOptions
) -> dict[str, pd.DataFrame]:
    """Collect what the figures show.

    Parameters
    ----------
    models : mapping of str to (DataFrame, Pairs)
        Rows and pairs of each model.
    options : GroupOptions
        With `group_column`, `reference_group` and `correlate`.

    Returns
    -------
    dict of str to DataFrame
        ``people``: first image with an age of each person (``age``, ``predicted``,
        ``corrected``, ``group``, ``reference``). ``retest``: one pair per person (``mean``,
        ``difference`` first minus second). ``visits``: sessions of people with several
        (``age``, ``predicted``), in order of time. ``correlates``: ``column``, ``value`` and
        ``gap`` of each person, corrected for age bias where there is a correction. ``lines``:
        regressions with their 95 % limits (``line``: the reference group or the correlated
        column; ``x``, ``y``, ``low``, ``high``).  All with ``model``, and of people with
        ``participant_id``; years.
    """
    import pandas as pd

    parts: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ('people', 'retest', 'visits', 'correlates', 'lines')
    }
    for model, (one, pairs) in models.items():
        people = _people(one[one['baseline'].to_numpy(bool)], options)
        correlates = _correlates(one[one['baseline'].to_numpy(bool)], options)
        parts['people'].append(people.assign(model=model))
        parts['retest'].append(_retest(one, pairs).assign(model=model))
        parts['visits'].append(_visits(one, pairs).assign(model=model))
        parts['correlates'].append(correlates.assign(model=model))
        parts['lines'].append(_lines(people, correlates, options).assign(model=model))
    return {k: pd.concat(v, ignore_index=True) if v else pd.DataFrame() for k, v in parts.items()}


def _people(people: pd.DataFrame, options: GroupOptions) -> pd.DataFrame:
    """One line per person with age, prediction and group."""
    named = people[['participant_id', 'age', 'corrected']].assign(
        predicted=people['predicted_age'], group=people.get(options.group_column)
    )
    member = people['reference_member'].to_numpy(bool)
    column = options.reference_group[0] if options.reference_group else None
    if options.group_column and column != options.group_column:
        levels = sorted(named['group'].dropna().astype(str).unique())
        member = (named['group'].astype(str) == next(iter(levels), '')).to_numpy(bool)
    return named.assign(reference=member)


def _correlates(people: pd.DataFrame, options: GroupOptions) -> pd.DataFrame:
    """One line per person and column that is correlated with the gap."""
    import pandas as pd

    column = 'corrected' if people['corrected'].notna().any() else 'predicted_age'
    gap = people[column].astype(float) - people['age']
    parts = [
        pd.DataFrame(
            {
                'participant_id': people['participant_id'],
                'column': name,
                'value': pd.to_numeric(people[name], errors='coerce'),
                'gap': gap,
                'is_corrected': column == 'corrected',
            }
        ).dropna()
        for name in options.correlate
        if name in people
    ]
    columns = ['participant_id', 'column', 'value', 'gap', 'is_corrected']
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _lines(people: pd.DataFrame, correlates: pd.DataFrame, options: GroupOptions) -> pd.DataFrame:
    """Regressions of the reference group, and of the gap on each correlated column."""
    import pandas as pd

    wanted = {}
    if options.group_column:
        member = people[people['reference'].to_numpy(bool)]
        wanted[''] = (member['age'], member['predicted'])
    for name, part in correlates.groupby('column', sort=False):
        wanted[str(name)] = (part['value'], part['gap'])
    parts = []
    for name, (x, y) in wanted.items():
        try:
            line = regress(x, y.astype(float))
        except FitRefusedError:
            continue
        at = np.linspace(*line.ages, BAND_POINTS)
        low, high = line.band(at)
        middle = line.intercept + line.slope * at
        parts.append(pd.DataFrame({'line': name, 'x': at, 'y': middle, 'low': low, 'high': high}))
    columns = ['line', 'x', 'y', 'low', 'high']
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _retest(one: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """Mean and difference of the first test-retest pair of each person."""
    import pandas as pd

    first = pairs.retest.drop_duplicates('person')
    predicted = one['predicted_age'].to_numpy(np.float64)
    a = predicted[first['first'].to_numpy(np.int64)]
    b = predicted[first['second'].to_numpy(np.int64)]
    names = one['participant_id'].to_numpy(object)[first['first'].to_numpy(np.int64)]
    return pd.DataFrame({'participant_id': names, 'mean': (a + b) / 2, 'difference': a - b})


def _visits(one: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """Age and mean prediction at the sessions of people with several."""
    visits = pairs.visits
    several = (visits['role'] == 'longitudinal') & visits['person'].isin(
        pairs.longitudinal['person']
    )
    count = np.bincount(one['visit'], minlength=len(visits))
    total = np.bincount(one['visit'], one['predicted_age'], minlength=len(visits))
    names = one.drop_duplicates('person').set_index('person')['participant_id']
    table = visits.assign(predicted=total / count)[several.to_numpy()]
    start = table.groupby('person')['age'].transform('first')
    clock = table['years'] - table.groupby('person')['years'].transform('first')
    return table[['predicted']].assign(
        participant_id=table['person'].map(names).to_numpy(object), age=start + clock
    )
