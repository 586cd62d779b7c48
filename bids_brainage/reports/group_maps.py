"""Picture of a group's mean explanation map on its mean T1w image, in three slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.pictures import svg
from bids_brainage.pictures.colours import colour_map
from bids_brainage.pictures.figures import colour_limit
from bids_brainage.reports.wording import decimal

FloatArray = NDArray[np.floating[Any]]

HEIGHT = 420
"""Height of the slices, pixels."""

FOOT, GAP, MARGIN = 86, 10, 6
FONT_SIZE = 26
VIEWS = ('axial', 'coronal', 'sagittal')
_ENDS = {'axial': ('L', 'R'), 'coronal': ('L', 'R'), 'sagittal': ('P', 'A')}


@dataclass(frozen=True)
class Cut:
    """Where one view is cut: array axis (RAS), index, and the coordinate in mm."""

    axis: int
    index: int
    position: float


def draw_group_map(
    mean: FloatArray, anatomy: FloatArray, cuts: Mapping[str, Cut], unit: str, title: str
) -> str:
    """Draw the mean map over the mean T1w image.

    Parameters
    ----------
    mean : ndarray, shape (X, Y, Z)
        Mean map; RAS axes, isotropic voxels.  With a negative voxel it is drawn with sign.
    anatomy : ndarray, shape (X, Y, Z)
        Mean T1w image on the same grid.
    cuts : mapping of str to Cut
        For ``axial``, ``coronal``, ``sagittal``.
    unit : str
        Of the map.
    title : str
        Read aloud by screen readers.

    Returns
    -------
    str
        An SVG document.  The left of the axial and coronal slices is the person's left.
    """
    signed, top = bool((mean < 0).any()), colour_limit(mean)
    box = _box((anatomy > 0) | (mean != 0))
    pictures = [
        _slice(mean, anatomy, cuts[view], box, top or 1.0, signed=signed) for view in VIEWS
    ]
    parts, x = [], 0.0
    uris = svg.encode_rasters(pictures)
    for view, picture, uri in zip(VIEWS, pictures, uris, strict=True):
        width = HEIGHT * picture.shape[1] / picture.shape[0]
        parts.append(svg.image(uri, x, 0, width, HEIGHT))
        parts.append(_marks(view, cuts[view], x, width))
        x += width + GAP
    width = round(x - GAP)
    plate = svg.tag('rect', width=width, height=HEIGHT + FOOT, fill='#000')
    body = plate + ''.join(parts) + _colour_bar(top, unit, signed)
    told = 'Axial, coronal and sagittal slice, each where the map covers the largest area.'
    return svg.document(width, HEIGHT + FOOT, title, told, body)


def _box(used: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Bound the voxels in use with a margin; the whole grid when there are none."""
    ends = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(used.any(axis=others))
        low, high = (where[0], where[-1]) if where.size else (0, used.shape[axis] - 1)
        ends.append(slice(max(int(low) - MARGIN, 0), int(high) + MARGIN + 1))
    return ends[0], ends[1], ends[2]


def _slice(
    mean: FloatArray,
    anatomy: FloatArray,
    cut: Cut,
    box: tuple[slice, slice, slice],
    top: float,
    *,
    signed: bool,
) -> NDArray[np.uint8]:
    """Mix one slice of both images; rows run downwards, the frame is the same in all views."""
    where: tuple[Any, ...] = tuple(cut.index if a == cut.axis else box[a] for a in range(3))
    scaled, grey = (np.flipud(image[where].T) for image in (mean / top, anatomy))
    bright = float(np.percentile(anatomy[anatomy > 0][::50], 99)) if (anatomy > 0).any() else 1.0
    shade = 255 * np.clip(grey / bright, 0, 1)[..., None]
    strength = np.clip(np.abs(scaled), 0, 1)
    alpha = 0.85 * strength[..., None] ** 0.7
    mixed = (1 - alpha) * shade + alpha * colour_map(scaled, signed=signed)
    return mixed.astype(np.uint8)


def _marks(view: str, cut: Cut, x: float, width: float) -> str:
    """Write the position below a slice and the letters of its sides."""
    place = decimal(cut.position, 0)
    below = f'{view}, {"xyz"[cut.axis]} = {place} mm'
    style: dict[str, Any] = {'fill': '#e8ebee', 'font_size': FONT_SIZE}
    left, right = _ENDS[view]
    return (
        svg.text(below, x + width / 2, HEIGHT + 26, text_anchor='middle', **style)
        + svg.text(left, x + 8, HEIGHT / 2, **style)
        + svg.text(right, x + width - 8, HEIGHT / 2, text_anchor='end', **style)
    )


def _colour_bar(top: float, unit: str, signed: bool) -> str:
    """Draw the colours with their limits."""
    y = HEIGHT + 50
    style: dict[str, Any] = {'fill': '#e8ebee', 'font_size': FONT_SIZE}
    if top == 0:
        return svg.text('The map is zero everywhere.', 12, y + 20, **style)
    ramp = colour_map(np.linspace(-1 if signed else 0, 1, 256)[None], signed=signed)
    uri = svg.encode_rasters([np.repeat(ramp, 8, axis=0).astype(np.uint8)])[0]
    high = f'{top:.2g}'
    low = f'−{high} (younger)' if signed else '0'
    label = f'+{high} {unit} (older)' if signed else f'{high} {unit}'
    start = 30 + 14 * len(low)
    return (
        svg.text(low, start - 10, y + 20, text_anchor='end', **style)
        + svg.image(uri, start, y, 200, 24)
        + svg.text(label, start + 210, y + 20, **style)
    )
