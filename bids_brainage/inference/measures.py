"""Ages that are told from measures of the brain, and what each measure adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.inference.result import ExplanationMap, Prediction
from bids_brainage.inputs.kinds import Files, PreparedInput, kind_of
from bids_brainage.inputs.measure_titles import labels_of
from bids_brainage.inputs.volumes import shown_on
from bids_brainage.models.volumes import filled
from bids_brainage.preprocessing.transforms import grid_points, sample_image

CONTRIBUTION = 'contribution'
"""Name of the explanation: years that each measure adds."""


def predict_measures(
    bundle: Bundle,
    prepared: PreparedInput,
    files: Files,
    saliency: Sequence[str] | None,
    reference_age: float | None,
    shift: np.ndarray | None = None,
) -> Prediction:
    """Predict an age from volumes of structures or regions, or from tables of other programs.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``volumes``, ``region_volumes`` or ``measures``.
    prepared : PreparedInput
        Features, NaN for what was not measured; they are taken from the others.
    files : mapping
        As for `bids_brainage.inference.predict.predict`; for the map.
    saliency : sequence of str or None
        Methods asked for; there is only `CONTRIBUTION`.
    reference_age : float or None
        Years; the age of the people that the person is compared with.  None takes the predicted
        age.  It changes the explanation, never the age.
    shift : ndarray or None
        Added to the features, see `bids_brainage.inputs.harmonise`.

    Returns
    -------
    Prediction
    """
    training = bundle.metadata['training']
    measured = np.asarray(prepared.arrays[0]) + (0.0 if shift is None else shift)
    features = filled(measured, training.get('feature_distribution'))
    model = bundle.instantiate()
    age = float(model(features[None])[0])
    base, compared, values, from_mean = _explain(
        model, features, training, age if reference_age is None else reference_age
    )
    parts = dict(zip(model.features, values.tolist(), strict=True))
    wanted = saliency is None or CONTRIBUTION in saliency
    return Prediction(
        age,
        None,
        contributions=parts,
        base_age=base,
        reference_age=compared,
        from_mean=dict(zip(model.features, from_mean.tolist(), strict=False)),
        beyond=model.beyond(features),
        estimated=tuple(n for n, x in zip(model.features, measured, strict=True) if np.isnan(x)),
        maps=_paint(bundle, parts, files) if wanted else (),
        typicality=_typicality(training, features + model.tensors.get('offset', 0.0)),
    )


def _explain(
    model: Any, features: np.ndarray, training: Mapping[str, Any], at: float
) -> tuple[float | None, float | None, np.ndarray, np.ndarray]:
    """Return base age, age of the people compared with, years against them and the mean.

    ``training.reference_curves`` hold the features of the usual person of each age, or what
    these add on average; a model without them is compared with the mean only.
    """
    curves = training.get('reference_curves')
    if curves is None:
        return None, None, model.contributions(features), np.empty(0)
    if 'features' in curves:
        compared, usual = _people_of(curves, at, 'features')
        mean = np.asarray(training['feature_distribution']['mean'], float)
        values, from_mean = (model.contributions(features, other) for other in (usual, mean))
        return float(model(usual[None])[0]), compared, values, from_mean
    compared, usual = _people_of(curves, at, 'contributions')
    from_mean = model.contributions(features)
    base = float(model.tensors['intercept'][0] + usual.sum())
    return base, compared, from_mean - usual, from_mean


def _people_of(curves: Mapping[str, Any], age: float, what: str) -> tuple[float, np.ndarray]:
    """Return the age within the curves, and what they say of people of that age."""
    ages = np.asarray(curves['age'], float)
    inside = float(np.clip(age, ages[0], ages[-1]))
    return inside, np.array([np.interp(inside, ages, row) for row in curves[what]])


def _typicality(training: Mapping[str, Any], features: np.ndarray) -> float | None:
    """Return the quantile of the distance from the training people, if they are known."""
    from scipy.stats import chi2

    people = training.get('feature_distribution')
    if people is None:
        return None
    away = features - np.array(people['mean'])
    return float(chi2.cdf(away @ np.array(people['precision']) @ away, len(away)))


def _paint(bundle: Bundle, parts: Mapping[str, float], files: Files) -> tuple[ExplanationMap, ...]:
    """Paint years on the person's own regions, if there is a label image, or on the atlas."""
    kind = kind_of(bundle.input)
    if not kind.elsewhere and not kind.is_segmented:
        return (_on_atlas(parts, files),)
    path = files.get('segmentation' if kind.elsewhere else 'regions')
    if path is None:
        return ()
    return (_on_segmentation(parts, path) if kind.elsewhere else _on_regions(parts, path),)


def _on_segmentation(parts: Mapping[str, float], path: Path) -> ExplanationMap:
    """Paint years on the regions that the program found; left and right have the same."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))
    labels = np.asarray(image.dataobj).astype(np.int32)
    years = np.zeros(max(int(labels.max()), 0) + 1, np.float32)
    for name, value in parts.items():
        for label in labels_of(name):
            if label < len(years):
                years[label] += value
    data = years[np.clip(labels, 0, None)]
    affine = np.asarray(image.affine, float)
    return ExplanationMap(CONTRIBUTION, data, affine, 'T1w', 'year', None, regional=True)


def _on_regions(parts: Mapping[str, float], path: Path) -> ExplanationMap:
    """Paint years on the person's own regions."""
    import nibabel as nib

    from bids_brainage.segmentation.regions import load_regions

    image = nib.nifti1.load(path)
    years = np.zeros(256, np.float32)
    for region in load_regions():
        years[region.index] = sum(v for name, v in parts.items() if region.name in shown_on(name))
    data = years[np.asarray(image.dataobj, np.uint8)]
    affine = np.asarray(image.affine, float)
    return ExplanationMap(CONTRIBUTION, data, affine, 'T1w', 'year', None, regional=True)


def _on_atlas(parts: Mapping[str, float], files: Files) -> ExplanationMap:
    """Paint years on the structures of the atlas in template space."""
    from bids_brainage.preprocessing.atlas import load_atlas
    from bids_brainage.preprocessing.template import DEFAULT_SPACE

    atlas = load_atlas()
    shares = np.zeros(atlas.priors.shape[1:], np.float32)
    for structure, prior in zip(atlas.structures, atlas.priors, strict=True):
        years = sum(v for name, v in parts.items() if structure.name in shown_on(name))
        shares += prior * np.float32(years)
    shares *= _inside(files.get('mask'), shares.shape, atlas.affine)
    return ExplanationMap(CONTRIBUTION, shares, atlas.affine, DEFAULT_SPACE, 'year', None)


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
