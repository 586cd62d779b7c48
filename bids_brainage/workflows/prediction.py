"""Workflow of one model on one scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.dataset.scan import Scan
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.interfaces.prediction import (
    DrawExplanations,
    PredictAge,
    SavePrediction,
)
from bids_brainage.workflows.images import MAPS, kept_images
from bids_brainage.workflows.made_from import is_sliced, of_prediction
from bids_brainage.workflows.naming import row_columns, takes_cbv
from bids_brainage.workflows.settings import RunSettings

if TYPE_CHECKING:
    from bids_brainage.dataset.aicbv import CbvSource
    from bids_brainage.outputs.connectivity import Connectivity

COMMON = ('facts', 'quality', 'transform', 't1w_uncorrected', 'mask_native', 'mask')


def init_prediction_wf(
    *,
    bundle: Bundle,
    scan: Scan,
    settings: RunSettings,
    connectivity: Connectivity | None = None,
    cbv: CbvSource | None = None,
    name: str | None = None,
) -> Workflow:
    """Build the workflow of one model on one scan.

    Parameters
    ----------
    bundle : Bundle
    scan : Scan
        The image in the input dataset.
    settings : RunSettings
    connectivity : Connectivity or None
        For models that take it: the table, or why there is none.
    cbv : CbvSource or None
        For models that take a map of cerebral blood volume: where it comes from.
    name : str or None

    Returns
    -------
    Workflow

    Inputs
    ------
    facts, quality, transform, t1w_uncorrected, mask_native, mask
        Of the anatomical workflow (`COMMON`).
    others
        Roles that the model needs.
    """
    workflow = Workflow(name=name or f'predict_{bundle.label}_wf')
    reference = bundle.metadata['reference']
    workflow.__desc__ = (
        f'Brain age was predicted with {bundle.name} (version {bundle.version}; '
        f'{reference["text"]}).\n\n'
    )
    roles = kind_of(bundle.input).roles
    fields = tuple(dict.fromkeys((*COMMON, *roles)))
    inputnode = pe.Node(niu.IdentityInterface(list(fields)), name='inputnode')
    predict, save = _predict_node(bundle, settings), _save_node(bundle, settings)
    save.inputs.scan = row_columns(settings.config, scan, bundle)
    save.inputs.source_file = str(scan.path)
    save.inputs.sources = list(scan.sources)
    save.inputs.simulated = scan.metadata.get('Simulated') is True
    save.inputs.made_from = of_prediction(settings.config, scan, bundle, cbv, connectivity)
    if scan.age.years is not None and bundle.metadata['training'].get('reference_curves'):
        predict.inputs.reference_age = scan.age.years
    if is_sliced(settings.config, scan, bundle):
        predict.inputs.synthetic_slices = True
    if cbv is not None and takes_cbv(bundle):
        save.inputs.cbv = {'CBVSource': cbv.uri, 'CBVSHA256': cbv.sha256}
    if connectivity is not None:
        _add_connectivity(predict, save, connectivity, settings)
    draw = pe.Node(
        DrawExplanations(
            source_file=str(scan.path),
            base_directory=str(settings.output_dir),
            brief=settings.brief,
        ),
        name='draw',
        mem_gb=0.8,
    )
    asked = dict.fromkeys((*roles, 'mask', 'mask_native'))
    workflow.connect(
        [
            (inputnode, predict, [(role, role) for role in asked]),
            (inputnode, save, [(f, f) for f in ('facts', 'quality', 'transform', 'mask_native')]),
            (predict, save, [('prediction', 'prediction')]),
            (inputnode, draw, [('t1w_uncorrected', 't1w'), ('mask_native', 'mask')]),
            (save, draw, [('native_maps', 'maps'), ('units', 'units')]),
        ]
    )
    return workflow


def _predict_node(bundle: Bundle, settings: RunSettings) -> pe.Node:
    nipype, methods = settings.config.nipype, settings.config.workflow.saliency
    predict = pe.Node(
        PredictAge(
            bundle=str(bundle.path),
            weights_sha256=bundle.weights_sha256,
            calibration=bundle.metadata['conformal'] or {},
            curves=bundle.metadata['training'].get('reference_curves') or {},
            seed=settings.config.seeds.random_seed,
            device=nipype.device,
            threads=nipype.omp_nthreads,
            use_gpu=nipype.uses_gpu,
        ),
        name='predict',
        mem_gb=1.5,
    )
    if methods is not None:
        predict.inputs.saliency = list(methods)
    return predict


def _save_node(bundle: Bundle, settings: RunSettings) -> pe.Node:
    return pe.Node(
        SavePrediction(
            bundle=str(bundle.path),
            provenance=dict(settings.provenance),
            base_directory=str(settings.output_dir),
            template=str(settings.output_template.t1w),
            keep_maps=MAPS in kept_images(settings.config),
        ),
        name='save',
        mem_gb=1.0,
    )


def _add_connectivity(
    predict: pe.Node, save: pe.Node, connectivity: Connectivity, settings: RunSettings
) -> None:
    """Give the model its connectivity with the atlas, or the row the reason why not."""
    if connectivity.path is None:
        save.inputs.without = connectivity.without
        return
    for node in (predict, save):
        node.inputs.connectivity = str(connectivity.path)
        node.inputs.atlas = settings.config.workflow.atlas
        if settings.config.workflow.atlas_labels is not None:
            node.inputs.atlas_table = str(settings.config.workflow.atlas_labels)
