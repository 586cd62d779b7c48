"""Workflow of one model on one scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_brainage.interfaces.prediction import (
    DrawExplanations,
    PredictAge,
    SavePrediction,
)
from bids_brainage.models.bundle import Bundle
from bids_brainage.preprocessing.inputs import roles_of
from bids_brainage.preprocessing.template import Template

COMMON = ('facts', 'quality', 'transform', 't1w_native', 'mask_native', 'mask')


def init_prediction_wf(
    *,
    bundle: Bundle,
    scan: Mapping[str, Any],
    source_file: str,
    provenance: Mapping[str, Any],
    output_dir: Path,
    template: Template,
    saliency: Sequence[str] | None = None,
    device: str = 'auto',
    use_gpu: bool = False,
    seed: int = 0,
    omp_nthreads: int = 1,
    name: str | None = None,
) -> Workflow:
    """Build the workflow of one model on one scan.

    Parameters
    ----------
    bundle : Bundle
    scan : mapping
        Columns of the prediction row that the dataset gives.
    source_file : str
        Path of the image in the input dataset.
    provenance : mapping
        Options and versions for the side file.
    output_dir : Path
        Output dataset.
    template : Template
        At the resolution of the derivatives.
    saliency : sequence of str or None
        Methods; None is the bundle's own, empty none.
    device : str
        As `bids_brainage.inference.predict.choose_device`.
    use_gpu : bool
        Whether the scheduler should count this node against the GPUs.
    seed, omp_nthreads : int
    name : str or None

    Returns
    -------
    Workflow
        Inputs: `COMMON` and the roles that the model needs.
    """
    workflow = Workflow(name=name or f'predict_{bundle.label}_wf')
    reference = bundle.metadata['reference']
    workflow.__desc__ = (
        f'Brain age was predicted with {bundle.name} (version {bundle.version}; '
        f'{reference["text"]}). '
    )
    roles = roles_of(bundle.input['kind'])
    fields = tuple(dict.fromkeys((*COMMON, *roles)))
    inputnode = pe.Node(niu.IdentityInterface(list(fields)), name='inputnode')
    predict = pe.Node(
        PredictAge(
            bundle=str(bundle.path),
            weights_sha256=bundle.weights_sha256,
            calibration=bundle.metadata['conformal'] or {},
            seed=seed,
            device=device,
            threads=omp_nthreads,
            use_gpu=use_gpu,
        ),
        name='predict',
        mem_gb=1.5,
    )
    if saliency is not None:
        predict.inputs.saliency = list(saliency)
    save = pe.Node(
        SavePrediction(
            bundle=str(bundle.path),
            scan=dict(scan),
            source_file=source_file,
            provenance=dict(provenance),
            base_directory=str(output_dir),
            template=str(template.t1w),
        ),
        name='save',
        mem_gb=1.0,
    )
    draw = pe.Node(
        DrawExplanations(source_file=source_file, base_directory=str(output_dir)),
        name='draw',
        mem_gb=0.8,
    )
    asked = dict.fromkeys((*roles, 'mask', 'mask_native'))
    workflow.connect(
        [
            (inputnode, predict, [(role, role) for role in asked]),
            (inputnode, save, [(f, f) for f in ('facts', 'quality', 'transform', 'mask_native')]),
            (predict, save, [('prediction', 'prediction')]),
            (inputnode, draw, [('t1w_native', 't1w')]),
            (save, draw, [('native_maps', 'maps'), ('units', 'units')]),
        ]
    )
    return workflow
