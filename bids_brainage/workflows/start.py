"""First steps of a T1w image: it is read, its brain is found, and its bias field removed."""

from __future__ import annotations

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.anatomical import CheckT1w, CorrectBias, ExtractBrain
from bids_brainage.workflows.settings import RunSettings

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


def add_brain(workflow: Workflow, check: pe.Node, scan: Scan, threads: int) -> pe.Node:
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
        ExtractBrain(threads=threads), name='extract_brain', mem_gb=1.6, n_procs=threads
    )
    workflow.connect([(check, brain, [('t1w', 't1w'), ('facts', 'facts')])])
    return brain


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
