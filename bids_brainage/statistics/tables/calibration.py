"""Corrected ages and recalibrated intervals from the healthy reference group of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.statistics.bias import (
    CalibrationRefusedError,
    RegressionLine,
    correction_report,
    fit_line,
)
from bids_brainage.statistics.conformal import calibrate, leave_one_out_half_widths

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.statistics.tables.options import GroupOptions

DEFAULT_LEVEL = 0.9
"""Nominal coverage of recalibrated intervals when the models state none."""


def calibrate_model(
    one: pd.DataFrame, options: GroupOptions
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Add corrected ages and recalibrated intervals of one model from the reference group.

    Parameters
    ----------
    one : DataFrame
        Rows of one model with ``baseline`` (first usable scan of each person).
    options : GroupOptions
        With `reference_group` and `bias_correction`.

    Returns
    -------
    one : DataFrame
        With ``corrected`` (years), ``calibration`` (bool: person used to fit the line),
        ``reference_member`` (bool),
        ``group_low`` and ``group_high`` (years).
    facts : dict
        Coefficients, half width and accuracy before and after; empty without reference.
    notes : list of str
        Why something could not be calibrated.
    """
    one = one.assign(
        corrected=one['predicted_age_corrected'],
        calibration=False,
        reference_member=False,
        group_low=np.nan,
        group_high=np.nan,
    )
    if options.reference_group is None:
        return one, {}, []
    column, value = options.reference_group
    member = (one[column].astype(str) == value).to_numpy(bool)
    reference = member & one['baseline'].to_numpy(bool)
    one = one.assign(reference_member=member)
    age, predicted = one['age'].to_numpy(np.float64), one['predicted_age'].to_numpy(np.float64)
    facts: dict[str, Any] = {
        'reference': f'{column}={value}',
        'n_reference': int(reference.sum()),
        'bias_correction': None,
    }
    notes: list[str] = []
    if options.bias_correction != 'none':
        one, line_facts, notes = _correct(one, reference, options.bias_correction)
        facts |= line_facts
    one, interval = _recalibrate(one, reference, age, predicted)
    if interval['half_width_years'] is None:
        notes.append(f'no recalibrated intervals: {interval["reason"]}')
    return one, {**facts, 'conformal': interval}, notes


def _correct(
    one: pd.DataFrame, reference: np.ndarray, method: str
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Add corrected ages and mark the people on whom the line was fitted."""
    age, predicted = one['age'].to_numpy(np.float64), one['predicted_age'].to_numpy(np.float64)
    try:
        line, rows = fit_line(age, predicted, reference, method)
    except CalibrationRefusedError as error:
        return one, {}, [f'no bias correction: {error}']
    used = one['person'].isin(one['person'].to_numpy()[rows]).to_numpy()
    one = one.assign(corrected=line.apply(age, predicted), calibration=used)
    report = correction_report(age, predicted, line, np.flatnonzero(used))
    accuracy = {k: {n: s.value for n, s in v.items()} for k, v in report.items()}
    facts = {'bias_correction': line.as_dict(), 'accuracy': accuracy}
    return one, facts, _beyond(one, line)


def _beyond(one: pd.DataFrame, line: object) -> list[str]:
    """Say for how many people the line is drawn out beyond the ages of the reference group."""
    if not isinstance(line, RegressionLine):
        return []
    young, old = line.ages
    people = one.loc[(one['age'] < young) | (one['age'] > old), 'person'].nunique()
    if not people:
        return []
    return [
        f'people younger or older than the reference group ({young:.0f} to {old:.0f} years): '
        f'{people}; the correction of their ages is extrapolated'
    ]


def _recalibrate(
    one: pd.DataFrame, reference: np.ndarray, age: np.ndarray, predicted: np.ndarray
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Set intervals around the uncorrected prediction from the reference group's residuals."""
    stated = one['interval_level'].dropna()
    level = float(stated.iloc[0]) if len(stated) else DEFAULT_LEVEL
    residuals = (predicted - age)[reference]
    fit = calibrate(residuals, level)
    facts = {
        'level': level,
        'half_width_years': fit.half_width.value,
        'n': fit.n,
        'reason': fit.half_width.reason,
    }
    if not fit.half_width:
        return one, facts
    own = dict(
        zip(
            one['person'].to_numpy()[reference],
            leave_one_out_half_widths(residuals, level),
            strict=True,
        )
    )
    width = one['person'].map(own).fillna(fit.half_width.get()).to_numpy(np.float64)
    return one.assign(group_low=predicted - width, group_high=predicted + width), facts
