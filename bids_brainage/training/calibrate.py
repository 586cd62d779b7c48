"""Accuracy, intervals and age-bias correction on people that no training has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bids_brainage.statistics.accuracy import accuracy, interval_coverage
from bids_brainage.statistics.bias import CalibrationRefusedError, calibration_rows, fit_bias
from bids_brainage.statistics.conformal import calibrate, leave_one_out_half_widths
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
    conformal = _conformal(predicted - age, notes)
    if conformal is not None:
        half = leave_one_out_half_widths(predicted - age, LEVEL)
        covered = interval_coverage(age, predicted - half, predicted + half)
        validation['interval_coverage'] = covered.value
    bias = _bias(age, predicted, notes)
    mae, baseline = stats['mae'].value, validation['median_baseline_mae']
    if mae is not None and baseline is not None and mae >= baseline:
        notes.append(
            'The model is not better than always saying the median age of its training people.'
        )
    return Calibration(validation, conformal, bias, tuple(notes))


def _conformal(residuals: Any, notes: list[str]) -> dict[str, Any] | None:
    result = calibrate(residuals, LEVEL)
    if result.half_width.value is None:
        notes.append(f'No interval is stored: {result.half_width.reason}.')
        return None
    return {
        'level': LEVEL,
        'half_width_years': result.half_width.value,
        'n': result.n,
        'source': SOURCE,
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
