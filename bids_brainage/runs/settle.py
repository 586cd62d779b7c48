"""What failed or was skipped in a run: rows, lines of the status table, and how many there are."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.names import log_dir
from bids_brainage.outputs import StatusLog, brainage_row, read_brainage, write_brainage
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.plan import Plan
from bids_brainage.workflows.images import table_path
from bids_brainage.workflows.naming import scan_columns, scan_workflow_name

LOG = logging.getLogger('bids_brainage')
NO_MAP = 'no_cbv_map'
"""Flag of rows that a missing map leaves empty."""

_ERROR = re.compile(r'^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception|Killed)\w*): (.*)')


@dataclass(frozen=True)
class Lost:
    """A product that a run should have made and did not.

    Attributes
    ----------
    scan : Scan
    why : str
        What to tell the person.
    step : str
        ``result`` for a prediction, else what it is in the status table.
    bundle : Bundle or None
        Model of a prediction.
    skipped : bool
        True if it was not to be had; else it failed.
    """

    scan: Scan
    why: str
    step: str = 'result'
    bundle: Bundle | None = None
    skipped: bool = False


def settle(plan: Plan, ledger: Ledger, status: StatusLog, crashed: str = '') -> tuple[int, int]:
    """Tell of everything that has no result, and write the rows that say so.

    Parameters
    ----------
    plan : Plan
    ledger : Ledger
    status : StatusLog
        Gets one line for each product, with the reason.
    crashed : str
        What stopped the whole run, or empty.

    Returns
    -------
    tuple of int
        How many predictions failed, and how many other products.
    """
    root = ledger.config.execution.output_dir
    ages = others = 0
    told, drawn = set(), set()
    for lost in _lost(plan, ledger, crashed):
        model = lost.bundle.name if lost.bundle else None
        state = 'skipped' if lost.skipped else 'failed'
        if not lost.skipped and (lost.scan.uri, lost.why) not in told:
            told.add((lost.scan.uri, lost.why))
            LOG.error('%s: %s: %s', lost.scan.stem, _WORDS.get(lost.step, 'failed'), lost.why)
        status.add(lost.scan.uri, lost.step, state, model=model, message=lost.why)
        if lost.bundle is None:
            others += 1
            continue
        ages += not lost.skipped
        if lost.scan.problem and _has_age(root, lost):
            continue
        row = brainage_row(
            **scan_columns(lost.scan),
            model=lost.bundle.name,
            model_version=lost.bundle.version,
            qc_flag=NO_MAP if lost.skipped else None,
            status=state,
        )
        write_brainage(
            table_path(root, lost.scan), [row], metadata={'Sources': list(lost.scan.sources)}
        )
        if not lost.skipped and lost.scan.uri not in drawn:
            drawn.add(lost.scan.uri)
            draw_failed(ledger.config, lost.scan)
    return ages, others


def _has_age(root: Path, lost: Lost) -> bool:
    """Return whether an earlier run has told the age of an image that cannot be read now."""
    path = table_path(root, lost.scan)
    return path.exists() and any(
        row['source'] == lost.scan.uri
        and lost.bundle is not None
        and row['model'] == lost.bundle.name
        and row['status'] == 'ok'
        for row in read_brainage(path)
    )


def draw_failed(config: Config, scan: Scan) -> None:
    """Draw the image of a scan that failed, with its brain mask if it got that far.

    The picture takes the name of the mask's picture, so that a later success replaces it.
    """
    from bids_brainage.interfaces.anatomical import MASK
    from bids_brainage.interfaces.prediction import figure_path
    from bids_brainage.pictures.figures import plot_mask

    own = f'bids_brainage_*_wf/{scan_workflow_name(scan)}/*/extract_brain/{MASK}'
    made = max(config.execution.work_dir.glob(own), key=lambda p: p.stat().st_mtime, default=None)
    out = figure_path(str(config.execution.output_dir), str(scan.path), 'mask')
    try:
        plot_mask(scan.path, made, out)
    except Exception as error:  # what could not be used may break a picture in any way
        LOG.debug('%s: no picture of the failed scan: %s', scan.stem, error)


_WORDS = {'aicbv': 'blood-volume map: failed', 'images': 'images: failed'}


def _lost(plan: Plan, ledger: Ledger, crashed: str) -> Iterator[Lost]:
    """Yield what has no result, in the order of the run."""
    config, maps = ledger.config, plan.cbv
    for scan, why in plan.unreadable:
        yield from (Lost(scan, why, bundle=bundle) for bundle in plan.bundles)
    for scan, bundles in plan.todo:
        source = maps.sources.get(scan.uri)
        why = crash_reason(config, scan) or crashed or 'no result'
        left = [
            b for b in bundles if not ledger.prediction(scan, b, source, final=True).is_current
        ]
        yield from (Lost(scan, why, bundle=bundle) for bundle in left)
        if not left and scan.uri in plan.images and not ledger.images(scan).is_current:
            yield Lost(scan, why, 'images')
        if source is not None and ledger.lacks_cbv(scan, source):
            yield Lost(scan, why, 'aicbv')
    for scan, bundle in plan.without:
        problem = maps.problems.get(scan.uri)
        text = problem or 'no blood-volume map'
        yield Lost(scan, text, bundle=bundle, skipped=not problem)
    for scan in plan.scans:
        if problem := maps.problems.get(scan.uri):
            yield Lost(scan, problem, 'aicbv')
    for series in plan.series_todo:
        if ledger.connectivity(series).is_current:
            continue
        why = series.problem or crash_reason(config, series.scan)
        if not why and series.t1w is not None and (anat := crash_reason(config, series.t1w)):
            why = f'its T1w image {series.t1w.relative} failed: {anat}'
        yield Lost(series.scan, why or crashed or 'no result', 'connectivity')


def crash_reason(config: Config, scan: Scan) -> str:
    """Return the message of the first error in the crash files of a scan, or nothing.

    It names the image, whichever step failed, and no file of the work folder.
    """
    folder = config.execution.output_dir / log_dir(
        config.execution.run_id, scan.subject, scan.session
    )
    name = f'.{scan_workflow_name(scan)}.'
    for path in sorted(folder.glob('crash-*.txt')):
        text = path.read_text('utf-8', errors='replace')
        if name not in text.split('\n', 1)[0]:  # other lines may name the inputs' folders
            continue
        found = [m.groups() for m in map(_ERROR.match, text.splitlines()) if m]
        own = [message for kind, message in found if kind in _OWN]
        if found:
            return _named(own[0] if own else ': '.join(found[-1]), config, scan)
    return ''


def _named(message: str, config: Config, scan: Scan) -> str:
    """Put the image in the place of files of the work folder, or before a text without a name."""
    own = rf'{re.escape(str(config.execution.work_dir))}/[^\s\'",:;()]*'
    message = re.sub(own, scan.relative, message)
    return message if scan.stem in message else f'{scan.relative}: {message}'


_OWN = {
    'UnusableImageError', 'ProcessingError', 'BundleError', 'MissingInputError', 'TemporaryError',
}  # fmt: skip
