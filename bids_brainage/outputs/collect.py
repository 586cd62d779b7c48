"""Reading of all prediction tables of an output dataset at once, for hundreds of thousands."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_brainage.errors import MissingInputError
from bids_brainage.outputs.files import ReadWriteError, read_json
from bids_brainage.outputs.tables import KEY, column_names
from bids_brainage.tsv import MISSING, is_missing

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = '_brainage.tsv'


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
    """

    table: pd.DataFrame
    problems: list[tuple[str, str]]
    models: dict[str, dict[str, Any]]


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
    blocks: dict[str, list[list[str]]] = {}
    problems: list[tuple[str, str]] = []
    first_file: dict[str, str] = {}
    for path in _quietly(_tables(root)):
        relative = path[len(root) :].lstrip(os.sep)
        try:
            header, rows = _read(path)
        except (OSError, ValueError) as error:
            problems.append((relative, f'{type(error).__name__}: {error}'))
            continue
        blocks.setdefault(header, []).extend(rows)
        place = header.split('\t').index('model')
        for row in rows:
            if row[place] not in first_file:
                first_file[row[place]] = path
    if not blocks:
        detail = f'; {problems[0][0]}: {problems[0][1]}' if problems else ''
        raise MissingInputError(
            f'No participant results in {root}: expected sub-*/[ses-*/]*/*{SUFFIX}, found '
            f'{len(problems)} unreadable tables{detail}. Run the participant level first, with '
            'the same output folder.'
        )
    frames = [_frame(header.split('\t'), rows) for header, rows in blocks.items()]
    table = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    names = column_names('brainage')
    table = table[[n for n in names if n in table] + [n for n in table if n not in names]]
    return Predictions(table, problems, _model_facts(first_file))


def _quietly(paths: Iterator[str]) -> Iterator[str]:
    """Pause the search for reference cycles, which grows with the rows read so far."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield from paths
    finally:
        if was_on:
            gc.enable()


def _tables(root: str) -> Iterator[str]:
    """Yield the paths of the prediction tables in order of their names."""
    for subject in _folders(root, 'sub-'):
        for first in _folders(subject, ''):
            name = first.rpartition(os.sep)[2]
            places = _folders(first, '') if name.startswith('ses-') else [first]
            for place in places:
                if place.rpartition(os.sep)[2] in ('anat', 'func'):
                    yield from _files(place)


def _folders(parent: str, prefix: str) -> list[str]:
    """List the folders of a folder that begin with a prefix, sorted."""
    try:
        with os.scandir(parent) as entries:
            return sorted(e.path for e in entries if e.name.startswith(prefix) and e.is_dir())
    except OSError:
        return []


def _files(folder: str) -> list[str]:
    """List the prediction tables of a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.name.endswith(SUFFIX) and e.name[0] != '.')


def _read(path: str) -> tuple[str, list[list[str]]]:
    """Read one table into its header line and rows of text.

    Raises
    ------
    ValueError
        The file is not a prediction table, or a row has another number of cells.
    """
    with open(path, 'rb') as stream:  # noqa: PTH123 (twice as fast as Path.open)
        lines = stream.read().decode('utf-8').replace('\r\n', '\n').split('\n')
    header = lines[0]
    names = header.split('\t')
    absent = [name for name in (*KEY, 'participant_id', 'predicted_age') if name not in names]
    if absent:
        raise ValueError(f'no column {", ".join(absent)}')
    rows = [line.split('\t') for line in lines[1:] if line]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f'expected {len(names)} cells in each row')
    return header, rows


def _frame(names: list[str], rows: list[list[str]]) -> pd.DataFrame:
    """Turn rows of text into columns of text with None where missing."""
    import pandas as pd

    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    missing = {'', MISSING}
    return pd.DataFrame(
        {
            name: pd.Series([None if cell in missing else cell for cell in cells], dtype=object)
            for name, cells in zip(names, columns, strict=True)
        }
    )


def _model_facts(first_file: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Read the facts of each model from the side file of its first table."""
    facts: dict[str, dict[str, Any]] = {}
    for model, path in first_file.items():
        try:
            side = read_json(Path(path).with_suffix('.json'))
        except ReadWriteError:
            continue
        known = side.get('Models', {}).get(model)
        if isinstance(known, dict) and not is_missing(model):
            facts[model] = known
    return facts
