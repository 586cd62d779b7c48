"""The one builder and the one parser of BIDS file names.

Names of the output dataset are built from the patterns of ``data/io_spec.json``.  Entities are
given by their short BIDS keys (``sub``, ``ses``, ``acq``, ``res``, ``desc``...) plus ``suffix``
and ``extension``; the long names of pybids (``subject``, ``resolution``...) are understood too.
Nothing else in the package writes a name or takes one apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePath, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from bids_brainage.errors import WorkflowError

_FIELD = re.compile(r'\{(\w+)(?:<([^>]+)>)?(?:\|([.\w]+))?\}')
_OPTIONAL = re.compile(r'\[([^\]]+)\]')
_LABEL = re.compile(r'[0-9a-zA-Z+]+')
_KEY = re.compile(r'[a-z]+')
_SUFFIX = re.compile(r'[0-9a-zA-Z]+')
_EXTENSION = re.compile(r'\.[0-9a-zA-Z.]+')
CBV_DESC = 'aicbv'
"""Label of the ``desc-`` entity of maps of cerebral blood volume."""

CONSENSUS = 'consensus'
"""Name of the consensus of the models in the column ``model``."""

SITE_COLUMNS = (
    'site', 'center', 'centre', 'study', 'project', 'cohort', 'dataset', 'scanner',
)  # fmt: skip
"""Columns of the participants table that say where a person was scanned: a training spreads the
first of them over its parts, and the group level states accuracy for each."""

TRAINING_ROLE = 'training_role'
"""Column of who was held out in a training, and who had no part in it."""

CSV_PROGRAMS = ('synthseg', 'dlmuse')
"""Programs that write one table of many people."""

PROGRAMS = ('freesurfer', 'fastsurfer', *CSV_PROGRAMS)
"""Programs whose measures are read, as their derivatives are named."""

_FREE = frozenset({'suffix', 'extension', 'datatype'})
_DERIVED = frozenset(
    {'from', 'to', 'mode', 'space', 'atlas', 'seg', 'scale', 'res', 'den', 'label', 'stat'}
    | {'model', 'desc'}
)

AnyPath = TypeVar('AnyPath', bound=PurePath)


class Name(NamedTuple):
    """A file name taken apart.

    Attributes
    ----------
    entities : dict of str to str
        Labels by short key, in the order of the name.
    suffix : str
        ``T1w``, ``bold``, ``mask``...
    extension : str
        From the first dot on (``.nii.gz``); empty if there is none.
    """

    entities: dict[str, str]
    suffix: str
    extension: str

    def stem(self, without: Container[str] = ()) -> str:
        """Join the entities again, some left out, without suffix and extension.

        >>> split_name('sub-1_run-2_T1w.nii').stem(without=('run',))
        'sub-1'
        """
        return '_'.join(f'{k}-{v}' for k, v in self.entities.items() if k not in without)


@cache
def _spec() -> dict[str, Any]:
    text = (files('bids_brainage') / 'data' / 'io_spec.json').read_text(encoding='utf-8')
    return dict(json.loads(text))


def long_names() -> dict[str, str]:
    """Map each short entity key to the name that pybids and niworkflows use for it."""
    return dict(_spec()['entities'])


def prefix_entities() -> tuple[str, ...]:
    """Return the keys that the name of a raw image may hold, in order."""
    return (*(match[1] for match in _FIELD.finditer(_spec()['prefix'])), 'chunk')


@cache
def patterns() -> tuple[str, ...]:
    """Return the path patterns with short keys, the source prefix filled in."""
    spec = _spec()
    return tuple(pattern.replace('<src>', spec['prefix']) for pattern in spec['patterns'])


def short_entities(entities: Mapping[str, Any]) -> dict[str, str]:
    """Rename long entity names to short keys, drop absent ones, make all values text.

    Examples
    --------
    >>> short_entities({'subject': '01', 'resolution': 2, 'session': None, 'extension': 'json'})
    {'sub': '01', 'res': '2', 'extension': '.json'}
    """
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


def split_name(name: str | PurePath) -> Name | None:
    """Take a file name (or path, or BIDS URI) apart; None if it is not made as BIDS names are.

    Labels are those of the name, also where BIDS does not allow them, so that raw files with
    such names can be reported; `parse_name` refuses them.

    Examples
    --------
    >>> split_name('bids:raw:sub-1/anat/sub-1_acq-a_T1w.nii.gz')
    Name(entities={'sub': '1', 'acq': 'a'}, suffix='T1w', extension='.nii.gz')
    >>> split_name('group_accuracy.tsv') is None
    True
    """
    last = PurePosixPath(name).name.rpartition(':')[2]
    bare, dot, extension = last.partition('.')
    *chunks, suffix = bare.split('_')
    pairs = [chunk.partition('-') for chunk in chunks]
    if not suffix or '-' in suffix or not all(key and value for key, _, value in pairs):
        return None
    return Name({key: value for key, _, value in pairs}, suffix, dot + extension)


def parse_name(name: str | PurePath) -> dict[str, str]:
    """Take a file name (or path) apart into short entities, ``suffix`` and ``extension``.

    The inverse of `derivative_path`; ``datatype`` is included when the path has its folder.

    Raises
    ------
    WorkflowError
        The name is not made of ``key-value`` chunks and a suffix.

    Examples
    --------
    >>> parse_name('sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    {'sub': '01', 'desc': 'brain', 'suffix': 'mask', 'extension': '.nii.gz', 'datatype': 'anat'}
    """
    parts = split_name(name)
    if (
        parts is None
        or not parts.entities
        or not _SUFFIX.fullmatch(parts.suffix)
        or not _EXTENSION.fullmatch(parts.extension)
        or not all(_KEY.fullmatch(k) and _LABEL.fullmatch(v) for k, v in parts.entities.items())
    ):
        raise WorkflowError(
            f'{name} is not a BIDS file name: expected key-value_..._suffix.extension.'
        )
    entities = {**parts.entities, 'suffix': parts.suffix, 'extension': parts.extension}
    folder = PurePosixPath(name).parent.name
    if folder in ('anat', 'func', 'figures'):
        entities['datatype'] = folder
    return entities


def source_stem(name: str | PurePath) -> str:
    """Return how the names of an image and of all its derivatives start.

    Entities that a derivative adds (``space``, ``desc``, ``model``...) are left out.

    Raises
    ------
    WorkflowError
        Not a BIDS name.

    Examples
    --------
    >>> source_stem('sub-1_run-2_space-MNI152NLin6Asym_res-2_desc-brain_mask.nii.gz')
    'sub-1_run-2'
    """
    parts = split_name(name)
    if parts is None:
        raise WorkflowError(
            f'{name} is not a BIDS file name: expected key-value_..._suffix.extension.'
        )
    return parts.stem(without=_DERIVED)


def source_path(path: str | PurePosixPath) -> str:
    """Return the path that an image and its derivatives share within their datasets.

    A path whose name is not a BIDS one is returned without the dataset only.

    Examples
    --------
    >>> source_path('bids:raw:sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz')
    'sub-1/ses-2/anat/sub-1_ses-2'
    >>> source_path('sub-1/anat/sub-1_space-MNI152NLin6Asym_desc-preproc_T1w.nii.gz')
    'sub-1/anat/sub-1'
    """
    inside = str(path).rpartition(':')[2]
    parts = split_name(inside)
    stem = parts and parts.stem(without=_DERIVED)
    return PurePosixPath(inside).with_name(stem).as_posix() if stem else inside


def side_file(path: AnyPath) -> AnyPath:
    """Return the JSON side file of an image or table.

    >>> side_file(PurePosixPath('sub-1_T1w.nii.gz'))
    PurePosixPath('sub-1_T1w.json')
    """
    return path.with_name(path.name.partition('.')[0] + '.json')


def model_label(registry_name: str) -> str:
    """Reduce a registry name (``sfcn.demo``) to the label of ``model-`` (``sfcndemo``).

    Raises
    ------
    WorkflowError
        Nothing is left of the name.

    Examples
    --------
    >>> model_label('sfcn.demo')
    'sfcndemo'
    """
    label = re.sub(r'[^0-9a-zA-Z]', '', registry_name)
    if not label:
        raise WorkflowError(f'Model name {registry_name!r} has no letter or digit.')
    return label


def source_entities(stem: str) -> dict[str, str]:
    """Return the entities of a source name without suffix, as in ``Scan.stem``.

    Examples
    --------
    >>> source_entities('sub-01_ses-a_run-1')
    {'sub': '01', 'ses': 'a', 'run': '1'}
    """
    entities = parse_name(f'{stem}_x.x')
    del entities['suffix'], entities['extension']
    return entities


def group_map_name(age: str, entities: Mapping[str, str], suffix: str) -> str:
    """Return the name, without extension, of a mean image of the people of an age group.

    Parameters
    ----------
    age : str
        Label of the group, letters and digits.
    entities : mapping
        Those of one of the images: space, resolution, model and method are kept.
    suffix : str
        ``T1w`` or ``saliency``.
    """
    kept = {k: entities[k] for k in ('space', 'res', 'model', 'desc') if k in entities}
    return '_'.join([f'group_{Name({"age": age, **kept}, suffix, "").stem()}', suffix])


def report_path(subject: str, session: str | None = None) -> PurePosixPath:
    """Return the name of a subject's (or one session's) HTML report.

    Examples
    --------
    >>> str(report_path('01', 'a'))
    'sub-01_ses-a.html'
    """
    middle = f'_ses-{session}' if session else ''
    return PurePosixPath(f'sub-{subject}{middle}.html')


def atlas_path(
    atlas: str, seg: str | None = None, scale: str | None = None, *, description: bool = False
) -> PurePosixPath:
    """Return the name of an atlas' region table, or of its description file.

    Examples
    --------
    >>> str(atlas_path('Power2011', scale='264'))
    'atlas-Power2011_scale-264_dseg.tsv'
    """
    if description:
        return PurePosixPath(f'atlas-{atlas}_description.json')
    middle = (f'_seg-{seg}' if seg else '') + (f'_scale-{scale}' if scale else '')
    return PurePosixPath(f'atlas-{atlas}{middle}_dseg.tsv')


def log_dir(run: str, subject: str | None = None, session: str | None = None) -> PurePosixPath:
    """Return the log folder of a run, of the dataset or of one subject (and session).

    Examples
    --------
    >>> str(log_dir('20260101-120000_ab', '01'))
    'sub-01/log/20260101-120000_ab'
    """
    if subject is None:
        return PurePosixPath('logs', run)
    parts = [f'sub-{subject}'] + ([f'ses-{session}'] if session else [])
    return PurePosixPath(*parts, 'log', run)


def memo_path(subject: str) -> PurePosixPath:
    """Return the file that remembers the hashes of a subject's input files between runs."""
    return PurePosixPath(f'sub-{subject}', 'log', 'inputs.json')


@cache
def _takes(pattern: str) -> tuple[frozenset[str], frozenset[str | None]]:
    """Return the fields of a pattern and the suffixes that it takes (None: it has a default)."""
    fields = {match[1]: match for match in _FIELD.finditer(pattern)}
    suffix = fields['suffix']
    allowed: set[str | None] = set(suffix[2].split('|'))
    return frozenset(fields), frozenset(allowed | ({None} if suffix[3] else set()))


def _render(pattern: str, values: Mapping[str, str]) -> str | None:
    """Fill one pattern; None when it does not fit exactly these entities."""
    known, suffixes = _takes(pattern)
    if values.get('suffix') not in suffixes or not values.keys() - {'datatype'} <= known:
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
