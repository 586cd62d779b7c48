"""T1w images that fMRIPrep prepared, in a participant-level run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bids_brainage.config import Config
from bids_brainage.dataset.derivatives import folder_of
from bids_brainage.dataset.scan import Scan

LOG = logging.getLogger('bids_brainage')


def with_prepared(config: Config, scans: Sequence[Scan]) -> tuple[Scan, ...]:
    """Return T1w images with what fMRIPrep made of them, if its output was given."""
    given = folder_of(config.execution.derivatives, 'fmriprep')
    if given is None:
        return tuple(scans)
    from bids_brainage.dataset.prepared import use_prepared

    chosen, notes = use_prepared(scans, *given)
    for note in notes:
        LOG.warning('%s', note)
    return chosen
