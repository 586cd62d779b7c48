"""Ratings of scans by people, as the page of all scans saves them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.errors import OptionError
from bids_brainage.reports.index import RATINGS
from bids_brainage.tsv import is_missing, read_given_tsv

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def add_ratings(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the column ``rating`` to predictions.

    Parameters
    ----------
    table : DataFrame
        Predictions as read.
    path : Path
        A table with ``rating`` (accept, unsure, reject) and ``source``, or with
        ``participant_id`` and, if it has it, ``session_id``.

    Raises
    ------
    OptionError
        It is not such a table, or it rates none of these images.
    """
    rows = read_given_tsv('--ratings', path)
    columns = set(rows[0]) if rows else set()
    key = ['source'] if 'source' in columns else ['participant_id']
    key += ['session_id'] if 'source' not in columns and 'session_id' in columns else []
    if not {'rating', *key} <= columns:
        raise OptionError(
            f'--ratings {path}: expected the columns rating and source (or participant_id), found '
            f'{", ".join(sorted(columns)) or "no row"}. Save the ratings from index.html.'
        )
    given = {}
    for row in rows:
        if is_missing(row['rating']):
            continue
        if row['rating'] not in RATINGS:
            raise OptionError(
                f'--ratings {path}: expected {", ".join(RATINGS)}, found {row["rating"]!r}.'
            )
        given[tuple(None if is_missing(row[name]) else row[name] for name in key)] = row['rating']
    cells = zip(*(table[name].tolist() for name in key), strict=True)
    rated = [given.get(cell) for cell in cells]
    if given and not any(rated):
        raise OptionError(
            f'--ratings {path}: none of its {len(given)} ratings is of an image in the output '
            f'folder; {key[0]} there is, for example, {table[key[0]].iloc[0]}.'
        )
    return table.assign(rating=rated)
