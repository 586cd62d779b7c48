"""Workflow of one scan in its own space: no registration and no bias correction.

Scans of thick slices (System C), and every scan where only regions are asked for and no image
stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.anatomical import AssessQuality
from bids_brainage.interfaces.derivatives import DerivativesDataSink
from bids_brainage.interfaces.prediction import DrawMask
from bids_brainage.interfaces.stored import RestoreQuality
from bids_brainage.interfaces.trace import TraceSource
from bids_brainage.workflows.derivatives import volumes_node
from bids_brainage.workflows.images import IMAGES, image_path, kept_images
from bids_brainage.workflows.made_from import of_mask
from bids_brainage.workflows.settings import RunSettings
from bids_brainage.workflows.start import (
    REGIONS,
    add_brain,
    add_regions,
    check_node,
    regions_methods,
)

THICK_METHODS = """\
Models made for thick slices took the T1w images of thick axial slices (slice distance of 3 mm and
more) in their own space: the image was brought into RAS+ orientation and {start},
without bias correction and without registration.

"""
METHODS = """\
Each T1w image was brought into RAS+ orientation and {start}.
"""

OWN_START = 'its brain was extracted with deepbet'
PREPARED_START = 'its brain mask was taken from fMRIPrep derivatives'
OUTPUTS = ('facts', 'quality', 't1w_uncorrected', 'mask_native')
"""Beside `REGIONS`, where they are measured."""


def init_native_wf(
    *,
    scan: Scan,
    settings: RunSettings,
    stored: Mapping[str, Any] | None = None,
    save: bool = True,
    regions: bool = False,
    name: str = 'native_wf',
) -> Workflow:
    """Build the workflow of one scan in its own space.

    Parameters
    ----------
    scan : Scan
    settings : RunSettings
    stored : mapping or None
        Quality measures of the scan, if its brain mask stands in the output dataset.
    save : bool
        Write and draw the brain mask; False if another workflow does.
    regions : bool
        Measure the regions of the brain, and write the table of their volumes; else the scan is
        taken for its thick slices.
    name : str

    Returns
    -------
    Workflow

    Outputs
    -------
    facts, quality
        What header and intensities say; measures and flags (JSON).
    t1w_uncorrected, mask_native
        Image in RAS+ and its brain mask.
    regions, region_volumes, region_facts
        Labels, volumes (JSON) and side file, if they are measured.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = _methods(scan, regions=regions)
    fields = (*OUTPUTS, *(REGIONS if regions else ()))
    outputnode = pe.Node(niu.IdentityInterface(list(fields)), name='outputnode')
    check = check_node(scan, settings)
    workflow.connect([
        (check, outputnode, [('facts', 'facts'), ('t1w', 't1w_uncorrected')]),
    ])  # fmt: skip
    sloppy = settings.config.workflow.sloppy
    if stored is not None:
        mask = str(image_path(settings.output_dir, scan, 'mask_native'))
        outputnode.inputs.mask_native = mask
        restore = pe.Node(
            RestoreQuality(measures=dict(stored), native=True, thickness=regions, sloppy=sloppy),
            name='restore_quality',
            mem_gb=0.2,
        )
        workflow.connect([(restore, outputnode, [('quality', 'quality')])])
        if regions:
            _measure(workflow, check, mask, scan, settings)
        return workflow
    brain = add_brain(workflow, check, scan, settings.config.nipype)
    quality = pe.Node(
        AssessQuality(sloppy=sloppy, thickness=regions), name='assess_quality', mem_gb=0.2
    )
    workflow.connect([
        (check, quality, [('facts', 'facts')]),
        (brain, quality, [('measures', 'mask_measures')]),
        (brain, outputnode, [('mask', 'mask_native')]),
        (quality, outputnode, [('quality', 'quality')]),
    ])  # fmt: skip
    if save:
        _connect_outputs(workflow, scan, settings)
    if regions:
        _measure(workflow, check, brain, scan, settings)
    return workflow


def _methods(scan: Scan, *, regions: bool) -> str:
    start = PREPARED_START if scan.prepared else OWN_START
    if regions:
        return METHODS.format(start=start) + regions_methods()
    return THICK_METHODS.format(start=start)


def _measure(
    workflow: Workflow, check: pe.Node, mask: str | pe.Node, scan: Scan, settings: RunSettings
) -> None:
    """Measure the regions, and write the table of their volumes."""
    add_regions(workflow, check, mask, settings.config.nipype)
    volumes = volumes_node(scan, settings)
    workflow.connect([
        (check, volumes, [('facts', 'facts')]),
        (workflow.get_node('measure_regions'), volumes, [('region_facts', 'region_facts')]),
    ])  # fmt: skip


def _connect_outputs(workflow: Workflow, scan: Scan, settings: RunSettings) -> None:
    """Draw the brain mask, and write it if the level of output keeps it."""
    draw = pe.Node(
        DrawMask(
            source_file=str(scan.path),
            base_directory=str(settings.output_dir),
            brief=settings.brief,
        ),
        name='draw_mask',
        mem_gb=0.5,
    )
    check, brain, quality = map(workflow.get_node, ('check', 'extract_brain', 'assess_quality'))
    workflow.connect([(check, draw, [('t1w', 't1w')]), (brain, draw, [('mask', 'mask')])])
    if 'mask_native' not in kept_images(settings.config):
        return
    sink = pe.Node(
        DerivativesDataSink(
            base_directory=str(settings.output_dir),
            source_file=[str(scan.path)],
            Sources=list(scan.sources),
            **IMAGES['mask_native'],
            Type='Brain',
        ),
        name='save_mask',
        mem_gb=0.3,
    )
    trace = pe.Node(TraceSource(made_from=of_mask(settings.config)), name='trace_mask', mem_gb=0.2)
    workflow.connect([
        (brain, sink, [('mask', 'in_file')]),
        (check, trace, [('facts', 'facts')]),
        (quality, trace, [('quality', 'quality')]),
        (trace, sink, [('meta', 'meta_dict')]),
    ])  # fmt: skip
