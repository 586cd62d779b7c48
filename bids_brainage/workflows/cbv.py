"""Workflow of the map of cerebral blood volume (CBV) of one T1w image (System B)."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.aicbv import DESC, OWN_SPACE, CbvSource
from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.cbv import GenerateCbv, WarpCbv
from bids_brainage.interfaces.derivatives import DerivativesDataSink
from bids_brainage.interfaces.trace import TraceSource
from bids_brainage.workflows.images import CBV, kept_images
from bids_brainage.workflows.made_from import of_cbv
from bids_brainage.workflows.settings import RunSettings

INPUTS = ('t1w', 'mask', 'transform')
GIVEN = """\
Maps of cerebral blood volume were taken from derivatives and resampled once onto the {space} grid,
aligned as the T1w images.

"""
GENERATED = """\
Maps of cerebral blood volume were generated from the aligned T1w images with the weights
{weights}.

"""


def init_cbv_wf(
    *,
    source: CbvSource,
    scan: Scan,
    settings: RunSettings,
    name: str = 'cbv_wf',
) -> Workflow:
    """Build the workflow that makes or resamples the map, and keeps it if the level does.

    Parameters
    ----------
    source : CbvSource
        The map, or the weights of a generator.
    scan : Scan
        The T1w image.
    settings : RunSettings
    name : str

    Returns
    -------
    Workflow

    Inputs
    ------
    t1w, mask, transform
        T1w image and brain aligned with the template by an affine, and that transform from
        template to native (`INPUTS`).
    facts
        What the header of the T1w image says (JSON).

    Outputs
    -------
    cbv
        Map on the same grid.
    """
    workflow = Workflow(name=name)
    space, nipype = settings.output_template.space, settings.config.nipype
    inputnode = pe.Node(niu.IdentityInterface([*INPUTS, 'facts']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(['cbv']), name='outputnode')
    wanted = [('mask', 'mask')]
    if source.space is None:
        workflow.__desc__ = GENERATED.format(weights=source.uri)
        make = pe.Node(
            GenerateCbv(
                weights=str(source.path),
                weights_sha256=source.sha256,
                device=nipype.device,
                threads=nipype.omp_nthreads,
                use_gpu=nipype.uses_gpu,
            ),
            name='generate',
            mem_gb=6.0,
        )
        wanted += [('t1w', 't1w')]
        origin = {'Sources': list(scan.sources), 'GeneratorWeights': source.uri}
    else:
        workflow.__desc__ = GIVEN.format(space=space)
        origin = {'Sources': [source.uri]}
        make = pe.Node(WarpCbv(cbv=str(source.path)), name='warp', mem_gb=0.8)
        if source.space == OWN_SPACE:
            wanted += [('transform', 'transform')]
    workflow.connect([(inputnode, make, wanted), (make, outputnode, [('cbv', 'cbv')])])
    if CBV not in kept_images(settings.config):
        return workflow
    sink = pe.Node(
        DerivativesDataSink(
            base_directory=str(settings.output_dir),
            source_file=[str(scan.path)],
            space=space,
            res='1',
            desc=DESC,
            suffix='T1w',
            SkullStripped=True,
            SourceSHA256=source.sha256,
            **origin,
        ),
        name='save_cbv',
        mem_gb=0.3,
    )
    trace = pe.Node(
        TraceSource(made_from=of_cbv(settings.config, source)), name='trace', mem_gb=0.2
    )
    workflow.connect([
        (inputnode, trace, [('facts', 'facts')]),
        (trace, sink, [('meta', 'meta_dict')]),
        (make, sink, [('cbv', 'in_file')]),
    ])  # fmt: skip
    return workflow
