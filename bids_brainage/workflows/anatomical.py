"""Workflow of one T1w image: from the scanner's file to normalised tissue maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.interfaces.anatomical import (
    AssessQuality,
    CheckT1w,
    CorrectBias,
    ExtractBrain,
    RegisterToTemplate,
    SegmentBrain,
    WarpToTemplate,
)
from bids_brainage.interfaces.derivatives import DerivativesDataSink
from bids_brainage.interfaces.prediction import DrawScan
from bids_brainage.interfaces.regions import MeasureRegions, TabulateVolumes
from bids_brainage.preprocessing.template import Template
from bids_brainage.segmentation.weights import card

METHODS = """\
Each T1w image was brought into RAS+ orientation. Its brain was extracted with deepbet
unless the image was already skull-stripped, its bias field was removed with N4 inside the
brain, and it was registered to the {space} template with greedy: an affine and
a deformable step maximising local normalised cross-correlation at 2 mm in double precision, each
scored by mask overlap and intensity correlation. Probabilities of 15 structures were estimated by
expectation maximisation of a Gaussian mixture with partial-volume classes and the warped structure
atlas as prior. The bias-corrected brain was resampled to 1 mm twice: deformed, and by the affine
alone. Grey-matter maps were resampled to 1 mm and modulated by the Jacobian determinant.
"""
REGIONS_METHODS = """\
A convolutional network ({name}, version {version}) labelled {n} regions of the image at 2 mm, in
the person's own space and without bias correction; the volume of a region is the sum of its
probabilities.
"""


def init_anat_wf(
    *,
    registration_template: Template,
    output_template: Template,
    omp_nthreads: int = 1,
    sloppy: bool = False,
    regions: bool = True,
    name: str = 'anat_wf',
) -> Workflow:
    """Build the workflow of one T1w image.

    Parameters
    ----------
    registration_template, output_template : Template
        The template at 2 mm, on which the warp is found, and at 1 mm, onto which maps are
        resampled.
    omp_nthreads : int
        Threads of the steps that can use several.
    sloppy : bool
        Stop the registration early; for tests.
    regions : bool
        Measure the regions of the segmentation network; else the outputs `REGIONS` stay empty.
    name : str

    Returns
    -------
    Workflow
        Input ``t1w``.  Outputs: native ``t1w_uncorrected``, ``t1w_native`` (bias-corrected),
        ``mask_native``, ``tissues_native`` and `REGIONS`;
        template-space ``t1w``, ``mask``, ``tissues``, ``structures``, ``gm``,
        ``gm_modulated``; ``t1w_affine`` and ``mask_affine``, aligned with the template but not
        deformed, with their ``transform_affine``; ``transform``, ``to_template``,
        ``to_native``, ``volumes``, ``facts``, ``quality``.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = METHODS.format(space=output_template.space)
    inputnode = pe.Node(niu.IdentityInterface(['t1w']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(list(OUTPUTS)), name='outputnode')
    check = pe.Node(CheckT1w(), name='check', mem_gb=0.6)
    brain = pe.Node(
        ExtractBrain(threads=omp_nthreads), name='extract_brain', mem_gb=1.6, n_procs=omp_nthreads
    )
    bias = pe.Node(CorrectBias(), name='correct_bias', mem_gb=1.0)
    register = pe.Node(
        RegisterToTemplate(
            template=str(registration_template.t1w),
            template_mask=str(registration_template.mask),
            sloppy=sloppy,
            threads=omp_nthreads,
        ),
        name='register',
        mem_gb=1.2,
        n_procs=omp_nthreads,
    )
    segment = pe.Node(SegmentBrain(), name='segment', mem_gb=1.8)
    warp = pe.Node(WarpToTemplate(template=str(output_template.t1w)), name='warp', mem_gb=1.5)
    quality = pe.Node(AssessQuality(sloppy=sloppy), name='assess_quality', mem_gb=0.2)
    native = [('mask', 'mask')]
    workflow.connect([
        (inputnode, check, [('t1w', 't1w')]),
        (check, brain, [('t1w', 't1w'), ('facts', 'facts')]),
        (check, bias, [('t1w', 't1w')]),
        (brain, bias, native),
        (bias, register, [('t1w', 't1w')]),
        (brain, register, native),
        (bias, segment, [('t1w', 't1w')]),
        (brain, segment, native),
        (register, segment, [('transform', 'transform')]),
        (bias, warp, [('t1w', 't1w')]),
        (brain, warp, native),
        (register, warp, [('transform', 'transform')]),
        (segment, warp, [('gm', 'gm'), ('tissues', 'tissues'), ('structures', 'structures')]),
        (check, quality, [('facts', 'facts')]),
        (brain, quality, [('measures', 'mask_measures')]),
        (register, quality, [('scores', 'scores')]),
        (segment, quality, [('volumes', 'volumes')]),
        (check, outputnode, [('facts', 'facts'), ('t1w', 't1w_uncorrected')]),
        (brain, outputnode, [('mask', 'mask_native')]),
        (bias, outputnode, [('t1w', 't1w_native')]),
        (register, outputnode, [('transform', 'transform')]),
        (segment, outputnode, [
            ('tissues', 'tissues_native'),
            ('volumes', 'volumes'),
            ('structure_facts', 'structure_facts'),
        ]),
        (warp, outputnode, [(f, f) for f in (*WARPED, 'mask_affine', 'transform_affine')]),
        (quality, outputnode, [('quality', 'quality')]),
    ])  # fmt: skip
    if regions:
        _add_regions(workflow, omp_nthreads)
    return workflow


def _add_regions(workflow: Workflow, omp_nthreads: int) -> None:
    """Measure the regions of the brain, and say so in the methods."""
    network = card()
    workflow.__desc__ += REGIONS_METHODS.format(
        n=network['arch_options']['classes'] - 1,
        name=network['name'],
        version=network['version'],
    )
    measure = pe.Node(
        MeasureRegions(weights_sha256=network['weights_sha256'], threads=omp_nthreads),
        name='measure_regions',
        mem_gb=1.5,
        n_procs=omp_nthreads,
    )
    workflow.connect([
        (workflow.get_node('check'), measure, [('t1w', 't1w'), ('facts', 'facts')]),
        (workflow.get_node('extract_brain'), measure, [('mask', 'mask')]),
        (measure, workflow.get_node('outputnode'), [(f, f) for f in REGIONS]),
    ])  # fmt: skip


WARPED = (
    't1w', 't1w_affine', 'mask', 'tissues', 'structures', 'gm', 'gm_modulated', 'to_template',
    'to_native',
)  # fmt: skip
REGIONS = ('regions', 'region_volumes', 'region_facts')
OUTPUTS = (
    'facts', 't1w_uncorrected', 'mask_native', 't1w_native', 'tissues_native', 'transform',
    'volumes', 'quality', 'structure_facts', 'mask_affine', 'transform_affine', *WARPED,
    *REGIONS,
)  # fmt: skip


def init_anat_derivatives_wf(
    *,
    source_file: str,
    source_uri: str,
    output_dir: Path,
    space: str,
    age: float | None = None,
    sex: str | None = None,
    name: str = 'anat_derivatives_wf',
) -> Workflow:
    """Build the workflow that writes the derivatives of one T1w image under their names.

    Parameters
    ----------
    source_file : str
        Path of the T1w image in the input dataset.
    source_uri : str
        Its BIDS URI, for the side files.
    output_dir : Path
        Output dataset.
    space : str
        Template label.
    age, sex
        Of the person (years; None where not known exactly), for the table of volumes.
    name : str

    Returns
    -------
    Workflow
        Inputs: `WARPED`, ``mask_native``, ``regions``, and ``structure_facts`` and
        ``region_facts``, the side files of the label images.
    """
    workflow = Workflow(name=name)
    inputnode = pe.Node(
        niu.IdentityInterface([*WARPED, 'mask_native', 'regions', *SIDE_FILES.values()]),
        name='inputnode',
    )
    sources = {'Sources': [source_uri]}
    in_template = {'space': space, 'res': '1'}
    sinks: dict[str, dict[str, Any]] = {
        't1w': {**in_template, 'desc': 'preproc', 'suffix': 'T1w', 'SkullStripped': True},
        't1w_affine': {**in_template, 'desc': 'affine', 'suffix': 'T1w', 'SkullStripped': True},
        'mask': {**in_template, 'desc': 'brain', 'suffix': 'mask', 'Type': 'Brain'},
        'tissues': {**in_template, 'suffix': 'dseg', 'LabelMap': TISSUE_LABELS},
        'structures': {**in_template, 'desc': 'structures', 'suffix': 'dseg'},
        'gm': {**in_template, 'label': 'GM', 'suffix': 'probseg', 'Description': GM_TEXT},
        'gm_modulated': {
            **in_template,
            'label': 'GM',
            'desc': 'modulated',
            'suffix': 'probseg',
            'Description': MODULATED_TEXT,
        },
        'mask_native': {'desc': 'brain', 'suffix': 'mask', 'Type': 'Brain'},
        'regions': {
            'space': 'T1w',
            'res': '2',
            'desc': 'regions',
            'suffix': 'dseg',
            'SpatialReference': source_uri,
            'Resolution': '2 x 2 x 2 mm along the axes of the T1w image',
        },
        'to_template': {'from': 'T1w', 'to': space, 'mode': 'image', 'suffix': 'xfm'},
        'to_native': {'from': space, 'to': 'T1w', 'mode': 'image', 'suffix': 'xfm'},
    }
    for field, options in sinks.items():
        sink = pe.Node(
            DerivativesDataSink(
                base_directory=str(output_dir), source_file=[source_file], **sources, **options
            ),
            name=f'save_{field}',
            mem_gb=0.3,
        )
        workflow.connect([(inputnode, sink, [(field, 'in_file')])])
        if field in SIDE_FILES:
            workflow.connect([(inputnode, sink, [(SIDE_FILES[field], 'meta_dict')])])
    table = pe.Node(TabulateVolumes(), name='tabulate_volumes', mem_gb=0.2)
    if age is not None:
        table.inputs.age = age
    if sex is not None:
        table.inputs.sex = sex
    save = pe.Node(
        DerivativesDataSink(
            base_directory=str(output_dir), source_file=[source_file], suffix='volumes', **sources
        ),
        name='save_volumes',
        mem_gb=0.2,
    )
    workflow.connect([
        (inputnode, table, [('region_facts', 'region_facts')]),
        (table, save, [('table', 'in_file'), ('facts', 'meta_dict')]),
    ])  # fmt: skip
    return workflow


SIDE_FILES = {'structures': 'structure_facts', 'regions': 'region_facts'}
"""Label image → what its side file says."""

TISSUE_LABELS = {'1': 'grey matter', '2': 'white matter', '3': 'cerebrospinal fluid'}
GM_TEXT = 'Grey-matter probability (0 to 1), smoothed by 0.8 mm before resampling.'
MODULATED_TEXT = (
    'Grey-matter probability times the Jacobian determinant of template to native: its sum times '
    'the voxel volume is the native grey-matter volume.'
)


def init_anat_report_wf(
    *, source_file: str, output_dir: Path, template: Template, name: str = 'anat_report_wf'
) -> Workflow:
    """Build the workflow that draws mask, registration, tissues and regions of one T1w image.

    Parameters
    ----------
    source_file : str
        Path of the T1w image in the input dataset.
    output_dir : Path
        Output dataset.
    template : Template
        At the resolution of the derivatives.
    name : str

    Returns
    -------
    Workflow
        Inputs ``t1w``, ``mask``, ``tissues``, ``regions`` (native) and ``warped``.
    """
    workflow = Workflow(name=name)
    fields = ('t1w', 'mask', 'tissues', 'regions', 'warped')
    inputnode = pe.Node(niu.IdentityInterface(list(fields)), name='inputnode')
    draw = pe.Node(
        DrawScan(
            template=str(template.t1w),
            template_mask=str(template.mask),
            template_gm=str(template.gm),
            source_file=source_file,
            base_directory=str(output_dir),
        ),
        name='draw',
        mem_gb=0.8,
    )
    workflow.connect([(inputnode, draw, [(f, f) for f in fields])])
    return workflow
