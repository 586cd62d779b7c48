"""Set up what libraries read from the environment, before any of them is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.errors import OptionError, OutputError
from bids_brainage.outputs.files import write_text

if TYPE_CHECKING:
    from bids_brainage.config import Config

NIPYPE_SETTINGS = """\
[logging]
workflow_level = {level}
interface_level = {level}
utils_level = {level}

[execution]
poll_sleep_duration = 0.1
check_version = false
"""


CLOSED_PROXY = 'http://127.0.0.1:9'


def prepare_environment(config: Config) -> None:
    """Silence telemetry, keep settings out of the home folder, limit threads.

    Processes started later inherit all of it.

    Raises
    ------
    OutputError
        If the work folder cannot be made.
    """
    os.environ.setdefault('NO_ET', '1')
    os.environ.setdefault('NIPYPE_NO_ET', '1')
    if config.execution.offline:
        # whatever library tries to download gets a refusal at once instead of a time-out
        for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
            os.environ[name] = CLOSED_PROXY
    threads = str(config.nipype.omp_nthreads)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
        os.environ[name] = threads
    os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = threads
    if config.execution.dry_run or config.execution.analysis_level != 'participant':
        return
    work = config.execution.work_dir
    settings = work / 'nipype'
    try:
        settings.mkdir(parents=True, exist_ok=True)
        level = 'INFO' if config.execution.verbosity else 'CRITICAL'
        level = 'DEBUG' if config.execution.debug else level
        write_text(settings / 'nipype.cfg', NIPYPE_SETTINGS.format(level=level))  # atomically
    except OSError as error:
        raise OutputError(
            f'cannot write in the work folder {work} ({error}). Choose another with --work-dir.'
        ) from error
    os.environ['NIPYPE_CONFIG_DIR'] = str(settings)
    os.environ.setdefault('MPLCONFIGDIR', str(work / 'matplotlib'))


def check_device(config: Config) -> None:
    """Refuse a device that is not here, before anything is done.

    On a cluster the jobs run elsewhere, so that nothing can be said.

    Raises
    ------
    OptionError
        If ``--device`` names a GPU that torch cannot use.
    """
    kind = config.nipype.device.partition(':')[0]
    if kind not in ('cuda', 'mps') or config.nipype.plugin not in ('MultiProc', 'Linear'):
        return
    import torch

    there = torch.cuda.is_available() if kind == 'cuda' else torch.backends.mps.is_available()
    if not there:
        raise OptionError(
            f'--device {config.nipype.device}: no such GPU can be used here. Give auto or cpu.'
        )


def template_root(work_dir: Path) -> Path:
    """Return the TemplateFlow home to use, laying out the packaged template if need be.

    ``TEMPLATEFLOW_HOME`` wins if it holds the default template; it is then left untouched.
    """
    from bids_brainage.preprocessing.template import DEFAULT_SPACE, install_packaged_template

    home = os.environ.get('TEMPLATEFLOW_HOME')
    if home and (Path(home) / f'tpl-{DEFAULT_SPACE}').is_dir():
        root = Path(home)
    else:
        root = install_packaged_template(work_dir / 'templateflow')
    os.environ['TEMPLATEFLOW_HOME'] = str(root)  # read by niworkflows when it is imported
    os.environ['TEMPLATEFLOW_AUTOUPDATE'] = 'off'
    return root
