"""Reading and formatting of BIDS tables (tab-separated, UTF-8, ``n/a`` for missing)."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from bids_brainage.errors import OptionError

MISSING = 'n/a'
_WITHOUT_WIDTH = dict.fromkeys(map(ord, '\u200b\u200c\u200d\u200e\u200f\u2060\ufeff'))
_MISSING_SPELLINGS = frozenset({'', 'n/a', 'na', 'nan', 'none', 'null'})


def is_missing(text: str | None) -> bool:
    """Tell whether a cell holds no value (``n/a`` and the usual misspellings of it)."""
    return text is None or text.strip().casefold() in _MISSING_SPELLINGS


def read_given_tsv(option: str, path: str | Path) -> list[dict[str, str]]:
    """Read a table that an option names, see `read_tsv`; an OptionError if it cannot be read."""
    try:
        return read_tsv(path)
    except (OSError, ValueError) as error:
        raise OptionError(f'{option} {path}: cannot be read as a table ({error}).') from error


def read_tsv(path: str | Path) -> list[dict[str, str]]:
    """Read a table as one mapping per row; cells stay text.

    A byte order mark, characters without width and blanks around the headers are dropped; a row
    that is shorter than the header is filled with ``n/a``.

    Raises
    ------
    OSError
        The file cannot be read.
    UnicodeDecodeError
        The file is not UTF-8 text.
    """
    lines = split_table(Path(path).read_bytes().decode('utf-8-sig'))
    if not lines:
        return []
    header, *rows = lines
    return [
        dict(zip(header, line + [MISSING] * (len(header) - len(line)), strict=False))
        for line in rows
    ]


def split_table(text: str) -> list[list[str]]:
    """Take the text of a table apart into header and rows of cells.

    Characters without width are dropped, the names of the header are stripped, and lines without
    any text are left out.
    """
    stream = io.StringIO(text.translate(_WITHOUT_WIDTH), newline='')
    lines = list(csv.reader(stream, delimiter='\t', quoting=csv.QUOTE_NONE))
    kept = [line for line in lines if any(cell.strip() for cell in line)]
    return [[name.strip() for name in line] for line in kept[:1]] + kept[1:]


def format_cell(value: Any) -> str:
    """Write one value as table text.

    Numbers keep full precision (``repr`` of the number, so that reading gives back the same
    double), booleans become ``true``/``false``, missing and non-finite values ``n/a``; tabs
    and line ends inside a text become single blanks.
    """
    if value is None:
        return MISSING
    if hasattr(value, 'item') and not hasattr(value, '__len__'):  # numpy and pandas scalars
        value = value.item()
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else MISSING
    text = ' '.join(str(value).split())
    return text if text and text not in ('NaT', '<NA>') else MISSING
