"""Workflow of a run: one sub-workflow per scan, which fail independently of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage import __version__
from bids_brainage.bundles.bundle import Bundle
from bids_brainage.dataset.aicbv import CbvSource
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import Series
from bids_brainage.inputs.arrays import is_aligned, roles_of
from bids_brainage.names import log_dir
from bids_brainage.outputs.connectivity import Connectivity
from bids_brainage.workflows.anatomical import (
    SIDE_FILES,
    WARPED,
    init_anat_derivatives_wf,
    init_anat_report_wf,
    init_anat_wf,
)
from bids_brainage.workflows.cbv import INPUTS, init_cbv_wf
from bids_brainage.workflows.clinical import KIND, init_native_wf
from bids_brainage.workflows.clinical import OUTPUTS as NATIVE
from bids_brainage.workflows.functional import init_series_wf
from bids_brainage.workflows.naming import (
    scan_workflow_name,
    takes_cbv,
    takes_native,
)
from bids_brainage.workflows.prediction import COMMON, init_prediction_wf
from bids_brainage.workflows.settings import RunSettings


def init_participant_wf(
    *,
    todo: Sequence[tuple[Scan, Sequence[Bundle]]],
    settings: RunSettings,
    series: Sequence[Series] = (),
    connectivity: Mapping[tuple[str, str], Connectivity] | None = None,
    cbv: Mapping[str, CbvSource] | None = None,
    derivatives: bool = True,
) -> Workflow:
    """Build the workflow of a run.

    Parameters
    ----------
    todo : sequence of (Scan, bundles)
        T1w scans, each with the models to run on it.
    settings : RunSettings
    series : sequence of Series
        Functional runs to process; a T1w image that one needs and `todo` lacks is prepared, too.
    connectivity : mapping, optional
        URI of a T1w scan and name of a model → the connectivity that the model gets.
    cbv : mapping, optional
        URI of a T1w scan → where its map of cerebral blood volume comes from.
    derivatives : bool
        Save images and pictures of the scans in `todo`; False if that is done.

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
    listed = [(scan, bundles, derivatives) for scan, bundles in todo]
    known = {scan.uri for scan, _ in todo}
    for item in series:
        if item.t1w is not None and item.t1w.uri not in known:
            known.add(item.t1w.uri)
            listed.append((item.t1w, (), False))
    aligned = {item.t1w.uri for item in series if item.t1w is not None}
    anatomy = {}
    for scan, bundles, saved in listed:
        anatomy[scan.uri] = init_scan_wf(
            scan=scan,
            bundles=bundles,
            settings=settings,
            connectivity=connectivity or {},
            cbv=(cbv or {}).get(scan.uri),
            derivatives=saved,
            register=scan.uri in aligned,
        )
        workflow.add_nodes([anatomy[scan.uri]])
    for item in series:
        functional = init_series_wf(series=item, settings=settings)
        workflow.add_nodes([functional])
        if item.t1w is not None:
            # a list of its own: Nipype takes items out of it
            workflow.connect([(anatomy[item.t1w.uri], functional, list(FROM_ANATOMY))])
    return workflow


FROM_ANATOMY = (
    ('anat_wf.outputnode.t1w_native', 'bold_wf.inputnode.t1w'),
    ('anat_wf.outputnode.mask_native', 'bold_wf.inputnode.t1w_mask'),
    ('anat_wf.outputnode.transform', 'bold_wf.inputnode.transform'),
    ('anat_wf.outputnode.t1w_native', 'bold_report_wf.inputnode.t1w'),
    ('anat_wf.outputnode.mask_native', 'bold_report_wf.inputnode.t1w_mask'),
)
"""What a functional run takes from the workflow of its T1w image."""


def init_scan_wf(
    *,
    scan: Scan,
    bundles: Sequence[Bundle],
    settings: RunSettings,
    connectivity: Mapping[tuple[str, str], Connectivity],
    cbv: CbvSource | None = None,
    derivatives: bool = True,
    register: bool = False,
) -> Workflow:
    """Build the workflow of one T1w scan with all its models.

    Parameters
    ----------
    scan : Scan
    bundles : sequence of Bundle
    settings : RunSettings
    connectivity : mapping
        As in `init_participant_wf`.
    cbv : CbvSource or None
        Where the scan's map of cerebral blood volume comes from.
    derivatives : bool
        Save images and pictures.
    register : bool
        Register the scan even if its models do without, as functional runs need it.

    Returns
    -------
    Workflow
        Named after the scan (`scan_workflow_name`), so that its nodes can be told apart.
    """
    workflow = Workflow(name=scan_workflow_name(scan))
    clinical = [b for b in bundles if takes_native(scan, b)]
    others = [b for b in bundles if b not in clinical]
    whole = register or bool(others) or not clinical
    if clinical:
        native = init_native_wf(scan=scan, settings=settings, save=derivatives and not whole)
        for bundle in clinical:
            predict = init_prediction_wf(bundle=bundle, scan=scan, settings=settings)
            workflow.connect([(native, predict, list(FROM_NATIVE))])
    if not whole:
        return _log_crashes(workflow, scan, settings)
    anat = init_anat_wf(
        registration_template=settings.registration_template,
        output_template=settings.output_template,
        omp_nthreads=settings.omp_nthreads,
        sloppy=settings.sloppy,
        regions=derivatives or any(b.input['kind'] == 'region_volumes' for b in others),
    )
    anat.inputs.inputnode.t1w = str(scan.path)
    workflow.add_nodes([anat])
    if derivatives:
        _connect_outputs(workflow, anat, scan, settings)
    made = derivatives or any(map(takes_cbv, others))
    blood = _add_cbv(workflow, anat, scan, cbv, settings) if cbv and made else None
    for bundle in others:
        predict = init_prediction_wf(
            bundle=bundle,
            scan=scan,
            settings=settings,
            connectivity=connectivity.get((scan.uri, bundle.name)),
            cbv=cbv if takes_cbv(bundle) else None,
            synthetic_slices=settings.synthetic_slices and bundle.input['kind'] == KIND,
        )
        kind = bundle.input['kind']
        fields = dict.fromkeys((*COMMON, *roles_of(kind)))
        if blood is not None and takes_cbv(bundle):
            del fields['t1w']
            workflow.connect([(blood, predict, [('outputnode.cbv', 'inputnode.t1w')])])
        given = AFFINE if is_aligned(kind) else {}
        workflow.connect([
            (anat, predict, [(f'outputnode.{given.get(f, f)}', f'inputnode.{f}') for f in fields])
        ])  # fmt: skip
    return _log_crashes(workflow, scan, settings)


AFFINE = {'t1w': 't1w_affine', 'mask': 'mask_affine', 'transform': 'transform_affine'}
"""What a model of aligned images takes instead of the deformed ones."""

FROM_NATIVE = (
    *((f'outputnode.{name}', f'inputnode.{name}') for name in NATIVE),
    ('outputnode.t1w_uncorrected', 'inputnode.t1w_native'),  # to draw on
)
"""What a model of thick slices takes from the workflow of such a scan."""


def _log_crashes(workflow: Workflow, scan: Scan, settings: RunSettings) -> Workflow:
    """Send the crash files of all nodes to the logs of the participant."""
    crashes = settings.output_dir / log_dir(settings.run_id, scan.subject, scan.session)
    for node in workflow.list_node_names():
        workflow.get_node(node).config = {'execution': {'crashdump_dir': str(crashes)}}
    return workflow


def _add_cbv(
    workflow: Workflow, anat: Workflow, scan: Scan, source: CbvSource, settings: RunSettings
) -> Workflow:
    """Add the steps that give the scan its map of cerebral blood volume."""
    blood = init_cbv_wf(
        source=source, source_file=str(scan.path), source_uri=scan.uri, settings=settings
    )
    workflow.connect([
        (anat, blood, [(f'outputnode.{AFFINE[f]}', f'inputnode.{f}') for f in INPUTS])
    ])  # fmt: skip
    return blood


def _connect_outputs(
    workflow: Workflow, anat: Workflow, scan: Scan, settings: RunSettings
) -> None:
    """Add the steps that save and draw what the anatomical workflow makes."""
    derivatives = init_anat_derivatives_wf(
        source_file=str(scan.path),
        source_uri=scan.uri,
        output_dir=settings.output_dir,
        space=settings.output_template.space,
        age=None if scan.age.censored else scan.age.years,
        sex=scan.sex,
    )
    report = init_anat_report_wf(
        source_file=str(scan.path),
        output_dir=settings.output_dir,
        template=settings.output_template,
    )
    workflow.connect([
        (anat, derivatives, [
            (f'outputnode.{field}', f'inputnode.{field}')
            for field in (*WARPED, 'mask_native', 'regions', *SIDE_FILES.values())
        ]),
        (anat, report, [
            ('outputnode.t1w_native', 'inputnode.t1w'),
            ('outputnode.mask_native', 'inputnode.mask'),
            ('outputnode.tissues_native', 'inputnode.tissues'),
            ('outputnode.regions', 'inputnode.regions'),
            ('outputnode.t1w', 'inputnode.warped'),
        ]),
    ])  # fmt: skip


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
