"""A study of simulated people that goes through the whole program, for tests of the group level.

24 people with two sessions: half come back after five weeks (test-retest) and half after eight
years, women and men in both halves.  Unlike `group_demo`, every number comes from an image::

    python tests/simulated_study.py FOLDER [options of the participant level]

goes on where an earlier call was stopped; expect about an hour of one processor core.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainage import __version__

PEOPLE = 24
SEED = 3
VOXEL_MM = 4
UNRELATED = 'unrelated'
RETEST_YEARS, CHANGE_YEARS = 0.1, 8.0
SCHEDULES = (RETEST_YEARS, RETEST_YEARS, CHANGE_YEARS, CHANGE_YEARS)
"""Years to the second session; participants take turns, and sexes alternate too."""

NAME = f'carved-study-{__version__}-seed{SEED}-{VOXEL_MM}mm'


def simulate(root: Path) -> Path:
    """Write the raw dataset, once; its folder."""
    bids = root / NAME / 'bids'
    if not bids.exists():
        part = bids.with_name('bids.part')
        shutil.rmtree(part, ignore_errors=True)
        numbers = {'--participants': PEOPLE, '--seed': SEED, '--resolution': VOXEL_MM}
        arguments = [str(x) for pair in numbers.items() for x in pair]
        for years in SCHEDULES:
            arguments += ['--intervals', str(years)]
        _python('bids_brainage.simulation', str(part), *arguments)
        add_unrelated(part / 'participants.tsv')
        part.rename(bids)
    return bids


def add_unrelated(table: Path) -> None:
    """Give everybody a number that has nothing to do with the brain, column `UNRELATED`."""
    people = pd.read_csv(table, sep='\t')
    people[UNRELATED] = np.random.default_rng(SEED).normal(size=len(people)).round(3)
    people.to_csv(table, sep='\t', index=False)


def run_participants(root: Path, *options: str) -> Path:
    """Run the participant level on what is not done yet; the output folder."""
    bids = simulate(root)
    out, work = bids.with_name('out'), bids.with_name('work')
    places = (str(bids), str(out), 'participant', '-w', str(work))
    _python('bids_brainage', *places, '--sloppy', *options)
    shutil.rmtree(work, ignore_errors=True)
    return out


def _python(module: str, *arguments: str) -> None:
    """Run a module as a user does."""
    subprocess.run([sys.executable, '-m', module, *arguments], check=True)


if __name__ == '__main__':
    run_participants(Path(sys.argv[1]), *sys.argv[2:])
