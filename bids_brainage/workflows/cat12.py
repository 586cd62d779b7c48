"""Step that takes CAT12's map of grey matter in place of our own."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.scan import GreyMatter
from bids_brainage.inputs.grey_matter import MADE_BY, PROGRAM
from bids_brainage.interfaces.prepared import TakeGreyMatter
from bids_brainage.preprocessing.template import Template

METHODS = """\
The modulated map of grey matter is that of CAT12 (doi:10.1093/gigascience/giae049), resampled.
"""


def map_facts(given: GreyMatter) -> dict[str, Any]:
    """Return what the side file of the map says."""
    return {
        'Description': 'Modulated grey matter (mwp1) of CAT12, resampled without registration.',
        MADE_BY: PROGRAM,
        'Sources': list(given.uris),
    }


def add_cat12(
    workflow: Workflow, brain: pe.Node, given: GreyMatter, template: Template
) -> pe.Node:
    """Add the step that takes the map; return it.

    Parameters
    ----------
    workflow : Workflow
    brain : Node
        Step that finds the brain; its measures go through this one.
    given : GreyMatter
    template : Template
        Whose grid the derivatives have.
    """
    take = pe.Node(
        TakeGreyMatter(given=str(given.path), template=str(template.t1w)),
        name='take_grey_matter',
        mem_gb=0.6,
    )
    if given.report is not None:
        take.inputs.report = str(given.report)
    workflow.connect([(brain, take, [('measures', 'measures')])])
    return take
