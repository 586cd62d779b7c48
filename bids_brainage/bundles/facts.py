"""What a prediction's side file says about the model that made it."""

from __future__ import annotations

from typing import Any

from bids_brainage.bundles.bundle import Bundle


def model_facts(bundle: Bundle) -> dict[str, Any]:
    """Return what the side file of a prediction says about its model."""
    metadata = bundle.metadata
    training = metadata['training']
    return {
        'ModelName': bundle.name,
        'ModelVersion': bundle.version,
        'ModelStatus': bundle.status,
        'WeightsSHA256': bundle.weights_sha256,
        'BundleConfigHash': metadata['config_hash'],
        'TrainingPopulation': training['data'],
        'TrainingSimulated': training['simulated'],
        'TrainingN': training['n'],
        'TrainingAgeRange': [training['age_min'], training['age_max']],
        'Validation': metadata['validation'],
        'BiasCorrection': metadata['bias_correction'],
        'Conformal': metadata['conformal'],
        'License': metadata['license'],
        'Reference': metadata['reference'],
        'IntendedUse': metadata['intended_use'],
        'Limitations': metadata['limitations'],
    }
