"""How long a run of a large dataset takes to its first step, and to say what it would do.

    python benchmarks/start.py SCAN.nii.gz [--people 10000] | grep '^|'

makes a dataset whose people all have this scan (links), and measures with one person asked for:
the time until the first step begins, in a new work folder and in one that has the template; and
``--dry-run`` of that person and of all.  Printed for each: wall time, and processor time of the
program (of the parent alone, where there are others).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = [sys.executable, '-m', 'bids_brainage', 'bids', 'out', 'participant', '-w', 'work']
LIMITS = ['--nprocs', '1', '--omp-nthreads', '1']
Times = tuple[float, float]
"""Seconds of the wall clock and of processor time."""


def make_dataset(root: Path, scan: Path, people: int) -> str:
    """Write a dataset of people who share one scan; return the label of the middle one."""
    rows = ['participant_id\tage']
    for number in range(people):
        name = f'sub-{number:06d}'
        folder = root / name / 'anat'
        folder.mkdir(parents=True)
        (folder / f'{name}_T1w.nii.gz').symlink_to(scan.resolve())
        rows.append(f'{name}\t{20 + number % 60}')
    (root / 'participants.tsv').write_text('\n'.join(rows) + '\n', 'utf-8')
    description = {'Name': 'many', 'BIDSVersion': '1.10.0'}
    (root / 'dataset_description.json').write_text(json.dumps(description), 'utf-8')
    return f'{people // 2:06d}'


def first_step(folder: Path, label: str) -> Times:
    """Start a run, stop it when its first step begins, and return what it took so far."""
    begun = time.monotonic()
    command = [*PROGRAM, *LIMITS, '--participant-label', label]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(folder.glob('work/*_wf/*/*/check')):
            time.sleep(0.02)
        wall = time.monotonic() - begun
        fields = Path(f'/proc/{process.pid}/stat').read_text('utf-8').rpartition(')')[2].split()
        process.terminate()
    used = sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')
    return wall, used


def dry_run(folder: Path, *options: str) -> Times:
    """Return what a dry run takes."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*PROGRAM, *LIMITS, *options, '--dry-run']
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begun, used


def main() -> None:
    """Measure all four and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('scan', type=Path)
    parser.add_argument('--people', type=int, default=10_000)
    options = parser.parse_args()
    print('| what | wall, s | CPU, s |\n| --- | --- | --- |', flush=True)

    def row(what: str, times: Times) -> None:
        print(f'| {what} | {times[0]:.1f} | {times[1]:.1f} |', flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        label = make_dataset(folder / 'bids', options.scan, options.people)
        row('first step, new work folder', first_step(folder, label))
        shutil.rmtree(folder / 'out')
        for path in folder.glob('work/*_wf'):
            shutil.rmtree(path)
        row('first step, template there', first_step(folder, label))
        row('dry run of one', dry_run(folder, '--participant-label', label))
        row('dry run of all', dry_run(folder))


if __name__ == '__main__':
    main()
