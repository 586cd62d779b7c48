"""Volumes of all scans in one table, gathered from the tables of the participants."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.names import side_file, source_path
from bids_brainage.outputs.collect import READERS
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.tables import column_names
from bids_brainage.tsv import is_missing, read_tsv

if TYPE_CHECKING:
    import pandas as pd

OF_SCAN = ('participant_id', 'session_id', 'run', 'source', 'age', 'sex')
"""Columns that are taken from the predictions of the scan."""

NUMBERS = ('volume', 'share', 'percentile')


@dataclass
class GroupVolumes:
    """Volumes of all scans.

    Attributes
    ----------
    table : DataFrame
        One row for each scan and region: mL, share (0 to 1), percentile (0 to 100).
    problems : list of (str, str)
        Relative path of each table that cannot be read, and why.
    notes : list of str
        What to heed: volumes that do not belong together.
    """

    table: pd.DataFrame
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Read:
    """One table: its path, rows and the segmentation that measured them, or a problem."""

    path: str
    rows: list[dict[str, str]] = field(default_factory=list)
    segmentation: str = ''
    problem: str = ''


def gather_volumes(output_dir: Path, predictions: pd.DataFrame) -> GroupVolumes:
    """Read the table of volumes of every scan that has one.

    Parameters
    ----------
    output_dir : Path
        The output dataset.
    predictions : DataFrame
        Predictions as read; they say which scans there are, and their age, sex and flags.
    """
    import pandas as pd

    scans = predictions.drop_duplicates('source')
    flags = predictions.groupby('source')['qc_flag'].agg(_together)
    paths = [f'{source_path(source)}_volumes.tsv' for source in scans['source']]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda path: _read(output_dir, path), paths))
    rows: list[dict[str, Any]] = []
    for scan, one in zip(scans.to_dict('records'), found, strict=True):
        known = {**{k: scan.get(k) for k in OF_SCAN}, 'qc_flag': flags[scan['source']]}
        rows += [{**known, **row} for row in one.rows]
    table = pd.DataFrame(rows, columns=list(column_names('group_volumes')))
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name], errors='coerce')
    problems = [(one.path, one.problem) for one in found if one.problem]
    return GroupVolumes(table, problems, _notes({one.segmentation for one in found if one.rows}))


def _read(output_dir: Path, relative: str) -> _Read:
    """Read one table; without one there is nothing to tell."""
    path = output_dir / relative
    if not path.is_file():
        return _Read(relative)
    try:
        rows = [
            {'region': row['region'], **{k: row[k] for k in NUMBERS}} for row in read_tsv(path)
        ]
        side = read_json(side_file(path))
    except (OSError, ValueError, KeyError) as error:
        return _Read(relative, problem=f'{type(error).__name__}: {error}')
    return _Read(relative, rows, json.dumps(side.get('Segmentation'), sort_keys=True))


def _together(cells: Iterable[Any]) -> str | None:
    """Join the flags that the models have given one scan, each once."""
    texts = (cell for cell in cells if isinstance(cell, str) and not is_missing(cell))
    return ';'.join(dict.fromkeys(flag for text in texts for flag in text.split(';'))) or None


def _notes(segmentations: set[str]) -> list[str]:
    """Warn of volumes that different weights have measured."""
    if len(segmentations) < 2:
        return []
    return [
        f'group_volumes.tsv: the volumes were measured by {len(segmentations)} versions of the '
        'segmentation and cannot be compared. Run the participant level again for everybody.'
    ]
