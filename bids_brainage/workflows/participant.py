"""Workflow of a run: one sub-workflow per scan, which fail independently of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage import __version__
from bids_brainage.bundles.bundle import Bundle
from bids_brainage.dataset.scan import Scan
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.interfaces.stored import AlignStructures
from bids_brainage.names import log_dir
from bids_brainage.workflows.anatomical import (
    init_anat_report_wf,
    init_anat_wf,
    init_stored_anat_wf,
)
from bids_brainage.workflows.derivatives import SIDE_FILES, init_anat_derivatives_wf
from bids_brainage.workflows.images import IMAGES, kept_images
from bids_brainage.workflows.naming import (
    needs_template,
    scan_workflow_name,
    takes_cbv,
    takes_native,
)
from bids_brainage.workflows.prediction import COMMON, init_prediction_wf
from bids_brainage.workflows.settings import RunSettings, ScanWork, Stored

if TYPE_CHECKING:
    from bids_brainage.dataset.aicbv import CbvSource
    from bids_brainage.dataset.series import Series


def init_participant_wf(
    *,
    todo: Sequence[ScanWork],
    settings: RunSettings,
    series: Sequence[Series] = (),
    anatomy: Mapping[str, Stored] | None = None,
) -> Workflow:
    """Build the workflow of a run.

    Parameters
    ----------
    todo : sequence of ScanWork
        T1w scans, each with what is to be done.
    settings : RunSettings
    series : sequence of Series
        Functional runs to process.
    anatomy : mapping, optional
        URI of a T1w scan that a functional run needs and `todo` lacks → what of it is stored.

    Returns
    -------
    Workflow
    """
    # the version is part of the folder, so that another version starts anew
    workflow = Workflow(name=f'bids_brainage_{__version__.replace(".", "_")}_wf')
    workflow.base_dir = str(settings.config.execution.work_dir)
    workflow.config['execution'] = {
        'crashfile_format': 'txt',
        'poll_sleep_duration': 0.1,
        'remove_unnecessary_outputs': False,
        'stop_on_first_crash': False,
        'check_version': False,
    }
    partners = {item.t1w.uri: item.t1w for item in series if item.t1w is not None}
    known = {work.scan.uri for work in todo}
    more = [
        ScanWork(scan, images=True, stored=(anatomy or {}).get(uri, Stored()))
        for uri, scan in partners.items()
        if uri not in known
    ]
    built = {}
    for work in (*todo, *more):
        uri = work.scan.uri
        built[uri] = init_scan_wf(work=work, settings=settings, register=uri in partners)
        workflow.add_nodes([built[uri]])
    if series:
        from bids_brainage.workflows.functional import init_series_wf
    for item in series:
        functional = init_series_wf(series=item, settings=settings)
        workflow.add_nodes([functional])
        if item.t1w is not None:
            # a list of its own: Nipype takes items out of it
            workflow.connect([(built[item.t1w.uri], functional, list(FROM_ANATOMY))])
    return workflow


FROM_ANATOMY = (
    ('anat_wf.outputnode.t1w_native', 'bold_wf.inputnode.t1w'),
    ('anat_wf.outputnode.mask_native', 'bold_wf.inputnode.t1w_mask'),
    ('anat_wf.outputnode.transform', 'bold_wf.inputnode.transform'),
    ('anat_wf.outputnode.t1w_native', 'bold_report_wf.inputnode.t1w'),
    ('anat_wf.outputnode.mask_native', 'bold_report_wf.inputnode.t1w_mask'),
)
"""What a functional run takes from the workflow of its T1w image."""


def init_scan_wf(*, work: ScanWork, settings: RunSettings, register: bool = False) -> Workflow:
    """Build the workflow of one T1w scan with all its models.

    Parameters
    ----------
    work : ScanWork
    settings : RunSettings
    register : bool
        Register the scan even if its models do without, as functional runs need it.

    Returns
    -------
    Workflow
        Named after the scan (`scan_workflow_name`), so that its nodes can be told apart.
    """
    scan, stored = work.scan, work.stored
    workflow = Workflow(name=scan_workflow_name(scan))
    thick = [b for b in work.bundles if takes_native(scan, b)]
    others = [b for b in work.bundles if b not in thick]
    whole = register or _needs_template(work, others, settings)
    if thick:
        saved = whole and stored.images is None  # with the images
        _add_native(workflow, work, thick, settings, save=not saved)
    if not whole:
        if others or work.images:
            _add_native(workflow, work, others, settings, save=not thick, regions=True)
        return _log_crashes(workflow, scan, settings)
    if stored.images is None:
        anat = init_anat_wf(scan=scan, settings=settings)
        workflow.add_nodes([anat])
        _connect_outputs(workflow, anat, scan, settings)
    else:
        anat = init_stored_anat_wf(
            scan=scan, settings=settings, measures=stored.images, bias_corrected=register
        )
        workflow.add_nodes([anat])
    if any('structures' in kind_of(b.input).roles for b in others):
        _add_aligned_structures(workflow, anat)
    blood = None
    if work.cbv is not None and stored.cbv is None:
        blood = _add_cbv(workflow, anat, scan, work.cbv, settings)
    for bundle in others:
        kind = kind_of(bundle.input)
        predict = init_prediction_wf(
            bundle=bundle,
            scan=scan,
            settings=settings,
            connectivity=work.connectivity.get(bundle.name),
            cbv=work.cbv,
        )
        fields = dict.fromkeys((*COMMON, *kind.roles))
        if takes_cbv(bundle):
            del fields['t1w']
            if blood is None:
                predict.inputs.inputnode.t1w = str(stored.cbv)
            else:
                workflow.connect([(blood, predict, [('outputnode.cbv', 'inputnode.t1w')])])
        if 'structures' in fields:
            del fields['structures']
            aligned = workflow.get_node('align_structures')
            workflow.connect([(aligned, predict, [('aligned', 'inputnode.structures')])])
        given = SEEN_ALIGNED if kind.is_aligned else {}
        workflow.connect([
            (anat, predict, [(f'outputnode.{given.get(f, f)}', f'inputnode.{f}') for f in fields])
        ])  # fmt: skip
    return _log_crashes(workflow, scan, settings)


def _needs_template(work: ScanWork, bundles: Sequence[Bundle], settings: RunSettings) -> bool:
    """Return whether the scan has to be registered for some models or for what stays of it.

    One that was registered before is taken as it is.
    """
    if not bundles and not work.images:
        return False
    config = settings.config
    return (
        work.stored.images is not None
        or 't1w' in kept_images(config)
        or any(needs_template(config, work.scan, b) for b in bundles)
    )


def _add_native(
    workflow: Workflow,
    work: ScanWork,
    bundles: Sequence[Bundle],
    settings: RunSettings,
    *,
    save: bool,
    regions: bool = False,
) -> None:
    """Add models that take a scan as it is: for its thick slices, or for its regions."""
    from bids_brainage.workflows.native import OUTPUTS, init_native_wf

    native = init_native_wf(
        scan=work.scan,
        settings=settings,
        stored=work.stored.mask,
        save=save,
        regions=regions,
        name='regions_wf' if regions else 'native_wf',
    )
    workflow.add_nodes([native])
    for bundle in bundles:
        predict = init_prediction_wf(bundle=bundle, scan=work.scan, settings=settings)
        roles = (r for r in kind_of(bundle.input).roles if r not in OUTPUTS)
        fields = [(f'outputnode.{name}', f'inputnode.{name}') for name in (*OUTPUTS, *roles)]
        workflow.connect([(native, predict, fields)])


AFFINE = {'t1w': 't1w_affine', 'mask': 'mask_affine', 'transform': 'transform_affine'}
"""What the map of cerebral blood volume is made on: aligned images, not deformed."""

SEEN_ALIGNED = {'t1w': 't1w_affine', 'mask': 'mask_affine'}
"""What a model of aligned images takes instead of the deformed ones; its maps are deformed like
all others, so the transform stays."""


def _add_aligned_structures(workflow: Workflow, anat: Workflow) -> None:
    """Add the step that lays structure labels on the image that aligned models see."""
    align = pe.Node(AlignStructures(), name='align_structures', mem_gb=0.8)
    fields = ('structures', 'transform')
    workflow.connect([(anat, align, [(f'outputnode.{f}', f) for f in fields])])


def _log_crashes(workflow: Workflow, scan: Scan, settings: RunSettings) -> Workflow:
    """Send the crash files of all nodes to the logs of the participant."""
    crashes = settings.output_dir / log_dir(
        settings.config.execution.run_id, scan.subject, scan.session
    )
    for node in workflow.list_node_names():
        workflow.get_node(node).config = {'execution': {'crashdump_dir': str(crashes)}}
    return workflow


def _add_cbv(
    workflow: Workflow, anat: Workflow, scan: Scan, source: CbvSource, settings: RunSettings
) -> Workflow:
    """Add the steps that give the scan its map of cerebral blood volume."""
    from bids_brainage.workflows.cbv import INPUTS, init_cbv_wf

    blood = init_cbv_wf(source=source, scan=scan, settings=settings)
    fields = {**{f: AFFINE[f] for f in INPUTS}, 'facts': 'facts'}
    workflow.connect([
        (anat, blood, [(f'outputnode.{out}', f'inputnode.{f}') for f, out in fields.items()])
    ])  # fmt: skip
    return blood


def _connect_outputs(
    workflow: Workflow, anat: Workflow, scan: Scan, settings: RunSettings
) -> None:
    """Add the steps that save and draw what the anatomical workflow makes."""
    derivatives = init_anat_derivatives_wf(scan=scan, settings=settings)
    report = init_anat_report_wf(
        source_file=str(scan.path),
        output_dir=settings.output_dir,
        template=settings.output_template,
        brief=settings.brief,
    )
    workflow.connect([
        (anat, derivatives, [
            (f'outputnode.{field}', f'inputnode.{field}')
            for field in (*IMAGES, 'facts', 'quality', *SIDE_FILES.values())
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
    """Return the methods text of what a workflow runs, each paragraph once."""
    paragraphs = workflow.visit_desc().split('\n\n')
    return '\n\n'.join(dict.fromkeys(p.strip() for p in paragraphs if p.strip()))
