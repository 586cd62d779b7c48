"""Time and memory of the group level against the number of people.

For every size, prediction tables of two sessions and three models a person are written as the
participant level leaves them (one table and one side file a session), and the command line's
group level then runs on them in its own process with one thread::

    python benchmarks/group.py
    python benchmarks/group.py --people 25000 50000 100000 --out group.json

Measured on two shared cores, one thread, two sessions and three models a person:

=======  =======  =====  ======  ====
people   rows     CPU s  wall s  GB
=======  =======  =====  ======  ====
5,000    30,000       7       9   0.5
20,000   120,000     12      16   0.7
50,000   300,000     21      23   0.9
100,000  600,000     38      38   1.5
=======  =======  =====  ======  ====

About 5 s (imports, bootstrap draws) and 0.33 s per thousand people.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (5000, 10000, 20000)
SESSIONS = (0.0, 1.5)
MODELS = ('neta.x', 'netb.x', 'netc.x')
COLUMNS = ('people', 'rows', 'cpu_s', 'wall_s', 'cpu_ms_per_row', 'peak_gb')
OPTIONS = ('--group-column', 'dx', '--reference-group', 'dx=CU')


def simulate(folder: Path, n: int) -> None:
    """Write a raw dataset (participants table only) and its prediction tables."""
    import numpy as np

    from bids_brainage.outputs.tables import column_names

    rng = np.random.default_rng(0)
    names = column_names('brainage')
    header = '\t'.join(names)
    groups = np.array(['CU', 'MCI', 'AD'])[rng.integers(0, 3, n)]
    sites = rng.integers(0, 20, n)
    people = ['participant_id\tdx\tsite']
    people += [f'sub-{k:06d}\t{groups[k]}\t{sites[k]}' for k in range(n)]
    (folder / 'bids').mkdir()
    (folder / 'bids' / 'participants.tsv').write_text('\n'.join(people) + '\n')
    ages = rng.uniform(18, 90, n)
    errors = rng.normal(0, 4, (n, len(SESSIONS), len(MODELS)))
    for k in range(n):
        for s, later in enumerate(SESSIONS):
            stem = f'sub-{k:06d}_ses-{s + 1}'
            place = folder / 'out' / f'sub-{k:06d}' / f'ses-{s + 1}' / 'anat'
            place.mkdir(parents=True)
            age = float(ages[k] + (later if k % 2 else 0.1 * later))
            lines = [header]
            for m, model in enumerate(MODELS):
                predicted = float(0.9 * age + 5 + errors[k, s, m])
                cells = {
                    'participant_id': f'sub-{k:06d}',
                    'session_id': f'ses-{s + 1}',
                    'source': f'bids:raw:sub-{k:06d}/ses-{s + 1}/anat/{stem}_T1w.nii.gz',
                    'modality': 'T1w',
                    'model': model,
                    'model_version': '1',
                    'age': repr(age),
                    'age_source': 'participants.tsv',
                    'age_censored': 'false',
                    'sex': 'MF'[k % 2],
                    'predicted_age': repr(predicted),
                    'interval_low': repr(predicted - 6),
                    'interval_high': repr(predicted + 6),
                    'interval_level': '0.9',
                    'brain_age_gap': repr(predicted - age),
                    'predicted_age_corrected': repr(predicted + 1),
                    'in_training_range': 'true',
                    'status': 'ok',
                }
                lines.append('\t'.join(cells.get(name, 'n/a') for name in names))
            (place / f'{stem}_brainage.tsv').write_text('\n'.join(lines) + '\n')
            facts = json.dumps({'Models': {model: {'Version': '1'} for model in MODELS}})
            (place / f'{stem}_brainage.json').write_text(facts)


def measure(folder: Path) -> dict[str, Any]:
    """Run the group level in this process; the time includes imports of what it needs."""
    from bids_brainage.cli.main import main

    arguments = [str(folder / 'bids'), str(folder / 'out'), 'group', '-w', str(folder / 'work')]
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    status = main([*arguments, *OPTIONS])
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        'status': status,
        'cpu_s': cpu + children.ru_utime + children.ru_stime,
        'wall_s': wall,
        'peak_gb': after.ru_maxrss / 2**20,
    }


def measured(n: int, folder: Path) -> dict[str, Any]:
    """Simulate a size and measure it in a process of its own."""
    simulate(folder, n)
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    done = subprocess.run(
        [sys.executable, __file__, '--folder', str(folder)],
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row = json.loads(done.stdout.splitlines()[-1])
    rows = n * len(SESSIONS) * len(MODELS)
    return {'people': n, 'rows': rows, 'cpu_ms_per_row': 1e3 * row['cpu_s'] / rows, **row}


def main() -> int:
    """Read the options and measure every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--people', type=int, nargs='+', default=SIZES)
    parser.add_argument('--out', type=Path, help='JSON file for the rows')
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measure(options.folder)))
        return 0
    found = []
    print('\t'.join(COLUMNS))
    for n in options.people:
        with tempfile.TemporaryDirectory() as name:
            row = measured(n, Path(name))
        found.append(row)
        print('\t'.join(f'{row[c]:.4g}' for c in COLUMNS), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + '\n')
    return max(row['status'] for row in found)


if __name__ == '__main__':
    raise SystemExit(main())
