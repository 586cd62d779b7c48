"""Maps of cerebral blood volume of a participant-level run (System B): which scan has which."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bids_brainage.config import Config
from bids_brainage.dataset.aicbv import DESC, CbvSource, find_cbv_map
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError, UnusableImageError
from bids_brainage.outputs import sha256_file
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.runs.ledger import CbvMaps

LOG = logging.getLogger('bids_brainage')


def select_cbv(
    config: Config, scans: Sequence[Scan], sha256: Callable[[Path, str], str]
) -> CbvMaps:
    """Find the map of every T1w image: one that was given, else one to be generated.

    A map that was given but cannot be used is never replaced by a generated one.  `sha256` gives
    the hash of a file of a subject.
    """
    given = config.execution.derivatives_of(DESC)
    weights = config.workflow.aicbv_weights
    generator = None
    if weights is not None:
        generator = CbvSource(weights, weights.name, sha256=sha256_file(weights))
    sources, problems = {}, {}
    for scan in scans:
        try:
            found = find_cbv_map(*given, scan, DEFAULT_SPACE) if given else None
        except (MissingInputError, UnusableImageError) as error:
            problems[scan.uri] = str(error)
            LOG.warning('%s: %s', scan.relative, error)
            continue
        if found is not None:
            sources[scan.uri] = replace(found, sha256=sha256(found.path, scan.subject))
        elif generator is not None:
            sources[scan.uri] = generator
    return CbvMaps(sources, problems)
