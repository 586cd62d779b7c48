"""Figures of the group page as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainage.pictures.svg import tag, text
from bids_brainage.reports.charts import Axis, nice_axis

Array = NDArray[np.float64]

WIDTH, HEIGHT = 480, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 54
MAX_POINTS = 1500
"""Most points that one figure draws; of more, an even selection is shown."""

COLOURS = 8
"""Colours of groups in the style sheet, ``g0`` to ``g7``; more groups start again."""

VIOLIN_STEPS = 48

MIN_VIOLIN = 10
"""Fewest values whose density is worth drawing; fewer are dots."""

LETTER, LONGEST, COUNT_ROOM = 7.4, 22, 64
"""Usual width of a letter, pixels; letters of a group's name; room for its size, pixels."""


@dataclass(frozen=True)
class Dots:
    """Points of a figure: finite values, and the name, page and group of each.

    `links` are addresses, empty where there is none; `kinds` are style classes. Both may be
    left out.
    """

    x: Array
    y: Array
    names: Sequence[str]
    links: Sequence[str] = ()
    kinds: Sequence[str] = ()


@dataclass(frozen=True)
class Band:
    """A line with its confidence limits at some places."""

    x: Array
    y: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Plane:
    """A plotting area with linear axes in the unit of the data, and its margins in pixels."""

    x: Axis
    y: Axis
    left: int = LEFT
    right: int = RIGHT
    height: int = HEIGHT

    def px(self, value: float) -> float:
        """Horizontal pixel of a value."""
        return round(self.left + (WIDTH - self.left - self.right) * self.x.share(value), 1)

    def py(self, value: float) -> float:
        """Vertical pixel of a value."""
        return round(self.height - BOTTOM - (self.height - TOP - BOTTOM) * self.y.share(value), 1)

    def frame(self, x_title: str, y_title: str) -> str:
        """Draw grid, tick numbers and axis titles; an empty title is left out."""
        parts = []
        floor, end = self.height - BOTTOM, WIDTH - self.right
        for tick in self.x.ticks:
            x = self.px(tick)
            parts.append(tag('line', x1=x, x2=x, y1=TOP, y2=floor, class_='grid'))
            parts.append(text(_number(tick), x, floor + 23, text_anchor='middle'))
        for tick in self.y.ticks:
            y = self.py(tick)
            parts.append(tag('line', x1=self.left, x2=end, y1=y, y2=y, class_='grid'))
            parts.append(text(_number(tick), self.left - 7, y + 4, text_anchor='end'))
        middle = (TOP + floor) / 2
        across = (self.left + end) / 2
        parts.append(
            text(x_title, across, self.height - 8, text_anchor='middle', class_='axis-title')
        )
        if y_title:
            turned = f'rotate(-90 18 {middle})'
            style = {'text_anchor': 'middle', 'class_': 'axis-title'}
            parts.append(text(y_title, 18, middle, transform=turned, **style))
        return ''.join(parts)

    def line(self, x: Sequence[float], y: Sequence[float], kind: str) -> str:
        """Draw a straight or broken line through points."""
        points = ' '.join(f'{self.px(a)},{self.py(b)}' for a, b in zip(x, y, strict=True))
        return tag('polyline', points=points, class_=kind)

    def band(self, band: Band) -> str:
        """Draw a line on the area between its limits."""
        x, edge = [*band.x, *band.x[::-1]], [*band.low, *band.high[::-1]]
        points = ' '.join(f'{self.px(a)},{self.py(b)}' for a, b in zip(x, edge, strict=True))
        area = tag('polygon', points=points, class_='confidence')
        return area + self.line(list(band.x), list(band.y), 'mean-line')


def evenly(n: int, most: int = MAX_POINTS) -> NDArray[np.intp]:
    """Choose at most `most` of `n` positions, evenly spaced."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.intp)


def scatter(
    dots: Dots,
    titles: tuple[str, str],
    *,
    identity: bool = False,
    levels: Mapping[str, float] | None = None,
    curve: tuple[Array, Array] | None = None,
    band: Band | None = None,
    span: Iterable[float] = (),
) -> str:
    """Draw points with names that show on hovering, and that lead to the page of each.

    Parameters
    ----------
    dots : Dots
        At least one point.
    titles : (str, str)
        Axis titles.
    identity : bool
        Draw the line y = x and give both axes the same range.
    levels : mapping of str to float, optional
        Labelled horizontal lines.
    curve : (array, array), optional
        A line through the points, such as means of bins.
    band : Band, optional
        A regression with its limits.
    span : iterable of float
        Values that the axes of an identity line hold, too, so that figures can be compared.

    Returns
    -------
    str
        An ``svg`` element.
    """
    x, y, heights = dots.x, dots.y, list((levels or {}).values())
    if identity:
        axis = nice_axis([*x, *y, *span], least=10)
        plane = Plane(axis, axis)
    elif levels is None:
        plane = Plane(nice_axis(x), nice_axis([*y, 0.0], least=2))
    else:
        plane = Plane(nice_axis(x, least=10), nice_axis([*y, *heights, 0.0], least=2))
    parts = [plane.frame(*titles)]
    if identity:
        ends = (plane.x.low, plane.x.high)
        parts.append(plane.line(ends, ends, 'age-line'))
    if band is not None and band.x.size > 1:
        parts.append(plane.band(band))
    parts += [_point(plane, dots, k) for k in evenly(x.size)]
    for label, height in (levels or {}).items():
        parts.append(plane.line((plane.x.low, plane.x.high), (height, height), 'age-line'))
        place = plane.py(height) - 5
        parts.append(text(label, WIDTH - RIGHT - 4, place, text_anchor='end', class_='level'))
    if curve is not None and curve[0].size > 1:
        parts.append(plane.line(list(curve[0]), list(curve[1]), 'mean-line'))
    return _svg(''.join(parts), f'{titles[1]} against {titles[0]}, {x.size} points')


def slopes(
    lines: Sequence[tuple[str, Array, Array]], titles: tuple[str, str], links: Sequence[str] = ()
) -> str:
    """Draw one broken line per person with the identity line.

    Parameters
    ----------
    lines : sequence of (name, ages, predicted ages)
        Years, in order of time, at least one; an even selection of 300 is drawn.
    titles : (str, str)
        Axis titles.
    links : sequence of str
        Address of the page of each person, empty where there is none.
    """
    values = np.concatenate([np.concatenate([x, y]) for _, x, y in lines])
    axis = nice_axis(values, least=10)
    plane = Plane(axis, axis)
    ends = (axis.low, axis.high)
    parts = [plane.frame(*titles), plane.line(ends, ends, 'age-line')]
    for k in evenly(len(lines), 300):
        name, x, y = lines[k]
        body = plane.line(list(x), list(y), 'person')
        dots = Dots(x, y, [name] * x.size, [links[k]] * x.size if links else ())
        body += ''.join(_point(plane, dots, i) for i in range(x.size))
        parts.append(tag('g', body))
    return _svg(''.join(parts), f'{titles[1]} over {titles[0]} of {len(lines)} people')


def histogram(values: Array, width: float, titles: tuple[str, str]) -> str:
    """Draw how many values lie in bins of one width, whose edges are multiples of it.

    Parameters
    ----------
    values : array, shape (n,)
        At least one.
    width : float
        Of a bin, in the unit of the values.
    titles : (str, str)
        Axis titles.

    Returns
    -------
    str
        An ``svg`` element.
    """
    bins, counts = np.unique(np.floor(values / width), return_counts=True)
    x_axis = nice_axis([bins[0] * width, (bins[-1] + 1) * width], least=width)
    plane = Plane(x_axis, nice_axis([0.0, float(counts.max())], least=5))
    parts = [plane.frame(*titles)]
    for place, count in zip(bins.tolist(), counts.tolist(), strict=True):
        left, right = plane.px(place * width), plane.px((place + 1) * width)
        top, floor = plane.py(count), plane.py(0)
        name = f'{place * width:g} to {(place + 1) * width:g}: {count}'
        parts.append(
            tag('rect', tag('title', name), x=left + 0.5, y=top, width=max(right - left - 1, 1),
                height=floor - top, class_='count-bar')
        )  # fmt: skip
    return _svg(''.join(parts), f'{titles[1]} by {titles[0]}')


def violins(groups: Mapping[str, Array], title: str) -> str:
    """Draw the distribution of each group as a lying violin with quartiles and median.

    Groups stand below each other, so that any number of them has room for its name; with many
    the figure grows.

    Parameters
    ----------
    groups : mapping of str to array
        Finite values, at least one group with a value.
    title : str
        Title of the horizontal axis.
    """
    known = {name: values for name, values in groups.items() if values.size}
    names = {name: _shortened(name) for name in known}
    left = 22 + round(LETTER * max(map(len, names.values())))
    room = min(max((HEIGHT - TOP - BOTTOM) / len(known), 30), 80)
    height = round(TOP + BOTTOM + room * len(known))
    axis = nice_axis([*np.concatenate(list(known.values())), 0.0], least=2)
    plane = Plane(axis, Axis(0, len(known), ()), left, COUNT_ROOM, height)
    parts = [plane.frame(title, '')]
    parts.append(plane.line((0, 0), (0, len(known)), 'age-line'))
    for k, (name, values) in enumerate(known.items()):
        centre = plane.py(len(known) - k - 0.5)
        parts.append(_violin(plane, centre, min(room * 0.42, 32), values))
        label = text(names[name], left - 9, centre + 4, text_anchor='end', class_='group-name')
        parts.append(tag('g', tag('title', _escaped(name)) + label))
        count = f'n = {values.size}'
        parts.append(text(count, WIDTH - 4, centre + 4, text_anchor='end'))
    spoken = '; '.join(f'{name}: mean {v.mean():.1f}, n {v.size}' for name, v in known.items())
    return _svg(''.join(parts), f'{title} by group. {spoken}', height)


def _shortened(name: str) -> str:
    """Cut the middle out of a long name, as names often differ at one end only."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f'{name[: half - 1]}…{name[-half:]}'


def _violin(plane: Plane, centre: float, half: float, values: Array) -> str:
    """Draw one violin around a height in pixels; few values are drawn as points only."""
    parts = []
    if values.size >= MIN_VIOLIN and np.ptp(values) > 0:
        places, width = _density(values)
        low, high = plane.x.low, plane.x.high
        inside = (places >= low) & (places <= high)
        places, width = places[inside], width[inside]
        upper = [(plane.px(x), centre - half * w) for x, w in zip(places, width, strict=True)]
        lower = [(x, 2 * centre - y) for x, y in reversed(upper)]
        points = ' '.join(f'{x:.1f},{y:.1f}' for x, y in [*upper, *lower])
        parts.append(tag('polygon', points=points, class_='violin'))
        x1, x2 = (plane.px(x) for x in np.quantile(values, [0.25, 0.75]))
        parts.append(tag('line', x1=x1, x2=x2, y1=centre, y2=centre, class_='quartile'))
    else:
        parts += [tag('circle', cx=plane.px(v), cy=centre, r=3.5, class_='dot') for v in values]
    if values.size > 2:
        middle = plane.px(float(np.median(values)))
        parts.append(tag('circle', cx=middle, cy=centre, r=4, class_='median'))
    return ''.join(parts)


def _density(values: Array) -> tuple[Array, Array]:
    """Gaussian kernel density on a grid, scaled to a largest width of 1 (Silverman's rule)."""
    spread = min(values.std(ddof=1), np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34 or 1e9)
    width = 0.9 * spread * values.size**-0.2
    grid = np.linspace(values.min() - width, values.max() + width, VIOLIN_STEPS)
    sample = values[evenly(values.size, 5000)]
    density = np.exp(-0.5 * ((grid[:, None] - sample[None, :]) / width) ** 2).sum(axis=1)
    return grid, density / density.max()


def _point(plane: Plane, dots: Dots, k: int) -> str:
    """Draw one dot that tells its name and values, and leads to its page."""
    x, y = float(dots.x[k]), float(dots.y[k])
    label = tag('title', _escaped(f'{dots.names[k]}: {x:.1f}, {y:.1f}'))
    kind = f'point {dots.kinds[k]}' if dots.kinds else 'point'
    dot = tag('circle', label, cx=plane.px(x), cy=plane.py(y), r=3, class_=kind)
    return tag('a', dot, href=dots.links[k]) if dots.links and dots.links[k] else dot


def _escaped(content: str) -> str:
    """Escape text for use inside an element."""
    from xml.sax.saxutils import escape

    return escape(content)


def _number(value: float) -> str:
    """Write a tick with a true minus sign."""
    return f'{value:g}'.replace('-', '−')


def _svg(body: str, label: str, height: int = HEIGHT) -> str:
    """Wrap a body as a figure that scales with the page."""
    box = f'0 0 {WIDTH} {height}'
    return tag('svg', body, class_='chart plot', viewBox=box, role='img', aria_label=label)
