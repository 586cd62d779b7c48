"""Time and memory of every model beside the figures of the models specification.

Each case runs in its own process with one thread, so that its peak memory is its own::

    python benchmarks/models.py                       # all forward passes
    python benchmarks/models.py --only sfcn vgg8
    python benchmarks/models.py --backward            # also training steps, much longer
    python benchmarks/models.py --device cuda --batch 8

The ratio is CPU seconds over those of the specification (measured on one thread of a shared
2-core machine); the aim is at most 1.3.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_RATIO = 1.3
COLUMNS = ('case', 'cpu_s', 'wall_s', 'reference_s', 'ratio', 'peak_gb', 'reference_gb')


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes
    ----------
    kind : str
        ``forward``, ``step`` (forward and backward), ``guided`` or ``scan``.
    model : str
        Registry name, ``aicbv_mamba``, or for a scan ``width,states``.
    shape : tuple of int
        Grid of the input.
    batch : int
        Samples at a time.
    seconds, gigabytes : float or None
        Figures of the specification; None where it has none.
    options : tuple of (str, str)
        Keyword options of the model.
    """

    kind: str
    model: str
    shape: tuple[int, ...]
    batch: int = 1
    seconds: float | None = None
    gigabytes: float | None = None
    options: tuple[tuple[str, str], ...] = ()


FORWARD = {
    'resnet_crossvit': Case('forward', 'resnet_crossvit', (84, 102, 84), seconds=0.6),
    'vgg8': Case('forward', 'vgg8', (182, 218, 182), seconds=4.1),
    'densenet169_clinical': Case('forward', 'densenet169_clinical', (80, 120, 40), seconds=0.6),
    'guided_backprop': Case('guided', 'densenet169_clinical', (80, 120, 40), seconds=7.0),
    'amagenet': Case('forward', 'amagenet', (128, 128, 128), seconds=1.5),
    'sfcn': Case('forward', 'sfcn', (160, 192, 160)),
    'aicbv_test': Case(
        'forward', 'aicbv_mamba', (32, 32, 32), seconds=1.5, options=(('preset', 'test'),)
    ),
    'aicbv_lite': Case(
        'forward', 'aicbv_mamba', (96, 96, 96), seconds=9.0, options=(('preset', 'lite'),)
    ),
    'aicbv_full': Case('forward', 'aicbv_mamba', (96, 96, 96), seconds=58.0),
    'scan_64': Case('scan', '64,16', (12, 12, 12), seconds=0.24),
    'scan_256': Case('scan', '256,16', (12, 12, 12), seconds=0.43),
    'scan_1024': Case('scan', '1024,64', (12, 12, 12), seconds=2.8, gigabytes=0.7),
}
BACKWARD = {
    'resnet_crossvit_step': Case('step', 'resnet_crossvit', (84, 102, 84), 8, 12.5),
    'vgg8_step': Case('step', 'vgg8', (182, 218, 182), 1, 37.0, 2.3),
    'densenet169_clinical_step': Case('step', 'densenet169_clinical', (80, 120, 40), 2, 12.0, 1.0),
    'amagenet_step': Case('step', 'amagenet', (128, 128, 128), 2, 45.0, 2.4),
    'scan_64_step': Case('scan_step', '64,16', (12, 12, 12), seconds=1.0),
    'scan_256_step': Case('scan_step', '256,16', (12, 12, 12), seconds=2.1, gigabytes=0.65),
    'scan_1024_step': Case('scan_step', '1024,64', (12, 12, 12), seconds=13.1, gigabytes=2.0),
}


def build(case: Case, device: str) -> tuple[Any, list[Any]]:
    """Make the network with fresh weights and random inputs."""
    import torch

    options = dict(case.options)
    if case.model == 'aicbv_mamba':
        from bids_brainage.models.aicbv_mamba import AICBVMamba

        model: Any = AICBVMamba(**options)  # type: ignore[arg-type]
    else:
        from bids_brainage.models import create_model

        model = create_model(case.model, **options)
    inputs = [torch.rand(case.batch, 1, *case.shape, device=device)]
    if case.model == 'amagenet':
        inputs.append(torch.corrcoef(torch.randn(90, 200)).expand(case.batch, 90, 90).to(device))
    return model.to(device), inputs


def scan_work(case: Case, device: str) -> Callable[[], object]:
    """Return one call of the selective scan in eight directions."""
    import torch

    from bids_brainage.models.selective_scan import selective_scan

    width, n_states = map(int, case.model.split(','))
    length = case.shape[0] * case.shape[1] * case.shape[2]
    lead = (length, case.batch, 8)
    step = case.kind == 'scan_step'
    arrays = [
        torch.randn(*lead, width),
        0.1 * torch.rand(*lead, width),
        -torch.arange(1.0, n_states + 1).repeat(8, width, 1),
        torch.randn(*lead, n_states),
        torch.randn(*lead, n_states),
        torch.ones(8, width),
    ]
    leaves = [array.to(device).requires_grad_(step) for array in arrays]

    def work() -> object:
        y = selective_scan(*leaves)
        return torch.autograd.grad(y.sum(), leaves) if step else y

    return work


def model_work(case: Case, device: str) -> Callable[[], object]:
    """Return one forward pass, training step or guided backpropagation."""
    import torch

    model, inputs = build(case, device)
    if case.kind == 'guided':
        from bids_brainage.inference.guided_backprop import guided_backprop

        model.eval()
        return lambda: guided_backprop(model, inputs[0])
    if case.kind == 'step':

        def step() -> None:
            model.zero_grad(set_to_none=True)
            model(*inputs).square().mean().backward()

        return step
    model.eval()

    def forward() -> object:
        with torch.inference_mode():
            return model(*inputs)

    return forward


def measure(case: Case, device: str, repeats: int) -> dict[str, Any]:
    """Run a case in this process: the fastest of some repeats, and the peak memory."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    make = scan_work if case.kind.startswith('scan') else model_work
    work = make(case, device)
    cuda = device.startswith('cuda')
    if cuda:
        work()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    if cuda:
        peak = torch.cuda.max_memory_allocated() / 1024**3
    return {'cpu_s': min(cpu), 'wall_s': min(wall), 'peak_gb': peak}


def run(name: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case in its own process and put the specification's figures beside it."""
    command = [sys.executable, __file__, '--case', name, '--device', options.device]
    command += ['--repeats', str(options.repeats)]
    command += ['--batch', str(options.batch)] if options.batch else []
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {'case': name}
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return row
    row |= json.loads(done.stdout.splitlines()[-1])
    if options.device == 'cpu' and not options.batch:
        row |= {'reference_s': case.seconds, 'reference_gb': case.gigabytes}
        row['ratio'] = row['cpu_s'] / case.seconds if case.seconds else None
    return row


def show(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    cells = [str(row['case']).ljust(26)]
    cells += ['-' if row[key] is None else f'{row[key]:.2f}' for key in COLUMNS[1:]]
    slow = row['ratio'] is not None and row['ratio'] > MAX_RATIO
    print('\t'.join(cells) + ('\tslower than aimed at' if slow else ''), flush=True)


def main() -> int:
    """Read the options and run the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = FORWARD | BACKWARD
    parser.add_argument('--only', nargs='+', choices=list(cases), help='some cases')
    parser.add_argument('--backward', action='store_true', help='also training steps')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch', type=int, help='samples at a time instead of those given')
    parser.add_argument('--repeats', type=int, default=2)
    parser.add_argument('--out', type=Path, help='JSON file for the rows')
    parser.add_argument('--case', choices=list(cases), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        chosen = cases[options.case]
        if options.batch:
            chosen = Case(**{**vars(chosen), 'batch': options.batch})
        print(json.dumps(measure(chosen, options.device, options.repeats)))
        return 0
    names = options.only or list(cases if options.backward else FORWARD)
    print('\t'.join(COLUMNS))
    rows = []
    for name in names:
        rows.append(run(name, cases[name], options))
        show(rows[-1])
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + '\n')
    return int(any(row['cpu_s'] is None for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
