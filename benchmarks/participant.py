"""CPU time and peak memory of the participant level, by step, for given T1w scans.

    python benchmarks/participant.py SCAN.nii.gz [SCAN.nii.gz ...] [--out TABLE.tsv]

Every step runs in a fresh process, as the first node of a worker does, so its imports count.
CPU seconds (user + system) are printed rather than wall time, since they depend less on what
else the machine does; one thread throughout.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = ('read', 'brain mask', 'bias field', 'registration', 'tissue', 'normalisation',
         'quality', 'brain age', 'results', 'pictures')  # fmt: skip


def measure(step: Callable[..., dict[str, Any]], *arguments: Any) -> tuple[dict, float, float]:
    """Run a step in a fresh process; return its outputs, CPU seconds and peak memory in GB."""
    context = multiprocessing.get_context('spawn')
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, step, arguments))
    process.start()
    send.close()
    outputs, cpu, peak = receive.recv()
    process.join()
    if isinstance(outputs, BaseException):
        raise outputs
    return outputs, cpu, peak


def _child(send: Any, step: Callable[..., dict[str, Any]], arguments: tuple) -> None:
    try:
        outputs: Any = step(*arguments)
    except BaseException as error:
        outputs = error
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    send.send((outputs, cpu, max(own.ru_maxrss, children.ru_maxrss) / 1024**2))


def run_interface(name: str, inputs: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run one interface of the workflow in a folder and return its outputs."""
    from bids_brainage.interfaces import anatomical, prediction

    kind = getattr(anatomical, name, None) or getattr(prediction, name)
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    return kind(**inputs).run(cwd=folder).outputs.get()


def benchmark(scan: Path, root: Path, template_root: Path) -> dict[str, tuple[float, float]]:
    """Return CPU seconds and peak GB of every step of one scan."""
    from bids_brainage.bundles.bundle import resolve_bundle
    from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs
    from bids_brainage.preprocessing.template import find_template

    coarse, fine = (find_template(template_root, resolution=r) for r in (2, 1))
    bundle = resolve_bundle(DEFAULT_MODELS[0], model_dirs(None))
    table: dict[str, tuple[float, float]] = {}
    state: dict[str, Any] = {}

    def step(label: str, name: str, **inputs: Any) -> dict[str, Any]:
        outputs, cpu, peak = measure(run_interface, name, inputs, str(root / name))
        table[label] = (cpu, peak)
        return outputs

    state |= {'raw': step('read', 'CheckT1w', t1w=str(scan))}
    raw = state['raw']
    brain = step('brain mask', 'ExtractBrain', t1w=raw['t1w'], facts=raw['facts'])
    bias = step('bias field', 'CorrectBias', t1w=raw['t1w'], mask=brain['mask'])
    native = {'t1w': bias['t1w'], 'mask': brain['mask']}
    registered = step(
        'registration', 'RegisterToTemplate', **native, template=str(coarse.t1w),
        template_mask=str(coarse.mask),
    )  # fmt: skip
    tissue = step('tissue', 'SegmentBrain', **native, transform=registered['transform'])
    warped = step(
        'normalisation', 'WarpToTemplate', **native, gm=tissue['gm'], tissues=tissue['tissues'],
        structures=tissue['structures'], transform=registered['transform'],
        template=str(fine.t1w),
    )  # fmt: skip
    quality = step(
        'quality', 'AssessQuality', facts=raw['facts'], mask_measures=brain['measures'],
        scores=registered['scores'], volumes=tissue['volumes'],
    )  # fmt: skip
    predicted = step(
        'brain age', 'PredictAge', bundle=str(bundle.path), volumes=tissue['volumes'],
        weights_sha256=bundle.weights_sha256, mask=warped['mask'], mask_native=brain['mask'],
        device='cpu',
    )  # fmt: skip
    source = '/data/sub-01/anat/sub-01_T1w.nii.gz'
    columns = {
        'participant_id': 'sub-01', 'session_id': None, 'run': None, 'modality': 'T1w',
        'source': 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz', 'age': None, 'age_source': None,
        'age_censored': False, 'sex': None,
    }  # fmt: skip
    out = str(root / 'out')
    step(
        'results', 'SavePrediction', prediction=predicted['prediction'], bundle=str(bundle.path),
        quality=quality['quality'], facts=raw['facts'], scan=columns, source_file=source,
        provenance={}, base_directory=out, transform=registered['transform'],
        template=str(fine.t1w), mask_native=brain['mask'],
    )  # fmt: skip
    step(
        'pictures', 'DrawScan', t1w=bias['t1w'], mask=brain['mask'], tissues=tissue['tissues'],
        warped=warped['t1w'], template=str(fine.t1w), template_mask=str(fine.mask),
        template_gm=str(fine.gm), source_file=source, base_directory=out,
    )  # fmt: skip
    return table


def main() -> None:
    """Measure all scans and print a table with the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scans', nargs='+', type=Path)
    parser.add_argument('--out', type=Path)
    options = parser.parse_args()
    os.environ |= {'OMP_NUM_THREADS': '1', 'NIPYPE_NO_ET': '1', 'NO_ET': '1'}
    from bids_brainage.preprocessing.template import install_packaged_template

    with tempfile.TemporaryDirectory() as scratch:
        home = install_packaged_template(Path(scratch) / 'templateflow')
        os.environ['TEMPLATEFLOW_HOME'] = str(home)
        tables = {
            scan: benchmark(scan.resolve(), Path(scratch) / str(i), home)
            for i, scan in enumerate(options.scans)
        }
    lines = ['step\tmedian_cpu_s\tmax_peak_gb']
    for label in STEPS:
        cpu = statistics.median(table[label][0] for table in tables.values())
        peak = max(table[label][1] for table in tables.values())
        lines.append(f'{label}\t{cpu:.1f}\t{peak:.2f}')
    totals = [sum(cpu for cpu, _ in table.values()) for table in tables.values()]
    peak = max(peak for table in tables.values() for _, peak in table.values())
    lines.append(f'all steps, n = {len(tables)}\t{statistics.median(totals):.1f}\t{peak:.2f}')
    text = '\n'.join(lines) + '\n'
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, 'utf-8')


if __name__ == '__main__':
    main()
