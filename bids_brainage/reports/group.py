"""The group page: how accurate, how repeatable, and what differs between groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.outputs.files import write_text
from bids_brainage.outputs.group_tables import (
    TABLES,
    group_dictionary,
    group_path,
    known_columns,
    table_text,
)
from bids_brainage.reports.group_figures import model_figures, model_summary
from bids_brainage.reports.page import fill_template
from bids_brainage.reports.wording import decimal

if TYPE_CHECKING:
    import pandas as pd

PAGE = 'group.html'

SHOWN_ROWS = 400
"""Most rows of a table that the page shows."""

EMBED_LIMIT = 2_000_000
"""Longest table, in characters, that the page carries for download."""

TITLES = {
    'accuracy': (
        'Accuracy',
        'How close predicted ages are to chronological ages, by subset. '
        'Rest the pointer on a number for its 95 % limits.',
    ),
    'longitudinal': (
        'Change over time',
        'Whether predicted age moves with the calendar, over all pairs of sessions.',
    ),
    'reliability': ('Test-retest', 'Agreement of repeated scans between which nobody ages.'),
    'differences': ('Groups', 'Differences of the brain age gap, and correlations with it.'),
    'fusion': (
        'Two models together',
        'Linear models of age on the predictions of one or both models, and sex. Whether a term '
        'is worth having is tested by the rows nested_f of the table of groups.',
    ),
    'saliency': (
        'Explanation maps by region',
        'How strong the maps are in each structure of the brain, by decade of age.',
    ),
    'exclusions': ('Left out', 'Every image that some analysis does not use, with the reason.'),
    'brainage': ('All predictions', 'One row per image and model.'),
}

_DETAILS = frozenset(
    (
        *('mse', 'sd_abs_err', 'sd_err', 'hedges_g', 'mmade_excluded_bins'),
        *('sigma_scan_pop', 'ms_between', 'ms_residual'),
    )
)
_DIGITS = {'r': 3, 'r2': 3, 'icc_3_1': 3, 'icc_2_1': 3, 'slope': 3}


def write_group_report(
    output_dir: str | Path,
    tables: Mapping[str, pd.DataFrame],
    analysis: Mapping[str, Any],
    plots: Mapping[str, pd.DataFrame],
    maps: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Path:
    """Write ``group.html``.

    Parameters
    ----------
    output_dir : path
        The output dataset.
    tables : mapping of str to DataFrame
        Group tables by name.
    analysis : mapping
        Facts of the analysis, with ``warnings``.
    plots : mapping of str to DataFrame
        ``people``, ``retest`` and ``visits``: points of the figures.
    maps : mapping of str to list, optional
        Figures of the explanation maps by model.
    """
    path = Path(output_dir) / PAGE
    write_text(path, render_group_page(tables, analysis, plots, maps))
    return path


def render_group_page(
    tables: Mapping[str, pd.DataFrame],
    analysis: Mapping[str, Any],
    plots: Mapping[str, pd.DataFrame],
    maps: Mapping[str, list[dict[str, Any]]] | None = None,
) -> str:
    """Render the page as self-contained HTML; see :func:`write_group_report`."""
    names = list(dict.fromkeys(tables['accuracy']['model'])) if len(tables['accuracy']) else []
    models = [
        {
            'id': f'model-{number}',
            'name': name,
            **model_summary(name, tables),
            'figures': model_figures(name, plots, tables),
            'maps': (maps or {}).get(name, []),
        }
        for number, name in enumerate(names, 1)
    ]
    order = [name for name in TITLES if name in TABLES and name in tables]
    return fill_template(
        'group',
        facts={'warnings': [], **analysis},
        models=models,
        n_exclusions=len(tables['exclusions']),
        tables=[view for name in order for view in _views(name, tables[name])],
    )


def _views(name: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lay out a group table, that of change as its summaries and its people."""
    if name != 'longitudinal':
        return [table_view(name, table)]
    summary = {
        **table_view(name, table, table[table['row'] == 'summary']),
        'id': 'change-summary',
    }
    people = {
        **table_view(name, table, table[table['row'] == 'participant']),
        'title': 'Change of each person',
        'text': 'First to last session of each person with sessions that are not repetitions.',
        'embedded': '',
    }
    return [summary, people]


def table_view(name: str, table: pd.DataFrame, part: pd.DataFrame | None = None) -> dict[str, Any]:
    """Lay out a table for the page: rounded cells, hints, and its text for download.

    Parameters
    ----------
    name : str
        Name of the group table.
    table : DataFrame
        All its rows, for the download.
    part : DataFrame, optional
        The rows to show, all if not given; at most `SHOWN_ROWS` are shown.
    """
    table = known_columns(name, table)
    hints = group_dictionary(name, list(table.columns))
    part = table if part is None else part
    shown = part.head(SHOWN_ROWS)
    empty = [c for c in table if shown[c].isna().all()]
    limits = [c for c in table if name == 'accuracy' and c.endswith(('_low', '_high'))]
    left_out = {*empty, *limits, *(_DETAILS & set(table))}
    columns = [c for c in table if c not in left_out]
    small = len(table) * max(len(table.columns), 1) * 8 < EMBED_LIMIT
    text = table_text(table) if small else ''
    rows = [
        [{**_cell(c, record[c]), 'limits': _limits(c, record)} for c in columns]
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
        'hidden': _hidden(name, left_out),
        'embedded': text + '\n' if 0 < len(text) < EMBED_LIMIT else '',
    }


def _hidden(name: str, left_out: set[str]) -> str:
    """Say which columns only the file has."""
    singles = sorted(c for c in left_out if not c.endswith(('_low', '_high')))
    if name == 'accuracy':
        singles.append('columns of 95 % limits')
    return ', '.join(singles)


def _limits(column: str, record: Mapping[str, Any]) -> str:
    """Write the 95 % limits of a cell for its hint, empty if it has none."""
    ends = [_cell(column, record.get(f'{column}{end}')) for end in ('_low', '_high')]
    if not all(end['number'] for end in ends):
        return ''
    return f'95 % limits {ends[0]["text"]} to {ends[1]["text"]}'


def _column(name: str, hint: Mapping[str, Any], number: bool) -> dict[str, Any]:
    """Describe one column head."""
    unit = f' Unit: {hint["Units"]}.' if 'Units' in hint else ''
    return {'name': name, 'text': hint['Description'] + unit, 'number': number}


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
    if column.startswith(('n', 'df_')) and float(value).is_integer():
        return str(int(value))
    if column in ('p', 'p_fdr'):
        return '< 0.001' if value < 0.001 else f'{value:.3f}'
    return decimal(float(value), _DIGITS.get(column, 2))
