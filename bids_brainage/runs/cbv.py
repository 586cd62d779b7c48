"""Maps of cerebral blood volume of a participant-level run (System B): which scan has which."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bids_brainage.config import Config
from bids_brainage.dataset.aicbv import DESC, CbvSource, find_cbv_map
from bids_brainage.dataset.derivatives import folder_of
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError, UnusableImageError
from bids_brainage.names import side_file
from bids_brainage.outputs import StatusLog, derivative_path, sha256_file
from bids_brainage.outputs.files import read_json
from bids_brainage.preprocessing.template import DEFAULT_SPACE

LOG = logging.getLogger('bids_brainage')

NO_MAP = 'no_cbv_map'
"""Flag of rows that a missing map leaves empty."""


@dataclass(frozen=True)
class CbvMaps:
    """Maps of a run.

    Attributes
    ----------
    sources : mapping
        URI of a T1w image → where its map comes from.
    problems : mapping
        URI of a T1w image → why the map that it has cannot be used.
    """

    sources: Mapping[str, CbvSource] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def select_cbv(config: Config, scans: Sequence[Scan]) -> CbvMaps:
    """Find the map of every T1w image: one that was given, else one to be generated.

    A map that was given but cannot be used is never replaced by a generated one.
    """
    given = folder_of(config.execution.derivatives, DESC)
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
            sources[scan.uri] = replace(found, sha256=sha256_file(found.path))
        elif generator is not None:
            sources[scan.uri] = generator
    return CbvMaps(sources, problems)


def cbv_path(output_dir: Path, scan: Scan) -> Path:
    """Return where the map of a scan is written."""
    place = {'space': DEFAULT_SPACE, 'res': '1', 'desc': DESC, 'suffix': 'T1w'}
    return output_dir / derivative_path({**scan.entities, **place}, scan.datatype)


def cbv_written(output_dir: Path, scan: Scan, source: CbvSource) -> bool:
    """Return whether the map of a scan stands in the output dataset, made from this source."""
    path = cbv_path(output_dir, scan)
    side = read_json(side_file(path))
    return path.is_file() and side.get('SourceSHA256') == source.sha256


def record_cbv(
    config: Config, scans: Sequence[Scan], maps: CbvMaps, status: StatusLog, crashed: str
) -> int:
    """Tell of every map that was there and could not be written; return how many there are."""
    from bids_brainage.runs.results import crash_reason

    failures = 0
    for scan in scans:
        why = maps.problems.get(scan.uri, '')
        source = maps.sources.get(scan.uri)
        if source is not None and not cbv_written(config.execution.output_dir, scan, source):
            why = crash_reason(config, scan) or crashed or 'no result'
        if why:
            failures += 1
            LOG.error('%s: blood-volume map: failed: %s', scan.stem, why)
            status.add(scan.uri, 'aicbv', 'failed', message=why)
    return failures
