"""From option texts to settings, collecting every problem on the way."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage import __version__
from bids_brainage.cli.group_options import group_settings
from bids_brainage.cli.parser import build_parser, check_level
from bids_brainage.cli.participant_options import (
    atlas_settings,
    derivative_folders,
    output_settings,
    output_spaces,
    weights_file,
)
from bids_brainage.cli.resources import allowed_cpus, visible_memory_gb
from bids_brainage.cli.train_options import train_settings
from bids_brainage.config import Config, Environment, Execution, Nipype, Seeds, Workflow
from bids_brainage.dataset.discovery import check_dataset
from bids_brainage.dataset.filters import check_filters, read_filters
from bids_brainage.errors import InvalidDatasetError, OptionError
from bids_brainage.names import model_label
from bids_brainage.outputs.provenance import new_run_id
from bids_brainage.settings import (
    Problems,
    Settings,
    column_value,
    flag,
    option,
    texts,
    whole_number,
)
from bids_brainage.workflows.plugin import read_plugin

SALIENCY_METHODS = ('contribution', 'gradcam', 'guided_backprop', 'attention')
_DEVICE = re.compile(r'auto|cpu|mps|cuda(:\d+)?')
_LABEL = re.compile(r'[0-9a-zA-Z+]+')
_MEMORY = re.compile(r'(\d+(?:\.\d*)?|\.\d+)\s*(?:([KMGT])B?)?', re.IGNORECASE)
_MB_PER_UNIT = {'K': 1 / 1024, 'M': 1.0, '': 1.0, 'G': 1024.0, 'T': 1024.0**2}
LEAST_MEMORY_GB = 0.25
"""Less is a unit mistaken."""

_YES = frozenset({'1', 'true', 'yes', 'on'})
# What a re-used file must not bring along: whose run it was and where that run wrote.
_NOT_REUSED = frozenset({'run_id', 'bids_dir', 'output_dir', 'analysis_level'})
_CONFIG_ONLY = frozenset({'bids_filters', 'plugin', 'plugin_args'})
_LINE_ONLY = frozenset({'help', 'version', 'config_file', 'list_models', 'notrack'})


@dataclass(frozen=True)
class ListModels:
    """Request of ``--list-models``: print the table of models, or all about some, and end."""

    model_dir: Path | None
    names: tuple[str, ...] = ()


def build_config(given: Settings, environ: Mapping[str, str], problems: Problems) -> Config | None:
    """Turn option texts into settings.

    Parameters
    ----------
    given : mapping
        Options that were given, by destination; values as text, list of text, or True.
    environ : mapping
        Environment variables.
    problems : list of str
        Extended by one sentence for each problem.

    Returns
    -------
    Config or None
        None when there were problems.
    """
    if 'mem' in given and 'memory_gb' in given:
        problems.append('--mem and --mem-gb are the same option in other units: give one.')
    stored = _from_file(given.get('config_file'), problems)
    if 'mem' in given or 'memory_gb' in given:
        stored = {key: value for key, value in stored.items() if key not in ('mem', 'memory_gb')}
    settings = {**stored, **given}
    check_level(given, problems)
    environment = _environment(environ)
    execution = _execution(settings, environ, problems)
    workflow = _workflow(settings, environ, problems)
    nipype = _nipype(settings, environment, problems)
    seeds = Seeds(random_seed=whole_number(settings, 'random_seed', 0, problems, 0, 2**32 - 1))
    group = group_settings(settings, problems)
    train = train_settings(settings, problems)
    if problems or execution is None:
        return None
    return Config(environment, execution, workflow, nipype, seeds, group, train)


def list_request(given: Settings, environ: Mapping[str, str], problems: Problems) -> ListModels:
    """Return what ``--list-models`` needs to know."""
    return ListModels(_model_dir(given, environ, problems), tuple(given['list_models']))


def parse_memory(text: str) -> float:
    """Return GB (2^30 bytes) of a memory text such as ``8000``, ``8000M`` or ``8G``.

    A bare number is MB.

    Raises
    ------
    ValueError
        Not a positive number with an optional unit K, M, G or T.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(text)
    return float(match[1]) * _MB_PER_UNIT[(match[2] or '').upper()] / 1024


def _environment(environ: Mapping[str, str]) -> Environment:
    kind = None
    if 'APPTAINER_CONTAINER' in environ or 'SINGULARITY_CONTAINER' in environ:
        kind = 'apptainer'
    elif 'IS_DOCKER_8395080871' in environ or Path('/.dockerenv').exists():
        kind = 'docker'
    return Environment(
        version=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=allowed_cpus(),
        memory_gb=visible_memory_gb(),
        container_type=kind,
        container_tag=environ.get('BIDS_BRAINAGE_CONTAINER_TAG') or None,
    )


def _execution(
    settings: Settings, environ: Mapping[str, str], problems: Problems
) -> Execution | None:
    bids_dir = Path(settings['bids_dir']).absolute()
    output_dir = Path(settings['output_dir']).absolute()
    if not bids_dir.is_dir():
        problems.append(f'bids_dir {bids_dir} is not a folder.')
    if output_dir.exists() and not output_dir.is_dir():
        problems.append(f'output_dir {output_dir} is a file, expected a folder.')
    if output_dir.resolve() == bids_dir.resolve():
        suggestion = bids_dir / 'derivatives' / 'bids_brainage'
        problems.append(f'output_dir is the input dataset itself; use for example {suggestion}.')
    work_dir = _work_dir(settings, bids_dir, output_dir, problems)
    database = settings.get('bids_database_dir')
    outputs = output_settings(settings, problems)
    if work_dir is None:
        return None
    return Execution(
        bids_dir=bids_dir,
        output_dir=output_dir,
        analysis_level=settings['analysis_level'],
        work_dir=work_dir,
        run_id=new_run_id(),
        participant_label=_labels(settings, 'participant_label', 'sub-', problems),
        session_label=_labels(settings, 'session_label', 'ses-', problems),
        task_id=_labels(settings, 'task_id', 'task-', problems),
        derivatives=derivative_folders(settings, problems),
        bids_filters=_filters(settings, problems),
        bids_database_dir=None if database is None else Path(database).absolute(),
        aggregate_session_reports=whole_number(settings, 'aggregate_session_reports', 4, problems),
        offline=_offline(settings, environ),
        verbosity=whole_number(settings, 'verbosity', 0, problems, 0),
        skip_bids_validation=flag(settings, 'skip_bids_validation', problems),
        dry_run=flag(settings, 'dry_run', problems),
        clean_workdir=flag(settings, 'clean_workdir', problems),
        write_graph=flag(settings, 'write_graph', problems),
        **outputs,
    )


def _workflow(settings: Settings, environ: Mapping[str, str], problems: Problems) -> Workflow:
    models = tuple(dict.fromkeys(texts(settings, 'models', problems)))
    labels: dict[str, str] = {}
    for name in models:
        if not re.search('[0-9a-zA-Z]', name):
            problems.append(f'--models: {name!r} is not a model name.')
        elif (other := labels.setdefault(model_label(name), name)) != name:
            problems.append(f'--models: {name} and {other} would write the same file names.')
    age_column = settings.get('age_column', 'age')
    if not isinstance(age_column, str) or not age_column.strip():
        problems.append('--age-column: expected the name of a column.')
        age_column = 'age'
    atlas, atlas_labels = atlas_settings(settings, problems)
    return Workflow(
        models=models,
        model_dir=_model_dir(settings, environ, problems),
        saliency=_saliency(settings, problems),
        age_column=age_column,
        anat_only=flag(settings, 'anat_only', problems),
        connectivity=_connectivity(settings, problems),
        atlas=atlas,
        atlas_labels=atlas_labels,
        synthetic_slices=flag(settings, 'synthetic_slices', problems),
        aicbv_weights=weights_file(settings, problems),
        output_spaces=output_spaces(texts(settings, 'output_spaces', problems), problems),
        consensus=flag(settings, 'consensus', problems),
        harmonise=_harmonise(settings, problems),
        sloppy=flag(settings, 'sloppy', problems),
    )


def _connectivity(settings: Settings, problems: Problems) -> bool:
    wanted = flag(settings, 'connectivity', problems)
    if wanted and settings.get('anat_only') is True:
        problems.append('--connectivity and --anat-only contradict each other: give one.')
    return wanted


def _harmonise(settings: Settings, problems: Problems) -> str | None:
    wanted = settings.get('harmonise')
    if wanted is None or wanted == 'all':
        return wanted
    return column_value('--harmonise: expected nothing or', wanted, problems)


def _nipype(settings: Settings, environment: Environment, problems: Problems) -> Nipype:
    plugin, plugin_args = read_plugin(settings, problems)
    planned = {
        'nprocs': plugin_args.get('n_procs', environment.cpu_count),
        'memory_gb': plugin_args.get('memory_gb', environment.memory_gb),
    }
    nprocs = whole_number({**planned, **settings}, 'nprocs', environment.cpu_count, problems)
    device = str(settings.get('device', 'auto'))
    if not _DEVICE.fullmatch(device):
        problems.append(f'--device: expected auto, cpu, cuda[:N] or mps, found {device!r}.')
    return Nipype(
        nprocs=nprocs,
        omp_nthreads=whole_number(settings, 'omp_nthreads', max(1, min(nprocs - 1, 8)), problems),
        memory_gb=_memory(settings, planned['memory_gb'], problems),
        device=device,
        plugin=plugin,
        plugin_args=plugin_args,
        stop_on_first_crash=flag(settings, 'stop_on_first_crash', problems),
    )


def _work_dir(
    settings: Settings, bids_dir: Path, output_dir: Path, problems: Problems
) -> Path | None:
    suggestion = Path(tempfile.gettempdir()) / 'bids_brainage_work'
    if 'work_dir' in settings:
        work_dir = Path(settings['work_dir']).absolute()
        if work_dir.resolve().is_relative_to(bids_dir.resolve()):
            problems.append(
                f'--work-dir {work_dir} is inside the input dataset; use for example {suggestion}.'
            )
        elif work_dir.resolve() == output_dir.resolve():
            problems.append(
                f'--work-dir {work_dir} is the output folder; use for example '
                f'{output_dir / ".work"}.'
            )
        return work_dir
    here = Path.cwd()
    candidates = [output_dir / '.work']
    if os.access(here, os.W_OK):
        candidates.insert(0, here / 'work')
    for candidate in candidates:
        if not candidate.resolve().is_relative_to(bids_dir.resolve()):
            return candidate
    try:
        check_dataset(bids_dir, validate=not settings.get('skip_bids_validation'))
    except InvalidDatasetError as error:  # more to the point than what follows from it
        problems.append(str(error))
        return None
    problems.append(
        'There is no work folder outside the input dataset: pass for example '
        f'--work-dir {suggestion}.'
    )
    return None


def _labels(settings: Settings, name: str, prefix: str, problems: Problems) -> tuple[str, ...]:
    labels = [text.removeprefix(prefix) for text in texts(settings, name, problems)]
    for label in labels:
        if not _LABEL.fullmatch(label):
            blanks = re.sub('[,;]+', ' ', label).strip()
            advice = f'; labels are separated by blanks: {blanks}' if blanks != label else ''
            problems.append(
                f'{option(name)}: {label!r} is not a label (letters and digits){advice}.'
            )
    return tuple(dict.fromkeys(labels))


def _filters(settings: Settings, problems: Problems) -> dict[str, Any]:
    try:
        if 'bids_filter_file' in settings:
            return dict(read_filters(settings['bids_filter_file']))
        content = settings.get('bids_filters', {})
        if isinstance(content, str):
            content = json.loads(content)
        return dict(check_filters(content, 'bids_filters of the configuration file'))
    except (OptionError, ValueError) as error:
        problems.append(str(error))
        return {}


def _saliency(settings: Settings, problems: Problems) -> tuple[str, ...] | None:
    if 'saliency' not in settings:
        return None
    methods = tuple(dict.fromkeys(texts(settings, 'saliency', problems)))
    if methods == ('none',):
        return ()
    for method in methods:
        if method == 'none':
            problems.append('--saliency: none cannot be combined with a method.')
        elif method not in SALIENCY_METHODS:
            problems.append(
                f'--saliency: expected {", ".join(SALIENCY_METHODS)} or none, found {method!r}.'
            )
    return methods


def _model_dir(settings: Settings, environ: Mapping[str, str], problems: Problems) -> Path | None:
    text = settings.get('model_dir') or environ.get('BIDS_BRAINAGE_MODEL_DIR')
    if not text:
        return None
    folder = Path(text).absolute()
    # Training makes the folder for its first model.
    if not folder.is_dir() and (settings.get('analysis_level') != 'train' or folder.exists()):
        origin = '--model-dir' if settings.get('model_dir') else 'BIDS_BRAINAGE_MODEL_DIR'
        problems.append(f'{origin} {folder} is not a folder.')
    return folder


def _offline(settings: Settings, environ: Mapping[str, str]) -> bool:
    return bool(settings.get('offline')) or (
        environ.get('BIDS_BRAINAGE_OFFLINE', '').strip().lower() in _YES
    )


def _memory(settings: Settings, default: float, problems: Problems) -> float:
    option = '--mem' if 'mem' in settings else '--mem-gb'
    text = str(settings.get('mem', settings.get('memory_gb', default)))
    try:
        memory = parse_memory(text if option == '--mem' else f'{text}G')
        if memory < LEAST_MEMORY_GB:
            problems.append(
                f'{option}: {text} is {memory * 1024:.3g} MB, and one step takes up to 2 GB (a '
                'bare number after --mem counts MB: write for example 8G).'
            )
        return memory
    except ValueError:
        problems.append(f'{option}: expected a positive amount of memory, found {text!r}.')
        return default


def _from_file(path: str | None, problems: Problems) -> dict[str, Any]:
    """Read a configuration file into options by destination, sections put together."""
    if path is None:
        return {}
    try:
        sections = tomllib.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        problems.append(f'--config-file {path}: cannot be read as TOML ({error}).')
        return {}
    known = {action.dest for action in build_parser()._actions} - _LINE_ONLY | _CONFIG_ONLY
    settings: dict[str, Any] = {}
    for section, values in sections.items():
        if section == 'environment':
            continue
        if not isinstance(values, dict):
            problems.append(f'--config-file {path}: {section} must stand in a [section].')
            continue
        for key, value in values.items():
            name = key.replace('-', '_')
            if name in known and name not in _NOT_REUSED:
                settings[name] = value
            elif name not in _NOT_REUSED:
                problems.append(f'--config-file {path}: unknown key {key} in [{section}].')
    return settings
