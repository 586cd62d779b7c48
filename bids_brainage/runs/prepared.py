"""T1w images that fMRIPrep prepared, in a participant-level run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_brainage.config import Config
from bids_brainage.dataset.derivatives import folder_of
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import OptionError
from bids_brainage.outputs import read_brainage
from bids_brainage.outputs.files import read_json
from bids_brainage.workflows.images import table_path

LOG = logging.getLogger('bids_brainage')


def with_prepared(config: Config, scans: Sequence[Scan]) -> tuple[Scan, ...]:
    """Return T1w images with what fMRIPrep prepared in the place of raw ones, if it was given."""
    given = folder_of(config.execution.derivatives, 'fmriprep')
    if given is None:
        return tuple(scans)
    from bids_brainage.dataset.prepared import use_prepared

    chosen, notes = use_prepared(scans, *given)
    for note in notes:
        LOG.warning('%s', note)
    return chosen


def refuse_double_rows(output_dir: Path, scans: Sequence[Scan]) -> None:
    """Refuse an output dataset that has the same images averaged here, and single there.

    Raises
    ------
    OptionError
        It would have two rows of one image.
    """
    for scan in scans:
        if scan.averaged:
            raws = [raw for raw in scan.averaged if _row_of(output_dir, raw)]
            double = [table_path(output_dir, raw) for raw in raws]
        else:
            folder = table_path(output_dir, scan).parent
            places = [folder, output_dir / f'sub-{scan.subject}' / scan.datatype]
            tables = [path for place in places for path in place.glob('*_brainage.json')]
            double = [
                path for path in tables if scan.uri in read_json(path).get('Sources', [])[1:]
            ]
        if double:
            raise OptionError(
                f'{double[0]} has an age of {scan.relative} that was made the other way, from '
                'a single image or from an average of several: the image would count twice. '
                'Choose another output folder.'
            )


def _row_of(output_dir: Path, scan: Scan) -> bool:
    """Return whether a table has an age of a raw image."""
    table = table_path(output_dir, scan)
    rows = read_brainage(table) if table.is_file() else ()
    return any(row['source'] == scan.uri and row['status'] == 'ok' for row in rows)
