"""Columns of people and dates of scans, from the tables of a dataset.

Only tables are read, never images.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.tables import read_table
from bids_brainage.errors import OptionError
from bids_brainage.names import SITE_COLUMNS
from bids_brainage.tsv import is_missing, read_tsv

LOGGER = logging.getLogger(__name__)

Row = dict[str, str]

SECONDS_PER_DAY = 86400.0


def phenotype_columns(
    bids_dir: str | Path,
    wanted: Sequence[str],
    optional: Sequence[str] = (),
) -> dict[str, dict[tuple[str, str | None], str]]:
    """Look up columns by participant, or by participant and session.

    ``participants.tsv`` is searched first, then ``phenotype/*.tsv`` in order of name, then the
    participants' sessions tables; the first table with the column decides.

    Parameters
    ----------
    bids_dir : path
        The raw dataset.
    wanted : sequence of str
        Columns that must exist somewhere.
    optional : sequence of str
        Columns to take from ``participants.tsv`` if it has them.

    Returns
    -------
    dict
        By column: text by (``sub-X``, ``ses-Y`` or None for all sessions); missing cells are
        left out.

    Raises
    ------
    OptionError
        A wanted column is in no table; the message lists those there are.
    """
    root = Path(bids_dir)
    found: dict[str, dict[tuple[str, str | None], str]] = {}
    seen: set[str] = set()
    tables = [root / 'participants.tsv', *sorted((root / 'phenotype').glob('*.tsv'))]
    for path in tables:
        table = read_table(root, path.relative_to(root).as_posix(), 'participant_id')
        if table is not None and table.problem:
            LOGGER.warning('%s %s. %s', table.relative, table.problem, table.remedy)
        rows = [row for group in table.rows.values() for row in group] if table else []
        names = dict.fromkeys(rows[0] if rows else ())
        seen |= set(names)
        candidates = [*wanted, *(optional if path.name == 'participants.tsv' else ())]
        for name in candidates:
            if name in names and name not in found:
                found[name] = _values(rows, name)
    absent = [name for name in dict.fromkeys(wanted) if name not in found]
    if absent:
        rows = _session_rows(root)
        seen |= set(rows[0]) if rows else set()
        found |= {name: _values(rows, name) for name in absent if any(name in r for r in rows)}
        absent = [name for name in absent if name not in found]
    if absent:
        known = ', '.join(sorted(seen - {'participant_id', 'session_id'})) or 'none'
        raise OptionError(
            f'Column {", ".join(absent)} is in no table of {root} (participants.tsv, '
            f'phenotype/*.tsv, sessions tables); columns found: {known}. Correct the option.'
        )
    return found


def value_of(values: Mapping[tuple[str, str | None], str], scan: Scan) -> str:
    """Return a cell of a scan's person and session, empty if there is none.

    Parameters
    ----------
    values : mapping
        One column of `phenotype_columns`.
    scan : Scan
    """
    who = f'sub-{scan.subject}'
    when = f'ses-{scan.session}' if scan.session else None
    return values.get((who, when)) or values.get((who, None)) or ''


def site_of(columns: Mapping[str, Mapping[tuple[str, str | None], str]], scan: Scan) -> str:
    """Return where a scan was made by the first of `SITE_COLUMNS` that says so, or nothing."""
    told = (value_of(columns[name], scan) for name in SITE_COLUMNS if name in columns)
    return next(filter(None, told), '')


def acquisition_days(bids_dir: str | Path, sources: Iterable[str]) -> dict[str, float]:
    """Read the acquisition time of images from the scans and sessions tables.

    Parameters
    ----------
    bids_dir : path
        The raw dataset.
    sources : iterable of str
        BIDS URIs (``bids:raw:sub-X/...``).

    Returns
    -------
    dict of str to float
        Days since 1970 of the images with a valid ``acq_time``; dates may be shifted by the
        dataset's authors, so only differences within a person mean anything.
    """
    root = os.fspath(bids_dir)
    days: dict[str, float] = {}
    cache: dict[str, dict[str, str]] = {}
    for source in sources:
        relative = source.rsplit(':', 1)[-1]
        parts = relative.split('/')
        has_session = len(parts) > 2 and parts[1].startswith('ses-')
        home = parts[: 2 if has_session else 1]
        scans = '/'.join([root, *home, '_'.join(home) + '_scans.tsv'])
        text = _times(cache, scans, 'filename').get('/'.join(parts[len(home) :]))
        if text is None and has_session:
            sessions = f'{root}/{parts[0]}/{parts[0]}_sessions.tsv'
            text = _times(cache, sessions, 'session_id').get(parts[1])
        value = parse_days(text) if text else None
        if value is not None:
            days[source] = value
    return days


def parse_days(text: str) -> float | None:
    """Turn an ISO 8601 date and time into days since 1970, None if it is not one.

    >>> parse_days('1970-01-02T12:00:00')
    1.5
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() / SECONDS_PER_DAY


def _times(cache: dict[str, dict[str, str]], path: str, key: str) -> dict[str, str]:
    """Return ``acq_time`` by key of one table, read once."""
    if path not in cache:
        if len(cache) > 8:
            cache.pop(next(iter(cache)))
        there = os.path.exists(path)  # noqa: PTH110 (ten times as fast, and most are absent)
        cache[path] = {
            row[key]: row['acq_time']
            for row in (_rows(Path(path)) if there else [])
            if key in row and not is_missing(row.get('acq_time'))
        }
    return cache[path]


def _rows(path: Path) -> list[Row]:
    """Read a table; an absent or unreadable one has no rows."""
    try:
        return read_tsv(path)
    except (OSError, UnicodeDecodeError):
        return []


def _session_rows(root: Path) -> list[Row]:
    """Read all sessions tables with the participant added to each row."""
    rows = []
    for path in sorted(root.glob('sub-*/sub-*_sessions.tsv')):
        rows += [{**row, 'participant_id': path.parent.name} for row in _rows(path)]
    return rows


def _values(rows: Iterable[Mapping[str, str]], name: str) -> dict[tuple[str, str | None], str]:
    """Collect the cells of a column by participant and, if the table has it, session."""
    values: dict[tuple[str, str | None], str] = {}
    for row in rows:
        text = row.get(name)
        if text is None or is_missing(text) or 'participant_id' not in row:
            continue
        session = row.get('session_id')
        who = 'sub-' + row['participant_id'].strip().removeprefix('sub-')
        when = None if is_missing(session) else 'ses-' + str(session).removeprefix('ses-')
        values.setdefault((who, when), text.strip())
    return values
