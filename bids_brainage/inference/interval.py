"""Intervals and corrections that a bundle's calibration gives to a raw prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def conformal_interval(
    predicted_age: float, conformal: Mapping[str, Any] | None
) -> tuple[float, float, float] | None:
    """Return the split-conformal interval of a prediction.

    Parameters
    ----------
    predicted_age : float
        Years.
    conformal : mapping or None
        ``half_width_years`` and ``level`` of the bundle; None if it has no calibration.

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
    return max(0.0, predicted_age - half), predicted_age + half, float(conformal['level'])


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
