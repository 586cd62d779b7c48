"""Three slices of a scan, with and without the map that explains its age, for the first page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_brainage.pictures.figures import colour_limit, overlaid
from bids_brainage.pictures.layers import (
    backdrop,
    colour_bar,
    foreground,
    grey_values,
    plan,
    write,
)
from bids_brainage.pictures.mosaic import (
    CAPTION,
    PLANES,
    FloatArray,
    Mosaic,
    Tile,
    Volume,
    load_volume,
    paint,
)

WIDTH = 720
GAP = 8
USUAL = {2: 0.52, 1: 0.47, 0: 0.47}
"""Where to cut without a map, as a share of the brain's extent: ventricles and hippocampus."""

INNER = (0.25, 0.75)
"""Part of the brain in which the strongest slice of a map is looked for."""

SMOOTHING_MM = 8.0


def plot_summary(
    t1w: Path,
    mask: Path | None,
    out: Path,
    saliency: Path | None = None,
    *,
    unit: str = '',
    signed: bool = False,
) -> None:
    """Draw one axial, one coronal and one sagittal slice, below them the same with the map.

    Parameters
    ----------
    t1w : Path
        NIfTI image.
    mask : Path or None
        Brain mask (grids may differ).
    out : Path
        SVG file to write.
    saliency : Path, optional
        Map in the same world space; the slices are those in which it is strongest.
    unit, signed
        Of the map, as for `bids_brainage.pictures.figures.plot_saliency`.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    head = load_volume(t1w)
    brain = load_volume(mask) if mask else foreground(head)
    values = load_volume(saliency) if saliency else None
    whole = plan(head, brain, margin=6)
    mosaic = plan_summary(whole, cuts(whole, values), rows=1 if values is None else 2)
    first = grey_values(paint(mosaic, head))
    if values is None:
        write(out, mosaic, backdrop(first), 'Three slices of the T1w image', [], narrow=True)
        return
    top = colour_limit(values.data)
    mixed = overlaid(paint(mosaic, head), paint(mosaic, values), top, signed=signed)
    half = mosaic.height // 2
    mixed[:half] = first[:half, :, None]
    body = backdrop(mixed) + colour_bar(mosaic, top, unit, signed, explained=False)
    title = f'Three slices of the T1w image, and the map ({unit})'
    write(out, mosaic, body, title, [], narrow=True)


def cuts(whole: Mosaic, values: Volume | None) -> dict[int, float]:
    """Return where to cut each axis (mm in the frame): where the map is strongest.

    Parameters
    ----------
    whole : Mosaic
        Of the whole brain; its first and last tile of an axis say where the brain is.
    values : Volume or None
        Map, any grid.
    """
    places = {}
    for axis, usual in USUAL.items():
        cut = [tile.position for tile in whole.tiles if tile.axis == axis]
        low, high = min(cut), max(cut)
        places[axis] = low + usual * (high - low)
        if values is None or not values.data.any():
            continue
        found = _strength(whole, values, axis)
        start, stop = (low + part * (high - low) for part in INNER)
        inside = [item for item in found if start <= item[0] <= stop]
        if inside:
            places[axis] = max(inside, key=lambda item: item[1])[0]
    return places


def _strength(whole: Mosaic, values: Volume, axis: int) -> list[tuple[float, float]]:
    """Return (position in the frame, smoothed sum of magnitudes) of the slices of a map."""
    from scipy.ndimage import gaussian_filter1d

    others = tuple({0, 1, 2} - {axis})
    sums = np.abs(values.data).sum(axis=others, dtype=np.float64)
    smooth = gaussian_filter1d(sums, SMOOTHING_MM / values.zooms[axis], mode='constant')
    middle = (np.array(values.data.shape) - 1) / 2
    to_frame = np.linalg.inv(whole.to_world) @ values.affine
    found = []
    for index, strength in enumerate(smooth):
        voxel = np.where(np.arange(3) == axis, index, middle)
        found.append((float((to_frame @ [*voxel, 1.0])[axis]), float(strength)))
    return found


def plan_summary(whole: Mosaic, places: dict[int, float], *, rows: int) -> Mosaic:
    """Lay out one slice of each plane in each row, in the frame and around the brain of `whole`.

    Parameters
    ----------
    whole : Mosaic
    places : dict
        Axis → where to cut, mm in the frame.
    rows : int
        1 or 2, all of the same slices.
    """
    one = {tile.axis: tile for tile in whole.tiles if tile.first}
    size: dict[int, FloatArray] = {
        axis: np.array([tile.width, tile.height]) / whole.scale for axis, tile in one.items()
    }
    scale = (WIDTH - 2 * GAP) / sum(float(extent[0]) for extent in size.values())
    tallest = round(max(float(extent[1]) for extent in size.values()) * scale)
    tiles: list[Tile] = []
    for row in range(rows):
        left = 0
        for plane, axis, right, up, _ in PLANES:
            width, height = (int(extent * scale) for extent in size[axis])
            top = row * (tallest + CAPTION) + (tallest - height) // 2
            place = places[axis]
            tiles.append(Tile(plane, axis, right, up, place, left, top, width, height, row == 0))
            left += width + GAP
    height = rows * (tallest + CAPTION)
    return Mosaic(tuple(tiles), WIDTH, height, scale, whole.origin, whole.to_world)
