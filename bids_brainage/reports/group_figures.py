"""Figures and headline numbers of one model on the group page, each with a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bids_brainage.reports.group_charts import MAX_POINTS, scatter, slopes, violins
from bids_brainage.reports.wording import decimal, years
from bids_brainage.statistics.bins import DECADES, bin_index

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
Tables = Mapping[str, 'pd.DataFrame']

AGE, PREDICTED = 'chronological age (years)', 'predicted age (years)'
MAX_GROUPS = 30
"""Most groups that are drawn."""

MIN_PER_MEAN = 3
"""Fewest people of a decade whose mean is drawn."""


def model_summary(model: str, tables: Tables) -> dict[str, Any]:
    """Choose the headline numbers of one model and say in a sentence what they mean."""
    accuracy = _first(tables['accuracy'], model=model, subset='all', unit='scan', corrected=False)
    retest = _first(tables['reliability'], model=model)
    change = _first(tables['longitudinal'], model=model, row='summary')
    tiles = [
        _tile('Mean absolute error', accuracy, 'mae', 'years'),
        _tile('Bias (mean error)', accuracy, 'me', 'years', signed=True),
        _tile('Correlation with age', accuracy, 'r', digits=2),
        _tile('Ages inside the interval', accuracy, 'interval_coverage', '%', factor=100),
        _tile('Error of one scan (test-retest)', retest, 'sem', 'years'),
        _tile('Smallest change visible in a person', retest, 'sdc95', 'years'),
        _tile('Error of change over time', change, 'made', 'years'),
    ]
    return {'tiles': tiles, 'sentence': _sentence(accuracy, retest)}


def _sentence(accuracy: Mapping[str, Any], retest: Mapping[str, Any]) -> str:
    """Say what the two most important numbers mean for one person."""
    mae, sdc = accuracy.get('mae'), retest.get('sdc95')
    parts = []
    if _known(mae):
        parts.append(
            f'Over {accuracy["n"]} images of {accuracy["n_subjects"]} people the predicted age '
            f'was wrong by {years(float(mae))} on average.'
        )
    else:
        parts.append('No image has both an age and a prediction, so accuracy is unknown.')
    if _known(sdc):
        parts.append(
            f'Two scans of one person must differ by more than {years(float(sdc))} before the '
            'difference is more than noise of the measurement.'
        )
    return ' '.join(parts)


def model_figures(model: str, plots: Tables, tables: Tables) -> list[Figure]:
    """Draw all figures of one model for which there are data; others say what is missing."""
    people, retest, visits = (
        plots[name][plots[name]['model'] == model] if len(plots[name]) else plots[name]
        for name in ('people', 'retest', 'visits')
    )
    figures = [_against_age(people), _residuals(people), _bland_altman(retest, model, tables)]
    figures.append(_slopes(visits))
    if len(people) and people['group'].notna().any():
        figures.append(_cohorts(people))
    return figures


def _figure(title: str, svg: str, n: int, caption: str) -> Figure:
    """One figure of the page."""
    return {'title': title, 'svg': svg, 'n': n, 'caption': caption}


def _against_age(people: pd.DataFrame) -> Figure:
    """Predicted against chronological age."""
    title = 'Predicted against true age'
    if not len(people):
        return _figure(title, '', 0, 'No person has both an age and a prediction.')
    age, predicted = _values(people, 'age'), _values(people, 'predicted')
    svg = scatter(age, predicted, _names(people), (AGE, PREDICTED), identity=True)
    near = 100 * np.mean(np.abs(predicted - age) <= 5)
    caption = (
        f'Each dot is one person (first image); on the dashed line the prediction is right. '
        f'{near:.0f} % lie within 5 years of it.'
    )
    return _figure(title, svg, age.size, caption + _selection(age.size))


def _residuals(people: pd.DataFrame) -> Figure:
    """Error against chronological age with the mean of each decade."""
    title = 'Error against true age'
    if not len(people):
        return _figure(title, '', 0, 'No person has both an age and a prediction.')
    age = _values(people, 'age')
    error = _values(people, 'predicted') - age
    index = bin_index(age, DECADES)
    used = [k for k in range(len(DECADES)) if np.sum(index == k) >= MIN_PER_MEAN]
    means = np.array([[age[index == k].mean(), error[index == k].mean()] for k in used])
    curve = (means[:, 0], means[:, 1]) if len(used) > 1 else None
    titles = (AGE, 'predicted − true (years)')
    svg = scatter(age, error, _names(people), titles, levels={'': 0.0}, curve=curve)
    caption = 'Level at zero is best. '
    if curve:
        caption = f'The solid line is the mean of each decade of age. {caption}'
    if age.size > 2 and np.ptp(age) > 0:
        slope = float(np.polyfit(age, error, 1)[0])
        side = 'falls' if slope < 0 else 'rises'
        caption += f'Here the error {side} by {decimal(abs(10 * slope), 1)} years per decade.'
    return _figure(title, svg, age.size, caption + _selection(age.size))


def _bland_altman(retest: pd.DataFrame, model: str, tables: Tables) -> Figure:
    """Difference of repeated scans against their mean with limits of agreement."""
    title = 'Repeated scans (Bland-Altman)'
    if not len(retest):
        return _figure(title, '', 0, 'No person has test-retest scans.')
    mean, difference = _values(retest, 'mean'), _values(retest, 'difference')
    row = _first(tables['reliability'], model=model)
    named = {'lower limit': 'loa_low', 'mean': 'mu_d', 'upper limit': 'loa_high'}
    levels = {
        f'{label} {decimal(float(row[key]), 1)}': float(row[key])
        for label, key in named.items()
        if _known(row.get(key))
    }
    titles = ('mean of both predictions (years)', 'first − second (years)')
    svg = scatter(mean, difference, _names(retest), titles, levels=levels)
    caption = 'Each dot is one person scanned twice; 95 % of differences lie between the limits.'
    return _figure(title, svg, mean.size, caption + _selection(mean.size))


def _slopes(visits: pd.DataFrame) -> Figure:
    """Lines of people with several sessions."""
    title = 'Change over time'
    known = visits[visits['age'].notna() & visits['predicted'].notna()] if len(visits) else visits
    if not len(known):
        return _figure(title, '', 0, 'No person has several sessions at known, different ages.')
    order = known.sort_values(['participant_id', 'age'], kind='stable')
    names = order['participant_id'].to_numpy(object)
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    ages = np.split(_values(order, 'age'), starts[1:])
    predicted = np.split(_values(order, 'predicted'), starts[1:])
    lines = [(str(n), a, p) for n, a, p in zip(names[starts], ages, predicted, strict=True)]
    steps = np.array([(p[-1] - p[0]) / (a[-1] - a[0]) for _, a, p in lines if a[-1] > a[0]])
    caption = 'Each line joins the sessions of one person; parallel to the dashed line is right. '
    if steps.size:
        caption += f'Median pace: {decimal(float(np.median(steps)))} years per calendar year.'
    if len(lines) > 300:
        caption += ' An even selection of 300 people is drawn.'
    return _figure(title, slopes(lines, (AGE, PREDICTED)), len(lines), caption)


def _cohorts(people: pd.DataFrame) -> Figure:
    """Distribution of the gap in each group."""
    column = 'corrected' if people['corrected'].notna().any() else 'predicted'
    gap = _values(people, column) - _values(people, 'age')
    group = people['group'].to_numpy(object)
    known = people['group'].notna().to_numpy() & np.isfinite(gap)
    levels = sorted({str(x) for x in group[known]})
    groups = {level: gap[known & (group.astype(str) == level)] for level in levels[:MAX_GROUPS]}
    kind = 'corrected for age bias' if column == 'corrected' else 'not corrected for age bias'
    caption = (
        f'Brain age gap, {kind}; the bar spans the middle half of a group, the ring is its '
        'median; small groups are dots. Groups that differ in age are compared fairly only in '
        'the adjusted rows of the table below.'
    )
    if len(levels) > MAX_GROUPS:
        caption += f' The first {MAX_GROUPS} of {len(levels)} groups are drawn.'
    svg = violins(groups, 'brain age gap (years)') if groups else ''
    return _figure('Groups', svg, int(known.sum()), caption)


def _first(table: pd.DataFrame, **cells: Any) -> dict[str, Any]:
    """Return the first row with these cells, empty if there is none."""
    for name, value in cells.items():
        table = table[table[name] == value]
    return {str(k): v for k, v in table.iloc[0].items()} if len(table) else {}


def _tile(
    name: str,
    row: Mapping[str, Any],
    key: str,
    unit: str = '',
    *,
    factor: float = 1,
    digits: int = 1,
    signed: bool = False,
) -> dict[str, str]:
    """Lay out one headline number with its limits."""
    value = row.get(key)
    if not _known(value):
        return {'name': name, 'value': 'n/a', 'unit': '', 'note': 'see the table for the reason'}
    number = factor * float(value)
    text = decimal(number, digits)
    note = ''
    low, high = row.get(f'{key}_low'), row.get(f'{key}_high')
    if _known(low) and _known(high):
        ends = [decimal(factor * float(x), digits) for x in (low, high)]
        note = f'95 % limits {ends[0]} to {ends[1]}'
    plus = '+' if signed and round(number, digits) > 0 else ''
    return {'name': name, 'value': plus + text, 'unit': unit, 'note': note}


def _known(value: Any) -> TypeGuard[float]:
    """Whether a cell holds a finite number."""
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value))


def _values(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column as float64."""
    return table[column].to_numpy(np.float64)


def _names(table: pd.DataFrame) -> list[str]:
    """Return the participants' names."""
    return table['participant_id'].astype(str).tolist()


def _selection(n: int) -> str:
    """Say so when not every point is drawn."""
    return f' An even selection of {MAX_POINTS} is drawn.' if n > MAX_POINTS else ''
