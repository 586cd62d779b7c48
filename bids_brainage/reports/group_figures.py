"""Figures and headline numbers of one model on the group page, each with a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bids_brainage.reports.group_charts import COLOURS, MAX_POINTS, Dots, scatter, slopes, violins
from bids_brainage.reports.wording import decimal, years
from bids_brainage.statistics.accuracy import wilson
from bids_brainage.statistics.bins import DECADES, bin_index
from bids_brainage.statistics.reliability import LEAST_PAIRS

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]
Tables = Mapping[str, 'pd.DataFrame']

AGE, PREDICTED = 'chronological age (years)', 'predicted age (years)'
MAX_GROUPS = 30
"""Most groups that are drawn."""

MIN_PER_MEAN = 3
"""Fewest people of a decade whose mean is drawn."""

MIN_PEOPLE = 10
"""Fewest people, or pairs of scans, of whom a number is put in words."""

Pages = frozenset[str]
"""Names of the pages of participants that lie beside the group page."""


def model_summary(model: str, tables: Tables, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the headline numbers of one model and say in a sentence what they mean.

    They are those of the reference group where there is one, as patients are not expected to
    look their age.
    """
    subset = 'reference' if facts.get('reference_group') else 'all'
    accuracy = _first(tables['accuracy'], model=model, subset=subset, unit='scan', corrected=False)
    retest = _first(tables['reliability'], model=model)
    change = _first(tables['longitudinal'], model=model, row='summary')
    people, twice, pairs = (
        (accuracy.get('n_subjects', 0), 'people'),
        (retest.get('n', 0), 'people scanned twice'),
        (change.get('n_pairs', 0), 'pairs of sessions'),
    )
    tiles = [
        _tile('Mean absolute error', people, accuracy, 'mae', 'years'),
        _tile('Bias (mean error)', people, accuracy, 'me', 'years', signed=True),
        _tile('Correlation with age', people, accuracy, 'r', digits=2),
        _tile('Ages inside the interval', people, accuracy, 'interval_coverage', '%', factor=100),
        _tile('Error of one scan (test-retest)', twice, retest, 'sem', 'years'),
        _tile('Smallest change visible in a person', twice, retest, 'sdc95', 'years'),
        _tile('Error of change over time', pairs, change, 'made', 'years'),
    ]
    return {
        'tiles': [tile for tile in tiles if tile],
        'sentence': _sentence(accuracy, retest, facts),
    }


def _sentence(
    accuracy: Mapping[str, Any], retest: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
    """Say what the two most important numbers mean for one person."""
    mae, sdc = accuracy.get('mae'), retest.get('sdc95')
    parts = []
    if not _known(mae):
        parts.append('No image has both an age and a prediction, so accuracy is unknown.')
    elif accuracy['n_subjects'] < MIN_PEOPLE:
        parts.append(f'{accuracy["n_subjects"]} people are too few to say how wrong it is.')
    else:
        reference = facts.get('reference_group')
        who = f' of the reference group ({reference})' if reference else ''
        parts.append(
            f'Over {accuracy["n"]} images of {accuracy["n_subjects"]} people{who} the predicted '
            f'age was wrong by {years(float(mae))} on average.'
        )
        if facts.get('group_column') and not reference:
            parts.append(
                'These are people of all groups; --reference-group COLUMN=VALUE names the '
                'healthy ones, who tell how accurate the model is.'
            )
    if _known(sdc) and retest['n'] >= LEAST_PAIRS:
        parts.append(
            f'Two scans of one person must differ by more than {years(float(sdc))} before the '
            'difference is more than noise of the measurement.'
        )
    return ' '.join(parts)


def model_figures(
    model: str, plots: Tables, tables: Tables, pages: Pages = frozenset()
) -> list[Figure]:
    """Draw the figures of one model for which there are data."""
    people, retest, visits = (
        plots[name][plots[name]['model'] == model] if len(plots[name]) else plots[name]
        for name in ('people', 'retest', 'visits')
    )
    figures = []
    if len(people):
        figures += [_against_age(people, pages), _residuals(people, pages)]
    if len(retest) >= LEAST_PAIRS:
        figures.append(_bland_altman(retest, model, tables, pages))
    known = visits[visits['age'].notna() & visits['predicted'].notna()] if len(visits) else visits
    if len(known):
        figures.append(_slopes(known, pages))
    if len(people) and people['group'].notna().any():
        figures.append(_cohorts(people))
    return figures


def group_levels(people: pd.DataFrame) -> list[str]:
    """Names of the groups in alphabetical order, the reference first."""
    known = people[people['group'].notna()]
    first = known.loc[known['reference'].to_numpy(bool), 'group'].astype(str).unique()
    levels = sorted(known['group'].astype(str).unique())
    alone = list(first) if len(first) == 1 else []
    return [*alone, *(level for level in levels if level not in alone)]


def dots(
    table: pd.DataFrame, x: NDArray[np.float64], y: NDArray[np.float64], pages: Pages
) -> Dots:
    """Points of people that lead to their pages, in the colours of their groups."""
    names = table['participant_id'].astype(str).tolist()
    kinds: list[str] = []
    if 'group' in table and table['group'].notna().any():
        levels = {name: f'g{k % COLOURS}' for k, name in enumerate(group_levels(table))}
        kinds = [levels.get(str(g), '') for g in table['group']]
    return Dots(x, y, names, [page_of(name, pages) for name in names], kinds)


def page_of(name: str, pages: Pages) -> str:
    """Address of a participant's page, empty where there is none."""
    page = f'{name}.html'
    return page if page in pages else ''


def _figure(title: str, svg: str, n: int, caption: str) -> Figure:
    """One figure of the page."""
    return {'title': title, 'svg': svg, 'n': n, 'caption': caption}


def _against_age(people: pd.DataFrame, pages: Pages) -> Figure:
    """Predicted against chronological age."""
    age, predicted = _values(people, 'age'), _values(people, 'predicted')
    svg = scatter(dots(people, age, predicted, pages), (AGE, PREDICTED), identity=True)
    caption = 'Each dot is one person (first image); on the dashed line the prediction is right.'
    if age.size >= MIN_PEOPLE:
        near = wilson(float(np.mean(np.abs(predicted - age) <= 5)), age.size)
        share, low, high = (f'{100 * x:.0f}' for x in (near.get(), near.low or 0, near.high or 0))
        caption += f' {share} % ({low} to {high}) lie within 5 years of it.'
    return _figure('Predicted against true age', svg, age.size, caption + _selection(age.size))


def _residuals(people: pd.DataFrame, pages: Pages) -> Figure:
    """Error against chronological age with the mean of each decade."""
    age = _values(people, 'age')
    error = _values(people, 'predicted') - age
    index = bin_index(age, DECADES)
    used = [k for k in range(len(DECADES)) if np.sum(index == k) >= MIN_PER_MEAN]
    means = np.array([[age[index == k].mean(), error[index == k].mean()] for k in used])
    curve = (means[:, 0], means[:, 1]) if len(used) > 1 else None
    titles = (AGE, 'predicted − true (years)')
    svg = scatter(dots(people, age, error, pages), titles, levels={'': 0.0}, curve=curve)
    caption = 'Level at zero is best. '
    if curve:
        caption = f'The solid line is the mean of each decade of age. {caption}'
    if age.size >= MIN_PEOPLE and np.ptp(age) > 0:
        slope = float(np.polyfit(age, error, 1)[0])
        side = 'falls' if slope < 0 else 'rises'
        caption += f'Here the error {side} by {decimal(abs(10 * slope), 1)} years per decade.'
    return _figure('Error against true age', svg, age.size, caption + _selection(age.size))


def _bland_altman(retest: pd.DataFrame, model: str, tables: Tables, pages: Pages) -> Figure:
    """Difference of repeated scans against their mean with limits of agreement."""
    mean, difference = _values(retest, 'mean'), _values(retest, 'difference')
    row = _first(tables['reliability'], model=model)
    named = {'lower limit': 'loa_low', 'mean': 'mu_d', 'upper limit': 'loa_high'}
    levels = {
        f'{label} {decimal(float(row[key]), 1)}': float(row[key])
        for label, key in named.items()
        if _known(row.get(key))
    }
    titles = ('mean of both predictions (years)', 'first − second (years)')
    svg = scatter(dots(retest, mean, difference, pages), titles, levels=levels)
    caption = 'Each dot is one person scanned twice; 95 % of differences lie between the limits.'
    title = 'Repeated scans (Bland-Altman)'
    return _figure(title, svg, mean.size, caption + _selection(mean.size))


def _slopes(known: pd.DataFrame, pages: Pages) -> Figure:
    """Lines of people with several sessions."""
    order = known.sort_values(['participant_id', 'age'], kind='stable')
    names = order['participant_id'].to_numpy(object)
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    ages = np.split(_values(order, 'age'), starts[1:])
    predicted = np.split(_values(order, 'predicted'), starts[1:])
    lines = [(str(n), a, p) for n, a, p in zip(names[starts], ages, predicted, strict=True)]
    steps = np.array([(p[-1] - p[0]) / (a[-1] - a[0]) for _, a, p in lines if a[-1] > a[0]])
    caption = 'Each line joins the sessions of one person; parallel to the dashed line is right. '
    if steps.size >= MIN_PEOPLE:
        caption += f'Median pace: {decimal(float(np.median(steps)))} years per calendar year.'
    if len(lines) > 300:
        caption += ' An even selection of 300 people is drawn.'
    links = [page_of(name, pages) for name, _, _ in lines]
    svg = slopes(lines, (AGE, PREDICTED), links)
    return _figure('Change over time', svg, len(lines), caption)


def _cohorts(people: pd.DataFrame) -> Figure:
    """Distribution of the gap in each group."""
    column = 'corrected' if people['corrected'].notna().any() else 'predicted'
    gap = _values(people, column) - _values(people, 'age')
    group = people['group'].to_numpy(object)
    known = people['group'].notna().to_numpy() & np.isfinite(gap)
    levels = [x for x in group_levels(people) if (group[known].astype(str) == x).any()]
    groups = {level: gap[known & (group.astype(str) == level)] for level in levels[:MAX_GROUPS]}
    kind = 'corrected for age bias' if column == 'corrected' else 'not corrected for age bias'
    caption = (
        f'Brain age gap, {kind}; the bar spans the middle half of a group, the ring is its '
        'median; small groups are dots. Groups that differ in age are compared fairly only in '
        'the comparison at the top of the page.'
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
    counted: tuple[int, str],
    row: Mapping[str, Any],
    key: str,
    unit: str = '',
    *,
    factor: float = 1,
    digits: int = 1,
    signed: bool = False,
) -> dict[str, str] | None:
    """Lay out one headline number with its limits; none where nothing was counted."""
    value, (n, what) = row.get(key), counted
    if not n or not _known(value):
        return None
    if n < MIN_PEOPLE:
        note = f'{n} {what}; {MIN_PEOPLE} are needed'
        return {'name': name, 'value': 'n/a', 'unit': '', 'note': note}
    number = factor * float(value)
    text = decimal(number, digits)
    note = 'no limits; the table says why'
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


def _selection(n: int) -> str:
    """Say so when not every point is drawn."""
    return f' An even selection of {MAX_POINTS} is drawn.' if n > MAX_POINTS else ''
