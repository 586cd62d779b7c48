"""Several architectures on one split, as paper A compares its model with three baselines.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.statistics.longitudinal import change_accuracy
from bids_brainage.statistics.reliability import differences, icc_3_1, sigma_scan
from bids_brainage.statistics.result import Stat
from bids_brainage.training.predictions import Row, columns, of_role, per_scan
from bids_brainage.training.splits import (
    LONGITUDINAL,
    RETEST,
    SIMULATED,
    TEST,
    TRAINING,
    UNSEEN,
    VALIDATION,
)

AGE_GROUPS = (('all', 0.0, np.inf), ('[0,18)', 0.0, 18.0), ('[18,60)', 18.0, 60.0),
              ('[60,..)', 60.0, np.inf))  # fmt: skip
ACCURACY = ('mae', 'mmae', 'me', 'r2', 'r')
CHANGE = ('mde', 'made', 'mmade')
RETEST_KEYS = ('icc_3_1', 'mu_d', 'sigma_d', 'sigma_scan')
COLUMNS = ('subset', 'model', 'n', *ACCURACY, *CHANGE, *RETEST_KEYS)


def comparison_rows(trainings: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Compare trainings on the same test people.

    Parameters
    ----------
    trainings : mapping
        Model name → all its predictions.

    Returns
    -------
    list of dict
        Keys are `COLUMNS`: one row per age group and model (test scans), then per model one
        for each cohort that none has seen, and one for longitudinal and one for test-retest people
        if there are any, n being the pairs of consecutive sessions.  Years; None where a number
        does not exist or does not belong to the row.
    """
    rows: list[dict[str, Any]] = []
    for label, low, high in AGE_GROUPS:
        for model, predictions in trainings.items():
            tested = per_scan(of_role(predictions, TEST))
            chosen = [row for row in tested if low <= row['age'] < high]
            rows.append(_accuracy(label, model, chosen))
    unseen = {model: per_scan(of_role(rows_, UNSEEN)) for model, rows_ in trainings.items()}
    for cohort in sorted({row['cohort'] for found in unseen.values() for row in found}):
        for model, found in unseen.items():
            chosen = [row for row in found if row['cohort'] == cohort]
            rows.append(_accuracy(f'unseen {cohort}', model, chosen))
    for label, role, measure in (
        ('longitudinal', LONGITUDINAL, _change),
        ('test-retest', RETEST, _retest),
    ):
        for model, predictions in trainings.items():
            visits = _visits(of_role(predictions, role))
            if visits:
                rows.append(_row(label, model, len(visits), measure(visits)))
    return rows


def judged_scans(trainings: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, list[Row]]]:
    """Return role → model → scans of the people who trained no model, each once."""
    roles = dict.fromkeys(row['role'] for rows in trainings.values() for row in rows)
    return {
        role: {
            name: scans
            for name, rows in trainings.items()
            if (scans := per_scan(of_role(rows, role)))
        }
        for role in roles
        if role not in (TRAINING, SIMULATED, VALIDATION)
    }


def comparison_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay the comparison out as a table for the terminal, empty columns left out."""
    shown = [c for c in COLUMNS if any(row[c] is not None for row in rows)]
    cells = [shown, *([_cell(row[c]) for c in shown] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(shown))]
    return '\n'.join(
        '  '.join(
            text.ljust(width) if k < 2 else text.rjust(width)
            for k, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def _accuracy(subset: str, model: str, chosen: Sequence[Row]) -> dict[str, Any]:
    stats = accuracy(*columns(chosen))
    return _row(subset, model, len(chosen), {k: stats[k] for k in ACCURACY})


def _row(subset: str, model: str, n: int, stats: Mapping[str, Stat]) -> dict[str, Any]:
    values = {name: stat.value for name, stat in stats.items()}
    return {**dict.fromkeys(COLUMNS), 'subset': subset, 'model': model, 'n': n, **values}


def _visits(rows: Sequence[Row]) -> list[list[Row]]:
    """Return all pairs of consecutive sessions of each person, in order of age."""
    people: dict[str, list[Row]] = defaultdict(list)
    for row in per_scan(rows):
        people[row['participant_id']].append(row)
    visits = [sorted(scans, key=lambda row: row['age']) for scans in people.values()]
    return [list(pair) for scans in visits for pair in pairwise(scans)]


def _change(visits: Sequence[Sequence[Row]]) -> dict[str, Stat]:
    first, last = (columns([pair[k] for pair in visits]) for k in (0, 1))
    stats = change_accuracy(first[0], last[0] - first[0], last[1] - first[1])
    return {name: stats[name] for name in CHANGE}


def _retest(visits: Sequence[Sequence[Row]]) -> dict[str, Stat]:
    scores = np.array([[row['predicted_age'] for row in pair] for pair in visits])
    apart = differences(scores)
    return {
        'icc_3_1': icc_3_1(scores),
        **{name: apart[name] for name in ('mu_d', 'sigma_d')},
        'sigma_scan': sigma_scan(scores),
    }
