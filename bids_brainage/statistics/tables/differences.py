"""The table of contrasts between groups of people, and of correlations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.statistics.cohorts import (
    Contrast,
    ancova,
    correlation,
    games_howell,
    refused,
    welch_anova,
    z_test,
)
from bids_brainage.statistics.fdr import fdr
from bids_brainage.statistics.result import Stat, undefined

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.statistics.tables.fusion import Fused
    from bids_brainage.statistics.tables.options import GroupOptions

MAX_LEVELS = 12
"""More levels than this are a measurement, not a group; these have 66 pairs."""

COLUMNS = [
    'model',
    'corrected',
    'test',
    'column',
    'level_a',
    'level_b',
    'n_a',
    'n_b',
    'covariates',
    'estimate',
    'ci_low',
    'ci_high',
    'statistic',
    'df',
    'p',
    'p_fdr',
    'hedges_g',
    'hedges_g_low',
    'hedges_g_high',
    'reason',
]

Tested = tuple[str, str | None, Contrast]


def differences_table(
    models: Mapping[str, pd.DataFrame], options: GroupOptions, fused: Sequence[Fused] = ()
) -> pd.DataFrame:
    """Test differences of the brain-age gap, one scan (the first with an age) per person.

    Parameters
    ----------
    models : mapping of str to DataFrame
        Rows of each model as prepared by the group analysis.
    options : GroupOptions
        Group column, covariates, reference group, columns to correlate.
    fused : sequence of Fused
        Fusion models whose nested F tests are added.

    Returns
    -------
    DataFrame
        ``p_fdr`` is Benjamini–Hochberg over all tests of one model, raw or corrected.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for model, one in models.items():
        people = one[one['baseline'].to_numpy(bool)]
        for corrected in (False, True):
            predicted = people['corrected' if corrected else 'predicted_age']
            gap = (predicted - people['age']).to_numpy(np.float64)
            if corrected and not np.isfinite(gap).any():
                continue
            tested = list(_contrasts(people, gap, options))
            rows += _layout(model, corrected, tested)
    for pair in fused:
        rows += _layout(pair.names['TA'], False, list(_nested(pair)))
    return pd.DataFrame(rows, columns=COLUMNS)


def untested(table: pd.DataFrame) -> list[str]:
    """Say which comparisons and correlations that were asked for could not be made, and why.

    Parameters
    ----------
    table : DataFrame
        The table of :func:`differences_table`.
    """
    notes = []
    raw = table[table['p'].isna() & ~table['corrected'].astype(bool)]
    for row in raw.to_dict('records'):
        if row['test'] == 'welch_anova':
            notes.append(f'{row["model"]}: no comparison of {row["column"]}: {row["reason"]}')
        elif row['test'] == 'correlation' and row['level_a'] == 'all':
            notes.append(f'{row["model"]}: no correlation with {row["column"]}: {row["reason"]}')
    return notes


def _layout(model: str, corrected: bool, tested: list[Tested]) -> list[dict[str, Any]]:
    """Lay out one family of tests as rows."""
    adjusted = fdr([contrast.p for _, _, contrast in tested])
    rows = []
    for (column, covariates, c), p_fdr in zip(tested, adjusted, strict=True):
        reasons = {s.reason: None for s in (c.p, c.statistic) if s.reason}
        if c.warning:
            reasons[c.warning] = None
        rows.append(
            {
                'model': model,
                'corrected': corrected,
                'test': c.test,
                'column': column,
                'level_a': c.level_a,
                'level_b': c.level_b or None,
                'n_a': c.n_a,
                'n_b': c.n_b or None,
                'covariates': covariates,
                'estimate': c.estimate.value,
                'ci_low': c.estimate.low,
                'ci_high': c.estimate.high,
                'statistic': c.statistic.value,
                'df': ', '.join(f'{x:.10g}' for x in c.df) or None,
                'p': c.p.value,
                'p_fdr': p_fdr.value,
                'hedges_g': c.hedges_g.value,
                'hedges_g_low': c.hedges_g.low,
                'hedges_g_high': c.hedges_g.high,
                'reason': '; '.join(reasons) or None,
            }
        )
    return rows


def _contrasts(
    people: pd.DataFrame, gap: NDArray[np.float64], options: GroupOptions
) -> Iterator[Tested]:
    """Yield all tests of one model on one row per person."""
    if 'sex' in people:
        sex = people['sex'].to_numpy(object)
        yield 'sex', None, z_test(gap[sex == 'M'], gap[sex == 'F'], ('M', 'F'))
    column = options.group_column
    group = _text(people, column) if column else np.full(len(people), None, dtype=object)
    if column:
        yield from _group_tests(people, gap, group, column, options)
    levels = _level_names(group)
    within = levels if len(levels) <= MAX_LEVELS else []
    for name in options.correlate:
        values = _number(people, name)
        parts = [('all', np.ones(len(people), bool))]
        parts += [(level, group == level) for level in within]
        for level, rows in parts:
            yield name, None, _correlation(gap[rows], values[rows], level)


def _correlation(gap: NDArray[np.float64], values: NDArray[np.float64], level: str) -> Contrast:
    """Pearson correlation as a contrast; the estimate is r."""
    r, p, n = correlation(gap, values)
    no_g = undefined('not defined for this test')
    statistic = undefined('the estimate is the statistic') if r else r
    return Contrast('correlation', level, '', n, 0, r, statistic, p, hedges_g=no_g)


def _group_tests(
    people: pd.DataFrame,
    gap: NDArray[np.float64],
    group: NDArray[np.object_],
    column: str,
    options: GroupOptions,
) -> Iterator[Tested]:
    """Yield the tests of the group column, the reference level first."""
    levels = _level_names(group)
    reference = options.reference_group
    if reference and reference[0] == column and reference[1] in levels:
        levels = [reference[1], *[x for x in levels if x != reference[1]]]
    if not 2 <= len(levels) <= MAX_LEVELS:
        reason = f'levels of {column}: {len(levels)}; 2 to {MAX_LEVELS} can be compared'
        if not len(people):
            reason = 'nobody has an age and a prediction'
        yield column, None, refused('welch_anova', 'all', '', len(people), 0, reason)
        return
    groups = {level: gap[group == level] for level in levels}
    yield column, None, welch_anova(groups)
    for row in games_howell(groups):
        yield column, None, row
    for level in levels[1:]:
        yield column, None, z_test(groups[level], groups[levels[0]], (level, levels[0]))
    covariates = covariate_columns(people, ('age', 'sex', *options.covariates))
    names = ', '.join(dict.fromkeys(name.split('=')[0] for name in covariates))
    for row in ancova(gap, group.tolist(), covariates, levels):
        yield column, names, row


def covariate_columns(
    people: pd.DataFrame, names: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    """Turn covariates into numbers.

    Numeric columns stay; text becomes one 0/1 column per level but the first, named
    ``column=level``, missing where the cell is.  Columns without any value are left out.
    """
    table: dict[str, NDArray[np.float64]] = {}
    for name in dict.fromkeys(names):
        if name not in people:
            continue
        text, numbers = _text(people, name), _number(people, name)
        known = np.array([x is not None for x in text])
        if name == 'sex':
            known &= np.isin(text, ['F', 'M'])
        if not known.any():
            continue
        if np.isfinite(numbers[known]).all():
            table[name] = numbers
            continue
        for level in sorted({str(x) for x in text[known]})[1:]:
            table[f'{name}={level}'] = np.where(known, (text == level) * 1.0, np.nan)
    return table


def _level_names(group: NDArray[np.object_]) -> list[str]:
    """Levels of a text column in alphabetical order."""
    return sorted({str(x) for x in group if x is not None})


def _text(people: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """Cells as text, None where missing; all None for an absent column."""
    if column not in people:
        return np.full(len(people), None, dtype=object)
    values = people[column].astype(object)
    missing = values.isna() | values.isin(['', 'n/a'])
    return np.array([None if m else str(x) for x, m in zip(values, missing, strict=True)], object)


def _number(people: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Cells as numbers, NaN where they are none."""
    import pandas as pd

    if column not in people:
        return np.full(len(people), np.nan)
    return pd.to_numeric(people[column], errors='coerce').to_numpy(np.float64)


def _nested(fused: Fused) -> Iterator[Tested]:
    """F tests of nested fusion models as contrasts."""
    if not fused.fits:
        names = fused.names
        yield (
            'age',
            None,
            refused('nested_f', names['T'], names['TA'], fused.n, 0, fused.reason or ''),
        )
        return
    none: Stat = undefined('not a difference')
    for key, test in fused.tests.items():
        a, b = (fused.names[formula] for formula in key.split(' vs '))
        df = (float(test.df_added), float(test.df))
        n = fused.n
        row = Contrast('nested_f', a, b, n, n, none, test.f, test.p, df=df, hedges_g=none)
        yield 'age', None, row
