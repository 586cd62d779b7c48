"""The prediction tables of a subject: schema, data dictionary, merging, session summary."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from statistics import fmean, stdev
from typing import Any

from bids_brainage.errors import ReadWriteError, WorkflowError
from bids_brainage.names import derivative_path, model_label
from bids_brainage.outputs.files import locked, read_json, write_json, write_tsv
from bids_brainage.tsv import is_missing, read_tsv

Row = dict[str, Any]

KEY = ('source', 'model')
_NUMBERS = frozenset(
    {
        'age',
        'predicted_age',
        'predicted_age_sd',
        'interval_low',
        'interval_high',
        'interval_level',
        'brain_age_gap',
        'predicted_age_corrected',
    }
)
_FLAGS = frozenset({'age_censored', 'in_training_range'})


@cache
def _columns() -> dict[str, dict[str, dict[str, Any]]]:
    text = (files('bids_brainage') / 'data' / 'columns.json').read_text(encoding='utf-8')
    return dict(json.loads(text))


def data_dictionary(table: str) -> dict[str, dict[str, Any]]:
    """Return the columns of a table with their descriptions, in the order of the file.

    Parameters
    ----------
    table : str
        Key of ``data/columns.json``: ``brainage``, ``sessions``, ``status``...
    """
    return {name: dict(text) for name, text in _columns()[table].items()}


def column_names(table: str) -> tuple[str, ...]:
    """Return the column names of a table in file order."""
    return tuple(_columns()[table])


def brainage_row(**values: Any) -> Row:
    """Build one row of ``_brainage.tsv`` with every column, absent ones None.

    Ages and intervals are in years; ``brain_age_gap`` is filled in as predicted minus
    chronological age when both are given and it is not.

    Raises
    ------
    WorkflowError
        A column is unknown, or the key (``source``, ``model``) is not given.
    """
    names = column_names('brainage')
    unknown = sorted(set(values) - set(names))
    absent = [name for name in KEY if not values.get(name)]
    if unknown or absent:
        raise WorkflowError(
            f'Row of _brainage.tsv: unknown columns {unknown}, missing key columns {absent}. '
            f'Columns are {", ".join(names)}.'
        )
    row: Row = {name: values.get(name) for name in names}
    if row['brain_age_gap'] is None and None not in (row['predicted_age'], row['age']):
        row['brain_age_gap'] = row['predicted_age'] - row['age']
    return row


def read_brainage(path: str | Path) -> list[Row]:
    """Read a ``_brainage.tsv``: numbers as float, flags as bool, ``n/a`` as None.

    Raises
    ------
    ReadWriteError
        The file is not a table of this kind.
    """
    try:
        return [_typed(row) for row in read_tsv(path)]
    except (OSError, ValueError, KeyError) as error:
        raise ReadWriteError(
            f'{path} is not a table that this program wrote ({type(error).__name__}: {error}). '
            'Move it away and run again.'
        ) from error


def write_brainage(
    path: str | Path,
    rows: Iterable[Mapping[str, Any]],
    *,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Merge rows into ``_brainage.tsv`` and write it with its JSON side file.

    A row replaces an existing one of the same ``source`` and ``model``; rows are sorted by that
    key, so the order in which models finish leaves no trace.

    Parameters
    ----------
    path : path
        The ``.tsv`` file.
    rows : iterable of mappings
        As made by `brainage_row`.
    models : mapping, optional
        Facts per model (version, weights hash, training population, licence...), kept in the
        side file under ``Models`` beside those of models already there.
    metadata : mapping, optional
        Further keys of the side file (``Sources``, ``Device``, ``SoftwareVersions``...).
    """
    path = Path(path)
    with locked(path.parent):
        merged = {_key(row): row for row in (read_brainage(path) if path.exists() else [])}
        merged.update({_key(row): brainage_row(**row) for row in rows})
        side_path = path.with_suffix('.json')
        side = read_json(side_path)
        known = {**side.get('Models', {}), **{name: dict(m) for name, m in (models or {}).items()}}
        extra = {k: v for k, v in side.items() if k not in _columns()['brainage']}
        extra.update(metadata or {})
        extra['Models'] = {name: known[name] for name in sorted(known)}
        write_json(
            side_path, {**data_dictionary('brainage'), **{k: extra[k] for k in sorted(extra)}}
        )
        write_tsv(path, [merged[key] for key in sorted(merged)], column_names('brainage'))


def collect_brainage(output_dir: str | Path, subject: str | None = None) -> list[Row]:
    """Read the rows of all ``_brainage.tsv`` files of the dataset, or of one subject.

    Sorted by participant, session, source, model.
    """
    pattern = f'sub-{subject or "*"}'
    root = Path(output_dir)
    found = [
        path
        for depth in ('*', 'ses-*/*')
        for path in root.glob(f'{pattern}/{depth}/sub-*_brainage.tsv')
    ]
    rows = [row for path in found for row in read_brainage(path)]
    return sorted(
        rows,
        key=lambda row: tuple(
            str(row[name] or '') for name in ('participant_id', 'session_id', *KEY)
        ),
    )


def write_sessions_summary(output_dir: str | Path, subject: str) -> PurePosixPath | None:
    """Rebuild ``sub-X_sessions.tsv`` and ``.json`` from the subject's prediction tables.

    Always made from what is on disk, so that jobs that each did one session agree.

    Returns
    -------
    PurePosixPath or None
        The table relative to ``output_dir``; None when the subject has no session with a
        prediction (nothing is written then).
    """
    root = Path(output_dir)
    with locked(root / f'sub-{subject}'):
        table, models = sessions_summary(collect_brainage(root, subject))
        if not table:
            return None
        dictionary = data_dictionary('sessions')
        for model in models:
            for column, text in data_dictionary('sessions_model').items():
                description = text['Description'].format(model=model)
                dictionary[f'{model_label(model)}_{column}'] = {
                    **text,
                    'Description': description,
                }
        relative = derivative_path({'sub': subject, 'suffix': 'sessions', 'extension': '.tsv'})
        write_json((root / relative).with_suffix('.json'), dictionary)
        write_tsv(root / relative, table, list(dictionary))
    return relative


def sessions_summary(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Summarise one subject's rows by session.

    Sessions are in order of age where every session has one, else of label.  Means and
    standard deviations (n - 1) are over images; changes are from the first session in which
    the model has a prediction; all in years.

    Returns
    -------
    tuple
        The rows of ``sub-X_sessions.tsv`` and the models in alphabetical order.
    """
    usable = [row for row in rows if row['session_id'] and row['predicted_age'] is not None]
    models = sorted({row['model'] for row in usable})
    sessions: dict[str, list[Row]] = {}
    for row in usable:
        sessions.setdefault(row['session_id'], []).append(row)
    first: dict[str, float] = {}
    table = []
    for session in _chronological(sessions):
        images = sessions[session]
        line: Row = {'session_id': session, 'n_images': len({row['source'] for row in images})}
        for model in models:
            ages = [row['predicted_age'] for row in images if row['model'] == model]
            gaps = [row['brain_age_gap'] for row in images if row['model'] == model]
            gaps = [gap for gap in gaps if gap is not None]
            mean = fmean(ages) if ages else None
            if mean is not None:
                first.setdefault(model, mean)
            label = model_label(model)
            line[f'{label}_predicted_age'] = mean
            line[f'{label}_within_sd'] = stdev(ages) if len(ages) > 1 else None
            line[f'{label}_brain_age_gap'] = fmean(gaps) if gaps else None
            line[f'{label}_change'] = None if mean is None else mean - first[model]
        table.append(line)
    return table, models


def _chronological(sessions: Mapping[str, Sequence[Row]]) -> list[str]:
    """Order sessions by age if each has one, else by label."""
    ages = {
        session: [row['age'] for row in rows if row['age'] is not None]
        for session, rows in sessions.items()
    }
    if all(ages.values()):
        return sorted(sessions, key=lambda session: (min(ages[session]), session))
    return sorted(sessions)


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row['source']), str(row['model'])


def _typed(row: Mapping[str, str]) -> Row:
    """Give the cells of one row their types; columns of later versions stay out."""
    typed: Row = {}
    for name in column_names('brainage'):
        text = row[name] if name in KEY else row.get(name)
        if text is None or is_missing(text):
            typed[name] = None
        elif name in _NUMBERS:
            number = float(text)
            typed[name] = number if math.isfinite(number) else None
        elif name in _FLAGS:
            typed[name] = text == 'true'
        else:
            typed[name] = text
    return typed
