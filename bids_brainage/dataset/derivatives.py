"""Find the preprocessed BOLD series that fMRIPrep made of a raw one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import InvalidDatasetError, MissingInputError
from bids_brainage.names import Name, side_file, split_name

PREFERRED_SPACES = ('MNI152NLin2009cAsym', 'MNI152NLin6Asym', 'MNI152NLin2009aSym')
"""Spaces taken, best first: atlases in MNI coordinates fit all of them."""

CONFOUND_SUFFIXES = ('timeseries', 'regressors')
"""Suffixes of ``desc-confounds`` tables since fMRIPrep 20.2, and before."""

# echoes are combined by fMRIPrep; magnitude is what it takes of complex data
_LOST = frozenset({'echo', 'part'})


@dataclass(frozen=True)
class PreprocessedBold:
    """Files of one preprocessed run.

    Attributes
    ----------
    bold : Path
        Series in template space.
    mask : Path or None
        Brain mask on the same grid.
    confounds : Path
        Confound table.
    space : str
        TemplateFlow label.
    resolution : str or None
        Label of ``res-``; None where the name has none (native resolution).
    metadata : dict
        Content of the side file; empty if there is none.
    """

    bold: Path
    mask: Path | None
    confounds: Path
    space: str
    resolution: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def find_fmriprep_bold(
    derivatives_dir: str | Path, scan: Scan, *, spaces: Sequence[str] = PREFERRED_SPACES
) -> PreprocessedBold:
    """Find what fMRIPrep made of one raw BOLD series.

    Parameters
    ----------
    derivatives_dir : path
        Root of the fMRIPrep output.
    scan : Scan
        The raw series; run labels match as numbers (``run-1`` and ``run-01``).
    spaces : sequence of str
        Template spaces in order of preference.  Within a space 2 mm (``res-2``) comes first, then
        the name without ``res-``, then others by name.

    Returns
    -------
    PreprocessedBold

    Raises
    ------
    InvalidDatasetError
        The folder is absent.
    MissingInputError
        There is no series of this run in one of the spaces, it is a link without content, or it
        has no confound table.
    """
    root = Path(derivatives_dir)
    if not root.is_dir():
        raise InvalidDatasetError(f'{root} is not a folder: expected fMRIPrep derivatives.')
    folder = root / f'sub-{scan.subject}'
    folder = folder / f'ses-{scan.session}' / 'func' if scan.session else folder / 'func'
    run = _of_run(folder, scan)
    series = [
        (path, name.entities)
        for path, name in run
        if name.suffix == 'bold' and name.entities.get('desc') == 'preproc' and is_nifti(name)
    ]
    bold, entities = _choose(series, spaces, folder, scan)
    if not has_content(bold):
        raise MissingInputError(
            f'{bold} is empty or a link to content that is not here. Fetch it (for example with '
            '`datalad get`).'
        )
    grid = {key: entities.get(key) for key in ('space', 'res')}
    masks = [
        path
        for path, name in run
        if name.suffix == 'mask'
        and name.entities.get('desc') == 'brain'
        and {key: name.entities.get(key) for key in grid} == grid
        and is_nifti(name)
        and has_content(path)
    ]
    return PreprocessedBold(
        bold=bold,
        mask=masks[0] if masks else None,
        confounds=_confounds(run, bold),
        space=entities['space'],
        resolution=entities.get('res'),
        metadata=side_content(bold),
    )


def _of_run(folder: Path, scan: Scan) -> list[tuple[Path, Name]]:
    """Return the files of a run with their names taken apart, by name."""
    wanted = _key(scan.entities)
    found = []
    for path in sorted(folder.glob(f'sub-{scan.subject}_*')):
        name = split_name(path.name)
        if name is None:
            continue
        source = {k: v for k, v in name.entities.items() if k not in ('space', 'res', 'desc')}
        if _key(source) == wanted:
            found.append((path, name))
    return found


def _key(entities: Mapping[str, str]) -> dict[str, str]:
    return numbered({k: v for k, v in entities.items() if k not in _LOST})


def numbered(entities: Mapping[str, str]) -> dict[str, str]:
    """Return entities with the label of the run as a plain number.

    >>> numbered({'sub': '01', 'run': '02'})
    {'sub': '01', 'run': '2'}
    """
    kept = dict(entities)
    if kept.get('run', '').isdigit():
        kept['run'] = str(int(kept['run']))
    return kept


def _choose(
    series: Sequence[tuple[Path, dict[str, str]]],
    spaces: Sequence[str],
    folder: Path,
    scan: Scan,
) -> tuple[Path, dict[str, str]]:
    usable = [item for item in series if item[1].get('space') in spaces]
    if not usable:
        there = sorted({entities.get('space', 'native BOLD') for _, entities in series})
        found = f'it is there in space {", ".join(there)} only' if there else 'found none'
        raise MissingInputError(
            f'{folder}: expected {scan.stem}_space-..._desc-preproc_bold.nii.gz in one of the '
            f'spaces {", ".join(spaces)}; {found}. Run fMRIPrep with --output-spaces '
            f'{spaces[0]}:res-2.'
        )

    def rank(item: tuple[Path, dict[str, str]]) -> tuple[int, int, str]:
        resolution = item[1].get('res', '')
        order = {'2': 0, '02': 0, '': 1}.get(resolution, 2)
        return spaces.index(item[1]['space']), order, resolution

    return min(usable, key=rank)


def _confounds(run: Iterable[tuple[Path, Name]], bold: Path) -> Path:
    tables = [
        (path, name.suffix)
        for path, name in run
        if name.entities.get('desc') == 'confounds' and name.extension == '.tsv'
    ]
    for wanted in CONFOUND_SUFFIXES:
        for path, suffix in tables:
            if suffix != wanted:
                continue
            if has_content(path):
                return path
            raise MissingInputError(
                f'{path} is empty or a link to content that is not here. Fetch it.'
            )
    raise MissingInputError(
        f'{bold} has no confound table beside it: expected the same name with '
        f'desc-confounds_{CONFOUND_SUFFIXES[0]}.tsv. Copy it from the fMRIPrep output.'
    )


def side_content(image: Path) -> dict[str, Any]:
    """Return the content of the side file of an image; empty if there is none."""
    try:
        content = json.loads(side_file(image).read_text(encoding='utf-8-sig'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_nifti(name: Name) -> bool:
    """Return whether a name is that of an image."""
    return name.extension in ('.nii', '.nii.gz')


def has_content(path: Path) -> bool:
    """Return whether a file is there and not empty."""
    return path.is_file() and path.stat().st_size > 0
