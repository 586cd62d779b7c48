"""Intervals and corrections that a bundle's calibration gives to a raw prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def conformal_interval(
    predicted_age: float, conformal: Mapping[str, Any] | None
) -> tuple[float, float, float] | None:
    """Return the split-conformal interval of a prediction.

    Parameters
    ----------
    predicted_age : float
        Years.
    conformal : mapping or None
        Block of the bundle's metadata: ``level`` and ``half_width_years``; where
        ``by_predicted_age`` stands beside them, its half width at the predicted age (linear
        between its ages, the end values beyond) takes their place.  None without calibration.

    Returns
    -------
    tuple or None
        Lower limit (not below 0), upper limit (years), nominal coverage (0 to 1).

    References
    ----------
    Lei et al. (2018), doi:10.1080/01621459.2017.1307116.
    """
    if conformal is None:
        return None
    half = float(conformal['half_width_years'])
    if (widths := conformal.get('by_predicted_age')) is not None:
        half = float(np.interp(predicted_age, widths['age'], widths['half_width_years']))
    return max(0.0, predicted_age - half), predicted_age + half, float(conformal['level'])


def half_width_text(conformal: Mapping[str, Any]) -> str:
    """Write the half width in years: one number, or the smallest and the largest by age.

    Examples
    --------
    >>> half_width_text({'half_width_years': 5.0})
    '5.0'
    >>> by_age = {'age': [20.0, 80.0], 'half_width_years': [4.0, 9.0]}
    >>> half_width_text({'half_width_years': 5.0, 'by_predicted_age': by_age})
    '4.0 to 9.0'
    """
    widths = conformal.get('by_predicted_age')
    if widths is None:
        return f'{conformal["half_width_years"]:.1f}'
    years = widths['half_width_years']
    return f'{min(years):.1f} to {max(years):.1f}'


def corrected_age(
    predicted_age: float, age: float | None, correction: Mapping[str, Any] | None
) -> float | None:
    """Return the age-bias-corrected prediction, ``y + x − (a·x + b)``.

    Parameters
    ----------
    predicted_age, age : float
        Years, y and x; None if the age is unknown.
    correction : mapping or None
        ``slope`` a and ``intercept`` b (years) of prediction on age in the bundle's
        calibration group.

    Returns
    -------
    float or None
        Years; None without an age or a correction.

    References
    ----------
    Kim et al. (2025), npj Aging, doi:10.1038/s41514-025-00260-x.
    """
    if age is None or correction is None:
        return None
    return predicted_age + age - (correction['slope'] * age + correction['intercept'])


def in_training_range(age: float | None, limits: tuple[float | None, float | None]) -> bool | None:
    """Return whether an age lies within the training ages; None if either is unknown.

    Examples
    --------
    >>> in_training_range(52.0, (18.0, 90.0)), in_training_range(None, (18.0, 90.0))
    (True, None)
    """
    low, high = limits
    return None if age is None or low is None or high is None else low <= age <= high
