"""The tables of the group level with their data dictionaries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.errors import WorkflowError
from bids_brainage.outputs.files import write_json, write_text
from bids_brainage.outputs.tables import column_names, data_dictionary
from bids_brainage.tsv import MISSING, format_cell

if TYPE_CHECKING:
    import pandas as pd

TABLES = (
    'brainage',
    'accuracy',
    'longitudinal',
    'reliability',
    'differences',
    'fusion',
    'saliency',
    'importance',
    'volumes',
    'exclusions',
)
"""Group tables in the order of the reports; the files are ``group_<table>.tsv``.

``fusion`` is there only with both networks of System B, ``saliency``, ``importance`` and
``volumes`` only when participants have explanation maps, tables of importance and of volumes.
"""

_COUNTS = frozenset(
    (
        *('n', 'n_subjects', 'n_excluded', 'n_sessions', 'n_pairs', 'n_excluded_pairs'),
        *('n_a', 'n_b', 'n_available', 'rank', 'df_residual'),
    )
)
_ODD = re.compile(r'[^\S \n]|  | $|^ |^(?:NaT|<NA>)$', re.MULTILINE)
"""White space or words in lines of text that a table cannot hold as they are."""

_LIMITS = {'_low': 'Lower', '_high': 'Upper'}


def group_path(table: str) -> str:
    """Name of the file of a group table, relative to the output dataset."""
    return f'group_{table}.tsv'


def write_group_tables(
    output_dir: str | Path,
    tables: Mapping[str, pd.DataFrame],
    analysis: Mapping[str, Any],
    models: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write every group table that is given as TSV with a JSON data dictionary.

    Tables of an earlier run that are not given are removed.

    Parameters
    ----------
    output_dir : path
        The output dataset.
    tables : mapping of str to DataFrame
        By name, see `TABLES`.
    analysis : mapping
        Methods, options, coefficients and warnings, stored under ``Analysis`` in each JSON.
    models : mapping, optional
        Facts of the models, stored under ``Models`` beside ``group_brainage.tsv``.

    Returns
    -------
    list of str
        Names of the tables' files.
    """
    written = []
    for path in (Path(output_dir) / group_path(name) for name in TABLES if name not in tables):
        path.unlink(missing_ok=True)
        path.with_suffix('.json').unlink(missing_ok=True)
    for name in (name for name in TABLES if name in tables):
        table = known_columns(name, tables[name])
        dictionary: dict[str, Any] = group_dictionary(name, list(table.columns))
        if name == 'brainage' and models:
            dictionary['Models'] = {key: models[key] for key in sorted(models)}
        path = Path(output_dir) / group_path(name)
        write_json(path.with_suffix('.json'), {**dictionary, 'Analysis': dict(analysis)})
        write_text(path, table_text(table))
        written.append(path.name)
    return written


def known_columns(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Keep the described columns; only ``brainage`` may bring others, from input tables."""
    if name != 'brainage':
        return table
    known = {*column_names('brainage'), *column_names('group_brainage')}
    return table[[column for column in table if column in known]]


def group_dictionary(name: str, columns: list[str]) -> dict[str, dict[str, Any]]:
    """Describe the columns of a group table.

    A column ``x_low`` or ``x_high`` without its own text is a limit of ``x``.

    Raises
    ------
    WorkflowError
        A column has no description (a bug).
    """
    known = data_dictionary(f'group_{name}')
    if name == 'brainage':
        known = {**data_dictionary('brainage'), **known}
    described = {}
    for column in columns:
        base, end = next(((column[: -len(e)], e) for e in _LIMITS if column.endswith(e)), ('', ''))
        if column in known:
            described[column] = known[column]
        elif base in known:
            text = {'Description': f'{_LIMITS[end]} 95 % confidence limit of {base}.'}
            described[column] = {**known[base], **text}
        else:
            raise WorkflowError(f'Column {column} of group_{name}.tsv has no description.')
    return described


def table_text(table: pd.DataFrame) -> str:
    """Write a table as BIDS TSV text, column by column because that is fast.

    Cells are as in `bids_brainage.tsv.format_cell`; counts are whole numbers.
    """
    cells = [_column_text(str(name), table[name]) for name in table]
    lines = ['\t'.join(map(str, table.columns))]
    lines += map('\t'.join, zip(*cells, strict=True))
    return '\n'.join(lines)


def _column_text(name: str, column: pd.Series) -> list[str]:
    """Write the cells of one column."""
    values = column.tolist()
    if column.dtype.kind == 'f' and name not in _COUNTS:
        return [repr(x) if math.isfinite(x) else MISSING for x in values]
    if name in _COUNTS:
        return [MISSING if x is None or x != x else str(int(x)) for x in values]
    if set(map(type, values)) <= {str, type(None)}:
        return _texts(values)
    return [format_cell(value) for value in values]


def _texts(values: list[str | None]) -> list[str]:
    """Write text cells; those of most columns hold nothing that `format_cell` would change."""
    cells = [MISSING if value is None else value for value in values]
    known = dict.fromkeys(cells)
    lines = '\n'.join(known)
    plain = '' not in known and lines.count('\n') == len(known) - 1
    if plain and not _ODD.search(lines):
        return cells
    written = {value: format_cell(value) for value in known}
    return [written[value] for value in cells]
