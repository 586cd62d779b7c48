"""Workflow of one T1w image: from the scanner's file to normalised tissue maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.anatomical import (
    AssessQuality,
    RegisterToTemplate,
    SegmentBrain,
    WarpToTemplate,
)
from bids_brainage.interfaces.prediction import DrawScan
from bids_brainage.interfaces.stored import RestoreImages, RestoreQuality
from bids_brainage.names import side_file
from bids_brainage.preprocessing.template import Template
from bids_brainage.workflows.images import IMAGES, image_path
from bids_brainage.workflows.settings import RunSettings
from bids_brainage.workflows.start import (
    REGIONS,
    add_bias,
    add_brain,
    add_regions,
    check_node,
    regions_methods,
)

METHODS = """\
Each T1w image was brought into RAS+ orientation. {start}, and it was registered to the {space}
template with greedy: an affine and a deformable step maximising local normalised cross-correlation
at 2 mm in double precision, each scored by mask overlap and intensity correlation. Probabilities
of 15 structures were estimated by expectation maximisation of a Gaussian mixture with
partial-volume classes and the warped structure atlas as prior. The bias-corrected brain was
resampled to 1 mm twice: deformed, and by the affine alone. Grey-matter maps were resampled to
1 mm and modulated by the Jacobian determinant.
"""
OWN_START = """\
Its brain was extracted with deepbet unless the image was already skull-stripped, its bias field
was removed with N4 inside the brain"""
PREPARED_START = """\
Its brain mask, and the image without bias field, were taken from fMRIPrep derivatives"""


def init_anat_wf(*, scan: Scan, settings: RunSettings, name: str = 'anat_wf') -> Workflow:
    """Build the workflow of one T1w image.

    Parameters
    ----------
    scan : Scan
    settings : RunSettings
    name : str

    Returns
    -------
    Workflow

    Outputs
    -------
    t1w_uncorrected, t1w_native
        Image in RAS+, before and after bias correction.
    mask_native, tissues_native
        Brain mask and tissue labels on that grid.
    t1w, mask, tissues, structures, gm, gm_modulated
        On the 1 mm grid of the template, deformed.
    t1w_affine, mask_affine, transform_affine
        Aligned with the template but not deformed, and that transform.
    transform
        `SpatialTransform`, template → native (``.npz``).
    to_template, to_native
        The same as ITK composites, one for each direction.
    regions, region_volumes, region_facts
        What the segmentation network found: labels, volumes (JSON), side file.
    volumes, structure_facts
        Volumes of the structures (JSON), and the side file of their labels.
    facts, quality
        What header and intensities say; measures and flags (JSON).
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = _methods(settings, scan)
    omp_nthreads = settings.config.nipype.omp_nthreads
    sloppy = settings.config.workflow.sloppy
    fixed, output_template = settings.registration_template, settings.output_template
    outputnode = pe.Node(niu.IdentityInterface(list(OUTPUTS)), name='outputnode')
    check = check_node(scan, settings)
    brain = add_brain(workflow, check, scan, settings.config.nipype)
    bias = add_bias(workflow, check, scan, brain)
    register = pe.Node(
        RegisterToTemplate(
            template=str(fixed.t1w),
            template_mask=str(fixed.mask),
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
    warped, measures = {f: warp for f in (*WARPED, *ALIGNED)}, brain
    if scan.grey_matter is not None:
        from bids_brainage.workflows.cat12 import add_cat12

        measures = add_cat12(workflow, brain, scan.grey_matter, output_template)
        warped['gm_modulated'] = measures
    workflow.connect([
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
        (measures, quality, [('measures', 'mask_measures')]),
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
        *((node, outputnode, [(f, f)]) for f, node in warped.items()),
        (quality, outputnode, [('quality', 'quality')]),
    ])  # fmt: skip
    add_regions(workflow, check, brain, settings.config.nipype)
    return workflow


def _methods(settings: RunSettings, scan: Scan) -> str:
    start = PREPARED_START if scan.prepared else OWN_START
    text = METHODS.format(space=settings.output_template.space, start=start)
    if scan.grey_matter is not None:
        from bids_brainage.workflows.cat12 import METHODS as CAT12

        text += CAT12
    return text + regions_methods()


WARPED = (
    't1w', 't1w_affine', 'mask', 'tissues', 'structures', 'gm', 'gm_modulated', 'to_template',
    'to_native',
)  # fmt: skip
ALIGNED = ('mask_affine', 'transform_affine')
OUTPUTS = (
    'facts', 't1w_uncorrected', 'mask_native', 't1w_native', 'tissues_native', 'transform',
    'volumes', 'quality', 'structure_facts', *ALIGNED, *WARPED, *REGIONS,
)  # fmt: skip


def init_stored_anat_wf(
    *,
    scan: Scan,
    settings: RunSettings,
    measures: Mapping[str, Any],
    bias_corrected: bool = False,
    name: str = 'anat_wf',
) -> Workflow:
    """Build the workflow of one T1w image whose images stand in the output dataset.

    It takes the place of `init_anat_wf` and gives the same, but preprocesses nothing.

    Parameters
    ----------
    scan : Scan
    settings : RunSettings
    measures : mapping
        Quality measures of the images.
    bias_corrected : bool
        Give ``t1w_native``, too, which is not kept: its bias is corrected again.
    name : str

    Returns
    -------
    Workflow

    Outputs
    -------
    Those of `init_anat_wf`, but ``tissues_native``, ``structure_facts``, ``region_facts`` and,
    unless asked for, ``t1w_native``.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = _methods(settings, scan)
    outputnode = pe.Node(niu.IdentityInterface(list(OUTPUTS)), name='outputnode')
    paths = {image: image_path(settings.output_dir, scan, image) for image in IMAGES}
    for image, path in paths.items():
        setattr(outputnode.inputs, image, str(path))
    check = check_node(scan, settings)
    restore = pe.Node(
        RestoreImages(
            **{image: str(paths[image]) for image in ('to_template', 'to_native', 'mask_native')},
            structures=str(side_file(paths['structures'])),
            regions=str(side_file(paths['regions'])),
            template=str(settings.output_template.t1w),
        ),
        name='restore',
        mem_gb=0.8,
    )
    quality = pe.Node(
        RestoreQuality(measures=dict(measures), sloppy=settings.config.workflow.sloppy),
        name='restore_quality',
        mem_gb=0.2,
    )
    workflow.connect([
        (check, outputnode, [('facts', 'facts'), ('t1w', 't1w_uncorrected')]),
        (restore, outputnode, [(f, f) for f in RESTORED]),
        (quality, outputnode, [('quality', 'quality')]),
    ])  # fmt: skip
    if bias_corrected:
        bias = add_bias(workflow, check, scan, str(paths['mask_native']))
        workflow.connect([(bias, outputnode, [('t1w', 't1w_native')])])
    return workflow


RESTORED = ('transform', 'transform_affine', 'mask_affine', 'volumes', 'region_volumes')


def init_anat_report_wf(
    *,
    source_file: str,
    output_dir: Path,
    template: Template,
    brief: bool = False,
    name: str = 'anat_report_wf',
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
    brief : bool
        Draw the most telling slices only.
    name : str

    Returns
    -------
    Workflow

    Inputs
    ------
    t1w, mask, tissues, regions
        Images in native space.
    warped
        T1w image in template space.
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
            brief=brief,
        ),
        name='draw',
        mem_gb=0.8,
    )
    workflow.connect([(inputnode, draw, [(f, f) for f in fields])])
    return workflow
