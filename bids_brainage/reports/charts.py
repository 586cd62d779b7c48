"""Small charts as inline SVG that stay readable at any width.

Horizontal positions are percentages of the chart's width and vertical ones are pixels, so text
keeps its size when the page gets narrow.  Colours come from classes of the page's style sheet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bids_brainage.pictures.svg import tag, text

ROW = 46
_HEAD = 30
_FOOT = 26


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` in the unit of the data, with its tick values."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Give the position of a value, 0 at `low` and 1 at `high`; clipped."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def percent(self, value: float) -> str:
        """Give the horizontal position of a value as an SVG percentage."""
        return f'{100 * self.share(value):.2f}%'


def nice_axis(values: Iterable[float], *, least: float = 1.0, ticks: int = 6) -> Axis:
    """Make an axis that holds all values with some air, ticks at 1, 2, 5 or 10 units.

    Parameters
    ----------
    values : iterable of float
        At least one finite value.
    least : float
        Smallest length of the axis.
    ticks : int
        About how many ticks.

    Returns
    -------
    Axis
        Its ends are ticks.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    raw = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    start, stop = math.floor(low / step), math.ceil(high / step)
    marks = tuple(round(index * step, 10) for index in range(start, stop + 1))
    return Axis(marks[0], marks[-1], marks)


@dataclass(frozen=True)
class Estimate:
    """A predicted age with its interval (years) and a label."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    doubtful: bool = False


def age_axis(estimates: Iterable[Estimate], ages: Iterable[float | None]) -> Axis | None:
    """Make the axis that holds all estimates, intervals and ages (years); None if none."""
    numbers = [n for e in estimates for n in (e.value, e.low, e.high) if n is not None]
    if not numbers:
        return None
    return nice_axis([*numbers, *(age for age in ages if age is not None)], least=20.0)


def age_strip(
    axis: Axis,
    estimates: Sequence[Estimate],
    age: float | None,
    training: tuple[float, float] | None,
) -> str:
    """Draw predicted ages with intervals against the chronological age on one axis.

    Parameters
    ----------
    axis : Axis
        From :func:`age_axis`, the same for all scans that are compared.
    estimates : sequence of Estimate
        One line each; the labels are written when there is more than one.
    age : float or None
        Chronological age, years; a vertical line.
    training : (float, float) or None
        Age range of the model's training data, years; a light band.

    Returns
    -------
    str
        An ``svg`` element.
    """
    bottom = _HEAD + ROW * len(estimates)
    parts = [_band(axis, training, bottom)] if training else []
    parts += [_tick(axis, tick, _HEAD, bottom) for tick in axis.ticks]
    if age is not None:
        parts.append(_age_line(axis, age, bottom))
    for index, estimate in enumerate(estimates):
        middle = _HEAD + ROW * index + 28
        parts.append(_estimate(axis, estimate, middle, named=len(estimates) > 1))
    spoken = '; '.join(f'{e.label} {e.value:.1f} years' for e in estimates)
    known = 'unknown' if age is None else f'{age:.1f} years'
    label = f'Predicted age: {spoken}. Chronological age: {known}.'
    return _chart(''.join(parts), bottom + _FOOT, label)


def _chart(body: str, height: float, label: str, least: int = 0) -> str:
    """Wrap a body as an inline chart with a spoken label and a least width in pixels."""
    return tag(
        'svg',
        body,
        class_='chart',
        width='100%',
        height=height,
        style=f'min-width:{least}px' if least else None,
        role='img',
        aria_label=label,
    )


def _tick(axis: Axis, value: float, top: float, bottom: float) -> str:
    """Draw one vertical grid line with its number below."""
    x = axis.percent(value)
    line = tag('line', x1=x, x2=x, y1=top, y2=bottom, class_='grid')
    return line + text(f'{value:g}', x, bottom + 17, class_='tick', text_anchor='middle')


def _band(axis: Axis, training: tuple[float, float], bottom: float) -> str:
    """Shade the ages the model was trained on."""
    start, stop = axis.share(training[0]), axis.share(training[1])
    width = f'{100 * (stop - start):.2f}%'
    x, height = axis.percent(training[0]), bottom - _HEAD
    return tag('rect', x=x, y=_HEAD, width=width, height=height, class_='band')


def _anchor(share: float) -> str:
    """Keep text inside the chart: start, middle or end by its position."""
    return 'start' if share < 0.18 else 'end' if share > 0.82 else 'middle'


def _age_line(axis: Axis, age: float, bottom: float) -> str:
    """Draw the chronological age as a dashed line with its label on top."""
    x = axis.percent(age)
    label = text(
        f'age {age:.1f}', x, _HEAD - 9, class_='age-text', text_anchor=_anchor(axis.share(age))
    )
    return tag('line', x1=x, x2=x, y1=_HEAD - 4, y2=bottom, class_='age-line') + label


def _estimate(axis: Axis, estimate: Estimate, y: float, *, named: bool) -> str:
    """Draw one interval bar with its dot and, when there are several, its name."""
    kind = 'estimate doubtful' if estimate.doubtful else 'estimate'
    parts: list[str] = []
    if estimate.low is not None and estimate.high is not None:
        ends = (axis.percent(estimate.low), axis.percent(estimate.high))
        parts.append(tag('line', x1=ends[0], x2=ends[1], y1=y, y2=y, class_='interval'))
        parts += [tag('line', x1=x, x2=x, y1=y - 6, y2=y + 6, class_='cap') for x in ends]
    x = axis.percent(estimate.value)
    parts.append(tag('circle', cx=x, cy=y, r=7, class_='dot'))
    caption = f'{estimate.label}: {estimate.value:.1f}' if named else f'{estimate.value:.1f}'
    anchor = _anchor(axis.share(estimate.value))
    parts.append(text(caption, x, y - 13, class_='value', text_anchor=anchor))
    return tag('g', ''.join(parts), class_=kind)


def bar(value: float, largest: float) -> str:
    """Draw one bar of a chart around zero in the middle.

    Parameters
    ----------
    value : float
        Length and side: right if positive, left if negative.
    largest : float
        Magnitude that fills one half of the chart.

    Returns
    -------
    str
        An ``svg`` element, 16 pixels high; positions in percent of its width.
    """
    share = 50 * min(abs(value) / largest, 1.0) if largest > 0 else 0.0
    start = 50.0 if value >= 0 else 50.0 - share
    kind = 'up' if value >= 0 else 'down'
    body = tag('rect', x=f'{start:.2f}%', y=2, width=f'{share:.2f}%', height=12, class_=kind)
    zero = tag('line', x1='50%', x2='50%', y1=0, y2=16, class_='axis')
    return tag('svg', body + zero, class_='bar', width='100%', height=16, aria_hidden='true')


@dataclass(frozen=True)
class Visit:
    """One session on a trend chart; ages in years."""

    label: str
    age: float | None
    estimates: tuple[Estimate, ...]

    @property
    def mean(self) -> float | None:
        """Mean predicted age over the images of the session."""
        values = [estimate.value for estimate in self.estimates]
        return sum(values) / len(values) if values else None


def visit_positions(visits: Sequence[Visit]) -> list[float]:
    """Give horizontal positions (percent) of the sessions.

    In proportion to age when every age is known and neighbours stay at least 10 % apart, else
    evenly spaced.
    """
    count = len(visits)
    even = [50.0] if count == 1 else [10 + 80 * index / (count - 1) for index in range(count)]
    ages = [visit.age for visit in visits if visit.age is not None]
    if len(ages) < count or count < 2 or ages[-1] <= ages[0]:
        return even
    placed = [10 + 80 * (age - ages[0]) / (ages[-1] - ages[0]) for age in ages]
    close = any(after - before < 10 for before, after in itertools.pairwise(placed))
    return even if close else placed


def trend_chart(axis: Axis, visits: Sequence[Visit], height: int = 210) -> str:
    """Draw predicted age with interval and chronological age over the sessions.

    Parameters
    ----------
    axis : Axis
        Vertical axis, from :func:`age_axis`; the same for all charts that are compared.
    visits : sequence of Visit
        In order of time.
    height : int
        Height of the plot, pixels.

    Returns
    -------
    str
        An ``svg`` element, at least 64 pixels wide per session.
    """
    top, bottom = 12.0, 12.0 + height
    level = {tick: _level(axis, tick, top, bottom) for tick in axis.ticks}
    parts = [
        tag('line', x1='0%', x2='100%', y1=y, y2=y, class_='grid')
        + text(f'{tick:g}', -8, y + 4, class_='tick', text_anchor='end')
        for tick, y in level.items()
    ]
    places = visit_positions(visits)
    ages = [(x, v.age) for x, v in zip(places, visits, strict=True)]
    means = [(x, v.mean) for x, v in zip(places, visits, strict=True)]
    parts += _segments(ages, axis, top, bottom, 'age-line')
    parts += _segments(means, axis, top, bottom, 'trend')
    for x, visit in zip(places, visits, strict=True):
        parts.append(_visit(x, visit, axis, top, bottom))
    spoken = '; '.join(
        f'{v.label}: {"no prediction" if v.mean is None else f"{v.mean:.1f} years"}'
        for v in visits
    )
    label = f'Predicted age by session. {spoken}.'
    return _chart(''.join(parts), bottom + 44, label, least=64 * len(visits))


def _level(axis: Axis, value: float, top: float, bottom: float) -> float:
    """Give the height of a value, larger values higher, in pixels from the top."""
    return round(bottom - (bottom - top) * axis.share(value), 2)


def _segments(
    points: Sequence[tuple[float, float | None]],
    axis: Axis,
    top: float,
    bottom: float,
    kind: str,
) -> list[str]:
    """Join the points that have a value by straight lines."""
    known = [(x, _level(axis, y, top, bottom)) for x, y in points if y is not None]
    return [
        tag('line', x1=f'{a:.2f}%', y1=b, x2=f'{c:.2f}%', y2=d, class_=kind)
        for (a, b), (c, d) in itertools.pairwise(known)
    ]


def _visit(x: float, visit: Visit, axis: Axis, top: float, bottom: float) -> str:
    """Draw the marks of one session and its label below."""
    parts: list[str] = []
    first = x - 1.2 * (len(visit.estimates) - 1) / 2
    for index, estimate in enumerate(visit.estimates):
        place = f'{first + 1.2 * index:.2f}%'
        marks: list[str] = []
        if estimate.low is not None and estimate.high is not None:
            low, high = (_level(axis, n, top, bottom) for n in (estimate.low, estimate.high))
            marks.append(tag('line', x1=place, x2=place, y1=low, y2=high, class_='interval'))
        y = _level(axis, estimate.value, top, bottom)
        marks.append(tag('circle', cx=place, cy=y, r=6, class_='dot'))
        if len(visit.estimates) == 1:
            marks.append(
                text(f'{estimate.value:.1f}', place, y - 12, class_='value', text_anchor='middle')
            )
        kind = 'estimate doubtful' if estimate.doubtful else 'estimate'
        parts.append(tag('g', ''.join(marks), class_=kind))
    if visit.age is not None:
        y = _level(axis, visit.age, top, bottom)
        parts.append(tag('circle', cx=f'{x:.2f}%', cy=y, r=4, class_='age-dot'))
    place, anchor = f'{x:.2f}%', 'middle'
    known = 'age n/a' if visit.age is None else f'age {visit.age:.1f}'
    parts.append(text(visit.label, place, bottom + 20, class_='tick', text_anchor=anchor))
    parts.append(text(known, place, bottom + 37, class_='tick', text_anchor=anchor))
    return ''.join(parts)
