"""Tables of the group page: what matters first, names written out, links to the people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bids_brainage.outputs.group_tables import (
    group_dictionary,
    group_path,
    known_columns,
    table_text,
)
from bids_brainage.reports.group_figures import Pages, page_of
from bids_brainage.reports.wording import decimal

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 400
"""Most rows of a table that the page shows."""

EMBED_LIMIT = 2_000_000
"""Longest table, in characters, that the page carries for download."""

TITLES = {
    'differences': (
        'All tests of groups and correlations',
        'Every test of the brain age gap. Those that do not hold age equal mix a difference of '
        'the groups with a difference of their ages.',
    ),
    'accuracy': (
        'Accuracy',
        'How close predicted ages are to chronological ages, by subset, with 95 % limits.',
    ),
    'longitudinal': (
        'Change over time',
        'Whether predicted age moves with the calendar, over all pairs of sessions.',
    ),
    'reliability': ('Test-retest', 'Agreement of repeated scans between which nobody ages.'),
    'fusion': (
        'Both networks of System B together',
        'Linear models of age on the predictions of one or both networks, and sex. Whether a '
        'term is worth having is tested by the rows of nested models in the table of all tests.',
    ),
    'saliency': (
        'Explanation maps by region',
        'How strong the maps are in each structure of the brain, by decade of age.',
    ),
    'importance': (
        'Importance of regions',
        'Which regions of connectivity and which structures models of two kinds of images rely '
        'on, everybody counted once, with 95 % limits.',
    ),
    'exclusions': ('Left out', 'Every image that some analysis does not use, with the reason.'),
    'brainage': ('All predictions', 'One row per image and model.'),
}

FIRST = {
    'differences': (
        'test',
        'column',
        'level_a',
        'level_b',
        'estimate',
        'p',
        'p_fdr',
        'n_a',
        'n_b',
    ),
    'accuracy': ('model', 'subset', 'level', 'corrected', 'n', 'mae', 'me', 'r'),
    'exclusions': ('participant_id', 'session_id', 'reason', 'qc_flag', 'analysis', 'model'),
    'brainage': (
        *('participant_id', 'session_id', 'model', 'age', 'predicted_age', 'brain_age_gap'),
        *('predicted_age_group_corrected', 'qc_flag'),
    ),
}
"""Columns that a reader looks for, on screen without scrolling; the others follow."""

_DETAILS = frozenset(
    (
        *('mse', 'sd_abs_err', 'sd_err', 'hedges_g', 'mmade_excluded_bins'),
        *('sigma_scan_pop', 'ms_between', 'ms_residual'),
    )
)
_DIGITS = {
    'importance': 4,
    'importance_sd': 4,
    'r': 3,
    'r2': 3,
    'icc_3_1': 3,
    'icc_2_1': 3,
    'slope': 3,
}
_ENDS = {'estimate': ('ci_low', 'ci_high')}
"""Limits whose columns are not named after the number that they belong to."""


def table_views(
    name: str, table: pd.DataFrame, pages: Pages = frozenset()
) -> list[dict[str, Any]]:
    """Lay out a group table, that of change as its summaries and its people."""
    if name != 'longitudinal':
        return [table_view(name, table, pages=pages)]
    summary = {
        **table_view(name, table, table[table['row'] == 'summary'], pages),
        'id': 'change-summary',
    }
    people = {
        **table_view(name, table, table[table['row'] == 'participant'], pages),
        'title': 'Change of each person',
        'text': 'First to last session of each person with sessions that are not repetitions.',
        'embedded': '',
    }
    return [summary, people]


def table_view(
    name: str,
    table: pd.DataFrame,
    part: pd.DataFrame | None = None,
    pages: Pages = frozenset(),
) -> dict[str, Any]:
    """Lay out a table for the page: rounded cells with limits, hints, text for download.

    Parameters
    ----------
    name : str
        Name of the group table.
    table : DataFrame
        All its rows, for the download.
    part : DataFrame, optional
        The rows to show, all if not given; at most `SHOWN_ROWS` are shown.
    pages : frozenset of str
        Pages of participants that their names lead to.
    """
    table = known_columns(name, table)
    hints = group_dictionary(name, list(table.columns))
    part = table if part is None else part
    shown = part.head(SHOWN_ROWS)
    empty = [c for c in table if shown[c].isna().all()]
    ends = {end for c in table for end in _ends(c) if end in table}
    left_out = {*empty, *ends, *(_DETAILS & set(table))}
    columns = [c for c in FIRST.get(name, ()) if c in table and c not in left_out]
    columns += [c for c in table if c not in left_out and c not in columns]
    small = len(table) * max(len(table.columns), 1) * 8 < EMBED_LIMIT
    text = table_text(table) if small else ''
    rows = [
        [_shown(c, record, hints[c], pages) for c in columns]
        for record in shown.to_dict('records')
    ]
    numeric = {c for k, c in enumerate(columns) if any(row[k]['number'] for row in rows)}
    title, sentence = TITLES[name]
    return {
        'id': name,
        'title': title,
        'text': sentence,
        'file': group_path(name),
        'columns': [_column(c, hints[c], c in numeric) for c in columns],
        'rows': rows,
        'total': len(part),
        'hidden': ', '.join(sorted(left_out - ends)),
        'embedded': text + '\n' if 0 < len(text) < EMBED_LIMIT else '',
    }


def _ends(column: str) -> tuple[str, str]:
    """Name the columns of the limits of a number."""
    return _ENDS.get(column, (f'{column}_low', f'{column}_high'))


def _shown(
    column: str, record: Mapping[str, Any], hint: Mapping[str, Any], pages: Pages
) -> dict[str, Any]:
    """Lay out one cell with its limits, its words, or the page it leads to."""
    cell = _cell(column, record[column])
    low, high = (_cell(column, record.get(end)) for end in _ends(column))
    both = cell['number'] and low['number'] and high['number']
    if column in ('test', 'subset'):
        cell['text'] = hint.get('Levels', {}).get(cell['text'], cell['text'])
    return {
        **cell,
        'limits': f'{low["text"]} to {high["text"]}' if both else '',
        'href': page_of(cell['text'], pages) if column == 'participant_id' else '',
    }


def _column(name: str, hint: Mapping[str, Any], number: bool) -> dict[str, Any]:
    """Describe one column head."""
    unit = f' Unit: {hint["Units"]}.' if 'Units' in hint else ''
    plain = name.replace('_', ' ').replace(' id', '').replace('qc', 'quality').capitalize()
    return {
        'name': hint.get('LongName', plain),
        'key': name,
        'text': f'{name}: {hint["Description"]}{unit}',
        'number': number,
    }


def _cell(column: str, value: Any) -> dict[str, Any]:
    """Round one cell; numbers keep their full value for sorting."""
    if hasattr(value, 'item'):
        value = value.item()
    if value is None or value != value:
        return {'text': 'n/a', 'number': False, 'long': False}
    if isinstance(value, bool):
        return {'text': 'yes' if value else 'no', 'number': False, 'long': False}
    if isinstance(value, int | float) and math.isfinite(value):
        return {'text': _rounded(column, value), 'value': value, 'number': True}
    return {'text': str(value), 'number': False, 'long': len(str(value)) > 30}


def _rounded(column: str, value: float) -> str:
    """Write a number for reading: counts whole, p values as in papers, years two decimals."""
    if column.startswith(('n', 'df_', 'rank')) and float(value).is_integer():
        return str(int(value))
    if column in ('p', 'p_fdr'):
        return '< 0.001' if value < 0.001 else f'{value:.3f}'
    return decimal(float(value), _DIGITS.get(column, 2))
