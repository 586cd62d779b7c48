"""One bundle, one scan: age, interval, explanation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.errors import BundleError
from bids_brainage.inference.interval import conformal_interval
from bids_brainage.inference.measures import predict_measures
from bids_brainage.inference.result import ExplanationMap, Prediction
from bids_brainage.inputs.arrays import prepare_slices
from bids_brainage.inputs.kinds import Files, PreparedInput, kind_of, prepare_input
from bids_brainage.models.devices import careful_with_gpus, choose_device

if TYPE_CHECKING:
    from bids_brainage.preprocessing.bold.atlases import Atlas


def predict(
    bundle: Bundle,
    files: Files,
    *,
    device: str = 'auto',
    saliency: Sequence[str] | None = None,
    seed: int = 0,
    threads: int = 1,
    atlas: Atlas | None = None,
    synthetic_slices: bool = False,
    reference_age: float | None = None,
    shift: np.ndarray | None = None,
) -> Prediction:
    """Predict the age of one scan and explain it.

    Parameters
    ----------
    bundle : Bundle
    files : mapping
        Derivatives by role, see `bids_brainage.inputs.kinds.Files`.
    device : str
        ``'auto'``, ``'cpu'``, ``'cuda[:N]'`` or ``'mps'``; only ``'auto'`` falls back.
    saliency : sequence of str or None
        Methods; None takes the first of the bundle's methods that gives a map, empty none.
    seed, threads : int
        Random seed and CPU threads.
    atlas : Atlas or None
        Regions of the connectivity, to paint their importances.
    synthetic_slices : bool
        System C: predict each thick-slice scan that this one contains; the age is their mean.
    reference_age : float or None
        Years, usually the person's age: the explanation of a model with reference curves compares
        with people of this age; None takes the predicted age.  It never changes the age.
    shift : ndarray or None
        Added to the features of tables, see `bids_brainage.inputs.harmonise`.

    Returns
    -------
    Prediction

    Raises
    ------
    BundleError
        If the bundle yields no finite age.
    TemporaryError
        If the GPU is out of memory.
    """
    start = time.monotonic()
    if synthetic_slices:
        scans = prepare_slices(bundle.input, files)
    else:
        scans = [prepare_input(bundle.input, files)]
    if kind_of(bundle.input).is_table:
        prediction = predict_measures(bundle, scans[0], files, saliency, reference_age, shift)
    else:
        prediction = _predict_network(
            bundle, scans, device, saliency, seed, threads, atlas, files.get('structures')
        )
    if not np.isfinite(prediction.age):
        raise BundleError(
            f'{bundle.name} gives {prediction.age} for this scan; expected a finite age. Check '
            f'the bundle with `python -m bids_brainage.bundles.check {bundle.path}`.'
        )
    return replace(
        prediction,
        interval=conformal_interval(prediction.age, bundle.metadata['conformal']),
        seconds=time.monotonic() - start,
        note=scans[0].note,
    )


def _predict_network(
    bundle: Bundle,
    scans: Sequence[PreparedInput],
    device: str,
    saliency: Sequence[str] | None,
    seed: int,
    threads: int,
    atlas: Atlas | None,
    structures: Path | None,
) -> Prediction:
    import torch

    from bids_brainage.inference.multimodal import NODES, fusion_facts, node_map

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    where = choose_device(device)
    with careful_with_gpus(bundle.name):
        model = bundle.instantiate(where)
        tensors = [_tensors(scan, where) for scan in scans]
        with torch.no_grad():
            ages = torch.stack([model(*inputs)[0] for inputs in tensors])
            age = float(ages.mean())
            if len(scans) == 1:  # the folds say how far they disagree
                ages = torch.stack([fold(*tensors[0])[0] for fold in model.folds()])
            spread = float(ages.std()) if len(ages) > 1 else None
        prepared, inputs = scans[len(scans) // 2], tensors[len(scans) // 2]
        maps = _network_maps(bundle, model, inputs, prepared, saliency, seed)
        fusion = fusion_facts(
            model, inputs, prepared.affine, structures=structures if maps else None
        )
    if fusion is not None and fusion.nodes and atlas is not None and maps:
        maps = (*maps, ExplanationMap(NODES, *node_map(fusion, atlas), 'arbitrary', None))
    return Prediction(
        age, None, maps=maps, device=where, sd=spread, fusion=fusion, n_scans=len(scans)
    )


def _tensors(prepared: PreparedInput, device: str) -> tuple[Any, ...]:
    import torch

    return tuple(
        None if a is None else torch.from_numpy(np.ascontiguousarray(a))[None].to(device)
        for a in prepared.arrays
    )


def _network_maps(
    bundle: Bundle,
    model: Any,
    inputs: tuple[Any, ...],
    prepared: PreparedInput,
    saliency: Sequence[str] | None,
    seed: int,
) -> tuple[ExplanationMap, ...]:
    """Return the maps asked for, or those of the bundle's first method that shows something."""
    if saliency is not None:
        return _explain(saliency, bundle, model, inputs, prepared, seed)
    # attention between modalities shows nothing when one of them is missing
    tried = (
        _explain((method,), bundle, model, inputs, prepared, seed)
        for method in bundle.metadata['saliency']
    )
    return next(filter(None, tried), ())


def _explain(
    methods: Sequence[str],
    bundle: Bundle,
    model: Any,
    inputs: tuple[Any, ...],
    prepared: PreparedInput,
    seed: int,
) -> tuple[ExplanationMap, ...]:
    """Return the maps of the methods that suit this model, on the grid of its image."""
    from bids_brainage.inference.saliency import explain
    from bids_brainage.inference.saliency.sanity import randomised_copy, spearman

    if inputs[0] is None or prepared.affine is None or prepared.space is None:
        return ()
    maps = []
    for method in methods:
        if method not in bundle.metadata['saliency']:
            continue
        own = explain(method, model, inputs)
        shuffled = explain(method, randomised_copy(model, seed), inputs)
        for stream, data in own.items():
            name = f'{method}-{stream}' if stream else method
            sanity = spearman(data, shuffled[stream])
            maps.append(
                ExplanationMap(
                    name,
                    data,
                    prepared.affine,
                    prepared.space,
                    'arbitrary',
                    sanity,
                    aligned=kind_of(bundle.input).is_aligned,
                )
            )
    return tuple(maps)
