"""A run of many scans, a few dozen at a time.

Nipype looks through all steps of a workflow whenever it looks for the next one, so one workflow of
all scans takes a time that grows with the square of their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import Series
from bids_brainage.runs.plan import Work
from bids_brainage.workflows.plugin import DEFAULT, SUBMITTERS

SMALLEST, FOR_EACH_PROCESS = 48, 4
"""Scans of a batch: enough that processes which wait for its last scan do not count."""

ON_CLUSTER = 1000
"""The same where a scheduler says how many steps run side by side."""

Batch = tuple[Work, tuple[Series, ...]]
Item = TypeVar('Item')


def batch_size(nprocs: int, plugin: str = DEFAULT) -> int:
    """Return the scans of a batch for a number of processes of a Nipype plugin.

    >>> batch_size(2), batch_size(64), batch_size(2, 'SLURM')
    (48, 256, 1000)
    """
    return ON_CLUSTER if plugin in SUBMITTERS else max(SMALLEST, FOR_EACH_PROCESS * nprocs)


def parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Divide a sequence into parts of at most `size`.

    >>> parts('abcde', 2)
    ['ab', 'cd', 'e']
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def batches(todo: Work, series: Sequence[Series], size: int) -> list[Batch]:
    """Divide the work of a run; functional runs stay with their T1w image.

    Parameters
    ----------
    todo : sequence of (Scan, tuple of Bundle)
    series : sequence of Series
    size : int
        Most T1w images, or functional runs of a T1w image that is not among them, of a batch.
    """
    units: dict[str, tuple[list[tuple[Scan, tuple[Bundle, ...]]], list[Series]]]
    units = {scan.uri: ([(scan, bundles)], []) for scan, bundles in todo}
    for item in series:
        home = item.scan if item.t1w is None else item.t1w
        units.setdefault(home.uri, ([], []))[1].append(item)
    return [
        (tuple(w for works, _ in part for w in works), tuple(s for _, runs in part for s in runs))
        for part in parts(list(units.values()), size)
    ]
