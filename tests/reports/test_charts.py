from xml.etree import ElementTree

import pytest

from bids_brainage.reports.charts import (
    Axis,
    Estimate,
    Visit,
    age_axis,
    age_strip,
    bar,
    nice_axis,
    trend_chart,
    visit_positions,
)

AXIS = Axis(50.0, 90.0, (50.0, 60.0, 70.0, 80.0, 90.0))


def elements(markup: str, kind: str, name: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(markup).iter(kind) if e.get('class') == name]


@pytest.mark.parametrize(
    ('values', 'least', 'low', 'high', 'step'),
    [
        ([55.12, 71.7, 58.24], 1.0, 55, 75, 5),
        ([3.0, 97.0], 1.0, 0, 100, 20),
        ([70.0], 20.0, 60, 80, 5),
        ([-0.31, 0.12], 0.1, -0.4, 0.2, 0.1),
    ],
)
def test_axis_has_round_ticks_around_the_data(values, least, low, high, step):
    axis = nice_axis(values, least=least)
    assert (axis.low, axis.high) == (low, high)
    assert axis.ticks[1] - axis.ticks[0] == pytest.approx(step)
    assert axis.ticks[0] <= min(values) <= max(values) <= axis.ticks[-1]


def test_axis_positions_are_linear_and_stay_inside():
    assert [AXIS.percent(value) for value in (50, 70, 90)] == ['0.00%', '50.00%', '100.00%']
    assert AXIS.percent(20) == '0.00%'
    assert AXIS.percent(200) == '100.00%'


def test_age_axis_holds_intervals_and_ages():
    axis = age_axis([Estimate('m', 60, 40, 80)], [95, None])
    assert axis.low <= 40
    assert axis.high >= 95
    assert age_axis([], [50.0]) is None


def test_strip_places_dot_interval_age_and_training_range():
    markup = age_strip(AXIS, [Estimate('m', 60, 55, 80)], 70.0, (18, 80))
    (dot,) = elements(markup, 'circle', 'dot')
    (interval,) = elements(markup, 'line', 'interval')
    (age,) = elements(markup, 'line', 'age-line')
    (band,) = elements(markup, 'rect', 'band')
    assert dot.get('cx') == '25.00%'
    assert (interval.get('x1'), interval.get('x2')) == ('12.50%', '75.00%')
    assert interval.get('y1') == interval.get('y2') == dot.get('cy')
    assert age.get('x1') == age.get('x2') == '50.00%'
    assert (band.get('x'), band.get('width')) == ('0.00%', '75.00%')


def test_strip_without_interval_age_and_range_draws_only_the_dot():
    markup = age_strip(AXIS, [Estimate('m', 60)], None, None)
    assert len(elements(markup, 'circle', 'dot')) == 1
    for kind, name in (('line', 'interval'), ('line', 'age-line'), ('rect', 'band')):
        assert elements(markup, kind, name) == []
    assert 'Chronological age: unknown' in ElementTree.fromstring(markup).get('aria-label')


def test_strip_names_several_models_on_their_own_lines():
    markup = age_strip(AXIS, [Estimate('a', 60), Estimate('b', 64)], 60.0, None)
    heights = [float(dot.get('cy')) for dot in elements(markup, 'circle', 'dot')]
    assert heights[1] - heights[0] > 30
    labels = [label.text for label in elements(markup, 'text', 'value')]
    assert labels == ['a: 60.0', 'b: 64.0']


@pytest.mark.parametrize(
    ('value', 'start', 'width', 'kind'),
    [(4.0, '50.00%', '50.00%', 'up'), (-1.0, '37.50%', '12.50%', 'down')],
)
def test_bars_grow_from_the_middle_to_their_side(value, start, width, kind):
    (rect,) = elements(bar(value, 4.0), 'rect', kind)
    assert (rect.get('x'), rect.get('width')) == (start, width)


def test_bar_of_zero_has_no_length():
    (rect,) = elements(bar(0.0, 0.0), 'rect', 'up')
    assert rect.get('width') == '0.00%'


def visit(name: str, age: float | None, *values: float) -> Visit:
    return Visit(name, age, tuple(Estimate('m', v, v - 5, v + 5) for v in values))


def test_visits_are_spaced_by_age_when_they_can_be_told_apart():
    assert visit_positions([visit(n, a) for n, a in (('a', 60), ('b', 61), ('c', 64))]) == [
        pytest.approx(10),
        pytest.approx(30),
        pytest.approx(90),
    ]


@pytest.mark.parametrize('ages', [(60, None, 64), (60, 60.1, 70), (60, 60, 60), (64, 62, 60)])
def test_visits_are_evenly_spaced_when_ages_do_not_allow_more(ages):
    assert visit_positions([visit('v', age) for age in ages]) == [10, 50, 90]


def test_trend_draws_older_higher_and_marks_missing_sessions():
    visits = [visit('ses-1', 60, 65), visit('ses-2', 62), visit('ses-3', 64, 75, 77)]
    markup = trend_chart(AXIS, visits, height=200)
    heights = [float(dot.get('cy')) for dot in elements(markup, 'circle', 'dot')]
    assert heights == [137.0, 87.0, 77.0]  # 12 px above the plot, 5 px a year
    (line,) = elements(markup, 'line', 'trend')
    assert (line.get('y1'), line.get('y2')) == ('137.0', '82.0')
    assert len(elements(markup, 'circle', 'age-dot')) == 3
    assert 'ses-2: no prediction' in ElementTree.fromstring(markup).get('aria-label')


def test_labels_cannot_break_out_of_the_chart():
    markup = age_strip(AXIS, [Estimate('<script>x</script>"', 60), Estimate('b', 61)], None, None)
    assert '<script' not in markup
    ElementTree.fromstring(markup)
