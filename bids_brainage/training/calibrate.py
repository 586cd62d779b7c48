"""Accuracy, intervals and age-bias correction on people that no training has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bids_brainage.statistics.accuracy import accuracy, interval_coverage
from bids_brainage.statistics.bias import CalibrationRefusedError, calibration_rows, fit_bias
from bids_brainage.statistics.bins import DECADES, bin_index, bin_labels
from bids_brainage.statistics.conformal import (
    calibrate,
    calibrate_by_age,
    leave_one_out_half_widths,
    leave_one_out_half_widths_by_age,
)
from bids_brainage.training.predictions import Row, columns, of_role, per_person
from bids_brainage.training.splits import TEST, TRAINING

LEVEL = 0.9
SOURCE = 'held-out people of the training cohort'


@dataclass(frozen=True)
class Calibration:
    """What was measured on the held-out people.

    Attributes
    ----------
    validation : dict
        Entry of the bundle's ``validation`` list.
    conformal, bias_correction : dict or None
        Blocks of the bundle; None where the people are too few.
    notes : tuple of str
        Why a block is None, and cautions about the numbers.
    """

    validation: dict[str, Any]
    conformal: dict[str, Any] | None
    bias_correction: dict[str, Any] | None
    notes: tuple[str, ...] = field(default=())


def calibrate_predictions(
    rows: Sequence[Row], *, dataset: str, method: str, simulated: bool
) -> Calibration:
    """Measure the accuracy on the test people, and calibrate with them.

    Each person counts once; with folds, each is predicted by the one network that has not
    seen them.

    Parameters
    ----------
    rows : sequence of dict
        All predictions of a training.
    dataset, method : str
        Named in the bundle.
    simulated : bool
        Whether the people are simulated.
    """
    held_out = per_person(of_role(rows, TEST))
    known = per_person(of_role(rows, TRAINING))
    age, predicted = columns(held_out)
    stats = accuracy(age, predicted)
    middle = float(np.median(columns(known)[0]))
    validation: dict[str, Any] = {
        'dataset': dataset,
        'n': len(held_out),
        'mae': stats['mae'].value,
        'bias': stats['me'].value,
        'r': stats['r'].value,
        'median_baseline_mae': float(np.abs(age - middle).mean()) if len(age) else None,
        'method': method,
        'simulated': simulated,
        'rmse': stats['rmse'].value,
        'r2': stats['r2'].value,
        'mmae': stats['mmae'].value,
    }
    notes: list[str] = []
    conformal = _conformal(predicted - age, predicted, notes)
    if conformal is not None:
        validation |= _coverage(age, predicted, by_age='by_predicted_age' in conformal)
    bias = _bias(age, predicted, notes)
    mae, baseline = stats['mae'].value, validation['median_baseline_mae']
    if mae is not None and baseline is not None and mae >= baseline:
        notes.append(
            'The model is not better than always saying the median age of its training people.'
        )
    return Calibration(validation, conformal, bias, tuple(notes))


def _conformal(residuals: Any, predicted: Any, notes: list[str]) -> dict[str, Any] | None:
    """Return intervals as wide as the errors at each predicted age, if the people suffice."""
    result = calibrate(residuals, LEVEL)
    if result.half_width.value is None:
        notes.append(f'No interval is stored: {result.half_width.reason}.')
        return None
    block = {
        'level': LEVEL,
        'half_width_years': result.half_width.value,
        'n': result.n,
        'source': SOURCE,
    }
    by_age = calibrate_by_age(residuals, predicted, LEVEL)
    if by_age.half_width.value is None:
        notes.append(f'The interval is equally wide at all ages: {by_age.half_width.reason}.')
        return block
    widths = {'age': by_age.age.tolist(), 'half_width_years': by_age.half_widths.tolist()}
    return {**block, 'half_width_years': by_age.half_width.value, 'by_predicted_age': widths}


def _coverage(age: Any, predicted: Any, *, by_age: bool) -> dict[str, Any]:
    """Return the share of people in their interval, each judged by all others; also by decade."""
    errors = predicted - age
    if by_age:
        half = leave_one_out_half_widths_by_age(errors, predicted, LEVEL)
    else:
        half = leave_one_out_half_widths(errors, LEVEL)
    decade = bin_index(age, DECADES)
    by_decade = {}
    for k in np.unique(decade[decade >= 0]):
        part = decade == k
        share = interval_coverage(age[part], (predicted - half)[part], (predicted + half)[part])
        by_decade[bin_labels(DECADES)[k]] = {'n': int(part.sum()), 'coverage': share.value}
    return {
        'interval_coverage': interval_coverage(age, predicted - half, predicted + half).value,
        'interval_coverage_by_decade': by_decade,
    }


def _bias(age: Any, predicted: Any, notes: list[str]) -> dict[str, Any] | None:
    try:
        rows = calibration_rows(age, np.ones(len(age), bool))
    except CalibrationRefusedError as error:
        notes.append(f'No age-bias correction is stored: {error}.')
        return None
    line = fit_bias(age, predicted, rows)
    return {
        'slope': line.slope,
        'intercept': line.intercept,
        'n': len(rows),
        'source': f'{SOURCE}, the {line.n_per_side} youngest and oldest',
    }
