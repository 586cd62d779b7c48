"""What pictures of slices share: where to cut, grey values, marks, colour keys, the frame.

Neurological display: the left of the picture is the person's left, up is anterior or superior.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.outputs.files import write_text
from bids_brainage.pictures import svg
from bids_brainage.pictures.colours import colour_map
from bids_brainage.pictures.mosaic import (
    ENDS,
    FloatArray,
    Mosaic,
    Volume,
    bounding_box,
    plan_mosaic,
    world_coordinate,
)

FOOT = 48
_HALO: dict[str, Any] = {'stroke': '#000', 'stroke_width': 5, 'paint_order': 'stroke'}
FLICKER = (
    '<style>@keyframes bba-flicker{0%,45%{opacity:1}50%,95%{opacity:0}100%{opacity:1}}'
    '.bba-scan{animation:bba-flicker 3s infinite}'
    '@media (prefers-reduced-motion:reduce),print{.bba-scan{animation:none}}</style>'
)


def plan(reference: Volume, region: Volume, margin: float | None = None) -> Mosaic:
    """Plan a mosaic around a region; the region is brought to the reference's frame."""
    inside = region.data > 0.5
    low, high = bounding_box(inside, region.zooms)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing='ij')).reshape(3, -1)
    voxels = np.vstack([corners / region.zooms[:, None], np.ones(corners.shape[1])])
    moved = (np.linalg.inv(reference.affine) @ region.affine @ voxels)[:3]
    moved = moved * reference.zooms[:, None]
    last = (np.array(reference.data.shape) - 1) * reference.zooms
    low, high = np.clip(moved.min(axis=1), 0, last), np.clip(moved.max(axis=1), 0, last)
    if (high - low).min() < 10:
        low, high = np.zeros(3), last
    return plan_mosaic(reference, low, high, **({} if margin is None else {'margin': margin}))


def foreground(volume: Volume) -> Volume:
    """Mark what is clearly brighter than the background (a tenth of the 99th percentile)."""
    positive = volume.data[volume.data > 0]
    limit = 0.1 * float(np.percentile(positive[::7], 99)) if positive.size else 0.0
    return Volume((volume.data > limit).astype(np.float32), volume.affine, volume.zooms)


def grey_values(painted: FloatArray, brain: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Window intensities between the 1st and the 99.7th percentile of the positive pixels.

    With enough brain pixels (more than 2 % of the canvas) only these count, so that bright fat
    does not darken the brain.
    """
    positive = painted[painted > 0]
    if brain is not None and brain.mean() > 0.02:
        positive = painted[brain & (painted > 0)]
    low, high = np.percentile(positive, [1, 99.7]) if positive.size else (0.0, 1.0)
    low = min(low, 0.25 * high)
    scaled = np.clip((painted - low) / max(high - low, 1e-12), 0, 1)
    return (scaled * 255).astype(np.uint8)


def backdrop(raster: NDArray[np.uint8]) -> str:
    """Embed one raster that fills the mosaic."""
    height, width = raster.shape[:2]
    return svg.image(svg.encode_rasters([raster])[0], 0, 0, width, height)


def layer(name: str, uri: str, mosaic: Mosaic, label: str) -> str:
    """Build one of the two alternating layers with its label in the foot."""
    x, y = 0.52 * mosaic.width, mosaic.height + 30
    caption = svg.text(label, x, y, fill='#fff', font_size=22, font_weight=600)
    plate = svg.tag('rect', x=x, y=mosaic.height, width=280, height=FOOT, fill='#000')
    picture = svg.image(uri, 0, 0, mosaic.width, mosaic.height)
    return svg.tag('g', picture + plate + caption, class_=name)


def draw_line(path: str, colour: str, width: float = 1.8) -> str:
    """Draw an outline."""
    return svg.tag('path', d=path, fill='none', stroke=colour, stroke_width=width) if path else ''


def _marks(mosaic: Mosaic) -> str:
    """Write orientation letters on the first tile of a row and positions on all tiles."""
    parts: list[str] = []
    for tile in mosaic.tiles:
        middle = (tile.x + tile.width / 2, tile.y + tile.height / 2)
        place = str(round(world_coordinate(mosaic, tile))).replace('-', '−')
        position = f'{"xyz"[tile.axis]} = {place} mm'
        parts.append(
            svg.text(position, middle[0], tile.y + tile.height + 18, font_size=15, fill='#b9c0c8')
        )
        if tile.first:
            left, right = ENDS[tile.right]
            low, high = ENDS[tile.up]
            letters: list[tuple[str, float, float]] = [
                (left, tile.x + 12, middle[1] + 7),
                (right, tile.x + tile.width - 12, middle[1] + 7),
                (high, middle[0], tile.y + 20),
                (low, middle[0], tile.y + tile.height - 6),
            ]
            parts += [
                svg.text(letter, x, y, font_size=21, font_weight=700, fill='#fff', **_HALO)
                for letter, x, y in letters
            ]
    return svg.tag('g', ''.join(parts), text_anchor='middle')


def _legend(mosaic: Mosaic, entries: list[tuple[str, str]], filled: bool) -> str:
    """Write the colour keys in the foot, from the left."""
    parts: list[str] = []
    x, y = 12.0, mosaic.height + 30
    for label, colour in entries:
        height = 16 if filled else 4
        parts.append(
            svg.tag('rect', x=x, y=y - 7 - height / 2, width=26, height=height, fill=colour)
        )
        parts.append(svg.text(label, x + 36, y, font_size=20, fill='#e8ebee'))
        x += 66 + 10.5 * len(label)
    return ''.join(parts)


def colour_bar(
    mosaic: Mosaic, top: float, unit: str, signed: bool, *, explained: bool = True
) -> str:
    """Draw the colour bar in the foot with its limits in the unit of the map, and its meaning."""
    y = mosaic.height + 15
    if top == 0:
        return svg.text('The map is zero everywhere.', 12, y + 15, font_size=20, fill='#e8ebee')
    ramp = colour_map(np.linspace(-1 if signed else 0, 1, 256)[None], signed=signed)
    uri = svg.encode_rasters([np.repeat(ramp, 8, axis=0).astype(np.uint8)])[0]
    low, high = (f'−{_short(top)}', f'+{_short(top)}') if signed else ('0', _short(top))
    start = 24 + 12 * len(low)
    meaning = 'blue: younger, orange: older' if signed and explained else ''
    label = f'{high} {unit}' + (f' ({meaning})' if meaning else '')
    style: dict[str, Any] = {'font_size': 20, 'fill': '#e8ebee'}
    return (
        svg.text(low, start - 8, y + 15, text_anchor='end', **style)
        + svg.image(uri, start, y, 220, 18)
        + svg.text(label, start + 230, y + 15, **style)
    )


def _short(value: float) -> str:
    """Write a positive number with two significant digits, small ones as powers of ten."""
    if 0.01 <= value < 1000:
        digits = max(0, 1 - math.floor(math.log10(value)))
        return f'{value:.{digits}f}'
    mantissa, exponent = f'{value:.1e}'.split('e')
    raised = str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))
    return f'{mantissa}×10{raised}'


def write(
    out: Path,
    mosaic: Mosaic,
    body: str,
    title: str,
    legend: list[tuple[str, str]],
    *,
    filled: bool = False,
    narrow: bool = False,
) -> None:
    """Put marks, legend and frame around a body and write the file.

    A narrow picture has no room in its foot to explain the letters.
    """
    height = mosaic.height + FOOT
    plate = svg.tag('rect', width=mosaic.width, height=height, fill='#000')
    description = (
        'Rows: axial, coronal, sagittal. Neurological display: the left of the picture is '
        "the person's left."
    )
    note = svg.text(
        "L = the person's left (neurological)",
        mosaic.width - 12,
        mosaic.height + 29,
        text_anchor='end',
        font_size=15,
        fill='#b9c0c8',
    )
    content = plate + body + _marks(mosaic) + _legend(mosaic, legend, filled)
    if not narrow:
        content += note
    write_text(out, svg.document(mosaic.width, height, title, description, content))
