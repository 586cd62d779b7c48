"""Figures of the group page as a reader would measure them."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bids_brainage.reports.group_charts import BOTTOM, WIDTH, violins
from bids_brainage.reports.group_figures import model_figures

LETTER = 7.2
"""Generous width of a letter of 13 px, pixels."""


def figure(n, name='site-{:02d}'):
    rng = np.random.default_rng(0)
    groups = {name.format(k): rng.normal(k, 3, 20 + k) for k in range(n)}
    return groups, ElementTree.fromstring(violins(groups, 'gap (years)'))


def labels(svg, anchor):
    return [t for t in svg.iter('text') if t.get('text-anchor') == anchor]


@pytest.mark.parametrize('n', [1, 2, 12, 30])
def test_names_of_many_groups_keep_clear_of_each_other(n):
    groups, svg = figure(n, 'university-hospital-{:02d}-scanner')
    height = float(svg.get('viewBox').split()[3])
    names = [t for t in labels(svg, 'end') if '…' in t.text]
    assert len({t.text for t in names}) == n
    places = sorted(float(t.get('y')) for t in names)
    assert all(b - a >= 20 for a, b in pairwise(places))
    assert places[-1] < height - BOTTOM
    for t in names:
        assert float(t.get('x')) - LETTER * len(t.text) > 0
    whole = [t.text for t in svg.iter('title')]
    assert whole == list(groups)
    counts = [t.text for t in labels(svg, 'end') if t.text.startswith('n = ')]
    assert counts == [f'n = {20 + k}' for k in range(n)]


def test_violins_lie_inside_the_axes_and_the_median_where_it_is():
    groups, svg = figure(4)
    ticks = {
        float(t.text.replace('−', '-')): float(t.get('x'))
        for t in labels(svg, 'middle')
        if re.fullmatch(r'−?[\d.]+', t.text)
    }
    (low, left), *_, (high, right) = sorted(ticks.items())
    scale = (right - left) / (high - low)
    rings = [c for c in svg.iter('circle') if c.get('class') == 'median']
    for ring, values in zip(rings, groups.values(), strict=True):
        assert float(ring.get('cx')) == pytest.approx(
            left + scale * (np.median(values) - low), abs=0.2
        )
    for shape in svg.iter('polygon'):
        points = np.array([p.split(',') for p in shape.get('points').split()], float)
        assert left - 0.1 <= points[:, 0].min() and points[:, 0].max() <= right + 0.1
        assert right < WIDTH


def test_few_people_are_dots():
    groups = {'a': np.array([1.0, 4.0]), 'b': np.array([-19.0, -3, -3, -3.1, 15])}
    svg = ElementTree.fromstring(violins(groups, 'gap'))
    assert len([c for c in svg.iter('circle') if c.get('class') == 'dot']) == 7
    assert not list(svg.iter('polygon'))


@pytest.mark.parametrize('n', [8, 60])
def test_caption_speaks_of_a_line_only_where_one_is_drawn(n):
    age = np.linspace(20, 85, n)
    people = pd.DataFrame(
        {'model': 'm', 'participant_id': [f'sub-{k}' for k in range(n)], 'age': age,
         'predicted': 0.5 * age + 25, 'group': None}
    )  # fmt: skip
    nothing = people.iloc[:0]
    plots = {'people': people, 'retest': nothing, 'visits': nothing}
    found = model_figures('m', plots, {})
    error = next(f for f in found if f['title'] == 'Error against true age')
    assert ('solid line' in error['caption']) == (n == 60)
    assert ('mean-line' in error['svg']) == (n == 60)
    assert ('falls by 5.0 years per decade' in error['caption']) == (n == 60)
