"""Workflow of a run: one sub-workflow per scan, which fail independently of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage import __version__
from bids_brainage.dataset.scan import Scan
from bids_brainage.models.bundle import Bundle
from bids_brainage.outputs.naming import log_dir, model_label
from bids_brainage.preprocessing.inputs import roles_of
from bids_brainage.preprocessing.template import Template
from bids_brainage.workflows.anatomical import (
    WARPED,
    init_anat_derivatives_wf,
    init_anat_report_wf,
    init_anat_wf,
)
from bids_brainage.workflows.prediction import COMMON, init_prediction_wf


@dataclass(frozen=True)
class RunSettings:
    """What all scans of a run share.

    Attributes
    ----------
    output_dir, work_dir : Path
    run_id : str
    registration_template, output_template : Template
    provenance : mapping
        Options and versions for the side files.
    saliency : tuple of str or None
        Methods; None is each bundle's own, empty none.
    device : str
    use_gpu : bool
        Whether inference nodes are counted against the GPUs.
    seed, omp_nthreads : int
    sloppy : bool
    """

    output_dir: Path
    work_dir: Path
    run_id: str
    registration_template: Template
    output_template: Template
    provenance: Mapping[str, Any]
    saliency: tuple[str, ...] | None
    device: str
    use_gpu: bool
    seed: int
    omp_nthreads: int
    sloppy: bool


def init_participant_wf(
    *, todo: Sequence[tuple[Scan, Sequence[Bundle]]], settings: RunSettings
) -> Workflow:
    """Build the workflow of a run.

    Parameters
    ----------
    todo : sequence of (Scan, bundles)
        T1w scans, each with the models that have not been run on it.
    settings : RunSettings

    Returns
    -------
    Workflow
    """
    # the version is part of the folder, so that another version starts anew
    workflow = Workflow(name=f'bids_brainage_{__version__.replace(".", "_")}_wf')
    workflow.base_dir = str(settings.work_dir)
    workflow.config['execution'] = {
        'crashfile_format': 'txt',
        'poll_sleep_duration': 0.1,
        'remove_unnecessary_outputs': False,
        'stop_on_first_crash': False,
        'check_version': False,
    }
    for scan, bundles in todo:
        workflow.add_nodes([init_scan_wf(scan=scan, bundles=bundles, settings=settings)])
    return workflow


def init_scan_wf(*, scan: Scan, bundles: Sequence[Bundle], settings: RunSettings) -> Workflow:
    """Build the workflow of one T1w scan with all its models.

    Parameters
    ----------
    scan : Scan
    bundles : sequence of Bundle
    settings : RunSettings

    Returns
    -------
    Workflow
        Named after the scan (`scan_workflow_name`), so that its nodes can be told apart.
    """
    workflow = Workflow(name=scan_workflow_name(scan))
    anat = init_anat_wf(
        registration_template=settings.registration_template,
        output_template=settings.output_template,
        omp_nthreads=settings.omp_nthreads,
        sloppy=settings.sloppy,
    )
    anat.inputs.inputnode.t1w = str(scan.path)
    derivatives = init_anat_derivatives_wf(
        source_file=str(scan.path),
        source_uri=scan.uri,
        output_dir=settings.output_dir,
        space=settings.output_template.space,
    )
    report = init_anat_report_wf(
        source_file=str(scan.path),
        output_dir=settings.output_dir,
        template=settings.output_template,
    )
    workflow.connect([
        (anat, derivatives, [
            (f'outputnode.{field}', f'inputnode.{field}')
            for field in (*WARPED, 'mask_native', 'structure_facts')
        ]),
        (anat, report, [
            ('outputnode.t1w_native', 'inputnode.t1w'),
            ('outputnode.mask_native', 'inputnode.mask'),
            ('outputnode.tissues_native', 'inputnode.tissues'),
            ('outputnode.t1w', 'inputnode.warped'),
        ]),
    ])  # fmt: skip
    for bundle in bundles:
        predict = init_prediction_wf(
            bundle=bundle,
            scan=scan_columns(scan),
            source_file=str(scan.path),
            provenance=settings.provenance,
            output_dir=settings.output_dir,
            template=settings.output_template,
            saliency=settings.saliency,
            device=settings.device,
            use_gpu=settings.use_gpu,
            seed=settings.seed,
            omp_nthreads=settings.omp_nthreads,
        )
        fields = dict.fromkeys((*COMMON, *roles_of(bundle.input['kind'])))
        workflow.connect(
            [(anat, predict, [(f'outputnode.{f}', f'inputnode.{f}') for f in fields])]
        )
    crashes = settings.output_dir / log_dir(settings.run_id, scan.subject, scan.session)
    for node in workflow.list_node_names():
        workflow.get_node(node).config = {'execution': {'crashdump_dir': str(crashes)}}
    return workflow


def scan_workflow_name(scan: Scan) -> str:
    """Return the workflow name of a scan: letters, digits and underscores."""
    return scan.stem.replace('-', '_').replace('.', '_') + f'_{model_label(scan.suffix)}_wf'


def scan_columns(scan: Scan) -> dict[str, Any]:
    """Return the columns of a prediction row that the dataset gives."""
    return {
        'participant_id': f'sub-{scan.subject}',
        'session_id': f'ses-{scan.session}' if scan.session else None,
        'run': scan.run,
        'source': scan.uri,
        'modality': scan.suffix,
        'age': scan.age.years,
        'age_source': scan.age.source,
        'age_censored': scan.age.censored,
        'sex': scan.sex,
    }


def methods_text(workflow: Workflow) -> str:
    """Return the methods text of a workflow, each sentence once."""
    seen: dict[str, None] = {}
    for node in _workflows(workflow):
        text = getattr(node, '__desc__', None)
        if text:
            seen.setdefault(text.strip())
    return '\n\n'.join(seen)


def _workflows(workflow: Workflow) -> list[Workflow]:
    nested = [node for node in workflow._graph.nodes() if isinstance(node, pe.Workflow)]
    nested.sort(key=lambda node: node.name)
    return [workflow, *(inner for node in nested for inner in _workflows(node))]
