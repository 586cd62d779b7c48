"""Read what other programs measured: stats files of FreeSurfer and FastSurfer.

Measures have one name whichever program and version wrote them: ``Left-Hippocampus`` (mm3),
``BrainSegVolNotVent`` (mm3), ``lh-insula-thickness`` (mm), ``lh-insula-area`` (mm2),
``lh-insula-volume`` (mm3); ``lh-cortex-`` is the whole hemisphere.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bids_brainage.errors import UnusableImageError

Measures = dict[str, float]

HEAD = 'eTIV'
"""Estimated intracranial volume, mm3."""

BRAIN = 'BrainSegVolNotVent'
"""Tissue of the brain without its ventricles, mm3."""

SIDES = ('lh', 'rh')

_RENAMED = {
    'Left-Thalamus-Proper': 'Left-Thalamus',
    'Right-Thalamus-Proper': 'Right-Thalamus',
    'ICV': HEAD,
    'lhCorticalWhiteMatterVol': 'lhCerebralWhiteMatterVol',
    'rhCorticalWhiteMatterVol': 'rhCerebralWhiteMatterVol',
    'CorticalWhiteMatterVol': 'CerebralWhiteMatterVol',
}
"""Names of versions before 7 (thalamus), 5.2 (ICV) and 6 (white matter)."""

_FLUID = ('Lateral-Ventricle', 'Inf-Lat-Vent', 'choroid-plexus', 'vessel')
_NOT_BRAIN = frozenset(
    {'3rd-Ventricle', '4th-Ventricle', '5th-Ventricle', 'CSF', 'Optic-Chiasm'}
    | {f'{side}-{name}' for side in ('Left', 'Right') for name in _FLUID}
)
_APARC = {'SurfArea': 'area', 'ThickAvg': 'thickness', 'GrayVol': 'volume'}
_SURFACE = {'WhiteSurfArea': 'area', 'MeanThickness': 'thickness'}


def read_volumes(path: Path) -> Measures:
    """Read an ``aseg.stats``, or FastSurfer's ``aseg+DKT.stats``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        Structures and header measures, mm3.  Where the header has no totals (FastSurfer without
        surfaces), brain, cortex and white matter are the sums of the structures.

    Raises
    ------
    UnusableImageError
        The file is damaged, or not of this kind.
    """
    header, rows = _read(path)
    found = {}
    for row in rows:
        name = row['StructName']
        if not name.startswith(('ctx-', 'wm-')):
            found[_RENAMED.get(name, name)] = row['Volume_mm3']
    found |= {_RENAMED.get(name, name): value for (_, name), value in header.items()}
    cortex = {
        side: sum(r['Volume_mm3'] for r in rows if r['StructName'].startswith(f'ctx-{side}-'))
        for side in SIDES
    }
    for side, long in (('lh', 'Left'), ('rh', 'Right')):
        white = found.get(f'{long}-Cerebral-White-Matter')
        if cortex[side] > 0:
            found.setdefault(f'{side}CortexVol', cortex[side])
        if white is not None:
            found.setdefault(f'{side}CerebralWhiteMatterVol', white)
    if all(cortex.values()):
        segmented = sum(row['Volume_mm3'] for row in rows if row['StructName'] not in _NOT_BRAIN)
        found.setdefault(BRAIN, segmented)
    if not any(name.startswith(('Left-', 'Right-')) for name in found):
        raise UnusableImageError(
            f'{path}: expected the volumes of an aseg.stats (Left-Hippocampus and others), found '
            f'{", ".join(list(found)[:3]) or "none"}. Run the segmentation again.'
        )
    return found


def read_cortex(path: Path, side: str) -> Measures:
    """Read an ``aparc.stats``, or FastSurfer's ``aparc.DKTatlas.mapped.stats``.

    Parameters
    ----------
    path : Path
    side : str
        ``lh`` or ``rh``.

    Returns
    -------
    dict
        Thickness (mm), surface area (mm2) and volume (mm3) of the regions, and the first two of
        the hemisphere.

    Raises
    ------
    UnusableImageError
        The file is damaged, or not of this kind.
    """
    header, rows = _read(path)
    found = {
        f'{side}-{row["StructName"]}-{short}': row[column]
        for row in rows
        for column, short in _APARC.items()
        if column in row
    }
    if not found:
        raise UnusableImageError(
            f'{path}: expected columns SurfArea and ThickAvg of an aparc.stats, found none. '
            'Run the surface statistics again.'
        )
    for (group, name), value in header.items():
        if group == 'Cortex' and name in _SURFACE:
            found[f'{side}-cortex-{_SURFACE[name]}'] = value
    areas = {k: v for k, v in found.items() if k.endswith('-area') and '-cortex-' not in k}
    found.setdefault(f'{side}-cortex-area', sum(areas.values()))
    thick = sum(found[k.removesuffix('area') + 'thickness'] * v for k, v in areas.items())
    found.setdefault(f'{side}-cortex-thickness', thick / (sum(areas.values()) or math.nan))
    return found


def version_of(path: Path) -> str:
    """Return the version of the program that a stats file names, or nothing."""
    for line in _text(path).splitlines():
        if line.startswith(('# cvs_version', '# $Id', '# FastSurfer_version', '# version')):
            return ' '.join(line.split()[2:]).strip('$ ')
    return ''


def _text(path: Path) -> str:
    try:
        return path.read_text('utf-8', errors='replace')
    except OSError as error:
        raise UnusableImageError(
            f'{path}: cannot be read ({error.strerror}); fetch it, or give yourself the right to.'
        ) from error


def _read(path: Path) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """Return the measures of the header, by group and name, and the rows by column."""
    header: dict[tuple[str, str], float] = {}
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            if line.startswith('# Measure'):
                group, name, *_, value, _ = (p.strip() for p in line[9:].split(','))
                header[group, name] = float(value)
            elif line.startswith('# ColHeaders'):
                columns = line.split()[2:]
            elif line.strip() and not line.startswith('#'):
                cells = line.split()
                if len(cells) != len(columns):
                    raise ValueError(f'{len(cells)} cells under {len(columns)} columns')
                rows.append({
                    name: cell if name == 'StructName' else float(cell)
                    for name, cell in zip(columns, cells, strict=True)
                })  # fmt: skip
        except ValueError as error:
            raise UnusableImageError(
                f'{path}: line {number} is not what FreeSurfer writes ({error}). The file is '
                'damaged or was edited; run the statistics again.'
            ) from error
    if not rows or 'StructName' not in columns:
        raise UnusableImageError(
            f'{path}: expected a table of statistics with "# ColHeaders ... StructName", found '
            f'{len(rows)} rows. Run the statistics again.'
        )
    return header, rows
