r"""Train all four systems on generated people, then on real ones, in pieces that may be stopped.

    python tools/gpu_training.py LABEL_MAP_DIR WORK --people 1000 --minutes 9
    python tools/gpu_training.py LABEL_MAP_DIR WORK --people 1000 --minutes 9 \
        --measured MEASURED_TSV --real REAL_INPUTS
    python tools/gpu_training.py join WORK/cut/vgg8.lifespan MODELS

One and the same command is called until it says that all is done (status 0; 75 before).  Each call
goes on where the last one was ended, by its budget or by force; what was reached is what lies in
``WORK``.  The steps are the other tools: ``lifespan_cohort.py`` makes people on the device,
``lifespan_train.py`` trains Systems A to D on the grids of their papers, ``fine_tune.py`` goes on
with real people and judges those left out, ``benchmarks/models.py`` measures.  ``WORK/cut`` gets
each bundle as files of at most 15 MB, with the checksum of the whole.

``REAL_INPUTS/<architecture>`` is a work folder of ``tools/real_inputs.py`` for the published grid.
With ``--toy`` the grids are coarse, the people few, and the epochs two: for a dry run on the CPU.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from fine_tune import VIEWS
from lifespan_cohort import GRIDS, PUBLISHED

from bids_brainage.bundles.bundle import golden_age, load_bundle
from bids_brainage.errors import OutputError
from bids_brainage.outputs.files import read_json, write_json

LOG = logging.getLogger('gpu_training')
TOOLS = Path(__file__).parent
BENCHMARK = TOOLS.parent / 'benchmarks' / 'models.py'
TAG = 'lifespan'
PART_BYTES = 15_000_000
TOY_PEOPLE, TOY_REPEATED = 40, 2
RECIPE, ALONE = '[split]\nmethod = "random"\n', '[fusion]\nfit = "none"\n'
TOY = '[run]\nepochs = 2\nbatch_size = 8\n[schedule]\nname = "none"\n'
"""What changes in the papers' recipes; generated people have one split and no second modality."""


@dataclass(frozen=True)
class Step:
    """A command that goes on where it was stopped, and ends with status 0 when all is done."""

    name: str
    command: tuple[str, ...]


def tool(name: str, *arguments: object) -> tuple[str, ...]:
    """Return the command of one of the tools."""
    return (sys.executable, str(TOOLS / name), *map(str, arguments))


def recipe_of(work: Path, arch: str, toy: bool) -> Path:
    """Write what changes in the recipe of an architecture."""
    path = work / f'{arch}.toml'
    path.write_text(RECIPE + (ALONE if arch == 'vgg8' else '') + (TOY if toy else ''), 'utf-8')
    return path


def steps_of(options: argparse.Namespace) -> list[Step]:
    """Return all steps in their order."""
    work, toy = options.work, options.toy
    cohort, models, device = work / 'cohort', work / 'models', device_name()
    people = (
        '--people', TOY_PEOPLE if toy else options.people,
        '--repeated', TOY_REPEATED if toy else 100, '--device', device,
        *(() if toy else ('--published',)),
    )  # fmt: skip
    steps = [Step('cohort', tool('lifespan_cohort.py', options.label_map_dir, cohort, *people))]
    for grid, arch, _ in GRIDS if toy else PUBLISHED:
        recipe = recipe_of(work, arch, toy)
        train = ('--arch', arch, '--grid', grid, '--recipe', recipe, '--tag', TAG)
        steps.append(Step(f'train-{arch}', tool('lifespan_train.py', cohort, models, *train)))
        if options.real:
            steps += tuned(options, arch, models)
    mine = (sys.executable, str(Path(__file__)))
    steps.append(Step('measure', (*mine, 'measure', str(models), str(work / 'measured.json'))))
    steps.append(Step('cut', (*mine, 'cut', str(models), str(work / 'cut'))))
    return steps


def tuned(options: argparse.Namespace, arch: str, models: Path) -> list[Step]:
    """Return the steps that go on with real people, judge those left out, and export."""
    fixed = (options.measured, options.real / arch, '--start', models / f'{arch}.{TAG}')
    return [
        *(Step(f'tune-{arch}-{v}', tool('fine_tune.py', *fixed, '--view', v)) for v in VIEWS),
        Step(f'export-{arch}', tool('fine_tune.py', *fixed, '--export', models)),
    ]


def device_name() -> str:
    """Return the device of torch that there is."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def run_within(command: Sequence[str], seconds: float, lock: int) -> int | None:
    """Run a command that holds a lock; return its status, or None if the time was up."""
    process = subprocess.Popen(command, start_new_session=True, pass_fds=(lock,))
    try:
        return process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:  # its own processes, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def advance(steps: Sequence[Step], done: Path, seconds: float) -> int:
    """Go on with the steps until the time is up; 0 when all are done, 75 when some are left.

    A step that fails ends the call with its status.
    """
    done.mkdir(parents=True, exist_ok=True)
    lock = os.open(done / '.lock', os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # its step may outlive a call that was killed
        LOG.info('an earlier call or its step is still at work in %s', done.parent)
        return os.EX_TEMPFAIL
    try:
        return _advance(steps, done, seconds, lock)
    finally:
        os.close(lock)


def _advance(steps: Sequence[Step], done: Path, seconds: float, lock: int) -> int:
    end = time.monotonic() + seconds
    for number, step in enumerate(steps, start=1):
        if (done / step.name).is_file():
            continue
        LOG.info('step %d of %d: %s', number, len(steps), step.name)
        status = run_within(step.command, end - time.monotonic(), lock)
        if status is None:
            LOG.info('%s goes on with the next call', step.name)
            return os.EX_TEMPFAIL
        if status:
            return status
        (done / step.name).touch()
    LOG.info('all is done')
    return 0


def measure(models: Path, out: Path) -> None:
    """Measure latency and throughput of each architecture, and how far CPU and GPU agree."""
    device = device_name()
    report: dict = read_json(out) or {
        'device': torch.cuda.get_device_name() if device == 'cuda' else 'CPU',
        'agreement': 'GPU with CPU' if device == 'cuda' else 'CPU with itself: there is no GPU',
        'models': {},
    }
    for path in sorted(models.glob(f'*.{TAG}')):
        bundle = load_bundle(path)
        if bundle.arch in report['models']:
            continue
        ages = [golden_age(bundle, name) for name in ('cpu', device)]
        report['models'][bundle.arch] = {
            'difference_years': abs(ages[0] - ages[1]),
            'grid': bundle.input['shape'],
            **{f'batch_{n}': benchmark(bundle.arch, device, n, out) for n in (1, 8)},
        }
        write_json(out, report)


def benchmark(arch: str, device: str, batch: int, out: Path) -> dict:
    """Return seconds and memory of a forward pass at the published size, and scans a second."""
    rows = out.with_suffix('.part.json')
    command = (sys.executable, str(BENCHMARK), '--only', arch, '--device', device)
    subprocess.run((*command, '--batch', str(batch), '--out', str(rows)), check=True)
    (row,) = json.loads(rows.read_text('utf-8'))
    rows.unlink()
    return {**row, 'scans_per_s': batch / row['wall_s']}


def cut(bundle: Path, folder: Path) -> None:
    """Write a bundle as files of at most `PART_BYTES`; equal bundles give equal files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as archive:
        for path in sorted(bundle.iterdir()):
            entry = tarfile.TarInfo(f'{bundle.name}/{path.name}')
            content = path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    whole = stream.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(whole), PART_BYTES)):
        (folder / f'part-{number:03d}').write_bytes(whole[first : first + PART_BYTES])
    (folder / 'sha256').write_text(hashlib.sha256(whole).hexdigest() + '\n', 'utf-8')


def join(folder: Path, models: Path) -> None:
    """Put a bundle that was cut together again.

    Raises
    ------
    OutputError
        A part is absent or altered.
    """
    whole = b''.join(path.read_bytes() for path in sorted(folder.glob('part-*')))
    if hashlib.sha256(whole).hexdigest() != (folder / 'sha256').read_text('utf-8').strip():
        raise OutputError(f'{folder}: a part is absent or altered. Copy the folder again.')
    models.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        archive.extractall(models, filter='data')


def main(arguments: Sequence[str] | None = None) -> int:
    """Go on with the training, or do one of its last steps."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ('measure', 'cut', 'join'):
        step, first, second = given[0], *map(Path, given[1:])
        if step == 'cut':
            for bundle in sorted(first.glob('*/metadata.json')):
                cut(bundle.parent, second / bundle.parent.name)
        else:
            {'measure': measure, 'join': join}[step](first, second)
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('label_map_dir', type=Path, help='or atlas, to try without label maps')
    parser.add_argument('work', type=Path)
    parser.add_argument('--people', type=int, default=1000)
    parser.add_argument('--minutes', type=float, default=9.0, help='of this call')
    parser.add_argument('--measured', type=Path, help='from tools/measure_regions.py')
    parser.add_argument('--real', type=Path, help='from tools/real_inputs.py')
    parser.add_argument('--toy', action='store_true', help='small, for a dry run')
    options = parser.parse_args(given)
    if (options.measured is None) != (options.real is None):
        parser.error('--measured and --real go together')
    options.work.mkdir(parents=True, exist_ok=True)
    return advance(steps_of(options), options.work / 'done', 60 * options.minutes)


if __name__ == '__main__':
    sys.exit(main())
