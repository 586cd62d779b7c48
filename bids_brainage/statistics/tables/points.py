"""The points behind the figures of the group page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bids_brainage.statistics.pairing import Pairs

if TYPE_CHECKING:
    import pandas as pd


def plot_data(
    models: Mapping[str, tuple[pd.DataFrame, Pairs]], group_column: str | None
) -> dict[str, pd.DataFrame]:
    """Collect what the figures show.

    Parameters
    ----------
    models : mapping of str to (DataFrame, Pairs)
        Rows and pairs of each model.
    group_column : str or None
        Factor of the group differences.

    Returns
    -------
    dict of str to DataFrame
        ``people``: first image with an age of each person (``age``, ``predicted``,
        ``corrected``, ``group``). ``retest``: one pair per person (``mean``, ``difference``
        first minus second). ``visits``: sessions of people with several (``age``,
        ``predicted``), in order of time. All with ``model`` and ``participant_id``; years.
    """
    import pandas as pd

    parts: dict[str, list[pd.DataFrame]] = {'people': [], 'retest': [], 'visits': []}
    for model, (one, pairs) in models.items():
        people = one[one['baseline'].to_numpy(bool)]
        group = people.get(group_column)
        named = people[['participant_id', 'age', 'corrected']].assign(
            model=model, predicted=people['predicted_age'], group=group
        )
        parts['people'].append(named)
        parts['retest'].append(_retest(one, pairs).assign(model=model))
        parts['visits'].append(_visits(one, pairs).assign(model=model))
    return {k: pd.concat(v, ignore_index=True) if v else pd.DataFrame() for k, v in parts.items()}


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
