"""Which regions a model of two kinds of images relies on, over people: System D at group level.

Wan et al., AMAge-Net (doi:10.64898/2026.03.28.713645), ranks regions for everybody and by sex.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.names import model_label, parse_name, source_path
from bids_brainage.outputs.collect import READERS
from bids_brainage.outputs.tables import column_names
from bids_brainage.tsv import is_missing, read_tsv

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.statistics.tables.options import GroupOptions

LEVEL = 0.95


@dataclass
class GroupImportance:
    """Importance of regions over people.

    Attributes
    ----------
    table : DataFrame
        One row for each model, atlas, subset and region.
    problems : list of (str, str)
        Relative path of each table that cannot be read, and why.
    """

    table: pd.DataFrame
    problems: list[tuple[str, str]] = field(default_factory=list)


def gather_importance(
    output_dir: Path, predictions: pd.DataFrame, paths: Sequence[str], options: GroupOptions
) -> GroupImportance:
    """Rank the regions for everybody, by sex and by group.

    Everybody counts once, with the mean over their scans. Rows that no statistic uses (failed,
    flagged) and people from whom the model has learnt are left out.

    Parameters
    ----------
    output_dir : Path
        The output dataset.
    predictions : DataFrame
        Predictions as read, with the column of the groups.
    paths : sequence of str
        Relative paths of the tables of importance of single scans.
    options : GroupOptions
        With `group_column` and `excluded_flags`.
    """
    import pandas as pd

    from bids_brainage.statistics.tables.rows import learnt_from, prepare

    names = column_names('group_importance')
    limits = {'importance': ['importance', 'importance_low', 'importance_high']}
    columns = [column for name in names for column in limits.get(name, [name])]
    if not paths:
        return GroupImportance(pd.DataFrame(columns=columns))
    usable, _ = prepare(predictions, options.excluded_flags)
    usable = usable[~learnt_from(usable)]
    scans = {
        (source_path(scan['source']), model_label(scan['model'])): scan
        for scan in usable.to_dict('records')
    }
    wanted = [path for path in paths if _key(path) in scans]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda path: _read(output_dir, path), wanted))
    rows: list[dict[str, Any]] = []
    for path, (regions, _) in zip(wanted, found, strict=True):
        entities, scan = parse_name(path), scans[_key(path)]
        known = {'model': scan['model'], 'kind': entities['desc'], 'atlas': entities['atlas']}
        known['person'] = scan['participant_id']
        known |= {name: scan.get(column) for name, column in _factors(options).items()}
        rows += [{**known, **region} for region in regions]
    problems = [
        (path, problem) for path, (_, problem) in zip(wanted, found, strict=True) if problem
    ]
    if not rows:
        return GroupImportance(pd.DataFrame(columns=columns), problems)
    return GroupImportance(_ranked(pd.DataFrame(rows), options)[columns], problems)


def _key(path: str) -> tuple[str, str]:
    """Return the image and the model of a table."""
    return source_path(path), parse_name(path).get('model', '')


def _read(output_dir: Path, relative: str) -> tuple[list[dict[str, Any]], str]:
    """Read the regions of one table that have a value, or say why it cannot be read."""
    try:
        rows = [
            {
                'index': int(row['index']),
                'name': row['name'],
                'network': None if is_missing(row.get('network')) else row['network'],
                'importance': float(row['importance']),
            }
            for row in read_tsv(output_dir / relative)
            if not is_missing(row['importance'])
        ]
    except (OSError, ValueError, KeyError) as error:
        return [], f'{type(error).__name__}: {error}'
    return rows, ''


def _factors(options: GroupOptions) -> dict[str, str]:
    """Return what people are split by: a name that no other column has, and the column."""
    columns = dict.fromkeys(name for name in ('sex', options.group_column) if name)
    return {f'factor {column}': column for column in columns}


def _ranked(rows: pd.DataFrame, options: GroupOptions) -> pd.DataFrame:
    """Average over the scans of each person, then over people, and rank the regions."""
    import pandas as pd

    factors = _factors(options)
    sex = rows['factor sex']
    rows['factor sex'] = sex.where(sex.isin(['F', 'M']), 'other/unknown')
    of_model = ['model', 'kind', 'atlas']
    same = {name: (name, 'first') for name in ('name', 'network', *factors)}
    people = rows.groupby([*of_model, 'person', 'index'], sort=True).agg(
        importance=('importance', 'mean'), **same
    )
    parts = []
    for key, own in people.reset_index().groupby(of_model, sort=True):
        splits = [('all', 'all', own)]
        for factor, column in factors.items():
            splits += [(column, str(level), some) for level, some in own.groupby(factor)]
        for subset, level, some in splits:
            head = dict(zip(of_model, key, strict=True))
            parts.append(_over_people(some).assign(**head, subset=subset, level=level))
    return pd.concat(parts, ignore_index=True)


def _over_people(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation, limits (Student's t) and rank of each region."""
    from scipy.stats import t

    regions = rows.groupby('index', sort=True)
    table = regions.agg(
        name=('name', 'first'),
        network=('network', 'first'),
        n=('importance', 'size'),
        importance=('importance', 'mean'),
        importance_sd=('importance', 'std'),
    )
    half = t.ppf((1 + LEVEL) / 2, table['n'] - 1) * table['importance_sd'] / np.sqrt(table['n'])
    table['importance_low'] = table['importance'] - half
    table['importance_high'] = table['importance'] + half
    table['rank'] = table['importance'].rank(method='first', ascending=False).astype(int)
    return table.reset_index().sort_values('rank')
