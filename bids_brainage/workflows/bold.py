"""Workflow of one BOLD series: from the scanner's file, or fMRIPrep's, to connectivity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.interfaces.bold import (
    BuildConfounds,
    CoregisterBold,
    EstimateMotion,
    ResampleBold,
    UnpackDerivative,
)
from bids_brainage.interfaces.bold_connectivity import DrawBold, MeasureConnectivity, SaveAtlas
from bids_brainage.interfaces.derivatives import DerivativesDataSink
from bids_brainage.preprocessing.bold.atlases import resolve_atlas
from bids_brainage.preprocessing.bold.confounds import Denoising
from bids_brainage.preprocessing.bold.names import DEFAULT_ATLAS
from bids_brainage.preprocessing.template import Template

METHODS = """\
Each BOLD series was realigned rigidly to the mean of its quiet volumes (inverse-compositional
Gauss-Newton), its slices were brought to the middle of the acquisition where slice times were
known, its reference was registered rigidly to the T1w image with greedy (normalised mutual
information), and every volume was resampled once to {space} at 2 mm with {order}
interpolation, motion, coregistration and the warp of the T1w image composed. No correction for
susceptibility distortion was made. Framewise displacement and DVARS were computed after Power et
al. (2012).

"""

METHODS_FMRIPREP = """\
Preprocessed BOLD series in {space} and their confounds were taken from fMRIPrep derivatives.

"""

METHODS_CONNECTIVITY = """\
Mean time series of the regions of the atlas {atlas} were cleaned with nilearn ({model}; a
smaller model where the series was too short, as the side files say) and correlated (Pearson).

"""

CONNECTIVITY = ('timeseries', 'correlation', 'fisher_z', 'quality', 'meta')
SHARED = ('bold', 'mask', 'confounds', 'facts')
T1W = ('t1w', 't1w_mask', 'transform')


def init_bold_wf(
    *,
    target_template: Template,
    atlas: str = DEFAULT_ATLAS,
    atlas_table: Path | None = None,
    denoising: Denoising | None = None,
    sloppy: bool = False,
    name: str = 'bold_wf',
) -> Workflow:
    """Build the workflow of one raw BOLD series.

    Parameters
    ----------
    target_template : Template
        Template at 2 mm, onto whose brain mask the series is resampled.
    atlas : str
        As understood by `resolve_atlas`.
    atlas_table : Path, optional
        Region table of a label image.
    denoising : Denoising, optional
        Confound model; 24 motion parameters, tissue signals and band-pass when not given.
    sloppy : bool
        Linear instead of cubic interpolation; for tests.
    name : str

    Returns
    -------
    Workflow

    Inputs
    ------
    bold, metadata
        Series as in the dataset, and its BIDS metadata.
    t1w, t1w_mask
        Bias-corrected T1w image and brain mask, native.
    transform
        `SpatialTransform`, template → T1w (``.npz``).

    Outputs
    -------
    bold, mask, confounds, facts
        Series and brain mask in template space at 2 mm, table, what the header says (JSON).
    dictionary, slice_timing
        Meaning of the columns of the confounds; whether slices were brought to one time.
    aligned, scores
        Reference on the T1w image, and how well it fits (JSON).
    CONNECTIVITY
        Those of `init_connectivity_wf`.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = METHODS.format(
        space=target_template.space, order='linear' if sloppy else 'cubic spline'
    )
    inputnode = pe.Node(niu.IdentityInterface(['bold', 'metadata', *T1W]), name='inputnode')
    made = ('dictionary', 'slice_timing', 'aligned', 'scores')
    outputnode = pe.Node(niu.IdentityInterface([*SHARED, *made, *CONNECTIVITY]), name='outputnode')
    motion = pe.Node(EstimateMotion(), name='estimate_motion', mem_gb=1.5)
    register = pe.Node(CoregisterBold(), name='coregister', mem_gb=0.8)
    resample = pe.Node(
        ResampleBold(target_mask=str(target_template.mask), order=1 if sloppy else 3),
        name='resample',
        mem_gb=2.0,
    )
    confounds = pe.Node(BuildConfounds(), name='build_confounds', mem_gb=1.5)
    connectivity = init_connectivity_wf(
        space=target_template.space,
        atlas=atlas,
        atlas_table=atlas_table,
        denoising=denoising,
    )
    workflow.connect([
        (inputnode, motion, [('bold', 'bold'), ('metadata', 'metadata')]),
        (inputnode, register, [('t1w', 't1w'), ('t1w_mask', 't1w_mask')]),
        (motion, register, [('reference', 'reference'), ('mask', 'mask')]),
        (inputnode, resample, [(f, f) for f in ('bold', 'metadata', 'transform')]),
        (motion, resample, [('motion', 'motion')]),
        (register, resample, [('matrix', 'matrix')]),
        (resample, confounds, [('bold', 'bold'), ('mask', 'mask')]),
        (motion, confounds, [('motion', 'motion')]),
        (resample, connectivity, [('bold', 'inputnode.bold'), ('mask', 'inputnode.mask')]),
        (confounds, connectivity, [('confounds', 'inputnode.confounds')]),
        (motion, connectivity, [('facts', 'inputnode.facts')]),
        (register, connectivity, [('scores', 'inputnode.scores')]),
        (motion, outputnode, [('facts', 'facts')]),
        (register, outputnode, [('aligned', 'aligned'), ('scores', 'scores')]),
        (resample, outputnode, [(f, f) for f in ('bold', 'mask', 'slice_timing')]),
        (confounds, outputnode, [('confounds', 'confounds'), ('dictionary', 'dictionary')]),
        (connectivity, outputnode, [(f'outputnode.{f}', f) for f in CONNECTIVITY]),
    ])  # fmt: skip
    return workflow


def init_fmriprep_bold_wf(
    *,
    space: str,
    atlas: str = DEFAULT_ATLAS,
    atlas_table: Path | None = None,
    denoising: Denoising | None = None,
    name: str = 'fmriprep_bold_wf',
) -> Workflow:
    """Build the workflow of one series that fMRIPrep has preprocessed.

    Parameters
    ----------
    space : str
        TemplateFlow label of the space of the series.
    atlas, atlas_table, denoising, name
        As in `init_bold_wf`.

    Returns
    -------
    Workflow

    Inputs
    ------
    bold, mask, confounds
        Files of fMRIPrep; the mask may stay unset.
    metadata
        Side file of the series.

    Outputs
    -------
    bold, mask, confounds
        Series and brain mask in template space at 2 mm, and table.
    facts
        What the header says (JSON).
    CONNECTIVITY
        Those of `init_connectivity_wf`.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = METHODS_FMRIPREP.format(space=space)
    inputnode = pe.Node(
        niu.IdentityInterface(['bold', 'mask', 'confounds', 'metadata']), name='inputnode'
    )
    outputnode = pe.Node(niu.IdentityInterface([*SHARED, *CONNECTIVITY]), name='outputnode')
    unpack = pe.Node(UnpackDerivative(), name='unpack', mem_gb=0.5)
    connectivity = init_connectivity_wf(
        space=space, atlas=atlas, atlas_table=atlas_table, denoising=denoising
    )
    workflow.connect([
        (inputnode, unpack, [(f, f) for f in ('bold', 'mask', 'metadata')]),
        (inputnode, connectivity, [('confounds', 'inputnode.confounds')]),
        (unpack, connectivity, [(f, f'inputnode.{f}') for f in ('bold', 'mask', 'facts')]),
        (unpack, outputnode, [(f, f) for f in ('bold', 'mask', 'facts')]),
        (inputnode, outputnode, [('confounds', 'confounds')]),
        (connectivity, outputnode, [(f'outputnode.{f}', f) for f in CONNECTIVITY]),
    ])  # fmt: skip
    return workflow


def init_connectivity_wf(
    *,
    space: str,
    atlas: str = DEFAULT_ATLAS,
    atlas_table: Path | None = None,
    denoising: Denoising | None = None,
    name: str = 'connectivity_wf',
) -> Workflow:
    """Build the workflow from a series in template space to its connectivity.

    Parameters
    ----------
    space, atlas, atlas_table, denoising, name
        As in `init_fmriprep_bold_wf`.

    Returns
    -------
    Workflow

    Inputs
    ------
    bold, mask, confounds, facts
        A preprocessed series (`SHARED`).
    scores
        Of the coregistration; may stay unset.

    Outputs
    -------
    timeseries, correlation, fisher_z
        Tables of the regions of the atlas.
    quality, meta
        JSON with ``flags`` and ``measures``; for the side files.
    """
    workflow = Workflow(name=name)
    model = denoising or Denoising()
    title = resolve_atlas(atlas, table=atlas_table, space=space).title
    workflow.__desc__ = METHODS_CONNECTIVITY.format(atlas=title, model=model.text())
    inputnode = pe.Node(niu.IdentityInterface([*SHARED, 'scores']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(list(CONNECTIVITY)), name='outputnode')
    measure = pe.Node(
        MeasureConnectivity(
            motion=model.motion,
            tissue=model.tissue,
            temporal=model.temporal,
            fd_threshold=model.fd_threshold,
            **_atlas_inputs(atlas, atlas_table, space),
        ),
        name='measure_connectivity',
        mem_gb=1.5,
    )
    workflow.connect([
        (inputnode, measure, [(f, f) for f in (*SHARED, 'scores')]),
        (measure, outputnode, [(f, f) for f in CONNECTIVITY]),
    ])  # fmt: skip
    return workflow


def init_bold_derivatives_wf(
    *,
    source_file: str,
    source_uri: str,
    output_dir: Path,
    space: str,
    atlas: str = DEFAULT_ATLAS,
    atlas_table: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    preprocessed_here: bool = True,
    images: bool = True,
    name: str = 'bold_derivatives_wf',
) -> Workflow:
    """Build the workflow that writes the derivatives of one series under their names.

    Parameters
    ----------
    source_file : str
        Path of the raw series in the input dataset.
    source_uri : str
        BIDS URI of the raw or preprocessed series, for the side files.
    output_dir : Path
        Output dataset.
    space, atlas, atlas_table
        As in `init_fmriprep_bold_wf`.
    metadata : mapping, optional
        Metadata of the raw series; ``RepetitionTime`` and ``TaskName`` are passed on.
    preprocessed_here, images : bool
        Save confounds, too (not if they are fMRIPrep's), and with them series and mask.

    Returns
    -------
    Workflow

    Inputs
    ------
    bold, mask, confounds, dictionary, slice_timing
        If the series was preprocessed here.
    timeseries, correlation, fisher_z, quality, meta
        Of `init_connectivity_wf`.
    """
    workflow = Workflow(name=name)
    own = ('bold', 'mask', 'confounds', 'dictionary', 'slice_timing')
    inputnode = pe.Node(niu.IdentityInterface([*own, *CONNECTIVITY]), name='inputnode')
    label = resolve_atlas(atlas, table=atlas_table, space=space).label
    regional = {'space': space, 'atlas': label}
    passed = {k: v for k, v in (metadata or {}).items() if k in ('RepetitionTime', 'TaskName')}
    grid = {'space': space, 'res': '2'}
    sinks: dict[str, tuple[dict[str, Any], str | None]] = {
        'timeseries': ({**regional, 'stat': 'mean', 'suffix': 'timeseries'}, 'meta'),
        'correlation': ({**regional, 'stat': 'pearsoncorrelation', 'suffix': 'relmat'}, 'meta'),
        'fisher_z': ({**regional, 'stat': 'fisherz', 'suffix': 'relmat'}, 'meta'),
    }
    if preprocessed_here:
        sinks['confounds'] = ({'desc': 'confounds', 'suffix': 'timeseries'}, 'dictionary')
    if preprocessed_here and images:
        preproc = {**grid, 'desc': 'preproc', 'suffix': 'bold', 'SkullStripped': True, **passed}
        sinks['bold'] = (preproc, 'slice_timing')
        sinks['mask'] = ({**grid, 'desc': 'brain', 'suffix': 'mask', 'Type': 'Brain'}, None)
    for field, (options, described) in sinks.items():
        sink = pe.Node(
            DerivativesDataSink(
                base_directory=str(output_dir),
                source_file=[source_file],
                Sources=[source_uri],
                **options,
            ),
            name=f'save_{field}',
            mem_gb=1.0,
        )
        links = [(field, 'in_file')] + ([(described, 'meta_dict')] if described else [])
        workflow.connect([(inputnode, sink, links)])
    save_atlas = pe.Node(
        SaveAtlas(base_directory=str(output_dir), **_atlas_inputs(atlas, atlas_table, space)),
        name='save_atlas',
        mem_gb=0.3,
    )
    workflow.add_nodes([save_atlas])
    return workflow


def init_bold_report_wf(
    *,
    source_file: str,
    output_dir: Path,
    space: str,
    atlas: str = DEFAULT_ATLAS,
    atlas_table: Path | None = None,
    fd_threshold: float = Denoising.fd_threshold,
    name: str = 'bold_report_wf',
) -> Workflow:
    """Build the workflow that draws alignment, carpet and connectivity of one series.

    Parameters
    ----------
    source_file : str
        Path of the raw series in the input dataset.
    output_dir : Path
        Output dataset.
    space, atlas, atlas_table
        As in `init_fmriprep_bold_wf`.
    fd_threshold : float
        Millimetres, as in the confound model.
    name : str

    Returns
    -------
    Workflow

    Inputs
    ------
    bold, mask, confounds, facts, correlation
        Of the series.
    t1w, t1w_mask, aligned
        May stay unset; then no alignment is drawn.
    """
    workflow = Workflow(name=name)
    fields = [*SHARED, 'correlation', 't1w', 't1w_mask', 'aligned']
    inputnode = pe.Node(niu.IdentityInterface(fields), name='inputnode')
    draw = pe.Node(
        DrawBold(
            source_file=source_file,
            base_directory=str(output_dir),
            fd_threshold=fd_threshold,
            **_atlas_inputs(atlas, atlas_table, space),
        ),
        name='draw',
        mem_gb=1.5,
    )
    workflow.connect([(inputnode, draw, [(f, f) for f in fields])])
    return workflow


def _atlas_inputs(atlas: str, table: Path | None, space: str) -> dict[str, str]:
    return {
        'atlas': atlas,
        'space': space,
        **({'atlas_table': str(table)} if table else {}),
    }
