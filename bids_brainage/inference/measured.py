"""Ages from what other programs measured, and what each measure adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.inference.additive import CONTRIBUTION, people_of, typicality
from bids_brainage.inference.result import ExplanationMap, Prediction
from bids_brainage.inputs.kinds import Files, PreparedInput
from bids_brainage.inputs.measure_titles import labels_of
from bids_brainage.models.volumes import filled


def predict_measured(
    bundle: Bundle,
    prepared: PreparedInput,
    files: Files,
    saliency: Sequence[str] | None,
    reference_age: float | None,
    shift: np.ndarray | None = None,
) -> Prediction:
    """Predict an age from the measures of another program.

    Parameters
    ----------
    bundle : Bundle
        Of kind ``measures``; its ``training.reference_curves`` hold the features of the usual
        person of each age.
    prepared : PreparedInput
        Features, NaN for what was not measured; they are taken from the others.
    files : mapping
        ``segmentation``: label image to paint on, if there is one.
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
    features = filled(measured, training['feature_distribution'])
    model = bundle.instantiate()
    age = float(model(features[None])[0])
    compared, usual = people_of(
        training['reference_curves'], age if reference_age is None else reference_age, 'features'
    )
    mean = np.asarray(training['feature_distribution']['mean'], float)
    parts, from_mean = (
        dict(zip(model.features, model.contributions(features, other).tolist(), strict=True))
        for other in (usual, mean)
    )
    path = files.get('segmentation')
    wanted = path is not None and (saliency is None or CONTRIBUTION in saliency)
    return Prediction(
        age,
        None,
        contributions=parts,
        base_age=float(model(usual[None])[0]),
        reference_age=compared,
        from_mean=from_mean,
        beyond=model.beyond(features),
        estimated=tuple(n for n, x in zip(model.features, measured, strict=True) if np.isnan(x)),
        maps=(_on_segmentation(parts, path),) if wanted and path is not None else (),
        typicality=typicality(bundle, features),
    )


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
    return ExplanationMap(
        CONTRIBUTION, data, np.asarray(image.affine, float), 'T1w', 'year', None, regional=True
    )
