"""Options of the participant level, and the check of those for functional images."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bids_brainage.config import OUTPUT_LEVELS
from bids_brainage.names import CSV_PROGRAMS, PROGRAMS
from bids_brainage.settings import flag, option

DERIVATIVES = ('fmriprep', 'cat12', 'aicbv', *PROGRAMS)
"""Kinds of precomputed derivatives that are understood; a name may go on, as fmriprep-25.2."""

_SPACE = re.compile(r'[0-9a-zA-Z]+(:(res|resolution|cohort)-[0-9a-zA-Z]+)*')
_NAME = re.compile(r'[0-9a-zA-Z][0-9a-zA-Z._-]*')


def add_participant_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only the participant level has."""
    group = parser.add_argument_group('participant level')
    group.add_argument(
        '--synthetic-slices',
        action='store_true',
        default=None,
        help='models of thick slices: predict a research scan as the thick-slice scans that it '
        'contains; the age is their mean',
    )
    group.add_argument(
        '--aicbv-weights',
        metavar='FILE',
        help='weights of a generator of blood-volume maps, for scans without a map in '
        '--derivatives aicbv=PATH',
    )
    group.add_argument(
        '--output-spaces',
        nargs='+',
        metavar='SPACE',
        help='write images and maps in further spaces, too: TemplateFlow labels, each with :res-1 '
        '(default) or another resolution and :cohort-N where it has cohorts, or T1w (native)',
    )
    group.add_argument(
        '--consensus',
        action='store_true',
        default=None,
        help='add a row with the mean age of all models, weighted by one over the square of the '
        'error each was validated with',
    )
    _add_bold(parser.add_argument_group('functional images'))
    _add_outputs(parser.add_argument_group('outputs'))


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--level',
        '--level-of-output',
        metavar='LEVEL',
        help='what stays of a scan beside its pages: minimal (tables: ages, volumes), standard '
        '(and the images one looks at: brain, masks, regions, maps) or full (and what training '
        'and later models start from; default)',
    )
    group.add_argument(
        '--keep-work',
        action='store_true',
        default=None,
        help='keep the intermediate files of finished scans in the work folder (default: they go '
        'with the last step of the scan)',
    )
    group.add_argument(
        '--reports-only',
        action='store_true',
        default=None,
        help='only bring age and sex in the rows up to date, and write the reports again',
    )
    group.add_argument(
        '--aggregate-session-reports',
        metavar='N',
        help='one report for up to N sessions, else one per session (default: 4)',
    )
    group.add_argument(
        '--boilerplate-only',
        '--boilerplate_only',
        action='store_true',
        default=None,
        help='only write the methods text of such a run (logs/CITATION), and process nothing',
    )
    group.add_argument(
        '--md-only-boilerplate',
        action='store_true',
        default=None,
        help='write the methods text as CITATION.md only, without .html and .bib',
    )
    group.add_argument(
        '--resource-monitor',
        action='store_true',
        default=None,
        help='note memory and processors of the run and its steps every second, in '
        'logs/<run>/resources.tsv (Linux)',
    )


def _add_bold(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '-t',
        '--task-id',
        '--task_id',
        nargs='+',
        metavar='TASK',
        help='tasks of the BOLD series to use, with or without task- (default: all)',
    )
    group.add_argument(
        '-d',
        '--derivatives',
        nargs='+',
        metavar='NAME=PATH',
        help='derivatives to use: fmriprep=PATH (preprocessed BOLD; brain masks and '
        'bias-corrected T1w images, but volumes of regions are measured on the raw image), '
        'cat12=PATH (modulated grey matter, mwp1, and its ratings, for models that see it), '
        'aicbv=PATH (maps of cerebral blood volume, desc-aicbv_T1w), freesurfer=PATH, '
        'fastsurfer=PATH (subject folders with stats), synthseg=PATH, dlmuse=PATH (CSV tables): '
        'ages from these tables, images or not; a bare path is named by its folder',
    )
    group.add_argument(
        '--harmonise',
        nargs='?',
        const='all',
        metavar='COLUMN=VALUE',
        help='bring tables of other programs to the scale of the people that tables.openneuro '
        'learnt from, site by site, by the other people of known age (with COLUMN=VALUE only by '
        'those, say the healthy)',
    )
    group.add_argument(
        '--connectivity',
        action='store_true',
        default=None,
        help='process BOLD series also where no model takes connectivity; --task-id, --atlas and '
        '--derivatives fmriprep=PATH ask for the same (default: only for models that take it)',
    )
    group.add_argument(
        '--anat-only', action='store_true', default=None, help='leave BOLD series out'
    )
    group.add_argument(
        '--atlas',
        metavar='ATLAS',
        help='regions of connectivity: power2011 (default), dosenbach2010, seitzman2018, a label '
        'image in MNI space, or a TemplateFlow label',
    )
    group.add_argument(
        '--atlas-labels',
        metavar='TSV',
        help='region table of a label image: columns index and name (default: beside the image)',
    )


def derivative_folders(settings: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    """Check ``--derivatives``.

    Parameters
    ----------
    settings : mapping
        Options by destination; the value is a list of texts, or the JSON text that an earlier
        run has stored.
    problems : list of str
        Extended by one sentence for each problem.

    Returns
    -------
    dict
        Name → absolute path of the folder.
    """
    value = settings.get('derivatives', [])
    pairs: Iterable[tuple[str, str]]
    if isinstance(value, str) and value.lstrip().startswith('{'):
        try:
            pairs = {str(k): str(v) for k, v in json.loads(value).items()}.items()
        except ValueError as error:
            problems.append(f'derivatives of the configuration file: not valid JSON ({error}).')
            pairs = ()
    else:
        pairs = map(_named, [value] if isinstance(value, str) else value)
    found: dict[str, str] = {}
    for name, text in pairs:
        folder = Path(text).absolute()
        kind = re.split(r'[._-]', name.lower(), maxsplit=1)[0]
        if not _NAME.fullmatch(name) or kind not in DERIVATIVES:
            problems.append(
                f'--derivatives: {name!r} is not known; expected NAME=PATH with a name that '
                f'starts with {" or ".join(DERIVATIVES)}.'
            )
        elif any(other.lower().startswith(kind) for other in found):
            problems.append(f'--derivatives: {kind} was given twice.')
        elif not folder.is_dir() and not (kind in CSV_PROGRAMS and folder.is_file()):
            problems.append(f'--derivatives: {folder} is not a folder.')
        found.setdefault(name, str(folder))
    return _with_freesurfer(found)


def _with_freesurfer(found: dict[str, str]) -> dict[str, str]:
    """Add the FreeSurfer folder that fMRIPrep leaves in its own, unless one was given."""
    kinds = {re.split(r'[._-]', name.lower(), maxsplit=1)[0]: name for name in found}
    if 'fmriprep' in kinds and 'freesurfer' not in kinds:
        inside = Path(found[kinds['fmriprep']]) / 'sourcedata' / 'freesurfer'
        if inside.is_dir():
            return {**found, 'freesurfer': str(inside)}
    return found


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition('=')
    return (name, path) if equals else (Path(text).absolute().name, text)


def output_spaces(spaces: list[str], problems: list[str]) -> tuple[str, ...]:
    """Check how ``--output-spaces`` is written; what there is of them, a run finds out."""
    for space in spaces:
        if not _SPACE.fullmatch(space):
            problems.append(
                f'--output-spaces: {space!r} is not a space; expected a TemplateFlow label such '
                'as MNI152NLin2009cAsym or MNI152NLin6Asym:res-2, or T1w.'
            )
    return tuple(dict.fromkeys(spaces))


def output_settings(settings: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Check the options of outputs and logs, and how they go together.

    Returns
    -------
    dict
        Fields of `bids_brainage.config.Execution`.
    """
    level = str(settings.get('level', 'full'))
    if level not in OUTPUT_LEVELS:
        problems.append(f'--level: expected {", ".join(OUTPUT_LEVELS)}, found {level!r}.')
        level = 'full'
    if level != 'full' and settings.get('output_spaces'):
        problems.append(
            f'--output-spaces and --level {level} contradict each other: images in other spaces '
            'are made from those that only --level full keeps.'
        )
    names = (
        *('keep_work', 'debug', 'reports_only', 'boilerplate_only', 'md_only_boilerplate'),
        'resource_monitor',
    )
    found: dict[str, Any] = {name: flag(settings, name, problems) for name in names}
    alone = [n for n in ('reports_only', 'boilerplate_only') if found[n]]
    alone += ['dry_run'] if found['boilerplate_only'] and settings.get('dry_run') is True else []
    if len(alone) > 1:
        problems.append(f'{" and ".join(map(option, alone))} contradict each other: give one.')
    if found['resource_monitor'] and not Path('/proc/self/stat').exists():
        problems.append('--resource-monitor: this system has no /proc to read memory from.')
    return {**found, 'keep_work': found['keep_work'] or found['debug'], 'level': level}


def weights_file(settings: Mapping[str, Any], problems: list[str]) -> Path | None:
    """Check ``--aicbv-weights`` and return its absolute path."""
    if 'aicbv_weights' not in settings:
        return None
    path = Path(settings['aicbv_weights']).absolute()
    if not path.is_file():
        problems.append(f'--aicbv-weights: {path} does not exist.')
    return path


def atlas_settings(settings: Mapping[str, Any], problems: list[str]) -> tuple[str, Path | None]:
    """Check ``--atlas`` and ``--atlas-labels``; paths become absolute.

    Returns
    -------
    tuple
        Name or path of the atlas, and its region table if one was given.
    """
    from bids_brainage.preprocessing.bold.names import DEFAULT_ATLAS, is_path

    atlas = str(settings.get('atlas', DEFAULT_ATLAS))
    if is_path(atlas):
        path = Path(atlas).absolute()
        if not path.is_file():
            problems.append(f'--atlas: {path} does not exist.')
        atlas = str(path)
    if 'atlas_labels' not in settings:
        return atlas, None
    table = Path(settings['atlas_labels']).absolute()
    if not is_path(atlas):
        problems.append(f'--atlas-labels: {atlas} has its own names; only a label image needs it.')
    elif not table.is_file():
        problems.append(f'--atlas-labels: {table} does not exist.')
    return atlas, table
