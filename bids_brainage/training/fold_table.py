"""How well each fold does on who trained, who chose the epoch, who was left out, and the unseen.

Kim et al., npj Aging 2025 (doi:10.1038/s41514-025-00260-x) print the mean error over five folds
with 95 % limits for the three, and the errors of the single members of the ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.training.predictions import Row, columns, of_role, per_person
from bids_brainage.training.splits import SIMULATED, TEST, TRAINING, UNSEEN, VALIDATION

MEASURES = ('mae', 'rmse', 'me', 'r', 'r2')
COLUMNS = ('role', 'fold', 'n', *MEASURES)
MEAN, LOW, HIGH, SD = 'mean', 'low', 'high', 'sd'
"""Rows over all folds, in the column ``fold``."""


def fold_table(predictions: Sequence[Row], level: float = 0.95) -> list[dict[str, Any]]:
    """Return the accuracy of each fold by role, and its mean over folds.

    Parameters
    ----------
    predictions : sequence of dict
        All predictions of a training.
    level : float
        Of the limits of the mean: Student's t over folds.

    Returns
    -------
    list of dict
        Keys are `COLUMNS`; each person counts once, `n` is people.  With two folds and more, four
        rows for each role follow: `MEAN`, its limits `LOW` and `HIGH`, and the population standard
        deviation `SD`.  Years; None where a number does not exist.
    """
    rows: list[dict[str, Any]] = []
    for role in (TRAINING, SIMULATED, VALIDATION, TEST, UNSEEN):
        chosen = of_role(predictions, role)
        own = []
        for fold in sorted({int(row['fold']) for row in chosen}):
            people = per_person([row for row in chosen if int(row['fold']) == fold])
            found = accuracy(*columns(people))
            values = {name: found[name].value for name in MEASURES}
            own.append({'role': role, 'fold': fold, 'n': len(people), **values})
        rows += own
        if len(own) > 1:
            rows += _over_folds(role, own, level)
    return rows


def _over_folds(role: str, folds: Sequence[dict[str, Any]], level: float) -> list[dict[str, Any]]:
    """Return mean, limits and standard deviation of each measure that all folds have."""
    summary = {MEAN: {}, LOW: {}, HIGH: {}, SD: {}}  # type: dict[str, dict[str, float | None]]
    for name in MEASURES:
        found = [row[name] for row in folds]
        if any(value is None for value in found):
            continue
        values = np.array(found, float)
        half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
        mean = float(values.mean())
        summary[MEAN][name], summary[SD][name] = mean, float(values.std())
        summary[LOW][name], summary[HIGH][name] = mean - float(half), mean + float(half)
    n = sum(row['n'] for row in folds)
    return [
        {**dict.fromkeys(COLUMNS), 'role': role, 'fold': kind, 'n': n, **values}
        for kind, values in summary.items()
    ]
