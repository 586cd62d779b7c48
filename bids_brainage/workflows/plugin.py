"""The Nipype plugin that runs the steps: this machine's processes, or a cluster's scheduler."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainage.errors import MissingExecutableError

DEFAULT = 'MultiProc'
SUBMITTERS = {
    'SLURM': ('sbatch', 'squeue', 'scancel'),
    'PBS': ('qsub', 'qstat', 'qdel'),
    'SGE': ('qsub', 'qstat', 'qdel'),
    'LSF': ('bsub', 'bjobs', 'bkill'),
    'OAR': ('oarsub', 'oarstat', 'oardel'),
    'Condor': ('condor_qsub', 'condor_q', 'condor_rm'),
}
"""Plugins that hand every step to a scheduler → programs that submit, ask for and cancel jobs."""

PLUGINS = (DEFAULT, 'LegacyMultiProc', 'Linear', *SUBMITTERS)
# Nipype's graph plugins return before their jobs have run, so there would be nothing to report.
_DO_NOT_WAIT = ('SLURMGraph', 'PBSGraph', 'SGEGraph', 'CondorDAGMan')
Settings = Mapping[str, Any]


def read_plugin(settings: Settings, problems: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the Nipype plugin and its arguments, from a YAML file or an earlier run.

    Parameters
    ----------
    settings : mapping
        Options that were given, by destination.
    problems : list of str
        Extended by one sentence for each problem.

    Returns
    -------
    name : str
        As Nipype spells it, whatever the case in the file.
    arguments : dict
    """
    if 'use_plugin' not in settings:
        arguments = settings.get('plugin_args', '{}')
        try:
            loaded = json.loads(arguments) if isinstance(arguments, str) else dict(arguments)
        except (TypeError, ValueError):
            problems.append('plugin_args of the configuration file: expected a mapping.')
            loaded = {}
        origin = 'plugin of the configuration file'
        return _known(str(settings.get('plugin', DEFAULT)), origin, problems), loaded

    import yaml

    path = Path(settings['use_plugin'])
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(f'--use-plugin {path}: cannot be read as YAML ({error}).')
        return DEFAULT, {}
    content = content if isinstance(content, dict) else {}
    plugin, arguments = content.get('plugin'), content.get('plugin_args') or {}
    if not isinstance(plugin, str) or not isinstance(arguments, dict):
        problems.append(
            f'--use-plugin {path}: expected "plugin: NAME" and, if any, a mapping plugin_args.'
        )
        return DEFAULT, {}
    return _known(plugin, f'--use-plugin {path}', problems), arguments


def _known(name: str, origin: str, problems: list[str]) -> str:
    spelling = {plugin.lower(): plugin for plugin in PLUGINS}
    if name.lower() in spelling:
        return spelling[name.lower()]
    reason = (
        'returns before its jobs have run'
        if name.lower() in (plugin.lower() for plugin in _DO_NOT_WAIT)
        else 'is not known'
    )
    problems.append(f'{origin}: plugin {name} {reason}. Choose one of: {", ".join(PLUGINS)}.')
    return DEFAULT


def require_scheduler(plugin: str) -> None:
    """Check that the programs which a plugin calls are installed.

    Raises
    ------
    MissingExecutableError
        If one is not.
    """
    missing = [name for name in SUBMITTERS.get(plugin, ()) if shutil.which(name) is None]
    if missing:
        raise MissingExecutableError(
            f'The plugin {plugin} needs {", ".join(missing)}, not found on PATH. '
            'Start the run on a machine that may submit jobs, or leave --use-plugin out. A '
            'container does not see the scheduler around it: run one job per participant instead.'
        )
