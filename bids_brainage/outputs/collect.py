"""Reading of all prediction tables of an output dataset at once, for hundreds of thousands.

Files are read by a few threads, which hides the delays of disks and network mounts; all tables
with the same header are then parsed together.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_brainage.errors import MissingInputError, ReadWriteError
from bids_brainage.names import split_name
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.provenance import MADE_FROM
from bids_brainage.outputs.tables import KEY, column_names
from bids_brainage.tsv import MISSING, is_missing

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = '_brainage.tsv'
MAP_SUFFIX = '_saliency.nii.gz'
IMPORTANCE_SUFFIX = '_saliency.tsv'

READERS = 8
"""Threads that read; they mostly wait."""

CHUNK = 128
"""Participants that a thread reads at a time."""

REQUIRED = (*KEY, 'participant_id', 'predicted_age')


class Predictions(NamedTuple):
    """All predictions of an output dataset.

    Attributes
    ----------
    table : DataFrame
        One row per image and model with the columns of ``_brainage.tsv``; cells are text,
        None where missing.  In order of file name, so every run reads the same table.
    problems : list of (str, str)
        Relative path of each table that could not be read, and why.
    models : dict of str to dict
        Facts of each model from the side file of its first table.
    maps : list of str
        Relative paths of the explanation maps in template space, seen in passing.
    importances : list of str
        Those of the tables of importance of regions.
    """

    table: pd.DataFrame
    problems: list[tuple[str, str]]
    models: dict[str, dict[str, Any]]
    maps: list[str]
    importances: list[str]


class _File(NamedTuple):
    """One table: header line, rows as lines of text, their number; or why it has none."""

    relative: str
    header: str
    body: str
    n_rows: int
    problem: str | None


def read_predictions(output_dir: str | Path) -> Predictions:
    """Read every ``_brainage.tsv`` under the participants' folders.

    A table that cannot be read costs only its own rows.

    Parameters
    ----------
    output_dir : path
        The output dataset.

    Raises
    ------
    MissingInputError
        There is no readable table at all.
    """
    import pandas as pd

    root = os.fspath(output_dir)
    files, seen = _read_all(root)
    importances = [name for name in seen if name.endswith(IMPORTANCE_SUFFIX)]
    maps = [name for name in seen if name.endswith(MAP_SUFFIX)]
    problems = [(f.relative, f.problem) for f in files if f.problem]
    blocks: dict[str, list[_File]] = {}
    for file in files:
        if not file.problem:
            blocks.setdefault(file.header, []).append(file)
    if not blocks:
        found = 'none'
        if problems:
            found = f'{len(problems)} unreadable ones; {problems[0][0]}: {problems[0][1]}'
        raise MissingInputError(
            f'No participant results in {root}: expected sub-*/[ses-*/]*/*{SUFFIX}, found '
            f'{found}. Run the participant level first, with the same output folder.'
        )
    frames: list[pd.DataFrame] = []
    first_file: dict[str, str] = {}
    for header, members in blocks.items():
        frame = _frame(header.split('\t'), members)
        frames.append(frame)
        first_file = {**_first_files(frame, members), **first_file}
    table = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    names = column_names('brainage')
    table = table[[n for n in names if n in table] + [n for n in table if n not in names]]
    return Predictions(table, problems, _model_facts(root, first_file), maps, importances)


def _read_all(root: str) -> tuple[list[_File], list[str]]:
    """Read all tables of predictions; list maps and tables of importance by name."""
    subjects = [name for name in _names(root) if name.startswith('sub-')]
    chunks = [subjects[k : k + CHUNK] for k in range(0, len(subjects), CHUNK)]
    files: list[_File] = []
    maps: list[str] = []
    with ThreadPoolExecutor(READERS) as pool:
        for tables, seen in pool.map(lambda names: _read_subjects(root, names), chunks):
            files += tables
            maps += seen
    return files, maps


def _read_subjects(root: str, subjects: Sequence[str]) -> tuple[list[_File], list[str]]:
    """Read the tables of some participants; list their maps and tables of importance."""
    files: list[_File] = []
    maps: list[str] = []
    for place in (place for subject in subjects for place in _places(root, subject)):
        for name in _names(f'{root}/{place}'):
            if name.endswith(SUFFIX) and name[0] != '.':
                files.append(_read(root, f'{place}/{name}'))
            elif name.endswith(IMPORTANCE_SUFFIX) or (
                name.endswith(MAP_SUFFIX) and _in_template_space(name)
            ):
                maps.append(f'{place}/{name}')
    return files, maps


def _in_template_space(name: str) -> bool:
    """Return whether the name of a map says that it lies in a template's space."""
    parts = split_name(name)
    return parts is not None and parts.entities.get('space', 'T1w') != 'T1w'


def _places(root: str, subject: str) -> list[str]:
    """List the folders of a participant that may hold predictions."""
    places = []
    for name in _names(f'{root}/{subject}'):
        if name in ('anat', 'func'):
            places.append(f'{subject}/{name}')
        elif name.startswith('ses-'):
            places += [f'{subject}/{name}/anat', f'{subject}/{name}/func']
    return places


def _names(folder: str) -> list[str]:
    """List a folder in order; what is no folder has no names."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (half the time of Path.iterdir)
    except OSError:
        return []


def _read(root: str, relative: str) -> _File:
    """Read one table and check its shape."""
    try:
        text = _content(f'{root}/{relative}').decode('utf-8').replace('\r\n', '\n')
        header, _, body = text.partition('\n')
        n_rows = _checked_rows(header, body)
    except (OSError, ValueError) as error:
        return _File(relative, '', '', 0, f'{type(error).__name__}: {error}')
    return _File(relative, header, body.strip('\n'), n_rows, None)


def _content(path: str) -> bytes:
    """Return the bytes of a file with as few system calls as possible."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(handle, 1 << 16):
            parts.append(part)
    finally:
        os.close(handle)
    return b''.join(parts)


def _checked_rows(header: str, body: str) -> int:
    """Count the rows of a table.

    Raises
    ------
    ValueError
        It is not a prediction table, or a row has another number of cells.
    """
    names = header.split('\t')
    absent = [name for name in REQUIRED if name not in names]
    if absent:
        raise ValueError(f'no column {", ".join(absent)}')
    if len(set(names)) < len(names):
        raise ValueError('two columns have the same name')
    if '\0' in body:
        raise ValueError('holds bytes that are not text')
    rows = [line for line in body.split('\n') if line]
    if any(line.count('\t') != len(names) - 1 for line in rows):
        raise ValueError(f'expected {len(names)} cells in each row')
    return len(rows)


def _frame(names: list[str], files: Sequence[_File]) -> pd.DataFrame:
    """Parse the rows of tables of one header into columns of text, None where missing."""
    import numpy as np
    import pandas as pd

    body = '\n'.join(file.body for file in files if file.n_rows)
    table = pd.read_csv(
        io.StringIO(body),
        sep='\t',
        names=names,
        index_col=False,
        dtype=object,
        na_values=['', MISSING],
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,
        lineterminator='\n',
    )
    cells = {name: table.pop(name).to_numpy(object) for name in names}
    cells = {name: np.where(pd.isna(values), None, values) for name, values in cells.items()}
    return pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in cells.items()})


def _first_files(frame: pd.DataFrame, files: Sequence[_File]) -> dict[str, str]:
    """Find the first table of each model."""
    import numpy as np

    ends = np.cumsum([file.n_rows for file in files])
    rows = frame['model'].drop_duplicates().dropna()
    where = np.searchsorted(ends, rows.index.to_numpy(), side='right')
    return {str(m): files[k].relative for m, k in zip(rows, where.tolist(), strict=True)}


def _model_facts(root: str, first_file: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Read the facts of each model from the side file of its first table."""
    facts: dict[str, dict[str, Any]] = {}
    for model, relative in first_file.items():
        try:
            side = read_json(Path(root, relative).with_suffix('.json'))
        except ReadWriteError:
            continue
        known = side.get('Models', {}).get(model)
        if isinstance(known, dict) and not is_missing(model):
            facts[model] = {key: known[key] for key in known if key != MADE_FROM}
    return facts
