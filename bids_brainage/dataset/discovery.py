"""Find the images of a BIDS dataset, without looking at participants nobody asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.dataset.ages import Demographics
from bids_brainage.dataset.filters import check_filters
from bids_brainage.dataset.inventory import Person, name_problem, take_stock
from bids_brainage.dataset.layout import Image, open_layout, query_images
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.sidecar import Sidecars
from bids_brainage.errors import (
    InvalidDatasetError,
    MissingInputError,
    NothingSelectedError,
)

LOGGER = logging.getLogger(__name__)

MOST_NAMES = 50
"""Unusable names that are told one by one."""

_EXAMPLE = '{"Name": "My study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'


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

    Dangling links and empty files are listed, too: see `Scan.problem`.  What is passed over is
    logged with the reason: names that are not BIDS, images that are taken only when asked for,
    and people without a T1w image.

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
    people = take_stock(root, participants or participants_of(root), sessions)
    _tell_names(root, people)
    layout = open_layout(
        root,
        participants,
        sessions,
        database_dir,
        forbidden=[folder for person in people for folder in person.unreadable],
    )
    candidates = query_images(layout, participants, queries)
    _check_sessions(root, sessions, {item[1].get('ses') for item in candidates}, participants)
    chosen = [
        (relative, entities, suffix)
        for relative, entities, suffix in candidates
        if (not sessions or entities.get('ses') in sessions)
        and (not tasks or suffix != 'bold' or entities.get('task') in tasks)
    ]
    chosen = _one_anatomy(_leave_apart(chosen, queries), queries)
    _tell_people(people, {item[1]['sub'] for item in chosen if item[2] != 'bold'})
    if not chosen:
        raise _nothing(root, bool(participants or sessions or tasks or queries))
    demographics, sidecars = Demographics(root, age_column), Sidecars(root)
    scans = [_scan(root, *item, demographics, sidecars) for item in chosen]
    if not participants and (absent := demographics.without_folder(participants_of(root))):
        LOGGER.warning('participants.tsv lists people without a folder: %s.', _listed('', absent))
    for message in demographics.messages():
        LOGGER.warning('%s', message)
    return scans


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


_APART: dict[str, tuple[str, str, Callable[[str], bool]]] = {
    'ce': ('ceagent', 'with contrast agent (ce-)', bool),
    'inv': ('inv', 'one inversion time of several (inv-)', bool),
    'flip': ('flip', 'one flip angle of several (flip-)', bool),
    'mt': ('mt', 'with or without magnetisation transfer (mt-)', bool),
    'part': ('part', 'phase, not magnitude (part-)', {'phase', 'real', 'imag'}.__contains__),
}
"""Images that are not what a model knows, by entity: its name in a filter, what they are, and for
which labels."""


def _leave_apart(images: Sequence[Image], queries: Mapping[str, Mapping[str, Any]]) -> list[Image]:
    """Leave out images that are taken only when a filter asks for them, and say so."""
    kept: list[Image] = []
    apart: dict[tuple[str, str, str], list[str]] = {}
    for image in images:
        relative, entities, suffix = image
        query = 'bold' if suffix == 'bold' else 't1w'
        for key, (long, what, applies) in _APART.items():
            asked = long in queries.get(query, {})
            anatomical = suffix != 'bold' or key == 'part'
            if key in entities and applies(entities[key]) and anatomical and not asked:
                apart.setdefault((query, long, what), []).append(relative)
                break
        else:
            kept.append(image)
    for (query, long, what), names in apart.items():
        LOGGER.warning(
            '%d images are passed over, %s: %s. To use them, ask for them in a '
            '--bids-filter-file: {"%s": {"%s": "*"}}.',
            len(names), what, _listed('', names), query, long,
        )  # fmt: skip
    return kept


def _one_anatomy(images: Sequence[Image], queries: Mapping[str, Mapping[str, Any]]) -> list[Image]:
    """Take a uniform image of MP2RAGE (UNIT1) where there is no T1w image, or when asked for."""
    asked = 'UNIT1' in queries.get('t1w', {}).get('suffix', ())
    sessions = {_visit(item) for item in images if item[2] == 'T1w'}
    names = {item[0].replace('_T1w.', '_UNIT1.').partition('.')[0] for item in images
             if item[2] == 'T1w'}  # fmt: skip
    kept, uniform = [], []
    for image in images:
        if image[2] == 'UNIT1':
            doubled = image[0].partition('.')[0] in names
            if doubled or (not asked and _visit(image) in sessions):
                continue
            uniform.append(image[0])
        kept.append(image)
    if uniform:
        LOGGER.warning(
            'UNIT1 images (MP2RAGE) are used%s: %s. Their background is noise: look at the '
            'brain mask in the report.',
            '' if asked else ', as there is no T1w image', _listed('', uniform),
        )  # fmt: skip
    return kept


def _visit(image: Image) -> tuple[str, str | None]:
    return image[1]['sub'], image[1].get('ses')


def _tell_names(root: Path, people: Iterable[Person]) -> None:
    """Say of every image with an unusable name why, and how to rename it."""
    told = 0
    for person in people:
        for folder in person.unreadable:
            LOGGER.warning(
                '%s must not be read: give yourself the right to (chmod -R u+rX).', root / folder
            )
        for relative in person.images:
            problem = name_problem(relative)
            if problem is None and (root / relative).is_dir():
                problem = 'a folder, not an image'
            if problem:
                told += 1
                if told <= MOST_NAMES:
                    LOGGER.warning('%s is passed over: %s.', root / relative, problem)
    if told > MOST_NAMES:
        LOGGER.warning('%d more images are passed over for their names.', told - MOST_NAMES)


def _tell_people(people: Iterable[Person], taken: set[str]) -> None:
    """List everyone who has no T1w image, with what was found."""
    without = [person for person in people if person.label not in taken]
    if without:
        lines = [f'  sub-{person.label}: {person.without_t1w()}' for person in without]
        LOGGER.warning(
            '%d of the participants have no T1w image to use:\n%s', len(without), '\n'.join(lines)
        )


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
        suffix='bold' if suffix == 'bold' else 'T1w',
        datatype='func' if suffix == 'bold' else 'anat',
        age=demographics.age(subject, session, filename),
        sex=demographics.sex(subject, session, filename),
        metadata=sidecars.metadata(relative),
    )
