"""Workflow of one functional run of a participant: series, derivatives and pictures."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.series import Series
from bids_brainage.interfaces.trace import TraceSource
from bids_brainage.names import log_dir
from bids_brainage.preprocessing.template import Template
from bids_brainage.workflows.bold import (
    CONNECTIVITY,
    SHARED,
    init_bold_derivatives_wf,
    init_bold_report_wf,
    init_bold_wf,
    init_fmriprep_bold_wf,
)
from bids_brainage.workflows.images import SERIES, kept_images
from bids_brainage.workflows.made_from import of_connectivity
from bids_brainage.workflows.naming import scan_workflow_name
from bids_brainage.workflows.settings import RunSettings

MADE_HERE = ('dictionary', 'slice_timing')


def init_series_wf(*, series: Series, settings: RunSettings) -> Workflow:
    """Build the workflow of one functional run.

    Parameters
    ----------
    series : Series
        With a T1w image, or with derivatives.
    settings : RunSettings

    Returns
    -------
    Workflow
        Named after the run.

    Inputs
    ------
    bold_wf.inputnode: t1w, t1w_mask, transform
        From the workflow of the T1w image, if the run has one.
    bold_report_wf.inputnode: t1w, t1w_mask
        The same.
    """
    workflow = Workflow(name=scan_workflow_name(series.scan))
    space = series.ready.space if series.ready else settings.registration_template.space
    options = settings.config.workflow
    regions: dict[str, Any] = {'atlas': options.atlas, 'atlas_table': options.atlas_labels}
    bold = _bold_wf(series, settings.registration_template, options.sloppy, regions)
    place: dict[str, Any] = {
        'source_file': str(series.scan.path),
        'output_dir': settings.output_dir,
        'space': space,
        **regions,
    }
    save = init_bold_derivatives_wf(
        source_uri=series.source_uri,
        metadata=series.scan.metadata,
        preprocessed_here=series.ready is None,
        images=SERIES in kept_images(settings.config),
        **place,
    )
    trace = pe.Node(
        TraceSource(
            source=str(series.source),
            memo=settings.memo(series.scan),
            made_from=of_connectivity(settings.config, series.source_uri),
            provenance=dict(settings.provenance),
        ),
        name='trace_source',
        mem_gb=0.2,
    )
    report = init_bold_report_wf(**place)
    own = MADE_HERE if series.ready is None else ()
    saved = [f for f in (*SHARED, *own, *CONNECTIVITY) if f not in ('facts', 'meta')]
    drawn = [*SHARED, 'correlation', *(() if series.ready else ('aligned',))]
    workflow.connect([
        (bold, save, [(f'outputnode.{f}', f'inputnode.{f}') for f in saved]),
        (bold, trace, [('outputnode.meta', 'meta')]),
        (trace, save, [('meta', 'inputnode.meta')]),
        (bold, report, [(f'outputnode.{f}', f'inputnode.{f}') for f in drawn]),
    ])  # fmt: skip
    run_id = settings.config.execution.run_id
    crashes = settings.output_dir / log_dir(run_id, series.scan.subject, series.scan.session)
    for node in workflow.list_node_names():
        workflow.get_node(node).config = {'execution': {'crashdump_dir': str(crashes)}}
    return workflow


def _bold_wf(series: Series, target: Template, sloppy: bool, regions: dict[str, Any]) -> Workflow:
    """Build the inner workflow and fill in what is known of the files."""
    ready, metadata = series.ready, series.scan.metadata
    if ready is None:
        bold = init_bold_wf(target_template=target, sloppy=sloppy, name='bold_wf', **regions)
        bold.inputs.inputnode.bold = str(series.source)
        bold.inputs.inputnode.metadata = dict(metadata)
        return bold
    bold = init_fmriprep_bold_wf(space=ready.space, name='bold_wf', **regions)
    bold.inputs.inputnode.bold = str(ready.bold)
    bold.inputs.inputnode.confounds = str(ready.confounds)
    bold.inputs.inputnode.metadata = {**metadata, **ready.metadata}
    if ready.mask is not None:
        bold.inputs.inputnode.mask = str(ready.mask)
    return bold
