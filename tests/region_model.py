"""A model of kind ``region_volumes`` that nobody was fitted for, to test what is around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle, export_bundle
from bids_brainage.segmentation.weights import card

NAME = 'volumes.test'
FEATURES = (
    'lateral_ventricle+temporal_horn/brain',
    'brain/intracranial',
    'thalamus/brain',
    'caudate+putamen/brain',
    'frontal_lateral_cortex+frontal_medial_cortex/brain',
)
INTERCEPT = 48.0
# log ratios and slopes (years per log ratio) of an adult of about 50
MIDDLE = np.array([-4.2, -0.13, -4.6, -4.2, -2.9])
WIDTH = np.array([1.5, 0.25, 0.6, 0.6, 0.6])
SLOPE = np.array([9.0, -80.0, -15.0, -12.0, -20.0])
AGES = (20.0, 40.0, 60.0, 80.0)
# what people of these ages have on average, years from the intercept
USUAL = np.outer([0.3, 0.4, 0.1, 0.1, 0.1], np.array(AGES) - INTERCEPT)


def tensors() -> dict[str, np.ndarray]:
    """Return straight lines over `WIDTH` on both sides of `MIDDLE`."""
    steps = np.linspace(-1, 1, 5) * WIDTH[:, None]
    return {
        'intercept': np.array([INTERCEPT]),
        'knots': MIDDLE[:, None] + steps,
        'values': SLOPE[:, None] * steps,
        'offset': np.zeros(len(FEATURES)),
    }


def make_region_bundle(folder: Path, *, curves: bool = True, **changes: Any) -> Bundle:
    """Export the model into a folder of models.

    Parameters
    ----------
    folder : Path
    curves : bool
        Give it reference curves.
    **changes
        Entries of the ``input`` block.
    """
    precision = np.diag(1 / (WIDTH / 2) ** 2)
    training: dict[str, Any] = {
        'data': 'Nobody: straight lines for tests',
        'simulated': False,
        'n': 1,
        'age_min': 18.0,
        'age_max': 90.0,
        'age_mean': INTERCEPT,
        'sex_female_fraction': None,
        'sites': [],
        'recipe': {},
        'feature_distribution': {'mean': MIDDLE.tolist(), 'precision': precision.tolist()},
    }
    if curves:
        training['reference_curves'] = {'age': list(AGES), 'contributions': USUAL.tolist()}
    metadata = {
        'name': NAME,
        'version': '0',
        'arch': 'volumes',
        'arch_options': {'features': list(FEATURES)},
        'status': 'trained',
        'title': 'Straight lines on regions',
        'description': 'For tests.',
        'intended_use': 'Tests.',
        'limitations': 'Fitted on nobody.',
        'license': 'Apache-2.0',
        'copyright': 'The bids_brainage developers',
        'reference': {'text': 'none', 'doi': None},
        'input': {
            'kind': 'region_volumes',
            'space': 'T1w',
            'voxel_size_mm': None,
            'shape': [len(FEATURES)],
            'affine': None,
            'orientation': None,
            'normalisation': 'log_ratio',
            'skull_stripped': None,
            'features': list(FEATURES),
            'segmentation': {'name': card()['name'], 'weights_sha256': card()['weights_sha256']},
            **changes,
        },
        'output': {'quantity': 'age', 'unit': 'year', 'kind': 'scalar'},
        'training': training,
        'validation': [],
        'bias_correction': None,
        'conformal': None,
        'saliency': ['contribution'],
        'tolerance_years': 1e-6,
        'golden': {'seed': 0},
    }
    return export_bundle(folder / NAME, tensors(), metadata, dtype='float64', overwrite=True)
