"""Age and sex of a participant at a scan, from the dataset's tables.

The nearest table that states a value decides: the scans table, then the sessions table, then
``participants.tsv``.  A value that is there but cannot be an age is refused with a reason, never
replaced by that of a more distant table, which may belong to another visit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.dataset.faults import Fault, Faults, no_column, no_row, place_of
from bids_brainage.dataset.scan import Age
from bids_brainage.dataset.tables import Row, Table, plain_id, read_table, spelling
from bids_brainage.tsv import is_missing

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
        self._tables: dict[str, Table | None] = {}
        self._faults = Faults()

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
        faults: list[Fault] = []
        age = Age()
        for table, identifier in self._lookups(subject, session, filename):
            answer = self._cell(table, identifier, session)
            if isinstance(answer, Age):
                age = answer
                break
            if answer is not None:
                faults.append(answer)
                if answer.lost:
                    age = Age(problem=f'{answer.table} {answer.problem}')
                    break
        if age.years is None and age.problem is None:
            age = self._unknown(faults)
        elif age.source and age.problem:
            faults.append(_refused(age))
        unknown = age.years is None
        for fault in faults:
            if not fault.minor or (unknown and fault.table == 'participants.tsv'):
                self._faults.add(fault, subject, unknown=unknown)
        return age

    def messages(self) -> list[str]:
        """Return one message for each fault of the tables that were looked at."""
        return self._faults.messages()

    def without_folder(self, labels: Iterable[str]) -> list[str]:
        """Return the people of ``participants.tsv`` who have no folder, with ``sub-``."""
        table = self._table('participants.tsv', 'participant_id')
        there = {plain_id(f'sub-{label}') for label in labels}
        spelled = table.spelled if table else {}
        return [name for name, written in spelled.items() if plain_id(written) not in there]

    def sex(self, subject: str, session: str | None, filename: str) -> str | None:
        """Return ``M``, ``F``, another value as it stands in the dataset, or None.

        None, too, if two rows of a person differ.
        """
        for table, identifier in self._lookups(subject, session, filename):
            rows = _rows_of(table, identifier, session)
            for name in ('sex', 'gender'):
                column = spelling(table.header, name)
                found = {row[column].strip() for row in rows} if column is not None else set()
                found = {text for text in found if not is_missing(text)}
                if len(found) == 1:
                    return normalise_sex(found.pop(), _levels(table.columns, name))
        return None

    def _unknown(self, faults: Sequence[Fault]) -> Age:
        """Return an unknown age with the reason that helps most."""
        for fault in sorted(faults, key=lambda fault: fault.minor):
            return Age(problem=f'{fault.table} {fault.problem}')
        if self.age_column.casefold() != 'age':
            return Age(problem=f'no table has a value in column {self.age_column!r}')
        return Age()

    def _cell(self, table: Table, identifier: str, session: str | None) -> Age | Fault | None:
        """Return the age that a table states, why it states none, or None for ``n/a``."""
        place = place_of(table.relative)
        if table.problem:
            return Fault(place, table.problem, table.remedy)
        column = spelling(table.header, self.age_column)
        if column is None:
            return no_column(table, self.age_column)
        if table.header.count(column) > 1:
            return Fault(place, f'has several columns {column}', 'Leave one.', lost=True)
        rows = _rows_of(table, identifier, session)
        if not rows:
            return no_row(table, identifier, session)
        if identifier in table.long:
            problem = 'has rows with more cells than the header'
            return Fault(place, problem, 'Take out tabs that are too many.', lost=True)
        texts = {row[column].strip() for row in rows if not is_missing(row[column])}
        if len(texts) > 1:
            problem = 'has rows with different ages for one id'
            remedy = 'Leave one row for each id, or write ages by session into *_sessions.tsv.'
            return Fault(place, problem, remedy, lost=True, detail=' and '.join(sorted(texts)))
        other = _other_case(table, column, rows)
        if other is not None and column == 'age' and {rows[0][other].strip()} != texts:
            problem = f'has the columns {column} and {other} with different values'
            remedy = f'Give --age-column {other}, or rename one of them.'
            return Fault(place, problem, remedy, lost=True)
        if not texts:
            problem = 'has rows with fewer cells than the header'
            remedy = 'Fill them, with n/a for what is not known.'
            return Fault(place, problem, remedy) if identifier in table.short else None
        if table.undescribed:
            problem = f'has ages in a unit that is not known: {table.undescribed}'
            remedy = 'Ages are not taken for years while their description cannot be read.'
            return Fault(place, problem, remedy, lost=True)
        return parse_age(texts.pop(), _units(table.columns, column), source=table.relative)

    def _lookups(
        self, subject: str, session: str | None, filename: str
    ) -> Iterator[tuple[Table, str]]:
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

    def _table(self, relative: str, key: str) -> Table | None:
        if relative not in self._tables:
            self._tables[relative] = read_table(self.root, relative, key)
        return self._tables[relative]


_SESSION_COLUMNS = ('session_id', 'session', 'ses')


def _rows_of(table: Table, identifier: str, session: str | None) -> list[Row]:
    """Return the rows of an identifier; of several those of the session, if they say so."""
    rows = table.rows.get(identifier, [])
    column = next((c for n in _SESSION_COLUMNS if (c := spelling(table.header, n))), None)
    if len(rows) < 2 or column is None or session is None:
        return list(rows)
    return [row for row in rows if row[column].strip().removeprefix('ses-') == session]


def _other_case(table: Table, column: str, rows: Sequence[Row]) -> str | None:
    """Return another column of the same name but for upper and lower case, if it has a value."""
    for name in table.header:
        alike = name != column and name.casefold() == column.casefold()
        if alike and not is_missing(rows[0][name]):
            return name
    return None


def _refused(age: Age) -> Fault:
    """Return the fault of a value that cannot be an age."""
    text, _, reason = str(age.problem).partition(' refused: ')
    return Fault(
        place_of(str(age.source)),
        f'has ages that are refused: {reason.partition(";")[0]}',
        'Correct them, or state their unit as "Units" in the JSON file of the table.',
        detail=text.partition(' in ')[0].removeprefix('age '),
    )


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
        With `years` None and a `problem` when the cell cannot be an age: no number, negative,
        above 125 years, or in an unknown unit.  0 is an age: that of newborns.
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
    if years < 0:
        return refuse('must not be negative')
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


def _described(columns: Mapping[str, Any], column: str) -> Any:
    """Return what the JSON file says of a column, or None."""
    name = spelling(columns, column)
    return None if name is None else columns[name]


def _units(columns: Mapping[str, Any], column: str) -> str | None:
    description = _described(columns, column)
    units = description.get('Units') if isinstance(description, dict) else None
    return None if units is None else str(units)


def _levels(columns: Mapping[str, Any], column: str) -> dict[str, str]:
    """Return the documented meaning of each code of a column."""
    description = _described(columns, column)
    levels = description.get('Levels') if isinstance(description, dict) else None
    if not isinstance(levels, dict):
        return {}
    return {
        str(code): str(text.get('Description', '') if isinstance(text, dict) else text)
        for code, text in levels.items()
    }
