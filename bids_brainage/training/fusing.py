"""System B after training: regressions of age on the networks' outputs and sex.

Jomsky et al., arXiv:2412.01865v3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.regressions import TERMS, LinearFusion, fit_fusion
from bids_brainage.errors import MissingInputError
from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.statistics.conformal import half_width
from bids_brainage.statistics.nested import SEX_CODES, fusion_table
from bids_brainage.training.calibrate import LEVEL, SOURCE
from bids_brainage.training.predictions import Row, of_role, read_predictions
from bids_brainage.training.splits import TEST, TRAINING, VALIDATION

FIT_ROLES = {'train+val': (TRAINING, VALIDATION), 'val': (VALIDATION,), 'oof': (TEST,)}
Values = dict[str, np.ndarray]


def fit_fusions(
    rows: Sequence[Row], modality: str, fit: str, partner: Sequence[Row] = ()
) -> dict[str, Any]:
    """Fit the regressions that the predictions allow.

    Parameters
    ----------
    rows : sequence of dict
        Predictions of this training.
    modality : str
        ``t1w`` or ``aicbv``.
    fit : str
        ``train+val``, ``val`` or ``oof``: whose predictions.
    partner : sequence of dict
        Predictions of the other modality's training for the same split; may be empty.

    Returns
    -------
    dict
        ``regressions`` by formula (see `bids_brainage.bundles.regressions.LinearFusion`),
        ``nested_tests`` on the fitted rows, ``test`` and ``conformal``: accuracy on the test
        people, and intervals from them.  With ``oof`` they are the fitted ones, so both are
        empty.
    """
    pairs = joined(rows, modality, partner)
    chosen = of_role(pairs, *FIT_ROLES[fit])
    age, values = _values(chosen)
    fusions = {
        formula: fit_fusion(formula, age[known], _part(values, known), fitted_on=fit)
        for formula in TERMS
        if (known := _known(formula, values)).sum() > len(TERMS[formula]) + 1
    }
    tested = [] if fit == 'oof' else of_role(pairs, TEST)
    result: dict[str, Any] = {
        'modality': modality,
        'regressions': {name: fusion.to_dict() for name, fusion in fusions.items()},
        'nested_tests': _nested(age, values) if 'TA' in fusions else {},
        'test': _tested(tested, fusions),
        'conformal': _conformal(tested, fusions),
    }
    return result


def joined(rows: Sequence[Row], modality: str, partner: Sequence[Row]) -> list[Row]:
    """Put both networks' predictions of a scan and fold into one row."""
    other = 'aicbv' if modality == 't1w' else 't1w'
    known = {(row['source'], str(row['fold'])): row['predicted_age'] for row in partner}
    return [
        {
            **row,
            modality: row['predicted_age'],
            other: known.get((row['source'], str(row['fold'])), float('nan')),
        }
        for row in rows
    ]


def partner_predictions(training_dir: Path, name: str) -> list[Row]:
    """Read the predictions of another training in the same output folder.

    Raises
    ------
    MissingInputError
        There is none.
    """
    path = training_dir / name / 'predictions.tsv'
    if not path.is_file():
        raise MissingInputError(
            f'fusion.partner: no predictions of {name} in {path}. Train it first, with the same '
            'output folder and --split.'
        )
    return read_predictions(path)


def _values(rows: Sequence[Row]) -> tuple[np.ndarray, Values]:
    sex = [SEX_CODES.get(row['sex'], np.nan) for row in rows]
    values = {term: np.array([row[term] for row in rows], float) for term in ('t1w', 'aicbv')}
    return np.array([row['age'] for row in rows], float), {**values, 'sex': np.array(sex, float)}


def _known(formula: str, values: Values) -> np.ndarray:
    return np.all([np.isfinite(values[term]) for term in TERMS[formula]], axis=0)


def _part(values: Values, rows: np.ndarray) -> Values:
    return {name: array[rows] for name, array in values.items()}


def _tested(rows: Sequence[Row], fusions: Mapping[str, LinearFusion]) -> dict[str, Any]:
    age, values = _values(rows)
    result = {}
    for formula, fusion in fusions.items():
        known = _known(formula, values)
        if known.any():
            stats = accuracy(age[known], fusion.predict(_part(values, known))[0])
            named = {key: stats[key].value for key in ('mae', 'mse', 'r2')}
            result[formula] = {'n': int(known.sum()), **named}
    return result


def _conformal(rows: Sequence[Row], fusions: Mapping[str, LinearFusion]) -> dict[str, Any]:
    """Calibrate the interval of each regression; each person counts with their first scan."""
    people = list({row['participant_id']: row for row in reversed(rows)}.values())
    age, values = _values(people)
    result = {}
    for formula, fusion in fusions.items():
        known = _known(formula, values)
        errors = fusion.predict(_part(values, known))[0] - age[known]
        half = half_width(errors, LEVEL)
        if half.value is not None:
            result[formula] = {
                'level': LEVEL,
                'half_width_years': half.value,
                'n': len(errors),
                'source': SOURCE,
            }
    return result


def _nested(age: np.ndarray, values: Values) -> dict[str, Any]:
    with_sex = _known('TAS', values)
    both = with_sex if with_sex.sum() > 4 else _known('TA', values)
    sex = values['sex'][both] if both is with_sex and np.ptp(values['sex'][both]) > 0 else None
    _, tests = fusion_table(age[both], values['t1w'][both], values['aicbv'][both], sex)
    return {
        name: {'f': test.f.value, 'p': test.p.value, 'df_added': test.df_added, 'df': test.df}
        for name, test in tests.items()
    }
