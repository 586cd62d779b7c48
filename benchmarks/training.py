"""Training throughput of each system beside the plain loop, measured in the same run.

The plain loop is what one would write first: float32, NCDHW, no compilation.  Each variant
trains the same network on the same random images (forward, backward, optimiser step)::

    python benchmarks/training.py                          # tiny grids, one CPU thread, minutes
    python benchmarks/training.py --full --device cuda      # published grids and batches
    python benchmarks/training.py --only vgg8 --variants plain channels_last bf16

On the CPU the clock is CPU time, so that other programs on the machine do not count; each variant
runs in a process of its own, whose peak memory is given.  ``parts`` takes half of the batch
through the network at once, as a training does that would not fit into ``--mem``.  A ratio
above 1 is faster than the plain loop.  Anchor on one L40S: paper C, 55,602 scans in
about 200 s an epoch, which is 278 scans a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ANCHORS = {'densenet169_clinical': 55602 / 200}
SYSTEMS = ('resnet_crossvit', 'vgg8', 'densenet169_clinical', 'amagenet', 'sfcn')
VARIANTS = ('plain', 'channels_last', 'bf16', 'bf16_channels_last', 'parts', 'compiled')
TINY = (32, 32, 32)
N_NODES = 90
COLUMNS = ('system', 'variant', 'batch', 'scans_per_s', 'ratio', 'loss_difference', 'peak_gb')


def make_batch(arch: str, grid: tuple[int, ...], batch: int, device: str) -> list[Any]:
    """Return random inputs and ages of one batch."""
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(batch, 1, *grid, generator=generator).to(device)]
    if arch == 'amagenet':
        series = torch.randn(N_NODES, 200, generator=generator)
        inputs.append(torch.corrcoef(series).expand(batch, N_NODES, N_NODES).to(device))
    ages = 20 + 60 * torch.rand(batch, generator=generator)
    return [*inputs, ages.to(device)]


def make_step(arch: str, variant: str, data: list[Any], device: str) -> Callable[[], Any]:
    """Return one training step of a variant; it gives the loss."""
    import torch

    from bids_brainage.models import create_model
    from bids_brainage.training.losses import AgeLoss
    from bids_brainage.training.module import make_optimiser
    from bids_brainage.training.parts import by_parts
    from bids_brainage.training.recipe_check import factory_options, make_recipe

    recipe = make_recipe(arch, {})
    known = factory_options(arch)
    options: dict[str, Any] = {}
    if 'input_shape' in known:
        options['input_shape'] = list(data[0].shape[2:])
    torch.manual_seed(0)
    model = create_model(arch, **options).to(device).train()
    model.set_output_bias(50.0)
    *inputs, ages = data
    if 'channels_last' in variant:
        model = model.to(memory_format=torch.channels_last_3d)
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last_3d)
    optimiser = make_optimiser(list(model.parameters()), recipe.optimiser)
    loss = AgeLoss(recipe.loss)
    network = torch.compile(model) if variant == 'compiled' else model
    kind = device.partition(':')[0]
    at_once = len(ages) // 2 if variant == 'parts' else None

    def step() -> Any:
        with torch.autocast(kind, torch.bfloat16, enabled='bf16' in variant):
            predicted = by_parts(model, network, inputs, at_once)
        predicted = predicted.float()
        value = loss.main(predicted, ages).mean() + loss.auxiliary(predicted, ages)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        return value.detach()

    return step


def measure(
    arch: str, variant: str, grid: tuple[int, ...], batch: int, device: str, repeats: int
) -> dict[str, float]:
    """Return scans per second (median step), the first loss, and peak memory."""
    import torch

    cuda = device.startswith('cuda')
    step = make_step(arch, variant, make_batch(arch, grid, batch, device), device)
    first = float(step())
    step()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    clock = time.perf_counter if cuda else time.process_time
    for _ in range(repeats):
        begun = clock()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(clock() - begun)
    peak = torch.cuda.max_memory_allocated() / 1024**3 if cuda else peak_of_process()
    return {
        'scans_per_s': batch / statistics.median(seconds),
        'first_loss': first,
        'peak_gb': peak,
    }


def peak_of_process() -> float:
    """Return the most memory that this process has held, GB of 2^30 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def alone(*arguments: Any) -> dict[str, float]:
    """Measure in a process of its own, with the threads that the last argument says."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(measure_with, *arguments).result()


def measure_with(*arguments: Any) -> dict[str, float]:
    """Measure with a number of threads, the last argument."""
    import torch

    torch.set_num_threads(arguments[-1])
    return measure(*arguments[:-1])


def run_system(arch: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all variants of a system; the plain loop comes first."""
    from bids_brainage.models import model_info
    from bids_brainage.training.recipe_check import make_recipe

    grid = tuple(model_info(arch).input['shape']) if options.full else TINY
    batch = options.batch or (make_recipe(arch, {}).run.batch_size if options.full else 4)
    rows: list[dict[str, Any]] = []
    for variant in dict.fromkeys(('plain', *options.variants)):
        row: dict[str, Any] = {'system': arch, 'variant': variant, 'batch': batch}
        try:
            found = alone(
                arch, variant, grid, batch, options.device, options.repeats, options.threads
            )
        except RuntimeError as error:
            print(f'{arch} {variant}: {str(error).splitlines()[0]}', file=sys.stderr)
            continue
        plain = rows[0] if rows else found
        rows.append(
            {
                **row,
                **found,
                'ratio': found['scans_per_s'] / plain['scans_per_s'],
                'loss_difference': found['first_loss'] / plain['first_loss'] - 1,
            }
        )
        print('\t'.join(_cell(rows[-1][name]) for name in COLUMNS), flush=True)
    if options.full and arch in ANCHORS and rows:
        best = max(rows, key=lambda row: row['scans_per_s'])
        share = best['scans_per_s'] / ANCHORS[arch]
        print(f'# {arch}: {share:.2f} of the anchor of {ANCHORS[arch]:.0f} scans/s on an L40S')
    return rows


def _cell(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=VARIANTS[:4])
    parser.add_argument('--full', action='store_true', help='published grids and batch sizes')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch', type=int)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--out', type=Path, help='JSON file for the rows')
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if options.device.startswith('cuda') else 'CPU'
    print(f'# {name}, torch {torch.__version__}, {options.threads} threads')
    print('\t'.join(COLUMNS))
    rows = [row for arch in options.only for row in run_system(arch, options)]
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
