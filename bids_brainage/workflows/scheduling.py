"""How Nipype's plugins run the steps: on this machine scan by scan, or on a cluster.

Nipype's MultiProc takes ready nodes in the order of a topological sort, which reads all scans
before it registers the first.  Then a run that is stopped after an hour has nothing finished.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nipype.pipeline import plugins
from nipype.pipeline.engine import Workflow
from nipype.pipeline.plugins.base import PluginBase
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

CLUSTER_POLL_S = 2.0
CLUSTER_PATIENCE_S = 30.0
LONGEST_WAIT_S = 5.0
"""Until the parent looks even if no step has ended."""


def suit_cluster(workflow: Workflow) -> None:
    """Set a workflow up for a plugin that submits jobs to a scheduler.

    The scheduler is asked every two seconds, not ten times a second as on this machine, and a
    result may come half a minute after its job has ended, since network file systems show new
    files late.  Nipype names jobs after ``LOGNAME``, which containers and services leave unset.

    Parameters
    ----------
    workflow : Workflow
        Its settings are changed.
    """
    workflow.config['execution']['poll_sleep_duration'] = CLUSTER_POLL_S
    workflow.config['execution']['job_finished_timeout'] = CLUSTER_PATIENCE_S
    if not os.environ.get('LOGNAME'):
        try:
            os.environ['LOGNAME'] = getpass.getuser()
        except (KeyError, OSError):  # a user id without a name
            os.environ['LOGNAME'] = str(os.getuid())


def make_cluster_plugin(name: str, plugin_args: dict[str, Any], cancel: str) -> PluginBase:
    """Return a plugin that submits jobs, survives one that was killed, and cancels its own.

    Parameters
    ----------
    name : str
        As Nipype spells it, for example ``SLURM``.
    plugin_args : dict
        As for Nipype's plugin.
    cancel : str
        Program that takes numbers of jobs and cancels them.

    Returns
    -------
    PluginBase
        With a method ``stop``, as `ScanByScan` has.
    """
    base: type[Any] = getattr(plugins, f'{name}Plugin')

    class ClusterPlugin(base):
        def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> str:
            # Nipype adds lines to the traceback; that of a job which left no result is a text,
            # and the failed addition ended the whole run
            if result is not None and isinstance(result['traceback'], str):
                lines = result['traceback'].splitlines(keepends=True)
                result = {**result, 'traceback': lines}
            return str(super()._report_crash(node, result=result))

        def stop(self) -> None:
            """Cancel the jobs that wait or run."""
            if self._pending:
                command = [cancel, *(str(job) for job in self._pending)]
                subprocess.run(command, check=False, capture_output=True)

    return ClusterPlugin(plugin_args=plugin_args)


class ScanByScan(MultiProcPlugin):
    """MultiProc that prefers nodes of the scans that come first, and waits without looking.

    Nipype looks ten times a second whether a step has ended; this waits until one has.

    Parameters
    ----------
    scans : sequence of str
        Names of the scans' workflows in the wanted order.
    plugin_args : dict
        As for Nipype's MultiProc.
    """

    def __init__(self, scans: Sequence[str], plugin_args: dict[str, Any]) -> None:
        self._order = {name: position for position, name in enumerate(scans)}
        self._ended = threading.Event()
        super().__init__(plugin_args=plugin_args)

    def stop(self) -> None:
        """Kill the worker processes, which would else finish their nodes before they end."""
        for process in list((self.pool._processes or {}).values()):
            process.kill()

    def _async_callback(self, args: Future[Any]) -> None:
        # a pool that broke is told by the next submission; here it would print a traceback
        if not isinstance(args.exception(), BrokenProcessPool):
            super()._async_callback(args)
        self._ended.set()

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
        if self.pending_tasks:
            self._ended.wait(LONGEST_WAIT_S)
            self._ended.clear()

    def _sort_jobs(self, jobids: Sequence[int], scheduler: str | None = None) -> list[int]:
        return sorted(jobids, key=lambda job: (self._position(job), job))

    def _position(self, job: int) -> int:
        parts = self.procs[job].fullname.split('.')
        return next((self._order[p] for p in parts if p in self._order), len(self._order))
