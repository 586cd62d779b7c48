"""Workflow that brings finished images of scans into further spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.spaces import AlignTemplates, ResampleToSpace, RestoreBrain
from bids_brainage.names import log_dir
from bids_brainage.preprocessing.template import Template
from bids_brainage.workflows.naming import scan_workflow_name

METHODS = """\
Images were also written in {spaces}.{between} The T1w image, the brain mask and the explanation
maps were interpolated once, through the concatenated transforms; tissue maps were resampled from
the 1 mm grid of the {space} template.

"""
BETWEEN = ' The templates of other spaces were registered to {space} with greedy.'


@dataclass(frozen=True)
class OutputSpace:
    """A space in which images are written besides those that the models need.

    Attributes
    ----------
    label : str
        ``space-`` of the file names, empty for the native space of the T1w image.
    resolution : str or None
        ``res-`` of the file names.
    brain : Path or None
        Brain mask on the grid that images are resampled onto; None in native space.
    t1w, mask : Path or None
        Template by which the space is registered; None in native space and in the space that
        scans are registered to.
    voxels : str
        Size of the voxels in words.
    """

    label: str = ''
    resolution: str | None = None
    brain: Path | None = None
    t1w: Path | None = None
    mask: Path | None = None
    voxels: str = ''

    @property
    def name(self) -> str:
        """What a person calls it, as in ``--output-spaces``."""
        return f'{self.label}:res-{self.resolution}' if self.label else 'T1w'


@dataclass(frozen=True)
class SpaceWork:
    """Images of one scan that are to be written in one space.

    Attributes
    ----------
    scan : Scan
    space : OutputSpace
    images : dict
        Path of each image to write → ``source`` (path, or None for the bias-corrected brain),
        ``native`` (whether that lies in native space), ``labels`` (no interpolation) and
        ``side``, the content of the side file.
    mask, to_template, to_native : Path
        The scan's brain mask and transforms in the output dataset.
    """

    scan: Scan
    space: OutputSpace
    mask: Path
    to_template: Path
    to_native: Path
    images: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


def init_spaces_wf(
    *,
    work: Sequence[SpaceWork],
    template: Template,
    output_dir: Path,
    run_id: str,
    omp_nthreads: int = 1,
    sloppy: bool = False,
    name: str = 'output_spaces_wf',
) -> Workflow:
    """Build the workflow that writes the images of scans in further spaces.

    All that it needs stands in the output dataset, so it does not hang on the work folder.

    Parameters
    ----------
    work : sequence of SpaceWork
    template : Template
        That the scans are registered to, at 2 mm.
    output_dir : Path
        Output dataset.
    run_id : str
    omp_nthreads : int
        Threads of the registration of templates.
    sloppy : bool
        Stop that registration early; for tests.
    name : str

    Returns
    -------
    Workflow
    """
    workflow = Workflow(name=name)
    spaces = dict.fromkeys(item.space for item in work)
    others = {space.label: space for space in spaces if space.t1w is not None}
    workflow.__desc__ = METHODS.format(
        spaces=', '.join(space.name for space in spaces),
        between=BETWEEN.format(space=template.space) if others else '',
        space=template.space,
    )
    align = {
        label: pe.Node(
            AlignTemplates(
                fixed=str(space.t1w),
                fixed_mask=str(space.mask),
                moving=str(template.t1w),
                moving_mask=str(template.mask),
                sloppy=sloppy,
                threads=omp_nthreads,
            ),
            name=f'align_{_identifier(label)}',
            mem_gb=1.2,
            n_procs=omp_nthreads,
        )
        for label, space in others.items()
    }
    for node in align.values():
        node.config = {'execution': {'crashdump_dir': str(output_dir / log_dir(run_id))}}
    by_scan: dict[str, list[SpaceWork]] = {}
    for item in work:
        by_scan.setdefault(item.scan.uri, []).append(item)
    for items in by_scan.values():
        single = init_scan_spaces_wf(work=items)
        workflow.add_nodes([single])
        for label in dict.fromkeys(item.space.label for item in items):
            if label in align:
                port = f'inputnode.{_identifier(label)}'
                workflow.connect([(align[label], single, [('transform', port)])])
        scan = items[0].scan
        crashes = output_dir / log_dir(run_id, scan.subject, scan.session)
        for node in single.list_node_names():
            single.get_node(node).config = {'execution': {'crashdump_dir': str(crashes)}}
    return workflow


def init_scan_spaces_wf(*, work: Sequence[SpaceWork]) -> Workflow:
    """Build the workflow that writes the images of one scan in further spaces.

    Parameters
    ----------
    work : sequence of SpaceWork
        All of one scan.

    Returns
    -------
    Workflow

    Inputs
    ------
    <label>
        For each space with a template of its own: points of the space → template (``.npz``).
    """
    scan = work[0].scan
    workflow = Workflow(name=scan_workflow_name(scan))
    labels = dict.fromkeys(_identifier(w.space.label) for w in work if w.space.t1w is not None)
    # an interface without fields cannot be built
    inputnode = pe.Node(niu.IdentityInterface([*labels, 'unused']), name='inputnode')
    restore = pe.Node(
        RestoreBrain(
            t1w=str(scan.prepared.t1w if scan.prepared else scan.path),
            mask=str(work[0].mask),
            corrected=scan.prepared is not None,
        ),
        name='restore_brain',
        mem_gb=1.0,
    )
    for item in work:
        resample = pe.Node(
            ResampleToSpace(
                images={str(path): dict(made) for path, made in item.images.items()},
                mask=str(item.mask),
                to_template=str(item.to_template),
                to_native=str(item.to_native),
            ),
            name=f'resample_{_identifier(item.space.label)}_{item.space.resolution or "own"}',
            mem_gb=1.5,
            overwrite=True,  # what it writes is not in the work folder
        )
        if item.space.brain is not None:
            resample.inputs.brain = str(item.space.brain)
        if item.space.t1w is not None:
            port = _identifier(item.space.label)
            workflow.connect([(inputnode, resample, [(port, 'between')])])
        workflow.connect([(restore, resample, [('t1w', 't1w')])])
    return workflow


def _identifier(label: str) -> str:
    """Name of a node or port for a space."""
    return label.replace('+', '_') or 'T1w'
