"""Runs that are killed at random moments, and runs side by side: what is lost, doubled or broken.

    python benchmarks/interruptions.py kill WORK [--kills 50] [--minutes 60]
    python benchmarks/interruptions.py parallel WORK [--turns 1]

The dataset is made in WORK/bids: eight brains of thick slices, which are the quickest to do.
Another one is given with --bids, with --model to go with it.  Both first make an undisturbed run
in WORK/reference (kept for the next call), and compare with it: tables and images must have its
bytes.  ``kill`` starts the run again and again in the same folders and kills it with all its
processes (SIGKILL) at a random moment; when a run gets to its end, the folders are emptied and it
begins anew.  ``parallel`` starts one run for each participant at once, all into one output folder.
After each kill and at each end every file of the output is read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bids_brainage.dataset.discovery import participants_of
from bids_brainage.outputs import read_brainage

PEOPLE = 8
OPTIONS = ('--saliency', 'none', '--sloppy')
COMPARED = ('.tsv', '.nii.gz', '.h5')
"""Endings of files that must have the same bytes as those of an undisturbed run."""

ENDS = {'.html': b'</html>', '.svg': b'</svg>'}


def make_dataset(bids: Path) -> None:
    """Write people whose brains are nilearn's template in slices of 4 mm, each with own noise."""
    import nibabel as nib
    import numpy as np
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=2)
    inside = np.asarray(datasets.load_mni152_brain_mask(resolution=2).dataobj) > 0
    affine = image.affine @ np.diag([1, 1, 2, 1])
    for number in range(PEOPLE):
        noise = np.random.default_rng(number).normal(0, 0.02, image.shape)
        data = (np.asarray(image.dataobj) + noise) * inside
        even = data[:, :, : data.shape[2] // 2 * 2]
        thick = even.reshape(*data.shape[:2], -1, 2).mean(axis=3)
        path = bids / f'sub-{number + 1:02d}' / 'anat' / f'sub-{number + 1:02d}_T1w.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.float32(1000 * thick), affine), path)
    description = '{"Name": "eight brains", "BIDSVersion": "1.10.0"}'
    (bids / 'dataset_description.json').write_text(description, 'utf-8')


def start(options: argparse.Namespace, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a run in a session of its own, so that all its processes can be killed together."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'bids_brainage', str(options.bids), str(folder / 'out'),
               'participant', '--models', options.model, *OPTIONS, '-w', str(folder / 'work'),
               *more]  # fmt: skip
    with (folder / 'terminal.txt').open('ab') as terminal:
        return subprocess.Popen(command, stdout=terminal, stderr=terminal, start_new_session=True)


def reference(options: argparse.Namespace) -> tuple[Path, float]:
    """Return the output of an undisturbed run, and how many seconds it took."""
    folder = options.work / 'reference'
    done = folder / 'seconds.txt'
    if not done.exists():
        begin = time.monotonic()
        if start(options, folder).wait():
            raise SystemExit(f'the undisturbed run failed, see {folder / "terminal.txt"}')
        done.write_text(f'{time.monotonic() - begin:.1f}', 'utf-8')
    return folder / 'out', float(done.read_text('utf-8'))


def rows(out: Path) -> dict[tuple[str, str], str]:
    """Return the finished rows of an output folder: image and model → the row as text.

    Raises
    ------
    ValueError
        A row stands there twice.
    """
    found: dict[tuple[str, str], str] = {}
    for path in sorted(out.glob('sub-*/**/*_brainage.tsv')):
        for row in read_brainage(path):
            key = (str(row['source']), str(row['model']))
            if key in found:
                raise ValueError(f'{path}: the row of {key} stands there twice')
            if row['status'] == 'ok':
                found[key] = repr(row)
    return found


def files(out: Path) -> Iterator[Path]:
    """Yield the files of an output folder but logs and what a killed writer left (``.name``)."""
    for path in sorted(out.rglob('*')):
        relative = path.relative_to(out).parts
        if path.is_file() and not {'log', 'logs'} & {*relative} and not path.name.startswith('.'):
            yield path


def hidden(out: Path) -> set[str]:
    """Return the names of hidden files, as half-written ones are."""
    return {path.name for path in out.rglob('.*') if path.is_file()}


def broken(path: Path) -> str:
    """Return why a file is not whole, or nothing."""
    try:
        content = path.read_bytes()
        if path.name.endswith('.gz'):
            gzip.decompress(content)
        elif path.suffix == '.json':
            json.loads(content)
        elif path.suffix == '.tsv':
            widths = {line.count('\t') for line in content.decode().splitlines()}
            if len(widths) != 1 or not content.endswith(b'\n'):
                return 'a row is not whole'
        elif path.suffix in ('.html', '.svg') and f'</{path.suffix[1:]}>' not in str(
            content[-20:]
        ):
            return 'its end is missing'
        elif path.suffix == '.h5':
            import h5py

            with h5py.File(path) as stream:
                stream.visit(lambda name: None)
    except (OSError, ValueError, EOFError) as error:
        return str(error)
    return '' if content else 'it is empty'


def faults(out: Path, before: dict[tuple[str, str], str]) -> list[str]:
    """Return what is broken, and which finished rows were lost or changed."""
    found = [f'{path}: {why}' for path in files(out) if (why := broken(path))]
    now = rows(out)
    return found + [f'row of {key} was lost' for key, row in before.items() if now.get(key) != row]


def differences(out: Path, whole: Path) -> list[str]:
    """Compare a finished output folder with that of the undisturbed run."""
    here, there = ({p.relative_to(d): p for p in files(d)} for d in (out, whole))
    found = [f'{name} is missing' for name in there.keys() - here.keys()]
    found += [f'{name} is new' for name in here.keys() - there.keys()]
    for name in here.keys() & there.keys():
        if name.name.endswith(COMPARED) and here[name].read_bytes() != there[name].read_bytes():
            found.append(f'{name} differs')
    index = (out / 'index.html').read_text('utf-8')
    return found + [f'{p.name} is not in index.html' for p in out.glob('sub-*/')
                    if p.name not in index]  # fmt: skip


def kill(options: argparse.Namespace) -> list[str]:
    """Kill runs until there were enough; return all faults."""
    whole, seconds = reference(options)
    chance = random.Random(options.seed)
    folder, ended = options.work / 'killed', time.monotonic() + 60 * options.minutes
    kills, ends, found = 0, 0, []
    before: dict[tuple[str, str], str] = {}
    shutil.rmtree(folder, ignore_errors=True)
    finished = False
    while not finished:
        last = kills == options.kills or time.monotonic() > ended
        process = start(options, folder)
        try:
            status = process.wait(None if last else chance.uniform(0, seconds / options.share))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            found += faults(folder / 'out', before)
            before = rows(folder / 'out')
            print(f'kill {kills}: {len(before)} rows finished, {len(found)} faults', flush=True)
            continue
        ends, finished = ends + 1, last
        found += [f'a run ended with status {status}'] if status else []
        found += faults(folder / 'out', before) + differences(folder / 'out', whole)
        rest = hidden(folder / 'out') - hidden(whole)
        print(
            f'end {ends} after {kills} kills: {len(found)} faults, {len(rest)} half-written files'
        )
        before = {}
        shutil.rmtree(folder)
    print(f'{kills} kills, {ends} runs to the end, {len(found)} faults')
    return found


def parallel(options: argparse.Namespace) -> list[str]:
    """Run all participants at once into one output folder; return all faults."""
    whole, _ = reference(options)
    people = participants_of(options.bids)
    found = []
    for turn in range(options.turns):
        folder = options.work / f'parallel-{turn}'
        shutil.rmtree(folder, ignore_errors=True)
        own = ('--nprocs', '1', '--omp-nthreads', '1', '--participant-label')
        jobs = [start(options, folder, *own, label) for label in people]
        status = [job.wait() for job in jobs]
        found += [f'a job ended with status {code}' for code in status if code]
        found += faults(folder / 'out', rows(whole)) + differences(folder / 'out', whole)
        print(f'turn {turn + 1}: {len(jobs)} jobs, {len(found)} faults', flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', choices=('kill', 'parallel'))
    parser.add_argument('work', type=Path)
    parser.add_argument('--bids', type=Path)
    parser.add_argument('--model', default='densenet169_clinical.adults')
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--minutes', type=float, default=1e6, help='kill no more after this time')
    parser.add_argument('--share', type=float, default=4, metavar='N',
                        help='kill within the Nth part of an undisturbed run')  # fmt: skip
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--turns', type=int, default=1, help='how often jobs run side by side')
    options = parser.parse_args(arguments)
    action = kill if options.what == 'kill' else parallel
    options.work = options.work.resolve()
    if options.bids is None:
        options.bids = options.work / 'bids'
        if not options.bids.exists():
            make_dataset(options.bids)
    options.bids = options.bids.resolve()
    found = action(options)
    print('\n'.join(found) or 'no fault')
    return 1 if found else 0


if __name__ == '__main__':
    raise SystemExit(main())
