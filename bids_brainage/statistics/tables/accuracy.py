"""The accuracy table: each model, subset, and raw or corrected ages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.names import SITE_COLUMNS, TRAINING_ROLE
from bids_brainage.statistics.accuracy import accuracy_limits, interval_coverage, subject_means
from bids_brainage.statistics.bins import (
    AGE_GROUPS,
    DECADES,
    FIVE_YEARS,
    bin_index,
    bin_labels,
    worst_bin,
)
from bids_brainage.statistics.bootstrap import Bootstrap
from bids_brainage.statistics.result import Stat, flatten, undefined

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.statistics.tables.options import GroupOptions

Subset = tuple[str, str, NDArray[np.intp]]

BINNED = (('age_group', AGE_GROUPS), ('10_year_bin', DECADES), ('5_year_bin', FIVE_YEARS))

STATISTICS = (
    'mae',
    'me',
    'mse',
    'rmse',
    'r',
    'r2',
    'sd_abs_err',
    'sd_err',
    'slope',
    'mmae',
    'mmae_all',
    'interval_coverage',
    'group_interval_coverage',
)

USED = (
    'person',
    'age',
    'interval_low',
    'interval_high',
    'interval_level',
    'group_low',
    'group_high',
)
"""Columns that the statistics of a subset need."""

HEAD = (
    'model',
    'subset',
    'level',
    'corrected',
    'unit',
    'n',
    'n_subjects',
    'n_excluded',
)


def accuracy_table(
    models: Mapping[str, pd.DataFrame],
    bootstrap: Bootstrap,
    options: GroupOptions,
    learnt: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compute accuracy with limits for every model and subset.

    Parameters
    ----------
    models : mapping of str to DataFrame
        Rows of each model as prepared by the group analysis.
    bootstrap : Bootstrap
        For the limits.
    options : GroupOptions
        With `min_bin_n` and `reference_group`.
    learnt : DataFrame, optional
        Rows of people from whom the models have learnt: the subset ``training``, in no other.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    name = '='.join(options.reference_group or ())
    for model, one in models.items():
        slim = one[list(USED)]
        for corrected in (False, True):
            predicted = one['corrected' if corrected else 'predicted_age'].to_numpy(np.float64)
            if corrected and not np.isfinite(predicted).any():
                continue
            for subset, level, index in subsets(one, corrected, name, options.group_column):
                head = {'model': model, 'subset': subset, 'level': level, 'corrected': corrected}
                part = slim.iloc[index]
                rows.append(head | _row(part, predicted[index], corrected, bootstrap, options))
                if subset == 'all' and rows[-1]['n_subjects'] < rows[-1]['n']:
                    rows.append(head | _by_subject(part, predicted[index], bootstrap, options))
    if learnt is not None:
        for model, one in learnt.groupby('model', sort=True, observed=True):
            head = {'model': str(model), 'subset': 'training', 'level': 'all', 'corrected': False}
            predicted = one['predicted_age'].to_numpy(np.float64)
            rows.append(
                head | _row(one.reindex(columns=USED), predicted, False, bootstrap, options)
            )
    columns = [*HEAD, 'interval_level']
    columns += [f'{name}{end}' for name in STATISTICS for end in ('', '_low', '_high')]
    columns += ['mmae_bin', 'mmae_excluded_bins', 'reason']
    return pd.DataFrame(rows, columns=columns)


def subsets(
    one: pd.DataFrame, corrected: bool, reference: str = '', group: str | None = None
) -> Iterator[Subset]:
    """List the subsets of one model's rows as (kind, level, row positions).

    `reference` is the name of the reference group, if there is one, and `group` the column whose
    levels (diagnoses, say) are subsets, too: `me` is their mean gap.

    Levels with nobody are left out, except ``all``.
    """
    everyone = np.arange(len(one))
    yield 'all', 'all', everyone
    if reference:
        yield 'reference', reference, np.flatnonzero(one['reference_member'].to_numpy(bool))
    if group and group in one and group not in ('sex', *SITE_COLUMNS):
        yield from _levels(group, one[group])
    if TRAINING_ROLE in one and one[TRAINING_ROLE].nunique() > 1:
        yield from _levels(TRAINING_ROLE, one[TRAINING_ROLE])
    used = one['calibration'].to_numpy(bool)
    if corrected and used.any() and not used.all():
        yield 'excl_calibration', 'all', everyone[~used]
    if 'sex' in one:
        sex = one['sex'].astype(object).where(one['sex'].isin(['F', 'M']), 'other/unknown')
        yield from _levels('sex', sex)
    age = one['age'].to_numpy(np.float64)
    for kind, edges in BINNED:
        index = bin_index(age, edges)
        for k, label in enumerate(bin_labels(edges)):
            rows = np.flatnonzero(index == k)
            if rows.size:
                yield kind, label, rows
    for column in SITE_COLUMNS:
        if column in one:
            yield from _levels(column, one[column])
    shared = one.groupby('session')['person'].transform('nunique') > 1
    if one['session'].nunique() > 1:
        yield from _levels('session', one['session'].where(shared & (one['session'] != '')))
    if 'qc_flag' in one and one['qc_flag'].notna().any():
        yield from _levels('qc', one['qc_flag'].notna().map({True: 'flagged', False: 'no flag'}))


def _levels(kind: str, values: pd.Series) -> Iterator[Subset]:
    """Yield the rows of each level of a column in alphabetical order; missing ones not."""
    import pandas as pd

    codes, names = pd.factorize(values, sort=True)
    for k, name in enumerate(names):
        yield kind, str(name), np.flatnonzero(codes == k)


def _row(
    part: pd.DataFrame,
    predicted: NDArray[np.float64],
    corrected: bool,
    bootstrap: Bootstrap,
    options: GroupOptions,
) -> dict[str, Any]:
    """Compute the cells of one subset with scans as the unit."""
    age = part['age'].to_numpy(np.float64)
    person = part['person'].to_numpy()
    keep = np.isfinite(age) & np.isfinite(predicted)
    stats = accuracy_limits(age, predicted, person, bootstrap, min_bin_n=options.min_bin_n)
    for name, low, high in (
        ('interval_coverage', 'interval_low', 'interval_high'),
        ('group_interval_coverage', 'group_low', 'group_high'),
    ):
        stats[name] = _coverage(part, age, low, high, corrected)
    levels = part['interval_level'].dropna()
    return {
        'unit': 'scan',
        'n': int(keep.sum()),
        'n_subjects': int(np.unique(person[keep]).size),
        'n_excluded': int((~keep).sum()),
        'interval_level': float(levels.iloc[0]) if len(levels) and not corrected else None,
        **_worst(age[keep], predicted[keep], options),
        **flatten(stats, limits=True),
    }


def _coverage(
    part: pd.DataFrame,
    age: NDArray[np.float64],
    low: str,
    high: str,
    corrected: bool,
) -> Stat:
    """Coverage of one kind of interval, which belongs to the uncorrected prediction."""
    if corrected:
        return undefined('intervals belong to the uncorrected prediction')
    return interval_coverage(age, part[low], part[high], part['person'])


def _by_subject(
    part: pd.DataFrame,
    predicted: NDArray[np.float64],
    bootstrap: Bootstrap,
    options: GroupOptions,
) -> dict[str, Any]:
    """Compute the cells of one subset with the mean of each person as the unit."""
    age, mean, person = subject_means(part['age'], predicted, part['person'])
    stats = accuracy_limits(age, mean, person, bootstrap, min_bin_n=options.min_bin_n)
    return {
        'unit': 'subject',
        'n': person.size,
        'n_subjects': person.size,
        'n_excluded': int(part['person'].nunique() - person.size),
        **_worst(age, mean, options),
        **flatten(stats, limits=True),
    }


def _worst(
    age: NDArray[np.float64], predicted: NDArray[np.float64], options: GroupOptions
) -> dict[str, str | None]:
    """Name the bin of mMAE and those that were too small for it."""
    worst = worst_bin(age, np.abs(predicted - age), min_bin_n=options.min_bin_n)
    return {'mmae_bin': worst.bin, 'mmae_excluded_bins': '; '.join(worst.excluded) or None}
