"""Workflow that writes what the preprocessing of a T1w image leaves in the output dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.dataset.scan import Scan
from bids_brainage.interfaces.derivatives import DerivativesDataSink
from bids_brainage.interfaces.regions import SaveVolumes
from bids_brainage.interfaces.trace import TraceSource
from bids_brainage.workflows.images import IMAGES, kept_images, volumes_path
from bids_brainage.workflows.made_from import of_images, of_mask
from bids_brainage.workflows.naming import scan_columns
from bids_brainage.workflows.settings import RunSettings


def init_anat_derivatives_wf(
    *, scan: Scan, settings: RunSettings, name: str = 'anat_derivatives_wf'
) -> Workflow:
    """Build the workflow that writes the derivatives of one T1w image under their names.

    Parameters
    ----------
    scan : Scan
    settings : RunSettings
    name : str

    Returns
    -------
    Workflow

    Inputs
    ------
    IMAGES
        Every image by its name in `bids_brainage.workflows.images.IMAGES`.
    facts, quality
        JSON files of the image.
    structure_facts, region_facts
        Side files of the label images.

    Outputs
    -------
    Files in the output dataset, those that the level of output keeps.  The deformed image is
    written last: its side file says what all of them were made from.  Where it is not kept, the
    table of volumes says so.
    """
    workflow = Workflow(name=name)
    kept = kept_images(settings.config)
    inputnode = pe.Node(
        niu.IdentityInterface([*IMAGES, 'facts', 'quality', *SIDE_FILES.values()]),
        name='inputnode',
    )
    metadata: dict[str, dict[str, Any]] = {
        't1w': {'SkullStripped': True},
        't1w_affine': {'SkullStripped': True},
        'mask': {'Type': 'Brain'},
        'tissues': {'LabelMap': TISSUE_LABELS},
        'gm': {'Description': GM_TEXT},
        'gm_modulated': {'Description': MODULATED_TEXT},
        'mask_native': {'Type': 'Brain'},
        'regions': {
            'SpatialReference': scan.uri,
            'Resolution': '2 x 2 x 2 mm along the axes of the T1w image',
        },
    }
    if scan.grey_matter is not None:
        from bids_brainage.workflows.cat12 import map_facts

        metadata['gm_modulated'] = map_facts(scan.grey_matter)
    sinks = {}
    for image, entities in ((i, e) for i, e in IMAGES.items() if i in kept):
        sinks[image] = pe.Node(
            DerivativesDataSink(
                base_directory=str(settings.output_dir),
                source_file=[str(scan.path)],
                **{'Sources': list(scan.sources), **entities, **metadata.get(image, {})},
            ),
            name=f'save_{image}',
            mem_gb=0.3,
        )
        workflow.connect([(inputnode, sinks[image], [(image, 'in_file')])])
        if image in SIDE_FILES:
            workflow.connect([(inputnode, sinks[image], [(SIDE_FILES[image], 'meta_dict')])])
    if 't1w' in kept:
        _trace_images(workflow, sinks, settings)
        return workflow
    inputs = [('facts', 'facts'), ('region_facts', 'region_facts')]
    workflow.connect([(inputnode, volumes_node(scan, settings), inputs)])
    return workflow


def volumes_node(scan: Scan, settings: RunSettings) -> pe.Node:
    """Return the step that writes the table of volumes of a scan whose images do not stay."""
    return pe.Node(
        SaveVolumes(
            table=str(volumes_path(settings.output_dir, scan)),
            scan=scan_columns(scan),
            sources=list(scan.sources),
            made_from=of_images(settings.config),
        ),
        name='save_volumes',
        mem_gb=0.2,
    )


def _trace_images(workflow: Workflow, sinks: Mapping[str, pe.Node], settings: RunSettings) -> None:
    """Say in side files what mask and images were made from, the latter when all are there."""
    inputnode = workflow.get_node('inputnode')
    read = [('facts', 'facts'), ('quality', 'quality')]
    config = settings.config
    trace_mask = pe.Node(TraceSource(made_from=of_mask(config)), name='trace_mask', mem_gb=0.2)
    trace = pe.Node(TraceSource(made_from=of_images(config)), name='trace', mem_gb=0.2)
    others = [image for image in sinks if image != 't1w']
    saved = pe.Node(niu.Merge(len(others)), name='saved')
    workflow.connect([
        (inputnode, trace_mask, read),
        (inputnode, trace, read),
        (trace_mask, sinks['mask_native'], [('meta', 'meta_dict')]),
        *((sinks[o], saved, [('out_file', f'in{i}')]) for i, o in enumerate(others, start=1)),
        (saved, trace, [('out', 'after')]),
        (trace, sinks['t1w'], [('meta', 'meta_dict')]),
    ])  # fmt: skip


SIDE_FILES = {'structures': 'structure_facts', 'regions': 'region_facts'}
"""Label image → what its side file says."""

TISSUE_LABELS = {'1': 'grey matter', '2': 'white matter', '3': 'cerebrospinal fluid'}
GM_TEXT = 'Grey-matter probability (0 to 1), smoothed by 0.8 mm before resampling.'
MODULATED_TEXT = (
    'Grey-matter probability times the Jacobian determinant of template to native: its sum times '
    'the voxel volume is the native grey-matter volume.'
)
