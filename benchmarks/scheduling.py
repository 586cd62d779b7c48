"""What the parent process costs, by the number of scans, with steps that do nothing.

    python benchmarks/scheduling.py [SCANS ...] [--batches-only] [--nprocs N] | grep '^|'

Each scan has as many steps as a real one and goes through the same plugin, in batches as a run
makes them and, for comparison, as one workflow of all.  Printed for each: processor seconds of the
parent in all and a scan, its memory, and the wall time.  The last line is a parent that only waits
for one scan of 20 seconds.  More processes than two shorten the wait for many scans.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_brainage.runs.batches import batch_size, parts
from bids_brainage.runs.process import execute
from bids_brainage.runs.progress import Progress

STEPS = 9


def step(number: float) -> float:
    """Wait for less than a second's part, or for as long as the number says."""
    import time

    time.sleep(number)
    return number


def workflow_of(names: list[str], seconds: float, base_dir: str) -> pe.Workflow:
    """Return a workflow of scans whose steps do nothing."""
    whole = pe.Workflow('whole', base_dir=base_dir)
    whole.config['execution'] = {
        'poll_sleep_duration': 0.1, 'remove_unnecessary_outputs': False, 'check_version': False,
    }  # fmt: skip
    for name in names:
        scan = pe.Workflow(name)
        before = None
        for number in range(STEPS):
            node = pe.Node(
                niu.Function(function=step, output_names=['number']), name=f'step_{number}'
            )
            if before is None:
                node.inputs.number = seconds
                scan.add_nodes([node])
            else:
                scan.connect([(before, node, [('number', 'number')])])
            before = node
        whole.add_nodes([scan])
    return whole


def measure(scans: int, size: int, seconds: float, nprocs: int) -> None:
    """Run the scans in batches of a size and print what the parent took."""
    nipype = SimpleNamespace(
        nprocs=nprocs, memory_gb=8, plugin='MultiProc', plugin_args={}, stop_on_first_crash=False
    )
    config = SimpleNamespace(nipype=nipype)
    names = [f'scan_{k:05d}' for k in range(scans)]
    begun, used = time.monotonic(), time.process_time()
    for part in parts(names, size):
        with tempfile.TemporaryDirectory() as folder:
            progress = Progress({name: name for name in part}, nprocs, lambda *row: None)
            execute(config, workflow_of(list(part), seconds, folder), progress)
    used, wall = time.process_time() - used, time.monotonic() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f'| {scans} | {min(size, scans)} | {used:.1f} | {1000 * used / scans:.0f} | '
        f'{100 * used / wall:.1f} % | {memory:.0f} | {wall:.0f} |',
        flush=True,
    )


def main() -> None:
    """Measure each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('scans', nargs='*', type=int, default=[100, 400])
    parser.add_argument('--batches-only', action='store_true', help='not as one workflow of all')
    parser.add_argument('--nprocs', type=int, default=2)
    parser.add_argument('--one', nargs=3, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        scans, size, seconds = options.one
        measure(int(scans), int(size), seconds, options.nprocs)
        return
    print(
        '| scans | in batches of | CPU of the parent, s | ms a scan | of a core | MB | wall, s |'
    )
    print('| --- | --- | --- | --- | --- | --- | --- |', flush=True)
    batch = batch_size(options.nprocs)
    cases = [
        (n, size, 0.0)
        for n in options.scans
        for size in ([batch] if options.batches_only else [batch, n])
    ]
    processes = ['--nprocs', str(options.nprocs)]
    for case in [*dict.fromkeys(cases), (1, 1, 20.0 / STEPS)]:
        command = [sys.executable, __file__, *processes, '--one', *map(str, case)]
        subprocess.run(command, check=True)


if __name__ == '__main__':
    main()
