"""Steps of a T1w image in its own space: reading, brain mask, bias field, regions."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.config import Nipype
from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.anatomical import CheckT1w, CorrectBias, ExtractBrain
from bids_brainage.interfaces.regions import MeasureRegions
from bids_brainage.segmentation.weights import card
from bids_brainage.workflows.settings import RunSettings

REGIONS_METHODS = """\
A convolutional network ({name}, version {version}) labelled {n} regions of the image at 2 mm, in
the person's own space and without bias correction; the volume of a region is the sum of its
probabilities.

"""

REGIONS = ('regions', 'region_volumes', 'region_facts')
"""What measuring the regions gives."""

PREPARED_BY = 'fmriprep'
"""What `mask_method` says of a brain mask that was given."""


def check_node(scan: Scan, settings: RunSettings) -> pe.Node:
    """Return the step that reads the image."""
    check = pe.Node(
        CheckT1w(t1w=str(scan.path), memo=settings.memo(scan)), name='check', mem_gb=0.6
    )
    others = [str(path) for path in scan.files if path != scan.path]
    if others:
        check.inputs.others = others
    return check


def add_brain(workflow: Workflow, check: pe.Node, scan: Scan, resources: Nipype) -> pe.Node:
    """Add the step that finds the brain, or takes the mask that was given with the image."""
    if scan.prepared is not None:
        from bids_brainage.interfaces.prepared import TakeBrain

        brain = pe.Node(
            TakeBrain(given=str(scan.prepared.mask), program=PREPARED_BY),
            name='extract_brain',
            mem_gb=0.6,
        )
        workflow.connect([(check, brain, [('facts', 'facts')])])
        return brain
    brain = pe.Node(
        ExtractBrain(**_hardware(resources)),
        name='extract_brain',
        mem_gb=1.6,
        n_procs=resources.omp_nthreads,
    )
    workflow.connect([(check, brain, [('t1w', 't1w'), ('facts', 'facts')])])
    return brain


def _hardware(resources: Nipype) -> dict[str, Any]:
    """Return what a network runs on, as its step takes it.

    A GPU must be named: else nothing keeps steps of many processes from filling it together.
    """
    device = resources.device if resources.uses_gpu else 'cpu'
    return {'threads': resources.omp_nthreads, 'device': device, 'use_gpu': resources.uses_gpu}


def add_bias(workflow: Workflow, check: pe.Node, scan: Scan, mask: str | pe.Node) -> pe.Node:
    """Add the step that gives the image without bias field: N4, or the reading of such one.

    Parameters
    ----------
    workflow : Workflow
    check : Node
        Of `check_node`.
    scan : Scan
    mask : str or Node
        File of the brain mask, or the step that finds it.
    """
    if scan.prepared is not None:
        from bids_brainage.interfaces.prepared import TakeImage

        return pe.Node(TakeImage(given=str(scan.prepared.t1w)), name='take_image', mem_gb=0.6)
    bias = pe.Node(CorrectBias(), name='correct_bias', mem_gb=1.0)
    workflow.connect([(check, bias, [('t1w', 't1w')])])
    if isinstance(mask, str):
        bias.inputs.mask = mask
    else:
        workflow.connect([(mask, bias, [('mask', 'mask')])])
    return bias


def add_regions(
    workflow: Workflow, check: pe.Node, mask: str | pe.Node, resources: Nipype
) -> None:
    """Add the step that measures the regions of the brain, and give `REGIONS` to the outputs.

    Parameters
    ----------
    workflow : Workflow
        With its ``outputnode``.
    check : Node
        Of `check_node`.
    mask : str or Node
        File of the brain mask, or the step that finds it.
    resources : Nipype
        Threads and device of the network.
    """
    measure = pe.Node(
        MeasureRegions(weights_sha256=card()['weights_sha256'], **_hardware(resources)),
        name='measure_regions',
        mem_gb=1.5,
        n_procs=resources.omp_nthreads,
    )
    workflow.connect([
        (check, measure, [('t1w', 't1w'), ('facts', 'facts')]),
        (measure, workflow.get_node('outputnode'), [(f, f) for f in REGIONS]),
    ])  # fmt: skip
    if isinstance(mask, str):
        measure.inputs.mask = mask
    else:
        workflow.connect([(mask, measure, [('mask', 'mask')])])


def regions_methods() -> str:
    """Return what the methods text says of the regions."""
    network = card()
    return REGIONS_METHODS.format(
        n=network['arch_options']['classes'] - 1,
        name=network['name'],
        version=network['version'],
    )
