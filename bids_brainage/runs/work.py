"""The work folder of a run: what of it goes before the run, and with each finished scan."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.config import Config
from bids_brainage.errors import TemporaryError
from bids_brainage.outputs.files import remove_abandoned
from bids_brainage.runs.claim import claimed
from bids_brainage.runs.plan import Plan
from bids_brainage.workflows.naming import scan_workflow_name

if TYPE_CHECKING:
    from niworkflows.engine.workflows import LiterateWorkflow

LOG = logging.getLogger('bids_brainage')
_PASSES_ON = frozenset({'inputnode', 'outputnode'})
"""Nodes that run nothing: Nipype takes them out."""


def scan_folders(work_dir: Path, name: str) -> Iterator[Path]:
    """Yield the folders that runs, of any version, have for a scan, by its workflow's name."""
    yield from work_dir.glob(f'bids_brainage_*_wf/{name}')


def remove_work(work_dir: Path, names: Iterable[str]) -> None:
    """Remove the folders of scans by the names of their workflows."""
    for name in names:
        for folder in scan_folders(work_dir, name):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():  # a network disk may still hold a file
                LOG.info('%s could not be removed whole.', folder)


def clean_work(work_dir: Path, plan: Plan) -> None:
    """Remove what earlier runs left of the images to do (``--clean-workdir``)."""
    remove_work(work_dir, (scan_workflow_name(scan) for scan in plan.busy))


def remove_half_written(config: Config, plan: Plan) -> None:
    """Remove what killed runs left half written of the people to be worked on."""
    root = config.execution.output_dir
    folders = {root / f'sub-{scan.subject}' for scan in plan.busy}
    removed = remove_abandoned(root.glob('.*'))
    removed += sum(remove_abandoned(folder.rglob('.*')) for folder in sorted(folders))
    if removed:
        LOG.info('%d half-written files of a run that was killed were removed.', removed)


def remove_idle(config: Config, plan: Plan) -> None:
    """Remove what stopped runs left of scans that have all their results already.

    A scan that another run works on is passed over.
    """
    work_dir = config.execution.work_dir
    busy = {scan.uri for scan in plan.busy}
    busy |= {scan.uri for scan, _ in plan.unreadable}
    for scan in (*plan.scans, *(series.scan for series in plan.series)):
        name = scan_workflow_name(scan)
        if scan.uri in busy or not any(scan_folders(work_dir, name)):
            continue
        try:
            with claimed(work_dir, [scan.path.name]):
                remove_work(work_dir, [name])
        except TemporaryError as error:
            LOG.info('%s', error)


class Sweeper:
    """Removes the folder of a scan as soon as every step of it, and of what needs it, has ended.

    The folder of a scan with a step that failed stays: the same command goes on from there.

    Parameters
    ----------
    work_dir : Path
    workflow : LiterateWorkflow
        Its parts are named by `scan_workflow_name`.
    names : iterable of str
        Names of the parts whose folders may go.
    needed_by : iterable of (str, str)
        Part, and another that takes files from its folder.
    """

    def __init__(
        self,
        work_dir: Path,
        workflow: LiterateWorkflow,
        names: Iterable[str],
        needed_by: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._work_dir = work_dir
        self._left: dict[str, set[str]] = {}
        for node in workflow.list_node_names():
            if node.rpartition('.')[2] not in _PASSES_ON:
                self._left.setdefault(node.partition('.')[0], set()).add(node)
        self._removable = set(names)
        self._users: dict[str, set[str]] = {}
        self._needs: dict[str, set[str]] = {}
        for needed, user in needed_by:
            self._users.setdefault(needed, set()).add(user)
            self._needs.setdefault(user, set()).add(needed)

    def ended(self, fullname: str) -> None:
        """Take note of a step that ended well.

        Parameters
        ----------
        fullname : str
            As Nipype has it, with the name of the whole workflow.
        """
        node = fullname.partition('.')[2]
        part = node.partition('.')[0]
        self._left.get(part, set()).discard(node)
        for name in self._removable & {part, *self._needs.get(part, ())}:
            if not any(self._left.get(other) for other in (name, *self._users.get(name, ()))):
                self._removable.remove(name)
                remove_work(self._work_dir, [name])
