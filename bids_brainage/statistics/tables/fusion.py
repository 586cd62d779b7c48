"""The table of linear models that fuse the predictions of two models (System B).

Chronological age is regressed on the predictions of one model (T, A), of both (TA), and of both
and sex (TAS), one image per person (Jomsky et al. 2024, arXiv:2412.01865).  The nested F tests
of these models are in the table of differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.statistics.nested import (
    SEX_CODES,
    Fit,
    FitRefusedError,
    NestedTest,
    fusion_table,
)

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    'model',
    'formula',
    'term',
    'n',
    'estimate',
    'standard_error',
    'ci_low',
    'ci_high',
    'statistic',
    'p',
    'rss',
    'df_residual',
    'r2',
    'reason',
]

NO_SEX = 'needs people of both sexes, F or M, and the sex of everybody'


@dataclass(frozen=True)
class Fused:
    """Fusion models of one pair of models.

    Attributes
    ----------
    names : dict of str to str
        Readable name of each formula (``T``, ``A``, ``TA``, ``TAS``).
    terms : dict of str to str
        Readable name of each regressor (``T``, ``A``, ``sex``).
    n : int
        People with both predictions and an age.
    fits : dict of str to Fit
        By formula; empty when they were refused.
    tests : dict of str to NestedTest
        ``T vs TA`` and so on.
    reason : str or None
        Why there is no fit, or only none of TAS.
    """

    names: dict[str, str]
    terms: dict[str, str]
    n: int
    fits: dict[str, Fit] = field(default_factory=dict)
    tests: dict[str, NestedTest] = field(default_factory=dict)
    reason: str | None = None


def fuse_models(
    models: Mapping[str, pd.DataFrame], networks: Sequence[tuple[str, str]]
) -> list[Fused]:
    """Fit the fusion models of the networks of System B on the first image of each person.

    Parameters
    ----------
    models : mapping of str to DataFrame
        Rows of each model as prepared by the group analysis, ages in years.
    networks : sequence of (str, str)
        Pairs of networks of System B: of the T1w image, of the map of blood volume.

    Returns
    -------
    list of Fused
        One per pair whose two networks predicted.
    """
    return [_fuse(models, t, a) for t, a in networks if t in models and a in models]


def _fuse(models: Mapping[str, pd.DataFrame], first: str, second: str) -> Fused:
    """Fit the fusion models of two predictions of the same visits."""
    a, b = (models[m][models[m]['baseline'].to_numpy(bool)] for m in (first, second))
    both = a.merge(b[['person', 'session', 'predicted_age']], on=['person', 'session'])
    age = both['age'].to_numpy(np.float64)
    names = {'T': first, 'A': second, 'TA': f'{first} + {second}'}
    names['TAS'] = names['TA'] + ' + sex'
    terms = {'intercept': 'intercept', 'T': first, 'A': second, 'sex': 'sex'}
    sex = _sex(both)
    try:
        fits, tests = fusion_table(age, both['predicted_age_x'], both['predicted_age_y'], sex)
    except FitRefusedError as error:
        return Fused(names, terms, len(both), reason=str(error))
    return Fused(names, terms, len(both), fits, tests, None if 'TAS' in fits else NO_SEX)


def _sex(people: pd.DataFrame) -> np.ndarray | None:
    """0 for female and 1 for male, None unless everybody's is known and both occur."""
    if 'sex' not in people or not people['sex'].isin(list(SEX_CODES)).all():
        return None
    values = people['sex'].map(SEX_CODES).to_numpy(np.float64)
    return values if len(np.unique(values)) > 1 else None


def fusion_coefficients(fused: Sequence[Fused]) -> pd.DataFrame:
    """Lay out the coefficients of all fusion models, one row per term.

    Returns
    -------
    DataFrame
        `COLUMNS`; intercept and sex in years, others in years per predicted year, with the
        residual sum of squares (years²) of their model.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for pair in fused:
        for formula, fit in pair.fits.items():
            rows += [_term(pair, formula, fit, k) for k in range(len(fit.names))]
        if pair.reason:
            missing = 'TAS' if pair.fits else 'TA'
            head = {'model': pair.names['TA'], 'formula': missing, 'n': pair.n}
            rows.append({**head, 'reason': pair.reason})
    return pd.DataFrame(rows, columns=COLUMNS)


def _term(pair: Fused, formula: str, fit: Fit, k: int) -> dict[str, Any]:
    """Lay out one coefficient of one fit."""
    from scipy.stats import t as student

    estimate, se, t, p = fit.test(np.eye(len(fit.names))[k])
    half = float(student.ppf(0.975, fit.df)) * se
    exact = se == 0
    return {
        'model': pair.names['TA'],
        'formula': formula,
        'term': pair.terms[fit.names[k]],
        'n': pair.n,
        'estimate': estimate,
        'standard_error': se,
        'ci_low': estimate - half,
        'ci_high': estimate + half,
        'statistic': None if exact else t,
        'p': None if exact else p,
        'rss': fit.rss,
        'df_residual': fit.df,
        'r2': fit.r2.value,
        'reason': 'statistic, p: the fit leaves no residual' if exact else fit.r2.reason,
    }
