"""What a Slurm queue adds to each scan: one job a scan, and one job a step, of work that is none.

    python benchmarks/slurm.py FOLDER [--scans 200] [--only array|plugin] | grep '^|'

starts a Slurm of one node in the folder, which must not be there yet (Debian's slurm-wlm and
munge, see tests/slurm_cluster.py), runs the scans and stops it.  `array` is one job a scan, a
shell that does nothing; `plugin` is Nipype's plugin as `--use-plugin` sets it up: each step a job,
which starts an interpreter and imports Nipype.  One line for each: jobs, wall time, that of a
scan, processor time of what submits, and for the plugin its peak memory.  What submits the array
is sbatch; what the scheduler and the jobs take is in no column.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from scheduling import STEPS, workflow_of

from bids_brainage.runs.process import execute
from bids_brainage.runs.progress import Progress

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
from slurm_cluster import one_node_cluster

PLUGIN = {'sbatch_args': '--cpus-per-task=1'}


def array(scans: int, folder: Path) -> int:
    """Submit one job a scan, wait for all, and return their number."""
    output = f'--output={folder}/array-%a.txt'
    command = ['sbatch', '--wait', f'--array=1-{scans}', output, '--wrap', 'true']
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return scans


def plugin(scans: int, folder: Path) -> int:
    """Run one workflow through Nipype's plugin and return the number of its jobs."""
    nipype = SimpleNamespace(
        nprocs=1, memory_gb=8, plugin='SLURM', plugin_args=PLUGIN, stop_on_first_crash=False
    )
    names = [f'scan_{k:05d}' for k in range(scans)]
    progress = Progress({name: name for name in names}, 1, lambda *row: None)
    stopped = execute(
        SimpleNamespace(nipype=nipype), workflow_of(names, 0.0, str(folder / 'work')), progress
    )
    if stopped:
        raise RuntimeError(stopped)
    return scans * STEPS


def measure(way: Callable[[int, Path], int], scans: int, folder: Path) -> None:
    """Run the scans in one way and print its line."""
    begun, used = time.monotonic(), _processor_time()
    jobs = way(scans, folder)
    wall, used = time.monotonic() - begun, _processor_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    memory = f'{peak:.0f}' if way is plugin else '–'
    print(
        f'| {way.__name__} | {scans} | {jobs} | {wall:.0f} | {wall / scans:.2f} | '
        f'{used / scans:.2f} | {memory} |',
        flush=True,
    )


def _processor_time() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    """Measure both ways on one cluster."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--scans', type=int, default=200)
    parser.add_argument('--only', choices=['array', 'plugin'])
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True)
    here = Path(__file__).parent
    print('| way | scans | jobs | wall, s | s a scan | CPU of what submits, s a scan | MB |')
    print('| --- | --- | --- | --- | --- | --- | --- |', flush=True)
    with one_node_cluster(folder) as environment:
        os.environ |= environment
        # the jobs find the steps, which are functions of a script beside this one
        os.environ['PYTHONPATH'] = os.pathsep.join([str(here), *sys.path[1:]])
        for way in (array, plugin):
            if options.only in (None, way.__name__):
                measure(way, options.scans, folder)


if __name__ == '__main__':
    main()
