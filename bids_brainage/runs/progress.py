"""What a person sees while a run goes on: steps per scan, an estimate, a table at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bids_brainage.outputs.logs import IMPORTANT, duration

LOG = logging.getLogger('bids_brainage')

SAVED = 'results'
"""What the step is called after which a model has its row."""

STEPS = {
    'check': ('read', 3.0),
    'extract_brain': ('brain mask', 9.0),
    'correct_bias': ('bias field', 3.0),
    'register': ('registration', 28.0),
    'segment': ('tissue', 9.0),
    'measure_regions': ('regions', 15.0),
    'warp': ('normalisation', 9.0),
    'predict': ('brain age', 4.0),
    'save': (SAVED, 4.0),
}
"""Node name → what it does and seconds it usually takes for a 1 mm scan on one core."""

SERIES_STEPS = {
    'estimate_motion': ('head motion', 15.0),
    'coregister': ('coregistration', 12.0),
    'resample': ('resampling', 30.0),
    'build_confounds': ('confounds', 8.0),
    'unpack': ('read series', 5.0),
    'measure_connectivity': ('connectivity', 10.0),
}
"""The same for a functional run of 150 volumes."""

SPACE_STEPS = {'restore_brain': ('bias field', 9.0)}
"""The same for images in further spaces, which are finished within seconds otherwise."""

ALL_STEPS = {**STEPS, **SERIES_STEPS, **SPACE_STEPS}


class Progress:
    """Follow the nodes of a run.

    Parameters
    ----------
    scans : dict
        Workflow name of a scan → what to call it.
    nprocs : int
        Nodes that run side by side.
    record : callable
        Called as ``record(workflow_name, step, status, seconds)`` after each step.
    nodes : iterable of str, optional
        Full names of all nodes of the run, for its steps; those of T1w images when not given.
    ended : callable, optional
        Called with the full name of every node that ended well.
    later : int
        Scans that come after these.
    seconds : dict, optional
        Times of steps that were seen before.
    """

    def __init__(
        self,
        scans: dict[str, str],
        nprocs: int,
        record: Callable[[str, str, str, float], None],
        nodes: Iterable[str] | None = None,
        ended: Callable[[str], None] | None = None,
        *,
        later: int = 0,
        seconds: dict[str, list[float]] | None = None,
    ) -> None:
        self.scans = scans
        self.ended = ended
        self.workers = max(1, min(nprocs, len(scans) + later))
        self.record = record
        self.started: dict[str, float] = {}
        self.running: dict[str, str] = {}
        self.later = later
        self.seconds = seconds or {name: [usual] for name, (_, usual) in ALL_STEPS.items()}
        self.steps = _steps_of(scans, nodes)
        self.left = {step: sum(step in own for own in self.steps.values()) for step in ALL_STEPS}
        self.usual = dict(self.left)
        self.done: dict[str, set[str]] = {name: set() for name in scans}

    def __call__(self, node: Any, status: str) -> None:
        """Take note of a node that started, ended or failed (Nipype's status callback)."""
        if status == 'end' and self.ended is not None:
            self.ended(node.fullname)
        parts = node.fullname.split('.')
        scan = next((part for part in parts if part in self.scans), None)
        if status == 'start':
            self.running[node.fullname] = f'{self.scans.get(scan or "", "all")} {node.name}'
        else:
            self.running.pop(node.fullname, None)
        if scan is None or node.name not in ALL_STEPS:
            return
        if status == 'start':
            self.started[node.fullname] = time.monotonic()
            return
        start = self.started.get(node.fullname)
        seconds = 0.0 if start is None else time.monotonic() - start
        failed = status == 'exception'
        what, _ = ALL_STEPS[node.name]
        self.record(scan, what, 'failed' if failed else 'ok', round(seconds, 1))
        self._count(scan, node.name, seconds, failed)
        word = 'failed' if failed else 'kept' if start is None else f'{seconds:.0f} s'
        LOG.log(
            logging.ERROR if failed else IMPORTANT,
            '%s: %s (%s)%s',
            self.scans[scan],
            what,
            word,
            self._remaining(),
        )

    def _count(self, scan: str, step: str, seconds: float, failed: bool) -> None:
        self.seconds[step].append(seconds)
        gone = self.steps[scan] if failed else {step}
        for name in gone:
            if name not in self.done[scan]:
                self.done[scan].add(name)
                self.left[name] -= 1

    def _remaining(self) -> str:
        """Return the estimate of what is left, from the times seen so far."""
        total = 0.0
        share = self.later / max(len(self.scans), 1)
        for name, left in self.left.items():
            seen = self.seconds[name][1:] or self.seconds[name]
            total += (left + share * self.usual[name]) * sum(seen) / len(seen)
        seconds = total / self.workers
        if seconds < 1:
            return ''
        return f' · about {duration(seconds)} left'


def _steps_of(scans: Iterable[str], nodes: Iterable[str] | None) -> dict[str, set[str]]:
    """Return the steps that the workflow of each scan has."""
    if nodes is None:
        return {scan: set(STEPS) for scan in scans}
    found: dict[str, set[str]] = {scan: set() for scan in scans}
    for node in nodes:
        parts = node.split('.')
        if parts[0] in found and parts[-1] in ALL_STEPS:
            found[parts[0]].add(parts[-1])
    return found


def summary_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the closing table of a run: one line per scan and model.

    Parameters
    ----------
    rows : sequence of dict
        Rows of the prediction tables.

    Returns
    -------
    str
        Plain text, ages in years with one decimal.
    """
    from bids_brainage.tsv import is_missing

    def number(value: Any) -> str:
        return 'n/a' if value is None else f'{value:.1f}'

    head = ('participant', 'session', 'run', 'model', 'age', 'brain age', 'interval', 'flags')
    body = []
    for row in rows:
        interval = (
            f'{number(row["interval_low"])} to {number(row["interval_high"])}'
            if row['interval_low'] is not None
            else 'n/a'
        )
        flags = row['qc_flag']
        body.append(
            (
                row['participant_id'],
                row['session_id'] or '',
                row['run'] or '',
                row['model'],
                number(row['age']),
                number(row['predicted_age']) if row['status'] == 'ok' else row['status'],
                interval,
                '' if flags is None or is_missing(flags) else flags.replace(';', ', '),
            )
        )
    return plain_table(head, body)


def plain_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Lay out cells in columns under a ruled head."""
    lines = [head, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        '  '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    text.insert(1, '  '.join('-' * w for w in widths))
    return '\n'.join(line.rstrip() for line in text)
