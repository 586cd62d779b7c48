"""Find what other programs measured of the people of a dataset: no image is needed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.dataset.ages import Demographics
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import UnusableImageError
from bids_brainage.names import CSV_PROGRAMS, PROGRAMS, split_name

if TYPE_CHECKING:
    from bids_brainage.dataset.stats_files import Measures

LOG = logging.getLogger(__name__)

MEASURED = 'table'
"""``suffix`` of what was measured elsewhere, and its ``modality`` in rows."""

_VOLUMES = ('aseg.stats', 'aseg+DKT.stats', 'aseg+DKT.VINN.stats')
_CORTEX = ('aparc.stats', 'aparc.DKTatlas.mapped.stats', 'aparc.DKTatlas.stats')
_SEGMENTATIONS = (
    'aparc+aseg.mgz',
    'aparc.DKTatlas+aseg.mapped.mgz',
    'aparc.DKTatlas+aseg.deep.mgz',
)
_LABEL = r'[0-9a-zA-Z+]+'
_PLAIN = re.compile(_LABEL)
_HEADS = ('T1.mgz', 'orig_nu.mgz', 'orig.mgz', 'norm.mgz', 'brain.mgz')
_BASE = 'base-tps'
"""File that marks FreeSurfer's template of a person, which is no visit."""


@dataclass(frozen=True)
class MeasuredScan(Scan):
    """What a program measured at one visit of a person.

    Attributes
    ----------
    program : str
        One of `PROGRAMS`.
    tables : mapping
        ``volumes``, ``lh``, ``rh`` → file.
    row : str
        Name of the row, of a table of many people.
    longitudinal : bool
        Of FreeSurfer's longitudinal stream.
    segmentation : Path or None
        Label image of the regions, if it is there.
    """

    program: str = ''
    tables: Mapping[str, Path] = field(default_factory=dict)
    row: str = ''
    longitudinal: bool = False
    segmentation: Path | None = None

    @property
    def stem(self) -> str:
        """How the names of all files of this visit start."""
        return '_'.join(f'{key}-{label}' for key, label in self.entities.items())

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the measures, and their map, are made from."""
        own = tuple(self.tables.values())
        return own if self.segmentation is None else (*own, self.segmentation)

    @property
    def anatomy(self) -> Path | None:
        """The image that was segmented, for pictures, if it is there."""
        if self.segmentation is None:
            return None
        images = (self.segmentation.parent / name for name in _HEADS)
        return next((path for path in images if path.is_file()), None)

    @property
    def problem(self) -> str | None:
        """Why the files cannot be read, or None."""
        absent = [path.name for path in self.files if not path.is_file()]
        if absent:
            return f'{self.relative}: {", ".join(absent)} is a link to content that is not here'
        return None

    def measures(self) -> Measures:
        """Read the measures: mm3, mm, mm2, named as in `bids_brainage.dataset.stats_files`.

        Raises
        ------
        UnusableImageError
            A file is damaged, or the volumes are missing.
        """
        from bids_brainage.dataset.csv_tables import rows_of
        from bids_brainage.dataset.stats_files import SIDES, read_cortex, read_volumes

        if self.program in CSV_PROGRAMS:
            return rows_of(self.tables['volumes'], self.program)[self.row]
        if 'volumes' not in self.tables:
            raise UnusableImageError(
                f'{self.relative}: there is no {" or ".join(_VOLUMES)} beside it. Run the '
                'segmentation statistics again.'
            )
        found = read_volumes(self.tables['volumes'])
        for side in SIDES:
            if side in self.tables:
                found |= read_cortex(self.tables[side], side)
        return found


def program_of(name: str) -> str | None:
    """Return which of the `PROGRAMS` derivatives of a name are from, None if of none.

    >>> program_of('freesurfer-7.3.2'), program_of('fmriprep')
    ('freesurfer', None)
    """
    return next((p for p in PROGRAMS if name.lower().startswith(p)), None)


def find_measured(
    bids_dir: Path,
    derivatives: Mapping[str, str],
    *,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    age_column: str = 'age',
    tell: bool = False,
) -> list[MeasuredScan]:
    """List what programs measured, in order of program, person and session.

    Parameters
    ----------
    bids_dir : Path
        Dataset with the tables of ages; it may be without images.
    derivatives : mapping
        Name → folder (FreeSurfer, FastSurfer), or folder or file of CSV tables.
    participants, sessions : iterable of str
        Bare labels; all when empty.
    age_column : str
    tell : bool
        Log what is wrong with the tables of ages, too.
    """
    wanted, visits = set(participants), set(sessions)
    ages = Demographics(bids_dir, age_column)
    found: list[MeasuredScan] = []
    seen = 0
    for name, place in derivatives.items():
        program = program_of(name)
        if program is None:
            continue
        listed = _rows if program in CSV_PROGRAMS else _folders
        for scan in listed(name, Path(place), program):
            seen += 1
            if wanted and scan.subject not in wanted:
                continue
            if visits and scan.session not in visits:
                continue
            found.append(_aged(scan, ages))
    if not found and any(map(program_of, derivatives)):
        LOG.warning(
            '%s: no table to use among %d visits. Look at --participant-label and '
            '--session-label, and whether sub-*/stats/aseg.stats or a CSV table is there.',
            ', '.join(derivatives), seen,
        )  # fmt: skip
    for message in ages.messages() if tell else ():
        LOG.warning('%s', message)
    return sorted(found, key=lambda s: (s.program, s.subject, s.session or '', s.relative))


def _aged(scan: MeasuredScan, ages: Demographics) -> MeasuredScan:
    stem = '_'.join(f'{k}-{v}' for k, v in scan.entities.items() if k != 'rec')
    image = f'anat/{stem}_T1w.nii.gz'
    return replace(
        scan,
        age=ages.age(scan.subject, scan.session, image),
        sex=ages.sex(scan.subject, scan.session, image),
    )


def _folders(name: str, root: Path, program: str) -> list[MeasuredScan]:
    """Return one scan for each subject folder of FreeSurfer; of two streams one a person."""
    found = []
    odd = []
    for folder in [*root.glob('*'), *root.glob('sub-*/ses-*')]:
        tables = _tables_of(folder / 'stats')
        if not tables or (folder / _BASE).is_file() or folder.name.startswith('fsaverage'):
            continue
        visit, _, template = folder.relative_to(root).as_posix().partition('.long.')
        entities = entities_of(visit.replace('/', '_'))
        if entities is None:
            odd.append(folder.name)
            continue
        found.append(_scan(name, root, folder, program, tables, entities, bool(template)))
    if odd:
        LOG.warning(
            '%s: folders are passed over, as their names are neither sub-<label>[_ses-<label>] '
            'nor letters and digits: %s. Link them under such names.',
            root, ', '.join(sorted(odd)[:20]),
        )  # fmt: skip
    return list(_one_stream(found))


def _tables_of(stats: Path) -> dict[str, Path]:
    """Return the tables of a folder that are there, or are links to content."""
    from bids_brainage.dataset.stats_files import SIDES

    names = {path.name for path in stats.glob('*.stats')}
    wanted = {'volumes': _VOLUMES} | {
        side: tuple(f'{side}.{name}' for name in _CORTEX) for side in SIDES
    }
    chosen = {
        role: next((n for n in options if n in names), None) for role, options in wanted.items()
    }
    return {role: stats / file for role, file in chosen.items() if file is not None}


def entities_of(name: str) -> dict[str, str] | None:
    """Return the entities of a visit from the name of a folder or row, None if it has no label.

    >>> entities_of('sub-01_ses-a_run-2_T1w.nii.gz')
    {'sub': '01', 'ses': 'a', 'run': '2'}
    >>> entities_of('bert'), entities_of('sub-01')
    ({'sub': 'bert'}, {'sub': '01'})
    >>> entities_of('OAS_1')
    """
    bare = Path(name).name.partition('.')[0]
    if _PLAIN.fullmatch(bare):
        return {'sub': bare}
    parts = split_name(f'{bare}_x' if re.search(rf'_?\w+-{_LABEL}$', bare) else bare)
    if parts is None or 'sub' not in parts.entities:
        return None
    if not all(_PLAIN.fullmatch(label) for label in parts.entities.values()):
        return None
    kept = {k: v for k, v in parts.entities.items() if k in ('sub', 'ses', 'acq', 'run')}
    return {k: kept[k] for k in ('sub', 'ses', 'acq', 'run') if k in kept}


def _scan(
    name: str,
    root: Path,
    folder: Path,
    program: str,
    tables: Mapping[str, Path],
    entities: Mapping[str, str],
    longitudinal: bool,
) -> MeasuredScan:
    first = next(iter(tables.values()))
    images = (folder / 'mri' / file for file in _SEGMENTATIONS)
    return MeasuredScan(
        path=first,
        relative=first.relative_to(root).as_posix(),
        subject=entities['sub'],
        session=entities.get('ses'),
        run=entities.get('run'),
        entities=_named(entities, program + ('long' if longitudinal else '')),
        suffix=MEASURED,
        datatype='anat',
        dataset=name,
        program=program,
        tables=tables,
        longitudinal=longitudinal,
        segmentation=next((path for path in images if path.is_file()), None),
    )


def _named(entities: Mapping[str, str], reconstruction: str) -> dict[str, str]:
    """Return the entities with what made the table, in the order of names."""
    own = {**entities, 'rec': reconstruction}
    return {k: own[k] for k in ('sub', 'ses', 'acq', 'rec', 'run') if k in own}


def _one_stream(scans: Sequence[MeasuredScan]) -> Iterator[MeasuredScan]:
    """Take the longitudinal stream of people who have it of every visit, else the other."""
    people: dict[str, list[MeasuredScan]] = {}
    for scan in scans:
        people.setdefault(scan.subject, []).append(scan)
    for subject, own in people.items():
        streams = [{s.session for s in own if s.longitudinal is flag} for flag in (False, True)]
        longitudinal = bool(streams[1]) and streams[0] <= streams[1]
        if streams[1] and not longitudinal:
            LOG.warning(
                'sub-%s: the longitudinal tables (.long.) are passed over, as not every visit '
                'has one; the two kinds are not mixed in one person.',
                subject,
            )
        yield from (scan for scan in own if scan.longitudinal is longitudinal)


def _rows(name: str, place: Path, program: str) -> list[MeasuredScan]:
    """Return one scan for each row of the CSV tables of a folder, or of one file."""
    from bids_brainage.dataset.csv_tables import rows_of

    found, odd = [], []
    for path in [place] if place.is_file() else sorted(place.glob('*.csv')):
        root = place.parent if place.is_file() else place
        for row in rows_of(path, program):
            entities = entities_of(row)
            if entities is None:
                odd.append(row)
                continue
            found.append(
                MeasuredScan(
                    path=path,
                    relative=f'{path.relative_to(root).as_posix()}#{row}',
                    subject=entities['sub'],
                    session=entities.get('ses'),
                    run=entities.get('run'),
                    entities=_named(entities, program),
                    suffix=MEASURED,
                    datatype='anat',
                    dataset=name,
                    program=program,
                    tables={'volumes': path},
                    row=row,
                )
            )
    if odd:
        LOG.warning(
            '%s: rows are passed over, as their names are neither sub-<label>[_ses-<label>] nor '
            'letters and digits: %s.', place, ', '.join(odd[:20]),
        )  # fmt: skip
    return found
