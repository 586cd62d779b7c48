"""Checks that keep a silly age from passing without a word.

Every check compares one measured number with a threshold of ``data/qc_flags.json``, where each
threshold stands with its unit and the reason for its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bids_brainage.flags import flag_table


def threshold(flag: str) -> Any:
    """Return the threshold of a flag: a number, or a list of lowest and highest good value."""
    return flag_table()[flag]['threshold']


def image_flags(measures: Mapping[str, float | None]) -> list[str]:
    """Return the flags of one preprocessed scan.

    Parameters
    ----------
    measures : mapping
        What `header_measures` returns, ``n_nonfinite``, ``raised_by``,
        ``slice_thickness_mm`` (largest voxel edge), ``prepared_elsewhere`` (1 for an image of
        another program), ``cat12_maps``, ``cat12_quality_percent``, ``cat12_voxel_mm`` (if
        CAT12 made maps), ``border_cm2``, ``mask_ml``, ``overlap``, ``beyond_ml``, ``similarity``,
        ``scale``, ``rotation_degrees``, ``contrast`` (white over grey matter
        intensity).  What is absent was not measured and raises no flag; None, as side files have
        it, is not a number.

    Returns
    -------
    list of str
        Names of the flags raised, in the order of the checks.
    """
    numbers = {name: math.nan if value is None else value for name, value in measures.items()}
    return [
        flag
        for flag, key, fails in _CHECKS
        if key in numbers and fails(numbers[key], threshold(flag))
    ]


def header_measures(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the measures of flags that the header and the name of an image give.

    Parameters
    ----------
    facts : mapping
        ``mp2rage`` (whether the image is a UNIT1 image) and ``geometry``, the fields of
        `bids_brainage.dataset.header.Geometry`.
    """
    measures = {'mp2rage': float(facts.get('mp2rage', False))}
    geometry = facts.get('geometry')
    if geometry:
        measures |= {
            'header_size_error_percent': geometry['size_error_percent'],
            'header_angle_degrees': geometry['form_angle_degrees'],
            'header_no_form': float(geometry['form'] == 'none'),
            'header_foreign_unit': float(bool(geometry['foreign_unit'])),
        }
    return measures


def prediction_flags(
    *,
    predicted_age: float,
    age: float | None,
    age_range: tuple[float | None, float | None],
    interval: tuple[float, float] | None,
    trained: bool,
    typicality: float | None,
    outside_brain: float | None,
    note: str,
    other_maps: bool = False,
    beyond: bool = False,
    estimated: bool = False,
    simulated: bool = False,
) -> list[str]:
    """Return the flags of one prediction.

    Parameters
    ----------
    predicted_age, age : float
        Years; ``age`` None if unknown.
    age_range : tuple
        Lowest and highest training age, None if unknown.
    interval : tuple or None
        Limits in years.
    trained : bool
        False for a bundle with random weights.
    typicality : float or None
        Quantile (0 to 1) of the scan's distance from the training people.
    outside_brain : float or None
        Fraction of the saliency outside the brain.
    note : str
        What the model had to do without, or empty.
    other_maps : bool
        True if the model has learnt from maps of another program.
    beyond : bool
        True if a measure lies outside the range that the model knows.
    estimated : bool
        True if a measure that the image does not have was taken from the others.
    simulated : bool
        True for an image of nobody.

    Returns
    -------
    list of str
    """
    low = -math.inf if age_range[0] is None else age_range[0]
    high = math.inf if age_range[1] is None else age_range[1]
    checks = {
        'untrained_model': not trained,
        AGE_FLAG: _outside_training(age, age_range),
        'predicted_at_limit': not low < predicted_age < high,
        'unlike_training': typicality is not None and typicality > threshold('unlike_training'),
        'measure_outside_training': beyond,
        'measure_estimated': estimated,
        'wide_interval': interval is not None
        and interval[1] - interval[0] > threshold('wide_interval'),
        'saliency_outside_brain': outside_brain is not None
        and outside_brain > threshold('saliency_outside_brain'),
        'missing_modality': bool(note),
        'cat12_unlike_model': other_maps,
        'simulated': simulated,
    }
    return [flag for flag, raised in checks.items() if raised]


AGE_FLAG = 'age_outside_training'
_LATER = (
    'predicted_at_limit', 'unlike_training', 'measure_outside_training', 'measure_estimated',
    'wide_interval', 'saliency_outside_brain', 'missing_modality', 'cat12_unlike_model',
    'simulated',
)  # fmt: skip
"""Flags of a prediction that stand after `AGE_FLAG`."""


def with_age_flag(
    flags: Sequence[str], age: float | None, limits: tuple[float | None, float | None]
) -> list[str]:
    """Return flags of a row with the one that depends on the person's age brought up to date.

    Examples
    --------
    >>> with_age_flag(['sloppy', 'simulated'], 99.0, (18.0, 90.0))
    ['sloppy', 'age_outside_training', 'simulated']
    >>> with_age_flag(['sloppy', 'age_outside_training', 'simulated'], 52.0, (18.0, 90.0))
    ['sloppy', 'simulated']
    """
    kept = [flag for flag in flags if flag != AGE_FLAG]
    if _outside_training(age, limits):
        later = [index for index, flag in enumerate(kept) if flag in _LATER]
        kept.insert(min(later, default=len(kept)), AGE_FLAG)
    return kept


def _outside_training(age: float | None, limits: tuple[float | None, float | None]) -> bool:
    low = -math.inf if limits[0] is None else limits[0]
    high = math.inf if limits[1] is None else limits[1]
    return age is not None and not low <= age <= high


def _above(value: float, limit: float) -> bool:
    return not value <= limit  # so that a value that is not a number fails too


def _below(value: float, limit: float) -> bool:
    return not value >= limit


def _outside(value: float, limits: list[float]) -> bool:
    return not limits[0] <= value <= limits[1]


_CHECKS = (
    ('header_voxel_size', 'header_size_error_percent', _above),
    ('header_orientation', 'header_angle_degrees', _above),
    ('header_no_orientation', 'header_no_form', _above),
    ('header_unit', 'header_foreign_unit', _above),
    ('mp2rage', 'mp2rage', _above),
    ('external_preprocessing', 'prepared_elsewhere', _above),
    ('cat12_maps', 'cat12_maps', _above),
    ('cat12_quality', 'cat12_quality_percent', _below),
    ('cat12_resampled', 'cat12_voxel_mm', _above),
    ('image_nonfinite', 'n_nonfinite', _above),
    ('intensities_centred', 'raised_by', _above),
    ('anisotropic', 'slice_thickness_mm', _above),
    ('field_of_view_cut', 'border_cm2', _above),
    ('mask_volume', 'mask_ml', _outside),
    ('mask_disagreement', 'overlap', _below),
    ('mask_beyond_brain', 'beyond_ml', _above),
    ('registration_similarity', 'similarity', _below),
    ('registration_scale', 'scale', _outside),
    ('registration_rotation', 'rotation_degrees', _above),
    ('tissue_contrast', 'contrast', _outside),
    ('tables_head', 'head_litres', _outside),
    ('tables_share', 'brain_share', _outside),
    ('tables_holes', 'surface_holes', _above),
    ('tables_hemisphere', 'hemispheres_missing', _above),
)
"""Flag, the measure it rests on, and when the measure fails."""


def checked_measures(measures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the measures of a scan that are checked: flag, value, range, unit, whether it fails.

    Parameters
    ----------
    measures : mapping
        As for `image_flags`; what is absent is left out.

    Returns
    -------
    list of dict
        ``flag``, ``value``, ``low`` and ``high`` (None for no limit on that side), ``unit``,
        ``fails``.
    """
    found = []
    for flag, key, fails in _CHECKS:
        value = measures.get(key)
        if not isinstance(value, int | float):
            continue
        limit = threshold(flag)
        low, high = (
            limit if fails is _outside else (limit, None) if fails is _below else (None, limit)
        )
        found.append({
            'flag': flag, 'value': value, 'low': low, 'high': high,
            'unit': flag_table()[flag]['unit'], 'fails': fails(value, limit),
        })  # fmt: skip
    return found
