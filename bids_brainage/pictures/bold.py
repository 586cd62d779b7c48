"""Draw the pictures of a BOLD series: alignment, carpet, connectivity; one SVG file each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.outputs.files import write_text
from bids_brainage.pictures import svg
from bids_brainage.pictures.colours import OUTLINE, colour_map
from bids_brainage.pictures.layers import FLICKER, draw_line, grey_values, layer, plan, write
from bids_brainage.pictures.mosaic import load_volume, outline, paint

Array = NDArray[np.floating]

WIDTH = 1100
LEFT, RIGHT = 150, 24
TRACE, CARPET = 90, 420
CARPET_LIMIT = 2.5
"""Standard deviations shown black and white."""

CENSORED = '#D55E00'
NO_VALUE = (225, 225, 225)
_BAND_COLOURS = ('#0072B2', '#009E73', '#56B4E9', '#E69F00', '#CC79A7', '#666666')
_TEXT = '#1c2126'
_FAINT = '#6b737b'


def plot_coregistration(t1w: Path, mask: Path, aligned: Path, out: Path) -> None:
    """Draw the T1w image and the BOLD reference in turn, with the edge of the T1w brain.

    Parameters
    ----------
    t1w, mask : Path
        Native T1w image and its brain mask.
    aligned : Path
        BOLD reference in the space of the T1w image.
    out : Path
        SVG file to write; it alternates by itself unless the reader asked for less motion.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    head, inside, bold = load_volume(t1w), load_volume(mask), load_volume(aligned)
    mosaic = plan(head, inside, margin=6)
    covered = paint(mosaic, inside)
    rasters = [grey_values(paint(mosaic, volume), covered > 0.5) for volume in (head, bold)]
    before, after = svg.encode_rasters(rasters)
    body = (
        FLICKER
        + layer('bba-template', before, mosaic, 'Showing: T1w')
        + layer('bba-scan', after, mosaic, 'Showing: BOLD')
        + draw_line(outline(mosaic, covered), OUTLINE)
    )
    title = 'Coregistration: T1w image and BOLD reference in turn'
    write(out, mosaic, body, title, [('Brain edge of the T1w image', OUTLINE)])


def plot_carpet(
    carpet: Array,
    groups: Sequence[tuple[str, int]],
    displacement: Array | None,
    std_dvars: Array | None,
    kept: NDArray[np.bool_],
    tr: float,
    out: Path,
    *,
    fd_threshold: float = 0.5,
) -> None:
    """Draw motion traces above the signal of voxels over time.

    Parameters
    ----------
    carpet : ndarray, shape (rows, T)
        Standard deviations from each voxel's mean, bands of tissue from top to bottom.
    groups : sequence of (str, int)
        Name and number of rows of each band.
    displacement : ndarray or None, shape (T,)
        Framewise displacement, mm.
    std_dvars : ndarray or None, shape (T,)
        Standardised DVARS.
    kept : ndarray of bool, shape (T,)
        Volumes that are used; the others are marked.
    tr : float
        Repetition time, seconds.
    out : Path
        SVG file to write.
    fd_threshold : float
        Millimetres, drawn as a line.
    """
    traces = [
        ('Framewise displacement, mm', displacement, 3 * fd_threshold, fd_threshold),
        ('Standardised DVARS', std_dvars, 2.0, None),
    ]
    shown = [t for t in traces if t[1] is not None and np.isfinite(t[1]).any()]
    y, parts = 44.0, []
    top = y
    for name, values, least, limit in shown:
        assert values is not None
        parts.append(_trace(name, values, least, limit, y))
        y += TRACE + 14
    parts.append(_censor_marks(kept, top - 4, y))
    parts.append(_carpet_picture(carpet, groups, y))
    height = int(y + CARPET + 62)
    parts.append(_time_axis(len(kept), tr, y + CARPET))
    n_out = int((~kept).sum())
    heading = f'{len(kept)} volumes, {n_out} left out because of motion or unsteady signal'
    parts.insert(0, svg.text(heading, LEFT, 26, font_size=17, font_weight=600, fill=_TEXT))
    plate = svg.tag('rect', width=WIDTH, height=height, fill='#fff')
    description = (
        'Above: head motion and signal change from volume to volume. Below: each row is one '
        f'voxel, each column one volume, grey from −{CARPET_LIMIT:g} to +{CARPET_LIMIT:g} '
        'standard deviations.'
    )
    document = svg.document(
        WIDTH, height, 'Signal over time (carpet plot)', description, plate + ''.join(parts)
    )
    write_text(out, document)


def plot_connectivity(
    matrix: Array, networks: Sequence[str], out: Path, *, title: str = 'Connectivity'
) -> None:
    """Draw a correlation matrix with its regions ordered by network.

    Parameters
    ----------
    matrix : ndarray, shape (R, R)
        Pearson r; NaN is drawn light grey, and so is the diagonal.
    networks : sequence of str
        Network of every region; regions without one come last.
    out : Path
        SVG file to write.
    title : str
        Heading, for example the name of the atlas.
    """
    order, bands = order_by_network(networks)
    ordered = np.array(matrix, dtype=float)[np.ix_(order, order)]
    np.fill_diagonal(ordered, np.nan)
    limit = connectivity_limit(ordered)
    cell = max(1, round(720 / len(order)))
    # 255 levels of colour, and one for what has no value
    level = np.rint(np.clip(ordered / limit, -1, 1) * 127 + 127)
    index = np.where(np.isfinite(ordered), level, 255).astype(np.uint8)
    palette = colour_map((np.arange(256) - 127) / 127, signed=True).astype(np.uint8)
    palette[255] = NO_VALUE
    raster = np.repeat(np.repeat(index, cell, axis=0), cell, axis=1)
    left, top, size = 210.0, 60.0, 720.0
    parts = [
        svg.text(title, left, 34, font_size=19, font_weight=600, fill=_TEXT),
        svg.image(_png(raster, palette), left, top, size, size),
        *_network_bars(bands, len(order), left, top, size),
        _matrix_scale(limit, left + size + 30, top),
    ]
    height = int(top + size + 36)
    plate = svg.tag('rect', width=WIDTH, height=height, fill='#fff')
    description = (
        f'Pearson correlation between the time series of {len(order)} regions, ordered by '
        'network. Grey: no value.'
    )
    write_text(out, svg.document(WIDTH, height, title, description, plate + ''.join(parts)))


def order_by_network(networks: Sequence[str]) -> tuple[NDArray[np.intp], list[tuple[str, int]]]:
    """Return the order of regions by network and the bands with their sizes.

    Networks stand in the order of their names, those that mean nothing last; regions keep their
    order within a network.
    """

    def rank(index: int) -> tuple[bool, str]:
        name = networks[index]
        return name.lower() in ('', 'uncertain', 'unassigned', 'none', 'n/a'), name

    order = sorted(range(len(networks)), key=rank)
    bands = [(name, len(list(run))) for name, run in groupby(networks[i] for i in order)]
    return np.array(order, dtype=np.intp), bands


def connectivity_limit(matrix: Array) -> float:
    """Return the correlation shown in full colour: 98th percentile of |r|, from 0.3 to 1."""
    finite = np.abs(matrix[np.isfinite(matrix)])
    return float(np.clip(np.percentile(finite, 98), 0.3, 1.0)) if finite.size else 1.0


def _png(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Encode indices into a palette (256, 3) without loss, as a data URI."""
    import base64
    import io

    from PIL import Image

    picture = Image.fromarray(index, mode='P')
    picture.putpalette(palette.ravel().tolist())
    stream = io.BytesIO()
    picture.save(stream, 'PNG', optimize=True)
    return f'data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}'


def _across(n: int) -> float:
    return (WIDTH - LEFT - RIGHT) / n


def _trace(name: str, values: Array, least: float, limit: float | None, y: float) -> str:
    """Draw one time series in a band of height TRACE from y down."""
    highest = max(least, float(np.nanpercentile(values, 99.5)))
    step = _across(len(values))

    def level(value: float) -> float:
        return y + TRACE - TRACE * min(value / highest, 1.0)

    points = ' '.join(
        f'{LEFT + (i + 0.5) * step:.1f},{level(float(v)):.1f}'
        for i, v in enumerate(values)
        if np.isfinite(v)
    )
    mean = float(np.nanmean(values))
    ends: dict[str, Any] = {
        'x1': LEFT,
        'x2': WIDTH - RIGHT,
        'stroke': '#c9ced3',
        'stroke_width': 1,
    }
    parts = [svg.tag('line', y1=y + TRACE, y2=y + TRACE, **ends)]
    if limit is not None:
        dashed = {**ends, 'stroke': CENSORED, 'stroke_dasharray': '6 4'}
        parts.append(svg.tag('line', y1=level(limit), y2=level(limit), **dashed))
    parts.append(
        svg.tag('polyline', points=points, fill='none', stroke='#0072B2', stroke_width=1.6)
    )
    words, _, unit = name.partition(', ')
    label = {'font_size': 14, 'text_anchor': 'end', 'fill': _TEXT}
    first, _, second = words.partition(' ')
    parts.append(svg.text(first, LEFT - 12, y + 24, **label))
    parts.append(svg.text(second, LEFT - 12, y + 42, **label))
    faint = {**label, 'fill': _FAINT, 'font_size': 13}
    parts.append(svg.text(f'mean {mean:.2f} {unit}'.strip(), LEFT - 12, y + 62, **faint))
    parts.append(svg.text(f'{highest:.2g}', LEFT + 4, y + 10, font_size=12, fill=_FAINT))
    return ''.join(parts)


def _censor_marks(kept: NDArray[np.bool_], top: float, bottom: float) -> str:
    """Shade the volumes that are left out."""
    step = _across(len(kept))
    marks = [
        svg.tag(
            'rect',
            x=round(LEFT + i * step, 2),
            y=top,
            width=round(step, 2),
            height=bottom - top,
            fill=CENSORED,
            opacity=0.25,
        )
        for i in np.flatnonzero(~kept)
    ]
    return ''.join(marks)


def _carpet_picture(carpet: Array, groups: Sequence[tuple[str, int]], y: float) -> str:
    """Embed the carpet with coloured bars and names of its bands."""
    width = WIDTH - LEFT - RIGHT
    grey = np.clip((carpet / CARPET_LIMIT + 1) / 2, 0, 1) * 255
    # whole pixels a volume, so that the picture is not blurred sideways
    wide = np.repeat(grey.astype(np.uint8), max(1, round(width / carpet.shape[1])), axis=1)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    parts = [svg.image(_png(wide, greys), LEFT, y, width, CARPET)]
    total, start = len(carpet), 0
    for (name, rows), colour in zip(groups, _BAND_COLOURS, strict=False):
        low, high = y + CARPET * start / total, y + CARPET * (start + rows) / total
        parts.append(
            svg.tag('rect', x=LEFT - 8, y=low, width=6, height=high - low - 1, fill=colour)
        )
        middle = (low + high) / 2 + 5
        parts.append(
            svg.text(name, LEFT - 14, middle, font_size=13, text_anchor='end', fill=_TEXT)
        )
        start += rows
    return ''.join(parts)


def _time_axis(n_volumes: int, tr: float, y: float) -> str:
    """Write minutes and seconds below the carpet."""
    duration = n_volumes * tr
    choices = (10, 20, 30, 60, 120, 300, 600)
    step = next((s for s in choices if duration / s <= 10), choices[-1])
    parts = []
    for second in range(0, int(duration) + 1, step):
        x = LEFT + (WIDTH - LEFT - RIGHT) * second / duration
        parts.append(svg.tag('line', x1=x, x2=x, y1=y, y2=y + 6, stroke=_FAINT))
        label = f'{second // 60}:{second % 60:02d}'
        parts.append(svg.text(label, x, y + 22, font_size=13, text_anchor='middle', fill=_FAINT))
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        svg.text('Time, min:s', middle, y + 44, font_size=13, text_anchor='middle', fill=_TEXT)
    )
    return ''.join(parts)


def _network_bars(
    bands: Sequence[tuple[str, int]], n: int, left: float, top: float, size: float
) -> list[str]:
    """Draw a bar with a name for each network, and lines between networks."""
    parts, start, last = [], 0, top - 20.0
    for index, (name, rows) in enumerate(bands):
        low, high = top + size * start / n, top + size * (start + rows) / n
        colour = _BAND_COLOURS[index % len(_BAND_COLOURS)]
        parts.append(
            svg.tag('rect', x=left - 10, y=low, width=8, height=high - low - 1, fill=colour)
        )
        across = left + low - top
        parts.append(
            svg.tag(
                'rect', x=across, y=top + size + 3, width=high - low - 1, height=8, fill=colour
            )
        )
        last = max((low + high) / 2 + 5, last + 14)  # names of thin bands do not overlap
        label = name or 'no network'
        parts.append(svg.text(label, left - 16, last, font_size=13, text_anchor='end', fill=_TEXT))
        if start:
            line: dict[str, Any] = {'stroke': '#fff', 'stroke_width': 0.8, 'opacity': 0.6}
            parts.append(svg.tag('line', x1=left, x2=left + size, y1=low, y2=low, **line))
            parts.append(svg.tag('line', x1=across, x2=across, y1=top, y2=top + size, **line))
        start += rows
    return parts


def _matrix_scale(limit: float, x: float, y: float) -> str:
    """Draw the colour scale upright with its limits."""
    ramp = colour_map(np.linspace(1, -1, 256)[:, None], signed=True)
    uri = svg.encode_rasters([np.repeat(ramp, 8, axis=1).astype(np.uint8)])[0]
    style = {'font_size': 14, 'fill': _TEXT}
    return (
        svg.image(uri, x, y, 18, 240)
        + svg.text(f'+{limit:.2f}', x + 26, y + 12, **style)
        + svg.text('0', x + 26, y + 125, **style)
        + svg.text(f'−{limit:.2f}', x + 26, y + 240, **style)
        + svg.text('Pearson r', x, y + 266, **style)
    )
