"""Processor time and peak memory of the participant level, by step, for given T1w scans.

    python benchmarks/participant.py SCAN.nii.gz [SCAN.nii.gz ...] [--models NAME ...]
        [--level LEVEL] [--out TSV]

Each scan goes through the program itself (``--resource-monitor``), alone, on one thread, in new
folders.  The monitor looks every second, and what is busy then gets the processor time since it
looked last: so a step is known to about a second.  `parent` is what the system counts for the
process that plans, schedules and writes the pages; `all` is the sum.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bids_brainage.tsv import is_missing, read_tsv

PARENT, ALL = 'parent', 'all'
Use = dict[str, tuple[float, float]]
"""Step → seconds of processor time, GB of memory at most."""


def measure(scan: Path, models: list[str], level: str, root: Path) -> Use:
    """Run the program on one scan and return what each step took."""
    ending = '.nii.gz' if scan.name.endswith('.gz') else '.nii'
    image = root / 'bids/sub-01/anat' / f'sub-01_T1w{ending}'
    image.parent.mkdir(parents=True)
    image.symlink_to(scan.resolve())
    description = {'Name': 'one scan', 'BIDSVersion': '1.10.0'}
    (root / 'bids/dataset_description.json').write_text(json.dumps(description), 'utf-8')
    chosen = ['--models', *models] if models else []
    command = [sys.executable, '-m', 'bids_brainage', 'bids', 'out', 'participant', *chosen,
               '--level', level, '--nprocs', '1', '--omp-nthreads', '1', '--resource-monitor',
               '-w', 'work']  # fmt: skip
    before = _processor_time()
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    took = _processor_time() - before
    (table,) = root.glob('out/logs/**/resources.tsv')
    seconds: dict[str, float] = defaultdict(float)
    memory: dict[str, float] = defaultdict(float)
    last = 0.0
    for row in read_tsv(table):
        name = PARENT if is_missing(row['steps']) else row['steps'].removeprefix('sub-01 ')
        seconds[name] += float(row['processors']) * (float(row['seconds']) - last)
        memory[name] = max(memory[name], float(row['memory']))
        last = float(row['seconds'])
    seconds[PARENT] = took
    seconds[ALL], memory[ALL] = sum(seconds.values()), max(memory.values())
    return {name: (value, memory[name]) for name, value in seconds.items()}


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure all scans and print a table with the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scans', nargs='+', type=Path)
    parser.add_argument('--models', nargs='+', default=[], help='the default if left out')
    parser.add_argument('--level', default='full', help='of output (default: full)')
    parser.add_argument('--out', type=Path)
    options = parser.parse_args()
    os.environ |= {'OMP_NUM_THREADS': '1'}
    uses = []
    for scan in options.scans:
        with tempfile.TemporaryDirectory() as scratch:
            uses.append(measure(scan, options.models, options.level, Path(scratch)))
    steps = dict.fromkeys(step for use in uses for step in use)
    lines = ['step\tscans\tmedian_cpu_s\tmax_peak_gb']
    for step in steps:
        found = [use[step] for use in uses if step in use]
        cpu = statistics.median(seconds for seconds, _ in found)
        lines.append(f'{step}\t{len(found)}\t{cpu:.1f}\t{max(peak for _, peak in found):.2f}')
    text = '\n'.join(lines) + '\n'
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, 'utf-8')


if __name__ == '__main__':
    main()
