"""What fMRIPrep and CAT12 made of T1w images, in a participant-level run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan

LOG = logging.getLogger('bids_brainage')


def with_prepared(config: Config, scans: Sequence[Scan]) -> tuple[Scan, ...]:
    """Return T1w images with what fMRIPrep and CAT12 made of them, if their output was given."""
    chosen = tuple(scans)
    notes: tuple[str, ...] = ()
    if fmriprep := config.execution.derivatives_of('fmriprep'):
        from bids_brainage.dataset.prepared import use_prepared

        chosen, notes = use_prepared(chosen, *fmriprep)
    if cat12 := config.execution.derivatives_of('cat12'):
        from bids_brainage.dataset.cat12 import use_cat12

        chosen, more = use_cat12(chosen, *cat12)
        notes += more
    for note in notes:
        LOG.warning('%s', note)
    return chosen
