"""Age and sex of a participant at a scan, from the dataset's tables.

The nearest table that states a value decides: the scans table, then the sessions table, then
``participants.tsv``.  A value that is there but cannot be an age is refused with a reason, never
replaced by that of a more distant table, which may belong to another visit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage.dataset.scan import Age
from bids_brainage.tsv import is_missing, read_tsv

DAYS_PER_YEAR = 365.25
MAXIMUM_YEARS = 125.0

_UNITS_PER_YEAR = {
    **dict.fromkeys(('', 'year', 'years', 'yr', 'yrs', 'y', 'a', 'years old'), 1.0),
    **dict.fromkeys(('month', 'months', 'mo', 'mos'), 12.0),
    **dict.fromkeys(('week', 'weeks', 'wk', 'wks'), DAYS_PER_YEAR / 7.0),
    **dict.fromkeys(('day', 'days', 'd'), DAYS_PER_YEAR),
}
_NUMBER = re.compile(r'(?P<number>[+-]?\d+(?:\.\d*)?|\.\d+)(?P<plus>\+?)')
_SEX = {'m': 'M', 'male': 'M', 'f': 'F', 'female': 'F'}


@dataclass(frozen=True)
class _Table:
    """One table: rows by identifier, and the descriptions of its columns."""

    relative: str
    rows: dict[str, dict[str, str]]
    columns: dict[str, Any]
    problem: str | None = None


class Demographics:
    """Look up ages and sexes; each table of the dataset is read once.

    Parameters
    ----------
    bids_dir : path
        Root of the dataset.  Any or all of its tables may be missing.
    age_column : str
        Name of the age column (upper and lower case are not distinguished).
    """

    def __init__(self, bids_dir: str | Path, age_column: str = 'age') -> None:
        self.root = Path(bids_dir)
        self.age_column = age_column
        self._tables: dict[str, _Table | None] = {}

    def age(self, subject: str, session: str | None, filename: str) -> Age:
        """Return the age at one scan.

        Parameters
        ----------
        subject, session : str
            Labels without prefix.
        filename : str
            Path of the image relative to the subject's (or session's) folder, as in the scans
            table (``anat/sub-01_T1w.nii.gz``).
        """
        problems = []
        for table, identifier in self._lookups(subject, session, filename):
            if table.problem:
                problems.append(table.problem)
            column = _find(table.rows.get(identifier, {}), self.age_column)
            text = table.rows.get(identifier, {}).get(column or '', '')
            if not is_missing(text):
                units = _units(table.columns, self.age_column)
                return parse_age(text, units, source=table.relative)
        if self.age_column.casefold() != 'age' and not problems:
            problems.append(f'no table has a value in column {self.age_column!r}')
        return Age(problem='; '.join(problems) or None)

    def sex(self, subject: str, session: str | None, filename: str) -> str | None:
        """Return ``M``, ``F``, another value as it stands in the dataset, or None."""
        for table, identifier in self._lookups(subject, session, filename):
            row = table.rows.get(identifier, {})
            for name in ('sex', 'gender'):
                text = row.get(_find(row, name) or '', '')
                if not is_missing(text):
                    return normalise_sex(text, _levels(table.columns, name))
        return None

    def _lookups(
        self, subject: str, session: str | None, filename: str
    ) -> Iterator[tuple[_Table, str]]:
        """Yield the tables from near to far, each with the identifier of the row wanted."""
        home = f'sub-{subject}'
        stem = home
        if session:
            stem = f'{home}_ses-{session}'
            scans = f'{home}/ses-{session}/{stem}_scans.tsv'
        else:
            scans = f'{home}/{stem}_scans.tsv'
        wanted = [(scans, 'filename', filename)]
        if session:
            wanted.append((f'{home}/{home}_sessions.tsv', 'session_id', f'ses-{session}'))
        wanted.append(('participants.tsv', 'participant_id', home))
        for relative, key, identifier in wanted:
            table = self._table(relative, key)
            if table is not None:
                yield table, identifier

    def _table(self, relative: str, key: str) -> _Table | None:
        if relative not in self._tables:
            self._tables[relative] = _read_table(self.root, relative, key)
        return self._tables[relative]


def parse_age(text: str, units: str | None = None, *, source: str | None = None) -> Age:
    """Turn a table cell into an age in years.

    Parameters
    ----------
    text : str
        Cell, e.g. ``34.5`` or ``89+`` (top-coded: kept as 89 years and flagged).
    units : str, optional
        ``Units`` of the column: years (default), months, weeks or days; a month is 1/12 and a
        day 1/365.25 of a year.
    source : str, optional
        Table the cell came from.

    Returns
    -------
    Age
        With `years` None and a `problem` when the cell cannot be an age: no number, 0 or
        negative, above 125 years, or in an unknown unit.
    """

    def refuse(reason: str) -> Age:
        place = f' in {source}' if source else ''
        return Age(source=source, problem=f'age {text.strip()!r}{place} refused: {reason}')

    per_year = _UNITS_PER_YEAR.get((units or '').strip().casefold())
    if per_year is None:
        return refuse(f'unit {units!r} is none of year, month, week, day')
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return refuse('not a number')
    censored = bool(match['plus'])
    if censored and per_year != 1.0:
        return refuse(f'a top-coded age must be in years, found unit {units!r}')
    years = float(match['number']) / per_year
    if years <= 0:
        return refuse('must be above 0')
    if years > MAXIMUM_YEARS:
        return refuse(
            f'{years:g} years; if it is in other units, state them as "Units" in the JSON file '
            'of the table'
        )
    return Age(years=years, censored=censored, source=source)


def normalise_sex(text: str, levels: Mapping[str, str] | None = None) -> str:
    """Return ``M`` or ``F`` for the usual words, or as the column's ``Levels`` document it.

    Numeric and other codes without documented levels are returned as they are: 1 and 2 mean
    different things in different datasets.
    """
    text = text.strip()
    meaning = (levels or {}).get(text, text)
    for candidate in (meaning, text):
        if (known := _SEX.get(candidate.strip().casefold())) is not None:
            return known
    return text


def _read_table(root: Path, relative: str, key: str) -> _Table | None:
    """Read a table and its description; None when absent."""
    path = root / relative
    if not path.exists():
        return None
    columns = _describe(root, relative)
    try:
        rows = read_tsv(path)
    except (OSError, UnicodeDecodeError) as error:
        return _Table(relative, {}, columns, f'{relative} cannot be read ({error})')
    name = _find(rows[0], key) if rows else key
    if name is None:
        return _Table(relative, {}, columns, f'{relative} has no column {key}')
    prefix = {'participant_id': 'sub-', 'session_id': 'ses-'}.get(key, '')
    by_key = {}
    for row in rows:
        identifier = row[name].strip()
        by_key[identifier if identifier.startswith(prefix) else prefix + identifier] = row
    return _Table(relative, by_key, columns)


def _describe(root: Path, relative: str) -> dict[str, Any]:
    """Merge the JSON files that describe a table's columns, the nearest one winning."""
    parts = relative.removesuffix('.tsv').split('/')
    suffix = parts[-1].rsplit('_', 1)[-1]
    candidates = [root / f'{suffix}.json']
    for depth in range(1, len(parts)):
        folder = root.joinpath(*parts[:depth])
        name = '_'.join(parts[:depth])
        candidates.append(folder / f'{name}_{suffix}.json')
    merged: dict[str, Any] = {}
    for path in candidates:
        try:
            content = json.loads(path.read_text(encoding='utf-8-sig'))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            merged.update(content)
    return merged


def _find(row: Mapping[str, Any], column: str) -> str | None:
    """Return the row's own spelling of a column name; an exact match goes first."""
    if column in row:
        return column
    return next((name for name in row if name.casefold() == column.casefold()), None)


def _units(columns: Mapping[str, Any], column: str) -> str | None:
    description = columns.get(_find(columns, column) or '')
    units = description.get('Units') if isinstance(description, dict) else None
    return units if isinstance(units, str) else None


def _levels(columns: Mapping[str, Any], column: str) -> dict[str, str]:
    """Return the documented meaning of each code of a column."""
    description = columns.get(_find(columns, column) or '')
    levels = description.get('Levels') if isinstance(description, dict) else None
    if not isinstance(levels, dict):
        return {}
    return {
        str(code): str(text.get('Description', '') if isinstance(text, dict) else text)
        for code, text in levels.items()
    }
