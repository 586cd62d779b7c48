"""What the page says first: how the groups differ, and what goes with the brain age gap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.reports.group_charts import COLOURS, Band, scatter
from bids_brainage.reports.group_figures import (
    AGE,
    MIN_PEOPLE,
    PREDICTED,
    Pages,
    dots,
    group_levels,
)
from bids_brainage.reports.wording import decimal, years

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, 'pd.DataFrame']


def comparison(
    tables: Tables, plots: Tables, facts: Mapping[str, Any], pages: Pages
) -> dict[str, Any] | None:
    """Answer how the groups of a column differ, by the one test that is recommended.

    It is the analysis of covariance of the gap with age, sex and the chosen covariates, which
    compares groups of different ages fairly.  None when no groups were asked for.
    """
    column = facts.get('group_column')
    if not column:
        return None
    tests = tables['differences']
    tests = tests[(tests['column'] == column) & ~tests['corrected'].astype(bool)]
    pairs = tests[tests['test'] == 'ancova_pair'].to_dict('records')
    models = list(dict.fromkeys(tests['model']))
    why = tests.loc[tests['p'].isna(), 'reason'].dropna().unique().tolist()
    first = {row['level_b'] for row in pairs[:1]}
    return {
        'column': column,
        'sentences': [
            {'model': row['model'] if len(models) > 1 else '', 'text': _difference(row)}
            for row in pairs
            if row['level_b'] in first
        ],
        'rows': [_row(row) for row in pairs],
        'covariates': next((row['covariates'] for row in pairs), None),
        'reason': '; '.join(why) if not pairs else '',
        'several': len(models) > 1,
        'figures': [figure for m in models for figure in _groups_figure(m, plots, pages)],
    }


def _difference(row: Mapping[str, Any]) -> str:
    """Say in a sentence how two groups differ."""
    a, b = row['level_a'], row['level_b']
    n = f'n {row["n_a"]:.0f} and {row["n_b"]:.0f}'
    if min(row['n_a'], row['n_b']) < MIN_PEOPLE:
        return f'“{a}” and “{b}”: too few people to say how they differ ({n}).'
    value, low, high = (float(row[k]) for k in ('estimate', 'ci_low', 'ci_high'))
    equal = _equal(row['covariates'])
    limits = f'95 % limits {years(low, signed=True, unit=False)} to {years(high, signed=True)}'
    if low <= 0 <= high:
        return (
            f'No difference between “{a}” and “{b}”{equal} is shown: {years(value, signed=True)} '
            f'({limits}; analysis of covariance, {n}, p {_p(row["p"])}).'
        )
    side = 'older' if value > 0 else 'younger'
    ends = sorted((abs(low), abs(high)))
    limits = f'95 % limits {years(ends[0], unit=False)} to {years(ends[1], unit=False)}'
    return (
        f'Brains in the group “{a}” look {years(abs(value))} ({limits}) {side} than in '
        f'“{b}”{equal} (analysis of covariance, {n}, p {_p(row["p"])}).'
    )


def _equal(covariates: str | None) -> str:
    """Say what is equal between compared people."""
    names = (covariates or '').split(', ')
    if not names[0]:
        return ''
    return ' at the same ' + (
        names[0] if len(names) == 1 else f'{", ".join(names[:-1])} and {names[-1]}'
    )


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out one comparison for the table of the answer."""
    low, high = (years(float(row[k]), signed=True, unit=False) for k in ('ci_low', 'ci_high'))
    return {
        'model': row['model'],
        'pair': f'{row["level_a"]} − {row["level_b"]}',
        'n': f'{row["n_a"]:.0f} and {row["n_b"]:.0f}',
        'estimate': years(float(row['estimate']), signed=True, unit=False),
        'limits': f'{low} to {high}',
        'p': _p(row['p']),
        'p_fdr': _p(row['p_fdr']),
    }


def _groups_figure(model: str, plots: Tables, pages: Pages) -> Iterator[dict[str, Any]]:
    """Draw groups in colours with the regression of the reference and its band."""
    people = plots['people']
    people = people[(people['model'] == model) & people['group'].notna()]
    if not len(people):
        return
    levels = group_levels(people)
    reference = people.loc[people['reference'].to_numpy(bool), 'group'].astype(str).unique()
    band = _band(plots, model, '')
    caption = 'On the dashed line the predicted age is the true one.'
    of_reference = band is not None and len(reference) == 1
    if of_reference:
        caption = (
            f'The solid line is the regression of “{reference[0]}” with its 95 % confidence band: '
            f'people above it look older than that group at their age. {caption}'
        )
    age, predicted = (people[c].to_numpy(np.float64) for c in ('age', 'predicted'))
    yield {
        'title': f'Predicted age by group, {model}',
        'svg': scatter(
            dots(people, age, predicted, pages), (AGE, PREDICTED), identity=True, band=band
        ),
        'n': age.size,
        'caption': caption,
        'line_of_first': of_reference,
        'key': [
            {'kind': f'g{k % COLOURS}', 'name': name, 'n': int((people['group'] == name).sum())}
            for k, name in enumerate(levels)
        ],
    }


def correlations(tables: Tables, plots: Tables, pages: Pages) -> list[dict[str, Any]]:
    """Answer what goes with the gap: a sentence, and a figure with its line, for each column."""
    points = plots['correlates']
    if not len(points):
        return []
    tests = tables['differences']
    tests = tests[(tests['test'] == 'correlation') & (tests['level_a'] == 'all')]
    answers = []
    several = points['model'].nunique() > 1
    for (column, model), part in points.groupby(['column', 'model'], sort=False):
        corrected = bool(part['is_corrected'].iloc[0])
        mine = tests[(tests['column'] == column) & (tests['model'] == model)]
        rows = mine[mine['corrected'].astype(bool) == corrected].to_dict('records')
        value, gap = (part[c].to_numpy(np.float64) for c in ('value', 'gap'))
        kind = 'corrected for age bias' if corrected else 'not corrected for age bias'
        answers.append(
            {
                'title': f'{column}, {model}' if several else str(column),
                'svg': scatter(
                    dots(part, value, gap, pages),
                    (str(column), 'brain age gap (years)'),
                    band=_band(plots, str(model), str(column)),
                ),
                'n': value.size,
                'caption': f'{_association(str(column), rows)} Gap {kind}; line by least squares '
                'with its 95 % confidence band.'
                + ('' if corrected else ' Both may depend on age: name a --reference-group.'),
            }
        )
    return answers


def _association(column: str, rows: list[dict[str, Any]]) -> str:
    """Say in a sentence how a column goes with the gap."""
    row = rows[0] if rows else {}
    if not row or row['p'] != row['p'] or row['p'] is None:
        return f'No correlation: {row.get("reason") or "no values"}.'
    if row['n_a'] < MIN_PEOPLE:
        return f'{row["n_a"]:.0f} people are too few to say how {column} goes with the gap.'
    value, low, high = (decimal(float(row[k]), 2) for k in ('estimate', 'ci_low', 'ci_high'))
    if row['ci_low'] <= 0 <= row['ci_high']:
        words = f'No correlation of {column} with the gap is shown'
    elif row['estimate'] > 0:
        words = f'The higher {column}, the older the brain looks'
    else:
        words = f'The lower {column}, the older the brain looks'
    return f'{words}: r = {value} (95 % limits {low} to {high}), p {_p(row["p"])}.'


def _band(plots: Tables, model: str, name: str) -> Band | None:
    """Find a regression line with its limits."""
    lines = plots['lines']
    if not len(lines):
        return None
    part = lines[(lines['model'] == model) & (lines['line'] == name)]
    if not len(part):
        return None
    x, y, low, high = (part[c].to_numpy(np.float64) for c in ('x', 'y', 'low', 'high'))
    return Band(x, y, low, high)


def _p(value: Any) -> str:
    """Write a p value as papers do."""
    if value is None or value != value:
        return 'n/a'
    return '< 0.001' if value < 0.001 else f'{value:.3f}'
