"""Memory and processors that a run takes, noted every second (``--resource-monitor``, Linux)."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bids_brainage.outputs.files import write_json
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.outputs.tables import column_names, data_dictionary
from bids_brainage.tsv import format_cell

LOG = logging.getLogger('bids_brainage')
PERIOD_S = 1.0
PROC = Path('/proc')
_GIB = 1024**2  # kB


@contextmanager
def monitored(path: Path, running: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Note every second what this process and all that it started take, and tell the most.

    Parameters
    ----------
    path : Path
        Table that gets the lines; begun if it is not there.
    running : callable
        Returns the steps that run at the moment.
    """
    monitor = _Monitor(path, running)
    monitor.start()
    try:
        yield
    finally:
        monitor.stopped.set()
        monitor.join()
        LOG.log(
            IMPORTANT,
            'resources at most %.1f GB of memory (%s); every second in %s',
            monitor.most,
            monitor.when or 'no step',
            path,
        )


class _Monitor(threading.Thread):
    """Thread that samples until it is stopped."""

    def __init__(self, path: Path, running: Callable[[], Sequence[str]]) -> None:
        super().__init__(daemon=True)
        self.path, self.running = path, running
        self.stopped = threading.Event()
        self.most, self.when = 0.0, ''

    def run(self) -> None:
        """Write one line a second."""
        names = column_names('resources')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        write_json(self.path.with_suffix('.json'), data_dictionary('resources'))
        begun = before = time.monotonic()
        seconds = processes_use(os.getpid())[1]
        with self.path.open('a', encoding='utf-8') as stream:
            if new:
                stream.write('\t'.join(names) + '\n')
            while not self.stopped.wait(PERIOD_S):
                steps = '; '.join(self.running())
                memory, used = processes_use(os.getpid())
                now = time.monotonic()
                # a process that has ended takes its seconds with it
                load = max(used - seconds, 0.0) / (now - before)
                seconds, before = used, now
                if memory > self.most:
                    self.most, self.when = memory, steps
                row: dict[str, Any] = {
                    'seconds': round(now - begun, 1),
                    'memory': round(memory, 3),
                    'processors': round(load, 2),
                    'steps': steps or None,
                }
                stream.write('\t'.join(format_cell(row[name]) for name in names) + '\n')
                stream.flush()


def processes_use(root: int, proc: Path = PROC) -> tuple[float, float]:
    """Return what a process and all that descend from it take.

    Parameters
    ----------
    root : int
        Number of the process.
    proc : Path
        Where the kernel tells of processes.

    Returns
    -------
    memory : float
        GB of 2^30 bytes; what several processes share counts once.
    seconds : float
        Of processor time so far.
    """
    parents, times = {}, {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # the name of the program, in brackets, may hold blanks
            fields = (folder / 'stat').read_text('utf-8', 'replace').rpartition(')')[2].split()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(fields[1])
        times[int(folder.name)] = sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    memory = sum(_memory_kb(proc / str(pid)) for pid in family)
    return memory / _GIB, sum(times.get(pid, 0.0) for pid in family)


def _memory_kb(folder: Path) -> int:
    """Return the proportional set size of a process, else its resident set size, in kB."""
    for name, key in (('smaps_rollup', 'Pss:'), ('status', 'VmRSS:')):
        try:
            lines = (folder / name).read_text('utf-8', 'replace').splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1])
    return 0
