"""Tables of the dataset (participants, sessions, scans), and what is wrong with them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bids_brainage.tsv import MISSING, is_missing, split_table

_POINTER = re.compile(rb'(version https://git-lfs|\S*/annex/objects/)')
_PREFIXES = {'participant_id': 'sub-', 'session_id': 'ses-'}
_SEPARATORS = {',': 'commas', ';': 'semicolons', ' ': 'blanks'}
_SHEETS = ('.csv', '.txt', '.xlsx', '.xls', '.ods', '.TSV')

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes
    ----------
    relative : str
        Path in the dataset.
    rows : mapping
        Rows by identifier, with its prefix.
    header : tuple of str
        Names of the columns.
    columns : mapping
        Descriptions of the columns, from the JSON files.
    short, long : frozenset of str
        Identifiers of rows with fewer and with more cells than the header.
    spelled : mapping
        Identifiers as they are written in the table.
    problem, remedy : str
        Why nothing of the table can be used and what to do; empty for a good table.
    undescribed : str
        Why a JSON file that describes it cannot be read; empty if there is no such file.
    """

    relative: str
    rows: Mapping[str, list[Row]] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    short: frozenset[str] = frozenset()
    long: frozenset[str] = frozenset()
    spelled: Mapping[str, str] = field(default_factory=dict)
    problem: str = ''
    remedy: str = ''
    undescribed: str = ''

    @cached_property
    def plain_ids(self) -> dict[str, str]:
        """What people mean by the identifiers → how they are written."""
        return {plain_id(written): written for written in self.spelled.values()}


def read_table(root: Path, relative: str, key: str) -> Table | None:
    """Read a table and its description; None when absent.

    Parameters
    ----------
    root : Path
        The dataset.
    relative : str
        Path of the table in it.
    key : str
        Column of the identifiers.
    """
    path = root / relative
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _absent(root, relative)
    except OSError as error:
        return Table(
            relative,
            problem=f'cannot be read ({error.strerror})',
            remedy='Give yourself the right to read it (chmod u+r).',
        )
    text, problem, remedy = _decode(content, relative)
    if problem:
        return Table(relative, problem=problem, remedy=remedy)
    try:
        lines = split_table(text)
    except csv.Error as error:
        return Table(relative, problem=f'is no table ({error})', remedy=_SAVE)
    problem, remedy = _check_header(lines, key)
    if problem:
        return Table(relative, problem=problem, remedy=remedy)
    header = lines[0]
    place = header.index(str(spelling(header, key)))
    prefix = _PREFIXES.get(key, '')
    rows: dict[str, list[Row]] = {}
    spelled: dict[str, str] = {}
    short, long = set(), set()
    for line in lines[1:]:
        written = line[place].strip() if place < len(line) else MISSING
        if is_missing(written):
            continue
        identifier = written if written.startswith(prefix) else prefix + written
        cells = line + [MISSING] * (len(header) - len(line))
        rows.setdefault(identifier, []).append(dict(zip(header, cells, strict=False)))
        spelled[identifier] = written
        if len(line) < len(header):
            short.add(identifier)
        elif any(cell.strip() for cell in line[len(header) :]):
            long.add(identifier)
    columns, undescribed = _describe(root, relative)
    return Table(
        relative,
        rows,
        tuple(header),
        columns,
        frozenset(short),
        frozenset(long),
        spelled,
        undescribed=undescribed,
    )


_SAVE = 'Save it as UTF-8 text with tabs between the cells, as BIDS wants it.'


def _absent(root: Path, relative: str) -> Table | None:
    """Say of a table that is not there what may be meant to be it."""
    path = root / relative
    if path.is_symlink():
        return Table(
            relative,
            problem='is a link to content that is not here',
            remedy=f'Fetch it (datalad get {relative}).',
        )
    for ending in _SHEETS:
        if path.with_suffix(ending).exists():
            other = path.with_suffix(ending).name
            return Table(relative, problem=f'is not there, but {other} is', remedy=_SAVE)
    return None


def _decode(content: bytes, relative: str) -> tuple[str, str, str]:
    """Return the text of a table, or a problem and its remedy."""
    if _POINTER.match(content):
        return (
            '',
            'is a pointer to content that is not here',
            f'Fetch it (datalad get {relative}).',
        )
    if content.startswith((b'\xff\xfe', b'\xfe\xff')) or b'\0' in content[:100]:
        remedy = f'{_SAVE} (iconv -f UTF-16 -t UTF-8 does it.)'
        return '', 'is not UTF-8 text but UTF-16', remedy
    try:
        return content.decode('utf-8-sig'), '', ''
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b'\n') + 1
        problem = f'is not UTF-8 text (line {line}; perhaps Latin-1)'
        return '', problem, f'{_SAVE} (iconv -f LATIN1 -t UTF-8 does it.)'


def _check_header(lines: list[list[str]], key: str) -> tuple[str, str]:
    """Return what is wrong with a table as a whole and the remedy; two empty texts if nothing."""
    if not lines:
        return 'is empty', f'Write a header that begins with {key}, and a row for each.'
    header = lines[0]
    if spelling(header, key) is None:
        if len(header) == 1:
            for separator, name in _SEPARATORS.items():
                if separator in header[0]:
                    return f'has cells separated by {name}, expected tabs', _SAVE
        found = ', '.join(header)
        return f'has no column {key}', f'Columns found: {found}. Rename the column of the ids.'
    if len(lines) == 1:
        return 'has a header and no rows', 'Add a row for each.'
    return '', ''


def _describe(root: Path, relative: str) -> tuple[dict[str, Any], str]:
    """Merge the JSON files that describe a table's columns, the nearest one winning.

    Returns
    -------
    tuple
        Descriptions, and why a file could not be read.
    """
    parts = relative.removesuffix('.tsv').split('/')
    suffix = parts[-1].rsplit('_', 1)[-1]
    candidates = [f'{suffix}.json']
    for depth in range(1, len(parts)):
        candidates.append('/'.join([*parts[:depth], '_'.join(parts[:depth]) + f'_{suffix}.json']))
    merged: dict[str, Any] = {}
    for name in candidates:
        path = root / name
        try:
            content = json.loads(path.read_bytes().decode('utf-8-sig'))
        except FileNotFoundError:
            if path.is_symlink():
                return merged, f'{name} is a link to content that is not here; fetch it'
            continue
        except NotADirectoryError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            reason = ' '.join(str(error).split())
            return merged, f'{name} cannot be read as JSON ({reason}); correct it'
        if not isinstance(content, dict):
            return merged, f'{name} does not hold a JSON object; correct it'
        merged.update(content)
    return merged, ''


def spelling(names: Mapping[str, Any] | list[str] | tuple[str, ...], wanted: str) -> str | None:
    """Return a column name as it is spelled here; an exact match goes first."""
    if wanted in names:
        return wanted
    return next((name for name in names if name.casefold() == wanted.casefold()), None)


def plain_id(identifier: str) -> str:
    """Reduce an identifier to what people mean by it: no case, prefix, or leading zeros.

    >>> plain_id('sub-01'), plain_id('Subject_1'), plain_id('1')
    ('1', '1', '1')
    """
    text = re.sub('[^0-9a-z]', '', identifier.casefold())
    return re.sub(r'^(sub(ject)?|ses(sion)?|[sp](?=\d))?0*(?=.)', '', text)
