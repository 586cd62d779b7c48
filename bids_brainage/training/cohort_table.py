"""Which cohorts a training has, who in them did what, and how well their ages are told.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315): Table 1, and the
unseen datasets of Table 6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.training.predictions import Row, columns, per_person
from bids_brainage.training.splits import ROLES

MEASURES = ('mae', 'me', 'r', 'r2')
COLUMNS = (
    'cohort',
    'role',
    'people',
    'scans',
    'age_min',
    'age_max',
    'age_mean',
    'age_sd',
    'female_share',
    *MEASURES,
)
ALL = 'all'


def cohort_table(predictions: Sequence[Row]) -> list[dict[str, Any]]:
    """Count and judge the people of each cohort and role.

    Parameters
    ----------
    predictions : sequence of dict
        All predictions of a training.

    Returns
    -------
    list of dict
        Keys are `COLUMNS`.  First all cohorts together, if there are several, then each; with
        folds a person stands in several roles.  Ages of the first visit and errors in years, each
        person once with the mean of folds and visits; the share of women is that of the people
        whose sex is known.  None where a number does not exist.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in predictions:
        groups[row['cohort'] or '', row['role']].append(row)
    names = sorted({cohort for cohort, _ in groups})
    rows = []
    for cohort in [ALL, *names] if len(names) > 1 else names:
        for role in ROLES:
            chosen = [
                row
                for name in (names if cohort == ALL else [cohort])
                for row in groups.get((name, role), ())
            ]
            if chosen:
                rows.append({'cohort': cohort or None, 'role': role, **_facts(chosen)})
    return rows


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    first: dict[str, float] = {}
    for row in rows:
        person = row['participant_id']
        first[person] = min(row['age'], first.get(person, row['age']))
    ages = np.array(list(first.values()))
    sexes = {row['participant_id']: row['sex'] for row in rows if row['sex'] in ('F', 'M')}
    found = accuracy(*columns(per_person(rows)))
    return {
        'people': len(first),
        'scans': len({row['source'] for row in rows}),
        'age_min': float(ages.min()),
        'age_max': float(ages.max()),
        'age_mean': float(ages.mean()),
        'age_sd': float(ages.std(ddof=1)) if len(ages) > 1 else None,
        'female_share': list(sexes.values()).count('F') / len(sexes) if sexes else None,
        **{name: found[name].value for name in MEASURES},
    }
