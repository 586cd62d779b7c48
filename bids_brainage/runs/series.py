"""Functional runs of a participant-level run: which are to do, what came of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.derivatives import folder_of
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import Series, match_series
from bids_brainage.names import atlas_path
from bids_brainage.outputs import StatusLog, derivative_path, sha256_file
from bids_brainage.outputs.connectivity import (
    Connectivity,
    choose_matrix,
    count_regions,
    matrix_path,
)
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.preprocessing.bold.names import DEFAULT_ATLAS, atlas_label
from bids_brainage.preprocessing.template import DEFAULT_SPACE

if TYPE_CHECKING:
    from bids_brainage.runs.plan import Plan

LOG = logging.getLogger('bids_brainage')

GRAPH_KIND = 't1w_connectivity'
"""Input kind of the models that take a connectivity matrix."""


def select_series(config: Config, scans: Sequence[Scan]) -> tuple[Series, ...]:
    """Return the functional runs of what was selected; none with ``--anat-only``."""
    if config.workflow.anat_only:
        return ()
    bold = [scan for scan in scans if scan.suffix == 'bold']
    for task in config.execution.task_id:
        if not any(scan.entities.get('task') == task for scan in bold):
            LOG.warning('--task-id: no BOLD series of task %s among what was selected.', task)
    t1w = [scan for scan in scans if scan.suffix == 'T1w']
    found = match_series(bold, t1w, folder_of(config.execution.derivatives, 'fmriprep'))
    for series in found:
        if series.note:
            LOG.warning('%s: %s', series.scan.relative, series.note)
    return tuple(found)


def series_asked_for(
    config: Config, series: Sequence[Series], bundles: Sequence[Bundle]
) -> tuple[Series, ...]:
    """Return the functional runs that a model or an option asks for: all or none.

    Options are ``--connectivity``, and those that say which series, atlas or derivatives.
    """
    asked = (
        config.workflow.connectivity
        or bool(config.execution.task_id)
        or folder_of(config.execution.derivatives, 'fmriprep') is not None
        or config.workflow.atlas != DEFAULT_ATLAS
        or any(bundle.input['kind'] == GRAPH_KIND for bundle in bundles)
    )
    if series and not asked:
        LOG.log(
            IMPORTANT,
            '%d BOLD series are left out, as no model takes connectivity; --connectivity '
            'processes them.',
            len(series),
        )
    return tuple(series) if asked else ()


def correlation_path(config: Config, series: Series) -> Path:
    """Return where the correlations of a run are written."""
    return _matrix(config, series, 'pearsoncorrelation')


def series_finished(config: Config, series: Series, digest: str) -> bool:
    """Return whether a run has all its files, made from the same input with the same options."""
    side = read_json(correlation_path(config, series).with_suffix('.json'))
    return (
        side.get('ConfigurationHash') == digest
        and side.get('Sources') == [series.source_uri]
        and all(path.is_file() for path in _expected(config, series))
        and series.source.is_file()
        and side.get('InputSHA256') == sha256_file(series.source)
    )


def _matrix(config: Config, series: Series, stat: str) -> Path:
    space = series.ready.space if series.ready else DEFAULT_SPACE
    label = atlas_label(config.workflow.atlas)
    return matrix_path(config.execution.output_dir, series.scan.entities, space, label, stat)


def _expected(config: Config, series: Series) -> list[Path]:
    root = config.execution.output_dir
    files = [
        correlation_path(config, series),
        _matrix(config, series, 'fisherz'),
        root / atlas_path(atlas_label(config.workflow.atlas)),
    ]
    if series.ready is None:
        grid = {**series.scan.entities, 'space': DEFAULT_SPACE, 'res': '2'}
        confounds = {'desc': 'confounds', 'suffix': 'timeseries', 'extension': '.tsv'}
        files += [
            root / derivative_path(entities, 'func')
            for entities in (
                {**grid, 'desc': 'preproc', 'suffix': 'bold'},
                {**grid, 'desc': 'brain', 'suffix': 'mask'},
                {**series.scan.entities, **confounds},
            )
        ]
    return files


def session_series(scan: Scan, series: Sequence[Series]) -> list[Series]:
    """Return the functional runs of the session of a T1w image."""
    return [s for s in series if (s.scan.subject, s.scan.session) == (scan.subject, scan.session)]


def connectivity_of(
    config: Config, scan: Scan, series: Sequence[Series], n_nodes: int, digest: str
) -> Connectivity:
    """Return the connectivity that goes with a T1w image, as it is on disk now.

    Parameters
    ----------
    config : Config
    scan : Scan
        T1w image.
    series : sequence of Series
        All functional runs of the run.
    n_nodes : int
        Regions that the model takes.
    digest : str
        Configuration hash.

    Returns
    -------
    Connectivity
        Of the same session; see `choose_matrix` for several runs.
    """
    from bids_brainage.preprocessing.bold.quality import thresholds

    if config.workflow.anat_only:
        return Connectivity(None, '--anat-only was given')
    own = session_series(scan, series)
    if not own:
        return Connectivity(None, 'its session has no BOLD series')
    ready = [correlation_path(config, s) for s in own if series_finished(config, s, digest)]
    if not ready:
        return Connectivity(None, 'no BOLD series of its session could be processed')
    severe = [flag for flag, rule in thresholds().items() if rule['severity'] == 'stop']
    best = choose_matrix(ready, severe)
    assert best is not None
    if (found := count_regions(best)) != n_nodes:
        return Connectivity(
            None,
            f'the model takes the correlations of {n_nodes} regions, the atlas '
            f'{atlas_label(config.workflow.atlas)} has {found}; choose its atlas with --atlas',
        )
    return Connectivity(best)


def record_series(config: Config, plan: Plan, digest: str, status: StatusLog, crashed: str) -> int:
    """Tell of every functional run without a result, and return how many there are."""
    from bids_brainage.runs.results import crash_reason

    failures = 0
    for series in plan.series_todo:
        if series_finished(config, series, digest):
            continue
        failures += 1
        why = series.problem or crash_reason(config, series.scan)
        if not why and series.t1w is not None and (anat := crash_reason(config, series.t1w)):
            why = f'its T1w image {series.t1w.relative} failed: {anat}'
        why = why or crashed or 'no result'
        LOG.error('%s: failed: %s', series.scan.stem, why)
        status.add(series.scan.uri, 'connectivity', 'failed', message=why)
    return failures
