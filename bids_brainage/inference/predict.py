"""One bundle, one scan: age, interval, explanation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.errors import BundleError, TemporaryError
from bids_brainage.inference.interval import conformal_interval
from bids_brainage.models.bundle import Bundle
from bids_brainage.preprocessing.inputs import (
    Files,
    PreparedInput,
    prepare_input,
    prepare_slices,
)
from bids_brainage.preprocessing.transforms import grid_points, sample_image

if TYPE_CHECKING:
    from bids_brainage.inference.multimodal import FusionFacts
    from bids_brainage.preprocessing.bold.atlases import Atlas

CONTRIBUTION = 'contribution'
"""Name of the explanation of models on volumes: years that each structure adds."""


@dataclass(frozen=True)
class ExplanationMap:
    """A map that explains one prediction.

    Attributes
    ----------
    method : str
        ``'contribution'``, ``'gradcam'``, ``'guided_backprop'``, ``'attention'`` (with the
        stream's name after a hyphen where there are several).
    data : ndarray of float32, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm of ``space``.
    space : str
        TemplateFlow label, or ``'T1w'``.
    unit : str
        ``'year'`` for contributions, ``'arbitrary'`` else.
    sanity : float or None
        Rank correlation with the map of the same network with shuffled weights.
    """

    method: str
    data: np.ndarray
    affine: np.ndarray
    space: str
    unit: str
    sanity: float | None


@dataclass(frozen=True)
class Prediction:
    """What one model says about one scan.

    Attributes
    ----------
    age : float
        Predicted age in years.
    interval : tuple or None
        Lower and upper limit in years, nominal coverage.
    contributions : dict
        Structure → years, for models that add up; empty else.
    maps : tuple of ExplanationMap
    typicality : float or None
        Quantile (0 to 1) of the scan's distance from the training people.
    device : str
        Where the model ran.
    seconds : float
        Wall time of loading and running the model.
    note : str
        What was missing, or empty.
    fusion : FusionFacts or None
        For models of structure and connectivity: how they were put together.
    sd : float or None
        Standard deviation (n - 1) over the members of an ensemble, or over the synthetic scans,
        years; None for one model and one scan.
    n_scans : int
        Synthetic scans of which the age is the mean; 1 without them.
    """

    age: float
    interval: tuple[float, float, float] | None
    contributions: dict[str, float] = field(default_factory=dict)
    maps: tuple[ExplanationMap, ...] = ()
    typicality: float | None = None
    device: str = 'cpu'
    seconds: float = 0.0
    note: str = ''
    sd: float | None = None
    n_scans: int = 1
    fusion: FusionFacts | None = None


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
) -> Prediction:
    """Predict the age of one scan and explain it.

    Parameters
    ----------
    bundle : Bundle
    files : mapping
        Derivatives by role, see `bids_brainage.preprocessing.inputs`.
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
    prepared = prepare_input(bundle.input, files)
    scans = prepare_slices(bundle.input, files) if synthetic_slices else [prepared]
    if bundle.input['kind'] == 'volumes':
        prediction = _predict_volumes(bundle, prepared, files, saliency)
    else:
        prediction = _predict_network(bundle, scans, device, saliency, seed, threads, atlas)
    if not np.isfinite(prediction.age):
        raise BundleError(
            f'{bundle.name} gives {prediction.age} for this scan; expected a finite age. Check '
            f'the bundle with `python -m bids_brainage.models.check {bundle.path}`.'
        )
    return replace(
        prediction,
        interval=conformal_interval(prediction.age, bundle.metadata['conformal']),
        seconds=time.monotonic() - start,
        note=prepared.note,
    )


def choose_device(wanted: str) -> str:
    """Return the torch device to run on.

    Raises
    ------
    BundleError
        If a device other than ``'auto'`` was asked for and is not there.
    """
    import torch

    if wanted == 'cpu':
        return 'cpu'
    if wanted == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    there = torch.backends.mps.is_available() if wanted == 'mps' else torch.cuda.is_available()
    if not there:
        raise BundleError(
            f'--device {wanted} was asked for, but torch sees no such device here. Use --device '
            'cpu, or check the driver and that torch was installed with GPU support.'
        )
    return wanted


def _predict_volumes(
    bundle: Bundle, prepared: PreparedInput, files: Files, saliency: Sequence[str] | None
) -> Prediction:
    from scipy.stats import chi2

    from bids_brainage.preprocessing.atlas import SPACE, load_atlas
    from bids_brainage.preprocessing.volumes import shown_on

    features = np.asarray(prepared.arrays[0])
    model = bundle.instantiate()
    age = float(model(features[None])[0])
    parts = dict(zip(model.features, model.contributions(features).tolist(), strict=True))
    maps: tuple[ExplanationMap, ...] = ()
    if saliency is None or CONTRIBUTION in saliency:
        atlas = load_atlas()
        shares = np.zeros(atlas.priors.shape[1:], np.float32)
        for structure, prior in zip(atlas.structures, atlas.priors, strict=True):
            years = sum(v for name, v in parts.items() if structure.name in shown_on(name))
            shares += prior * np.float32(years)
        shares *= _inside(files.get('mask'), shares.shape, atlas.affine)
        maps = (ExplanationMap(CONTRIBUTION, shares, atlas.affine, SPACE, 'year', None),)
    people = bundle.metadata['training'].get('feature_distribution')
    typicality = None
    if people is not None:
        away = features + model.tensors['offset'] - np.array(people['mean'])
        distance = float(away @ np.array(people['precision']) @ away)
        typicality = float(chi2.cdf(distance, len(away)))
    return Prediction(age, None, parts, maps, typicality)


def _inside(mask: Path | None, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the person's brain mask on a grid of template space, all true without one."""
    if mask is None:
        return np.ones(shape, bool)
    import nibabel as nib

    image = nib.nifti1.load(mask)
    values = sample_image(
        np.asarray(image.dataobj, np.float32), image.affine, grid_points(shape, affine)
    )
    return values.reshape(shape) > 0.5


def _predict_network(
    bundle: Bundle,
    scans: Sequence[PreparedInput],
    device: str,
    saliency: Sequence[str] | None,
    seed: int,
    threads: int,
    atlas: Atlas | None,
) -> Prediction:
    import torch

    from bids_brainage.inference.multimodal import NODES, fusion_facts, node_map

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    where = choose_device(device)
    try:
        model = bundle.instantiate(where)
        ensemble = hasattr(model, 'member_ages')
        tensors = [_tensors(scan, where) for scan in scans]
        with torch.no_grad():
            ages = torch.stack([model(*inputs)[0] for inputs in tensors])
            age = float(ages.mean())
            if ensemble and len(scans) == 1:  # the folds say how far they disagree
                ages = model.member_ages(*tensors[0])[:, 0]
            spread = float(ages.std()) if len(ages) > 1 else None
        prepared, inputs = scans[len(scans) // 2], tensors[len(scans) // 2]
        maps = _network_maps(bundle, model, inputs, prepared, saliency, seed)
        fusion = fusion_facts(model, inputs, prepared.affine, explain=bool(maps))
    except torch.cuda.OutOfMemoryError as error:
        raise TemporaryError(
            f'the GPU ran out of memory for {bundle.name}: {error}. Run again with --device cpu, '
            'or when the GPU is free.'
        ) from error
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
                ExplanationMap(name, data, prepared.affine, prepared.space, 'arbitrary', sanity)
            )
    return tuple(maps)


def fraction_outside(explanation: ExplanationMap, mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the share (0 to 1) of a map's absolute sum that lies outside the brain.

    Parameters
    ----------
    explanation : ExplanationMap
    mask, affine
        Brain mask in the space of the map.
    """
    points = grid_points(explanation.data.shape, explanation.affine)
    inside = sample_image(mask.astype(np.float32), affine, points).reshape(explanation.data.shape)
    strength = np.abs(explanation.data)
    total = float(strength.sum())
    return float((strength * (inside < 0.5)).sum() / total) if total > 0 else 0.0


def save_prediction(
    prediction: Prediction, folder: Path, masks: dict[str, tuple[np.ndarray, np.ndarray]]
) -> Path:
    """Write ``prediction.json`` and the maps as NIfTI into a folder.

    Parameters
    ----------
    prediction : Prediction
    folder : Path
    masks : dict
        Space → brain mask and affine, to say how much of each map lies outside the brain.

    Returns
    -------
    Path
        The JSON file.
    """
    import json

    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    maps = []
    for item in prediction.maps:
        path = folder / f'{item.method}.nii.gz'
        nib.save(nib.Nifti1Image(item.data.astype(np.float32), item.affine), path)
        outside = None
        if item.space in masks:
            outside = fraction_outside(item, *masks[item.space])
        maps.append(
            {
                'method': item.method,
                'file': path.name,
                'space': item.space,
                'unit': item.unit,
                'sanity': item.sanity,
                'outside_brain': outside,
            }
        )
    content = {
        'predicted_age': prediction.age,
        'predicted_age_sd': prediction.sd,
        'interval': prediction.interval,
        'contributions': prediction.contributions,
        'typicality': prediction.typicality,
        'device': prediction.device,
        'seconds': round(prediction.seconds, 3),
        'note': prediction.note,
        'synthetic_scans': prediction.n_scans if prediction.n_scans > 1 else None,
        'fusion': asdict(prediction.fusion) if prediction.fusion else None,
        'maps': maps,
    }
    target = folder / 'prediction.json'
    target.write_text(json.dumps(content, indent=1), 'utf-8')
    return target
