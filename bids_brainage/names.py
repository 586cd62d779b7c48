"""Every file name of the output dataset, built from the patterns of ``data/io_spec.json``.

Entities are given by their short BIDS keys (``sub``, ``ses``, ``acq``, ``res``, ``desc``...)
plus ``suffix`` and ``extension``; the long names of pybids (``subject``, ``resolution``...) are
understood too.  Nothing else in the package writes a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from bids_brainage.errors import WorkflowError

_FIELD = re.compile(r'\{(\w+)(?:<([^>]+)>)?(?:\|([.\w]+))?\}')
_OPTIONAL = re.compile(r'\[([^\]]+)\]')
_LABEL = re.compile(r'[0-9a-zA-Z+]+')
_CHUNK = re.compile(r'([a-z]+)-([0-9a-zA-Z+]+)')
_NAME = re.compile(r'(?P<chunks>.+)_(?P<suffix>[0-9a-zA-Z]+)(?P<extension>\.[0-9a-zA-Z.]+)')
_FREE = frozenset({'suffix', 'extension', 'datatype'})


@cache
def _spec() -> dict[str, Any]:
    text = (files('bids_brainage') / 'data' / 'io_spec.json').read_text(encoding='utf-8')
    return dict(json.loads(text))


def entity_order() -> tuple[str, ...]:
    """Return the short entity keys in the order in which they stand in a file name."""
    return tuple(_spec()['entities'])


def long_names() -> dict[str, str]:
    """Map each short entity key to the name that pybids and niworkflows use for it."""
    return dict(_spec()['entities'])


def prefix_entities() -> tuple[str, ...]:
    """Return the keys that the name of a raw image may hold, in order."""
    return (*(match[1] for match in _FIELD.finditer(_spec()['prefix'])), 'chunk')


def patterns() -> tuple[str, ...]:
    """Return the path patterns with short keys, the source prefix filled in."""
    spec = _spec()
    return tuple(pattern.replace('<src>', spec['prefix']) for pattern in spec['patterns'])


def short_entities(entities: Mapping[str, Any]) -> dict[str, str]:
    """Rename long entity names to short keys, drop absent ones, make all values text."""
    short = {long: key for key, long in _spec()['entities'].items()}
    renamed = {
        short.get(key, key): str(value)
        for key, value in entities.items()
        if value is not None and str(value) != ''
    }
    if (extension := renamed.get('extension')) and not extension.startswith('.'):
        renamed['extension'] = f'.{extension}'
    return renamed


def derivative_path(entities: Mapping[str, Any], datatype: str | None = None) -> PurePosixPath:
    """Build the path of an output file, relative to the output folder.

    Parameters
    ----------
    entities : mapping
        Entities of the file by key, with ``suffix`` and, where the default of the suffix
        (``.nii.gz``, ``.tsv``, ``.h5``) is not meant, ``extension``.
    datatype : str, optional
        ``anat``, ``func`` or ``figures``; when absent, ``func`` for names with a task and
        ``anat`` for others.

    Raises
    ------
    WorkflowError
        No pattern fits (a missing or foreign entity), or a label is not alphanumeric.

    Examples
    --------
    >>> str(derivative_path({'sub': '01', 'run': '1', 'suffix': 'brainage'}))
    'sub-01/anat/sub-01_run-1_brainage.tsv'
    """
    values = short_entities(entities)
    for key, value in values.items():
        if key not in _FREE and not _LABEL.fullmatch(value):
            raise WorkflowError(
                f'{key}-{value} cannot be part of a file name: BIDS labels are letters and '
                f'digits only. Entities: {values}.'
            )
    if datatype is not None:
        values['datatype'] = datatype
    elif 'datatype' not in values:
        values['datatype'] = 'func' if 'task' in values else 'anat'
    for pattern in patterns():
        path = _render(pattern, values)
        if path is not None:
            return PurePosixPath(path)
    raise WorkflowError(
        f'No file name pattern of data/io_spec.json fits the entities {values}: '
        'an entity is missing, unknown, or not allowed for this suffix.'
    )


def parse_name(name: str | PurePosixPath) -> dict[str, str]:
    """Take a file name (or path) apart into short entities, ``suffix`` and ``extension``.

    The inverse of `derivative_path`; ``datatype`` is included when the path has its folder.

    Raises
    ------
    WorkflowError
        The name is not made of ``key-value`` chunks and a suffix.
    """
    path = PurePosixPath(name)
    match = _NAME.fullmatch(path.name)
    chunks = match['chunks'].split('_') if match else []
    pairs = [_CHUNK.fullmatch(chunk) for chunk in chunks]
    if match is None or not all(pairs):
        raise WorkflowError(
            f'{name} is not a BIDS file name: expected key-value_..._suffix.extension.'
        )
    entities = {pair[1]: pair[2] for pair in pairs if pair}
    entities.update(suffix=match['suffix'], extension=match['extension'])
    if path.parent.name in ('anat', 'func', 'figures'):
        entities['datatype'] = path.parent.name
    return entities


def model_label(registry_name: str) -> str:
    """Reduce a registry name (``sfcn.demo``) to the label of ``model-`` (``sfcndemo``).

    Raises
    ------
    WorkflowError
        Nothing is left of the name.
    """
    label = re.sub(r'[^0-9a-zA-Z]', '', registry_name)
    if not label:
        raise WorkflowError(f'Model name {registry_name!r} has no letter or digit.')
    return label


def source_entities(stem: str) -> dict[str, str]:
    """Return the entities of a source name without suffix, as in ``Scan.stem``."""
    entities = parse_name(f'{stem}_x.x')
    del entities['suffix'], entities['extension']
    return entities


def group_path(table: str, extension: str = '.tsv') -> PurePosixPath:
    """Return ``group_<table>.tsv`` (or ``.json``), and ``group.html`` for table ``''``."""
    return PurePosixPath(f'group_{table}{extension}' if table else f'group{extension}')


def report_path(subject: str, session: str | None = None) -> PurePosixPath:
    """Return the name of a subject's (or one session's) HTML report."""
    middle = f'_ses-{session}' if session else ''
    return PurePosixPath(f'sub-{subject}{middle}.html')


def atlas_path(
    atlas: str, seg: str | None = None, scale: str | None = None, *, description: bool = False
) -> PurePosixPath:
    """Return the name of an atlas' region table, or of its description file."""
    if description:
        return PurePosixPath(f'atlas-{atlas}_description.json')
    middle = (f'_seg-{seg}' if seg else '') + (f'_scale-{scale}' if scale else '')
    return PurePosixPath(f'atlas-{atlas}{middle}_dseg.tsv')


def log_dir(run: str, subject: str | None = None, session: str | None = None) -> PurePosixPath:
    """Return the log folder of a run, of the dataset or of one subject (and session)."""
    if subject is None:
        return PurePosixPath('logs', run)
    parts = [f'sub-{subject}'] + ([f'ses-{session}'] if session else [])
    return PurePosixPath(*parts, 'log', run)


def _render(pattern: str, values: Mapping[str, str]) -> str | None:
    """Fill one pattern; None when it does not fit exactly these entities."""
    known = {match[1] for match in _FIELD.finditer(pattern)}
    if set(values) - known - {'datatype'}:
        return None
    if 'datatype' not in known and values.get('datatype') not in ('anat', None):
        return None

    def drop_absent(match: re.Match[str]) -> str:
        field = _FIELD.search(match[1])
        return match[1] if field is not None and field[1] in values else ''

    text = _OPTIONAL.sub(drop_absent, pattern)
    for field in _FIELD.finditer(text):
        value = values.get(field[1], field[3])
        if value is None or (field[2] and value not in field[2].split('|')):
            return None
    return _FIELD.sub(lambda field: values.get(field[1], field[3]), text)
