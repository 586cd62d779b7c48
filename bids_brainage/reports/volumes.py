"""Volumes of a scan among those of other people: what the first page shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage.outputs.files import read_json
from bids_brainage.pictures.svg import tag, text
from bids_brainage.reports.charts import nice_axis
from bids_brainage.segmentation.norms import (
    CENTILES,
    INTRACRANIAL,
    centile_lines,
    load_curves,
    load_structures,
    why_not,
)
from bids_brainage.tsv import is_missing, read_tsv

SHOWN = (
    *(INTRACRANIAL, 'brain', 'cortex', 'white_matter', 'ventricles', 'temporal_horn'),
    *('hippocampus', 'amygdala', 'thalamus', 'cerebellum'),
)
"""Structures in the table of the first page."""

DRAWN = ('ventricles', 'brain', 'cortex', 'hippocampus', 'white_matter')
"""Structures with a chart."""

SHORT = {'white_matter': 'White matter', 'cortex': 'Cortex', 'temporal_horn': 'Temporal horns'}
"""Titles where there is little room."""

UNUSUAL = (5.0, 95.0)
HEIGHT = 120.0


@dataclass(frozen=True)
class Volume:
    """One row: mL, share of the intracranial volume (0 to 1), percentile (0 to 100)."""

    ml: float
    share: float | None
    percentile: float | None


@dataclass(frozen=True)
class Volumes:
    """The table of volumes of a scan; `reason` says why there are no percentiles, or is empty."""

    rows: Mapping[str, Volume]
    reason: str


@dataclass(frozen=True)
class Point:
    """Age and volumes of one scan of the person; `current` for the scan that is described."""

    age: float
    volumes: Volumes
    current: bool


def read_volumes(path: Path) -> Volumes | None:
    """Read a table of volumes; None if there is none.

    Percentiles of other segmentation weights than those of the packaged curves are left out.
    """
    if not path.is_file():
        return None
    side = read_json(path.with_suffix('.json'))
    reason = str(side.get('WithoutPercentiles') or '')
    # age and skull were checked when the table was made; only the weights may have changed since
    other = why_not(side.get('Segmentation') or {}, load_curves()['age_min'], skull_stripped=False)
    rows = {}
    for row in read_tsv(path):
        ml, share, percentile = (_number(row[name]) for name in ('volume', 'share', 'percentile'))
        rows[row['region']] = Volume(ml or 0.0, share, None if other else percentile)
    return Volumes(rows, other or reason)


def _number(cell: str) -> float | None:
    return None if is_missing(cell) else float(cell)


def table_rows(volumes: Volumes, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Prepare rows for a reader: title, mL, per cent of the intracranial volume, percentile.

    Of all structures, or of those named.
    """
    titles = {s.name: s.title for s in load_structures()}
    wanted, short = names or list(titles), SHORT if names else {}
    rows = []
    for name in wanted:
        found = volumes.rows.get(name)
        if found is None:
            continue
        place = found.percentile
        rows.append({
            'title': short.get(name) or titles.get(name, name),
            'ml': f'{found.ml:.0f}' if found.ml >= 100 else f'{found.ml:.1f}',
            'share': 'n/a' if found.share is None else _per_cent(100 * found.share),
            'percentile': percentile_text(place),
            'unusual': place is not None and not UNUSUAL[0] <= place <= UNUSUAL[1],
        })  # fmt: skip
    return rows


def _per_cent(value: float) -> str:
    """Write a share with about three digits."""
    return f'{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}'


def percentile_text(value: float | None) -> str:
    """Write a percentile without decimals; the ends as below 1 and above 99."""
    if value is None:
        return 'n/a'
    return '< 1' if value < 1 else '> 99' if value > 99 else f'{value:.0f}'


def curve_charts(points: Sequence[Point], sex: str | None) -> list[dict[str, str]]:
    """Draw the charts of one scan; none without percentiles."""
    titles = {s.name: s.title for s in load_structures()} | SHORT
    return [
        {'title': titles[name], 'chart': _chart(name, titles[name], points, sex)}
        for name in DRAWN
        if any(point.current and not point.volumes.reason for point in points)
    ]


def _chart(name: str, title: str, points: Sequence[Point], sex: str | None) -> str:
    """Draw centile lines of a structure over age with the person's scans.

    Positions along the axes are percentages, so that text keeps its size; the lines are drawn in
    an inner picture that is stretched.
    """
    lines = centile_lines(name, sex)
    own = [
        (point.age, 100 * share, point.current)
        for point in points
        if not point.volumes.reason
        and (found := point.volumes.rows.get(name))
        and (share := found.share) is not None
    ]
    every = [100 * share for line in lines.values() for _, share in line]
    axis = nice_axis([*every, *(value for _, value, _ in own)], least=0.0, ticks=4)
    ages = [age for age, _ in lines[CENTILES[0]]]
    first, last = ages[0], ages[-1]

    def across(age: float) -> float:
        return 100 * (age - first) / (last - first)

    def down(value: float) -> float:
        return HEIGHT * (1 - axis.share(value))

    drawn = {
        centile: [f'{across(age):.2f},{down(100 * share):.2f}' for age, share in line]
        for centile, line in lines.items()
    }
    area = ' '.join([*drawn[CENTILES[0]], *reversed(drawn[CENTILES[-1]])])
    inner = [tag('polygon', points=area, class_='usual')]
    inner += [
        tag('polyline', points=' '.join(line), class_='median' if centile == 50 else 'centile')
        for centile, line in drawn.items()
    ]
    parts = []
    for tick in axis.ticks:
        y = round(down(tick), 2)
        parts.append(tag('line', x1='0%', x2='100%', y1=y, y2=y, class_='grid'))
        parts.append(text(f'{tick:g}', -6, y + 4, class_='tick', text_anchor='end'))
    parts.append(
        tag('svg', ''.join(inner), x=0, y=0, width='100%', height=HEIGHT,
            viewBox=f'0 0 100 {HEIGHT:g}', preserveAspectRatio='none')
    )  # fmt: skip
    for decade in (20, 40, 60, 80):
        if first <= decade <= last:
            parts.append(
                text(f'{decade}', f'{across(decade):.2f}%', HEIGHT + 15, class_='tick',
                     text_anchor='middle')
            )  # fmt: skip
    for age, value, current in sorted(own, key=lambda item: item[2]):
        x, y = f'{across(age):.2f}%', round(down(value), 2)
        kind, radius = ('dot', 5.5) if current else ('other', 4)
        parts.append(tag('circle', cx=x, cy=y, r=radius, class_=kind))
    spoken = ', '.join(f'{value:.3g} % at {age:.1f} years' for age, value, _ in own)
    return tag(
        'svg', ''.join(parts), class_='chart curve', width='100%', height=HEIGHT + 20, role='img',
        aria_label=f'{title}, share of the intracranial volume: {spoken}.',
    )  # fmt: skip


def compared_with() -> str:
    """Say in words on whom the curves rest."""
    curves = load_curves()
    return (
        f'{curves["n"]} healthy adults of {curves["age_min"]:.0f} to {curves["age_max"]:.0f} years'
    )
