"""Functional runs of a participant-level run: which there are, and their files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import Series, match_series
from bids_brainage.inputs.kinds import learns_graph
from bids_brainage.names import atlas_path
from bids_brainage.outputs import derivative_path
from bids_brainage.outputs.connectivity import Connectivity, choose_connectivity, matrix_path
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.preprocessing.bold.names import DEFAULT_ATLAS, atlas_label
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.workflows.images import SERIES, kept_images

LOG = logging.getLogger('bids_brainage')


def select_series(config: Config, scans: Sequence[Scan]) -> tuple[Series, ...]:
    """Return the functional runs of what was selected; none with ``--anat-only``."""
    if config.workflow.anat_only:
        return ()
    bold = [scan for scan in scans if scan.suffix == 'bold']
    for task in config.execution.task_id:
        if not any(scan.entities.get('task') == task for scan in bold):
            LOG.warning('--task-id: no BOLD series of task %s among what was selected.', task)
    t1w = [scan for scan in scans if scan.suffix == 'T1w']
    found = match_series(bold, t1w, config.execution.derivatives_of('fmriprep'))
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
        or config.execution.derivatives_of('fmriprep') is not None
        or config.workflow.atlas != DEFAULT_ATLAS
        or any(learns_graph(bundle.input) for bundle in bundles)
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


def _matrix(config: Config, series: Series, stat: str) -> Path:
    space = series.ready.space if series.ready else DEFAULT_SPACE
    label = atlas_label(config.workflow.atlas)
    return matrix_path(config.execution.output_dir, series.scan.entities, space, label, stat)


def series_paths(config: Config, series: Series) -> list[Path]:
    """Return the files that a functional run leaves in the output dataset."""
    root = config.execution.output_dir
    files = [
        correlation_path(config, series),
        _matrix(config, series, 'fisherz'),
        root / atlas_path(atlas_label(config.workflow.atlas)),
    ]
    if series.ready is None:
        kept = SERIES in kept_images(config)
        grid = {**series.scan.entities, 'space': DEFAULT_SPACE, 'res': '2'}
        confounds = {'desc': 'confounds', 'suffix': 'timeseries', 'extension': '.tsv'}
        images = ({'desc': 'preproc', 'suffix': 'bold'}, {'desc': 'brain', 'suffix': 'mask'})
        made = [{**grid, **image} for image in images if kept]
        files += [
            root / derivative_path(entities, 'func')
            for entities in (*made, {**series.scan.entities, **confounds})
        ]
    return files


def session_connectivity(
    config: Config, own: Sequence[Series], current: Sequence[Series], n_nodes: int
) -> Connectivity:
    """Return the connectivity that goes with a session, or why there is none.

    Parameters
    ----------
    config : Config
    own : sequence of Series
        Functional runs of the session.
    current : sequence of Series
        Those of them whose connectivity is there; see `choose_connectivity` for several.
    n_nodes : int
        Regions that the model takes.
    """
    if config.workflow.anat_only:
        return Connectivity(None, '--anat-only was given')
    if not own:
        return Connectivity(None, 'its session has no BOLD series')
    from bids_brainage.preprocessing.bold.quality import severe_flags

    return choose_connectivity(
        [correlation_path(config, item) for item in current],
        n_nodes,
        atlas_label(config.workflow.atlas),
        severe_flags(),
    )
