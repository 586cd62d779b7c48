"""Find the images of a BIDS dataset, without looking at participants nobody asked for."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.dataset.ages import Demographics
from bids_brainage.dataset.filters import QUERIES, check_filters
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.sidecar import Sidecars
from bids_brainage.errors import (
    InvalidDatasetError,
    MissingInputError,
    NothingSelectedError,
    OptionError,
)
from bids_brainage.names import split_name

LOGGER = logging.getLogger(__name__)

_EXAMPLE = '{"Name": "My study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'
_NEVER = re.compile(r'^/(code|models|sourcedata|stimuli|derivatives)(/|$)')
# Files that are no T1w or BOLD image; not indexed, because most of the time goes into them.
_OTHER_FILES = re.compile(r'/[^/.]*\.(?!nii(\.gz)?$)[^/]*$|_(?!T1w|bold)[0-9a-zA-Z]+\.nii(\.gz)?$')
_OTHER_FOLDERS = re.compile(r'^/sub-[^/]+/(ses-[^/]+/)?(beh|dwi|eeg|fmap|ieeg|meg|perf|pet)(/|$)')
_OTHER_PARTS = frozenset({'phase', 'real', 'imag'})


def find_scans(
    bids_dir: str | Path,
    *,
    participant_labels: Iterable[str] | None = None,
    session_labels: Iterable[str] | None = None,
    task_ids: Iterable[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    database_dir: str | Path | None = None,
    validate: bool = True,
    age_column: str = 'age',
) -> list[Scan]:
    """List the T1w and BOLD images of a dataset, in order of their paths.

    Dangling links and empty files are listed, too: see `Scan.problem`.

    Parameters
    ----------
    bids_dir : path
        Root of a raw BIDS dataset.
    participant_labels, session_labels, task_ids : iterable of str, optional
        Labels with or without their prefix; all when not given.
    filters : mapping, optional
        Content of a BIDS filter file (see `bids_brainage.dataset.filters.check_filters`).
    database_dir : path, optional
        Folder of a pybids index: used when there, else made (then of the whole dataset).
    validate : bool
        Check ``dataset_description.json`` first.
    age_column : str
        Column of the age in scans, sessions or participants table.

    Raises
    ------
    InvalidDatasetError
        No readable dataset, or derivatives instead of raw data.
    NothingSelectedError
        A label does not exist, or labels and filters leave no image.
    MissingInputError
        The dataset has no T1w or BOLD image at all.
    OptionError
        A filter names an unknown query or entity, or the index is of another dataset.
    """
    root = Path(bids_dir).absolute()
    check_dataset(root, validate=validate)
    participants, sessions = _bare(participant_labels, 'sub-'), _bare(session_labels, 'ses-')
    tasks = _bare(task_ids, 'task-')
    _check_participants(root, participants)
    queries = check_filters(filters or {})
    layout = _layout(root, participants, sessions, database_dir)
    candidates = _query(layout, root, participants, queries)
    _check_sessions(root, sessions, {item[1].get('ses') for item in candidates}, participants)
    chosen = [
        (relative, entities, suffix)
        for relative, entities, suffix in candidates
        if (not sessions or entities.get('ses') in sessions)
        and (not tasks or suffix != 'bold' or entities.get('task') in tasks)
    ]
    if not chosen:
        raise _nothing(root, bool(participants or sessions or tasks or queries))
    demographics, sidecars = Demographics(root, age_column), Sidecars(root)
    return [_scan(root, *item, demographics, sidecars) for item in chosen]


def check_dataset(bids_dir: str | Path, *, validate: bool = True) -> None:
    """Check that a folder is a raw BIDS dataset.

    Raises
    ------
    InvalidDatasetError
        The folder is absent; or, with ``validate``, its ``dataset_description.json`` is
        missing, unreadable, incomplete, or of a derivative dataset.
    """
    root = Path(bids_dir)
    if not root.is_dir():
        raise InvalidDatasetError(f'{root} is not a folder: expected a BIDS dataset.')
    if not validate:
        return
    path = root / 'dataset_description.json'
    advice = f'Create it with at least {_EXAMPLE}, or pass --skip-bids-validation.'
    try:
        description = json.loads(path.read_text(encoding='utf-8-sig'))
    except OSError as error:
        raise InvalidDatasetError(f'{path} is missing or unreadable. {advice}') from error
    except ValueError as error:
        raise InvalidDatasetError(f'{path} is not valid JSON ({error}). {advice}') from error
    if not isinstance(description, dict):
        raise InvalidDatasetError(f'{path} does not hold a JSON object. {advice}')
    if absent := [key for key in ('Name', 'BIDSVersion') if not description.get(key)]:
        raise InvalidDatasetError(f'{path} lacks {" and ".join(absent)}. {advice}')
    if description.get('DatasetType') == 'derivative':
        raise InvalidDatasetError(
            f'{root} is a derivative dataset (DatasetType in {path.name}), expected raw images. '
            'Give the raw dataset as bids_dir.'
        )


def participants_of(bids_dir: str | Path) -> list[str]:
    """Return the labels of all participant folders, sorted, without ``sub-``."""
    return sorted(
        entry.name.removeprefix('sub-')
        for entry in Path(bids_dir).glob('sub-*')
        if '.' not in entry.name
    )


def _bare(labels: Iterable[str] | None, prefix: str) -> list[str]:
    """Strip the prefix of labels and drop repetitions, keeping the order."""
    return list(dict.fromkeys(label.removeprefix(prefix) for label in labels or ()))


def _check_participants(root: Path, wanted: Sequence[str]) -> None:
    existing = participants_of(root) if wanted else []
    if absent := [label for label in wanted if label not in existing]:
        raise NothingSelectedError(
            f'No participant {_listed("sub-", absent)} in {root}. '
            f'There are: {_listed("sub-", existing)}.'
        )


def _check_sessions(
    root: Path, wanted: Sequence[str], found: set[str | None], participants: Sequence[str]
) -> None:
    if absent := [label for label in wanted if label not in found]:
        folders = [f'sub-{label}' for label in participants] or ['sub-*']
        existing = {path.name for folder in folders for path in root.glob(f'{folder}/ses-*')}
        labels = sorted(name.removeprefix('ses-') for name in existing)
        of = f' of {_listed("sub-", participants)}' if participants else ''
        raise NothingSelectedError(
            f'No image of session {_listed("ses-", absent)}{of} in {root}. '
            f'Sessions there: {_listed("ses-", labels)}.'
        )


def _listed(prefix: str, labels: Sequence[str], limit: int = 20) -> str:
    text = ', '.join(prefix + label for label in labels[:limit]) or 'none'
    return text + (f' and {len(labels) - limit} more' if len(labels) > limit else '')


def _nothing(root: Path, selective: bool) -> Exception:
    if selective:
        return NothingSelectedError(
            f'Labels and filters select no T1w or BOLD image of {root}. '
            'Look at --participant-label, --session-label and --bids-filter-file.'
        )
    return MissingInputError(
        f'{root} has no T1w or BOLD image (sub-*/[ses-*/]anat/*_T1w.nii[.gz]).'
    )


def _layout(
    root: Path,
    participants: Sequence[str],
    sessions: Sequence[str],
    database_dir: str | Path | None,
) -> Any:
    """Index what is asked for, or open (make) the index of the whole dataset."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    def build(ignore: list[re.Pattern[str]], path: Path | None = None) -> Any:
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
        return BIDSLayout(str(root), validate=False, database_path=path, indexer=indexer)

    try:
        if database_dir is None:
            ignore = [_NEVER, _OTHER_FILES, _OTHER_FOLDERS]
            ignore += _only('sub', '^/', participants) + _only('ses', '^/sub-[^/]+/', sessions)
            return build(ignore)
        path = Path(database_dir).absolute()
        if not any(path.glob('layout_index.sqlite')):
            # Made under another name and then moved: another job may be making it, too.
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
            build([_NEVER], temporary).connection_manager.session.close()
            _adopt(temporary, path)
        layout = BIDSLayout(database_path=str(path))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDatasetError(f'{root} cannot be indexed by pybids: {error}.') from error
    if Path(str(layout.root)).resolve() != root.resolve():
        raise OptionError(
            f'The index in {database_dir} is of {layout.root}, not of {root}. '
            'Give another --bids-database-dir.'
        )
    return layout


def _adopt(temporary: Path, path: Path) -> None:
    """Move the files of a finished index to its folder; one that is there already stays."""
    path.mkdir(exist_ok=True)
    for source in sorted(temporary.iterdir(), key=lambda item: item.suffix == '.sqlite'):
        source.replace(path / source.name)
    temporary.rmdir()


def _only(entity: str, place: str, labels: Sequence[str]) -> list[re.Pattern[str]]:
    """Return a pattern for the folders of all other labels; none when all are wanted."""
    if not labels:
        return []
    wanted = '|'.join(re.escape(label) for label in labels)
    return [re.compile(rf'{place}{entity}-(?!(?:{wanted})(?:/|$))')]


def _query(
    layout: Any,
    root: Path,
    participants: Sequence[str],
    queries: Mapping[str, Mapping[str, list[Any]]],
) -> list[tuple[str, dict[str, str], str]]:
    """Run the T1w and the BOLD query; return relative path, entities, suffix."""
    from bids.layout import Query

    special = {None: Query.NONE, '*': Query.REQUIRED}
    found: dict[str, tuple[str, dict[str, str], str]] = {}
    for name, base in QUERIES.items():
        chosen = queries.get(name, {})
        wanted = {
            entity: [special.get(value, value) for value in values]
            for entity, values in chosen.items()
        }
        if participants:
            wanted.setdefault('subject', list(participants))
        try:
            files = layout.get(extension=['.nii', '.nii.gz'], **{**base, **wanted})
        except ValueError as error:
            reason = str(error).partition(" If you're sure")[0]
            raise OptionError(f'BIDS filter, query {name!r}: {reason}') from error
        for item in files:
            relative = Path(item.path).relative_to(layout.root).as_posix()
            parsed = _raw_name(root, relative, keep_parts='part' in chosen)
            # The same name with and without .gz is one image: the compressed one is taken.
            stem = relative.removesuffix('.gz')
            if parsed is not None and not (stem in found and relative == stem):
                found[stem] = (relative, *parsed)
    return [found[stem] for stem in sorted(found)]


def _raw_name(root: Path, relative: str, *, keep_parts: bool) -> tuple[dict[str, str], str] | None:
    """Return entities and suffix of a raw image; None, with a log line, for other names."""
    name = split_name(relative)
    folders = relative.split('/')
    if name is None or f'sub-{name.entities.get("sub")}' != folders[0]:
        LOGGER.warning('%s is passed over: not a BIDS name for its folder', root / relative)
        return None
    entities, suffix, _ = name
    if (session := entities.get('ses')) and f'ses-{session}' != folders[1]:
        LOGGER.warning('%s is passed over: not a BIDS name for its folder', root / relative)
        return None
    if 'desc' in entities or 'space' in entities:
        LOGGER.warning('%s is passed over: a processed image, not raw', root / relative)
        return None
    if entities.get('part') in _OTHER_PARTS and not keep_parts:
        return None
    return (entities, suffix) if suffix in ('T1w', 'bold') else None


def _scan(
    root: Path,
    relative: str,
    entities: dict[str, str],
    suffix: str,
    demographics: Demographics,
    sidecars: Sidecars,
) -> Scan:
    subject, session = entities['sub'], entities.get('ses')
    filename = '/'.join(relative.split('/')[-2:])
    return Scan(
        path=root / relative,
        relative=relative,
        subject=subject,
        session=session,
        run=entities.get('run'),
        entities=entities,
        suffix=suffix,
        datatype='anat' if suffix == 'T1w' else 'func',
        age=demographics.age(subject, session, filename),
        sex=demographics.sex(subject, session, filename),
        metadata=sidecars.metadata(relative),
    )
