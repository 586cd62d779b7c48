"""Ages that are sums over measures of the brain, and what each measure adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.inference.result import ExplanationMap, Prediction
from bids_brainage.inputs.kinds import Files, PreparedInput, kind_of
from bids_brainage.inputs.volumes import shown_on
from bids_brainage.models.volumes import filled
from bids_brainage.preprocessing.transforms import grid_points, sample_image

CONTRIBUTION = 'contribution'
"""Name of the explanation of models on volumes: years that each structure adds."""


def predict_additive(
    bundle: Bundle,
    prepared: PreparedInput,
    files: Files,
    saliency: Sequence[str] | None,
    reference_age: float | None,
) -> Prediction:
    """Predict an age from the volumes of structures or regions.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``volumes`` or ``region_volumes``.
    prepared : PreparedInput
        Features.
    files : mapping
        As for `bids_brainage.inference.predict.predict`; for the map.
    saliency : sequence of str or None
        Methods asked for; there is only `CONTRIBUTION`.
    reference_age : float or None
        Years; the age of the people that the person is compared with.  None takes the predicted
        age.  It changes the explanation, never the age.

    Returns
    -------
    Prediction
    """
    measured = np.asarray(prepared.arrays[0])
    features = filled(measured, bundle.metadata['training'].get('feature_distribution'))
    model = bundle.instantiate()
    age = float(model(features[None])[0])
    values = model.contributions(features)
    curves = bundle.metadata['training'].get('reference_curves')
    base = compared = None
    from_mean: dict[str, float] = {}
    if curves is not None:
        at = age if reference_age is None else reference_age
        compared, usual = people_of(curves, at, 'contributions')
        base = float(model.tensors['intercept'][0] + usual.sum())
        from_mean = dict(zip(model.features, values.tolist(), strict=True))
        values = values - usual
    parts = dict(zip(model.features, values.tolist(), strict=True))
    maps: tuple[ExplanationMap, ...] = ()
    if saliency is None or CONTRIBUTION in saliency:
        paint = _on_regions if kind_of(bundle.input).is_segmented else _on_atlas
        maps = paint(parts, files)
    return Prediction(
        age,
        None,
        contributions=parts,
        base_age=base,
        reference_age=compared,
        from_mean=from_mean,
        beyond=model.beyond(features),
        estimated=tuple(n for n, x in zip(model.features, measured, strict=True) if np.isnan(x)),
        maps=maps,
        typicality=typicality(bundle, features + model.tensors['offset']),
    )


def people_of(curves: Mapping[str, Any], age: float, what: str) -> tuple[float, np.ndarray]:
    """Return the age within the curves, and what they say of people of that age."""
    ages = np.asarray(curves['age'], float)
    inside = float(np.clip(age, ages[0], ages[-1]))
    return inside, np.array([np.interp(inside, ages, row) for row in curves[what]])


def typicality(bundle: Bundle, features: np.ndarray) -> float | None:
    """Return the quantile of the distance from the training people, if they are known."""
    from scipy.stats import chi2

    people = bundle.metadata['training'].get('feature_distribution')
    if people is None:
        return None
    away = features - np.array(people['mean'])
    return float(chi2.cdf(away @ np.array(people['precision']) @ away, len(away)))


def _on_regions(parts: Mapping[str, float], files: Files) -> tuple[ExplanationMap, ...]:
    """Paint years on the person's own regions, if their label image is there."""
    import nibabel as nib

    from bids_brainage.segmentation.regions import load_regions

    path = files.get('regions')
    if path is None:
        return ()
    image = nib.nifti1.load(path)
    years = np.zeros(256, np.float32)
    for region in load_regions():
        years[region.index] = sum(v for name, v in parts.items() if region.name in shown_on(name))
    data = years[np.asarray(image.dataobj, np.uint8)]
    affine = np.asarray(image.affine, float)
    return (ExplanationMap(CONTRIBUTION, data, affine, 'T1w', 'year', None, regional=True),)


def _on_atlas(parts: Mapping[str, float], files: Files) -> tuple[ExplanationMap, ...]:
    """Paint years on the structures of the atlas in template space."""
    from bids_brainage.preprocessing.atlas import load_atlas
    from bids_brainage.preprocessing.template import DEFAULT_SPACE

    atlas = load_atlas()
    shares = np.zeros(atlas.priors.shape[1:], np.float32)
    for structure, prior in zip(atlas.structures, atlas.priors, strict=True):
        years = sum(v for name, v in parts.items() if structure.name in shown_on(name))
        shares += prior * np.float32(years)
    shares *= _inside(files.get('mask'), shares.shape, atlas.affine)
    return (ExplanationMap(CONTRIBUTION, shares, atlas.affine, DEFAULT_SPACE, 'year', None),)


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
