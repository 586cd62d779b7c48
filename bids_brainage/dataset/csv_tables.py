"""Read what other programs measured of many people: CSV tables of SynthSeg and DLMUSE."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bids_brainage.dataset.stats_files import HEAD, Measures
from bids_brainage.errors import UnusableImageError

_MUSE = re.compile(r'(?:.*[_-])?(\d+)')
_SYNTHSEG = {
    'total intracranial': HEAD,
    '3rd ventricle': '3rd-Ventricle',
    '4th ventricle': '4th-Ventricle',
    'brain-stem': 'Brain-Stem',
    'csf': 'csf-around-brain',
}
_STRUCTURES = {
    'cerebral white matter': 'Cerebral-White-Matter',
    'cerebral cortex': 'Cerebral-Cortex',
    'lateral ventricle': 'Lateral-Ventricle',
    'inferior lateral ventricle': 'Inf-Lat-Vent',
    'cerebellum white matter': 'Cerebellum-White-Matter',
    'cerebellum cortex': 'Cerebellum-Cortex',
    'accumbens area': 'Accumbens-area',
    'ventral dc': 'VentralDC',
    **{name.lower(): name for name in (
        'Thalamus', 'Caudate', 'Putamen', 'Pallidum', 'Hippocampus', 'Amygdala',
    )},
}  # fmt: skip


def _synthseg(column: str) -> str | None:
    """Return the name of a measure for a column of SynthSeg's ``--vol`` table."""
    words = column.strip().lower()
    if words in _SYNTHSEG:
        return _SYNTHSEG[words]
    side, _, structure = words.partition(' ')
    if side in ('left', 'right') and structure in _STRUCTURES:
        return f'{side.capitalize()}-{_STRUCTURES[structure]}'
    return None


def _dlmuse(column: str) -> str | None:
    """Return the name of a measure for a column of DLMUSE: the index of a MUSE region."""
    match = _MUSE.fullmatch(column.strip())
    return f'MUSE-{int(match[1])}' if match else None


LAYOUTS: dict[str, Callable[[str], str | None]] = {'synthseg': _synthseg, 'dlmuse': _dlmuse}
"""Program → what a column of its table is called here, None for one that is no measure."""


@cache
def rows_of(path: Path, program: str) -> dict[str, Measures]:
    """Read a table: name of the row → measures, mm3.

    Parameters
    ----------
    path : Path
        CSV; the first column names the image or the person.
    program : str
        One of `LAYOUTS`.

    Raises
    ------
    UnusableImageError
        It is not a table of this program, or a name stands twice.
    """
    try:
        with path.open(encoding='utf-8-sig', newline='') as stream:
            header, *lines = [line for line in csv.reader(stream) if any(line)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableImageError(f'{path}: cannot be read as CSV ({error}).') from error
    names = [LAYOUTS[program](column) if k else None for k, column in enumerate(header)]
    if sum(name is not None for name in names) < 2:
        raise UnusableImageError(
            f'{path}: expected the volumes of {program}, found the columns '
            f'{", ".join(header[:5]) or "none"}. Give the table as {program} wrote it.'
        )
    found: dict[str, Measures] = {}
    for line in lines:
        label = line[0].strip()
        if label in found:
            raise UnusableImageError(f'{path}: {label} stands twice; leave one row for each.')
        found[label] = _numbers(path, label, names, line)
    return found


def _numbers(path: Path, label: str, names: list[str | None], line: list[str]) -> Measures:
    measures: Measures = {}
    for name, cell in zip(names, line, strict=False):
        if name is None or not cell.strip():
            continue
        try:
            measures[name] = measures.get(name, 0.0) + float(cell)
        except ValueError as error:
            raise UnusableImageError(
                f'{path}: {cell!r} in the row of {label} is not a number. Correct it.'
            ) from error
    return measures
