"""Lay out slices of a volume in three planes and paint other volumes onto the same slices.

A mosaic is planned once on a reference volume.  Any other volume, whatever its grid, is then
sampled at the same points of the world (RAS, mm), so that an overlay can never be shifted
against its background and thick slices keep their true proportions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_brainage.dataset.header import unreadable
from bids_brainage.errors import UnusableImageError

FloatArray = NDArray[np.floating[Any]]

CANVAS_WIDTH = 1400
GAP = 8
#: height below each row for the positions of the slices, pixels
CAPTION = 26
#: plane name, axis that is cut, axis drawn to the right, axis drawn upwards, number of slices
PLANES = (('axial', 2, 0, 1, 6), ('coronal', 1, 0, 2, 6), ('sagittal', 0, 1, 2, 5))
#: letters at the low and at the high end of each RAS axis
ENDS = (('L', 'R'), ('P', 'A'), ('I', 'S'))
_INNER = (0.13, 0.87)
_MARGIN_MM = 14.0
_LARGEST_FRAME_MM = 320.0


@dataclass(frozen=True)
class Volume:
    """A 3D image whose voxel axes run as closely as possible to right, anterior, superior.

    Attributes
    ----------
    data : ndarray, shape (i, j, k)
    affine : ndarray, shape (4, 4)
        Voxel indices to world coordinates, RAS, mm.
    zooms : ndarray, shape (3,)
        Voxel edge lengths, mm.
    """

    data: FloatArray
    affine: FloatArray
    zooms: FloatArray


@dataclass(frozen=True)
class Tile:
    """One slice on the canvas: where it was cut and where it is drawn (pixels)."""

    plane: str
    axis: int
    right: int
    up: int
    position: float
    x: int
    y: int
    width: int
    height: int
    first: bool


@dataclass(frozen=True)
class Mosaic:
    """All tiles, the canvas size (pixels), the scale (pixels per mm) and the frame.

    The frame is the reference volume's voxel grid in millimetres from its first voxel;
    ``origin`` is the low corner of the box shown, ``to_world`` maps the frame to RAS mm.
    """

    tiles: tuple[Tile, ...]
    width: int
    height: int
    scale: float
    origin: FloatArray
    to_world: FloatArray


def load_volume(path: Path) -> Volume:
    """Read a NIfTI image and turn its axes to lie closest to RAS.

    Parameters
    ----------
    path : Path
        3D image; of a 4D image the first volume is taken.

    Returns
    -------
    Volume

    Raises
    ------
    UnusableImageError
        If the file cannot be read or has fewer than three dimensions.
    """
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        data = _values(image.dataobj)
    except unreadable() as error:
        raise UnusableImageError(
            f'Cannot draw {path}: expected a readable NIfTI image, found: {error}. '
            'Check that the file is complete, or delete it and run the participant again.'
        ) from error
    if data.ndim < 3 or 0 in data.shape:
        raise UnusableImageError(
            f'Cannot draw {path}: expected three dimensions, found shape {data.shape}. '
            'Delete the file and run the participant again.'
        )
    while data.ndim > 3:
        data = data[..., 0]
    turn = nib.io_orientation(image.affine)
    if not np.isfinite(turn).all():
        raise UnusableImageError(
            f'Cannot draw {path}: the header gives no usable orientation '
            f'({np.asarray(image.affine).tolist()}). Convert the scan again.'
        )
    affine = image.affine @ nib.orientations.inv_ornt_aff(turn, data.shape)
    turned = nib.apply_orientation(data, turn)
    return Volume(turned, affine, np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def _values(stored: Any) -> FloatArray:
    """Read voxel values; integers without scaling stay integers, which saves time and memory."""
    if (stored.slope, stored.inter) == (1.0, 0.0) and stored.dtype.kind in 'iu':
        return np.asarray(stored.get_unscaled())
    values = np.asarray(stored, dtype=np.float32)
    return np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)


def bounding_box(inside: NDArray[np.bool_], zooms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give the low and high corner (mm from the first voxel) of the true voxels.

    Parameters
    ----------
    inside : ndarray of bool, shape (i, j, k)
        If nothing is true, the whole grid counts as inside.
    zooms : ndarray, shape (3,)
        Voxel edge lengths, mm.

    Returns
    -------
    low, high : ndarray, shape (3,)
    """
    low, high = np.zeros(3), (np.array(inside.shape) - 1) * zooms
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(inside.any(axis=others))
        if used.size:
            low[axis], high[axis] = used[0] * zooms[axis], used[-1] * zooms[axis]
    return low, high


def plan_mosaic(
    reference: Volume, low: FloatArray, high: FloatArray, margin: float = _MARGIN_MM
) -> Mosaic:
    """Choose slices through a box and place them on the canvas.

    Parameters
    ----------
    reference : Volume
        Gives the frame and its limits.
    low, high : ndarray, shape (3,)
        Corners of the region of interest, mm in the frame; slices are spread inside it.
    margin : float
        Border around the region that is shown too, mm.

    Returns
    -------
    Mosaic
        Rows axial, coronal, sagittal; one scale for all, so sizes can be compared.
    """
    last = (np.array(reference.data.shape) - 1) * reference.zooms
    shown_low = np.maximum(low - margin, -reference.zooms / 2)
    shown_high = np.minimum(high + margin, last + reference.zooms / 2)
    shown_high = np.minimum(shown_high, shown_low + _LARGEST_FRAME_MM)
    size = np.maximum(shown_high - shown_low, 1.0)
    scale = min(
        (CANVAS_WIDTH - (count - 1) * GAP) / (count * size[right])
        for _, _, right, _, count in PLANES
    )
    tiles: list[Tile] = []
    top = 0
    for plane, axis, right, up, count in PLANES:
        width, height = round(size[right] * scale), round(size[up] * scale)
        free = (CANVAS_WIDTH - count * width) / max(count - 1, 1)
        for index, share in enumerate(np.linspace(*_INNER, count)):
            position = float(low[axis] + share * (high[axis] - low[axis]))
            x = int(index * (width + free))
            tiles.append(Tile(plane, axis, right, up, position, x, top, width, height, index == 0))
        top += height + CAPTION
    to_world = reference.affine @ np.diag([*(1 / reference.zooms), 1.0])
    return Mosaic(tuple(tiles), CANVAS_WIDTH, top, scale, shown_low, to_world)


def _sample_tile(mosaic: Mosaic, tile: Tile, volume: Volume, order: int) -> FloatArray:
    """Interpolate a volume on one tile; rows run from the top of the picture downwards."""
    from scipy.ndimage import map_coordinates

    to_voxel = np.linalg.inv(volume.affine) @ mosaic.to_world
    along = mosaic.origin[tile.right] + (np.arange(tile.width) + 0.5) / mosaic.scale
    upward = mosaic.origin[tile.up] + (np.arange(tile.height)[::-1] + 0.5) / mosaic.scale
    points = np.empty((4, tile.height, tile.width))
    points[tile.axis] = tile.position
    points[tile.right] = along[None, :]
    points[tile.up] = upward[:, None]
    points[3] = 1.0
    voxels = np.tensordot(to_voxel[:3], points, axes=1)
    sampled: FloatArray = map_coordinates(
        volume.data,
        voxels,
        output=np.float32,
        order=order,
        mode='constant',
        cval=0.0,
        prefilter=False,
    )
    return sampled


def paint(mosaic: Mosaic, volume: Volume, order: int = 1) -> FloatArray:
    """Sample a volume on every tile of a mosaic.

    Parameters
    ----------
    mosaic : Mosaic
    volume : Volume
        Any grid; matched to the mosaic in world coordinates.
    order : int
        0 nearest neighbour (labels), 1 linear.

    Returns
    -------
    ndarray, shape (height, width)
        Zero outside the tiles and outside the volume.
    """
    canvas = np.zeros((mosaic.height, mosaic.width), dtype=np.float32)
    for tile in mosaic.tiles:
        sampled = _sample_tile(mosaic, tile, volume, order)
        canvas[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = sampled
    return canvas


def outline(mosaic: Mosaic, painted: FloatArray, level: float = 0.5) -> str:
    """Trace one level of a painted volume as SVG path data.

    Parameters
    ----------
    mosaic : Mosaic
    painted : ndarray, shape (height, width)
        Result of :func:`paint` (linear).
    level : float
        Value at which the outline runs.

    Returns
    -------
    str
        The ``d`` attribute in canvas pixels; empty if the level is nowhere crossed.
    """
    import contourpy

    parts: list[str] = []
    for tile in mosaic.tiles:
        cut = painted[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        framed = np.pad(cut, 1)
        lines: Iterable[Any] = contourpy.contour_generator(z=framed).lines(level)
        corner = np.array([tile.x - 0.5, tile.y - 0.5])
        parts += [_path(line + corner) for line in lines if len(line) > 8]
    return ''.join(parts)


def _path(points: FloatArray) -> str:
    """Write every second point of a polyline as relative steps of a tenth of a pixel."""
    thinned = np.vstack([points[:-1:2], points[-1:]])
    tenths = np.rint(thinned * 10).astype(int)
    steps = ' '.join(f'{dx / 10:g} {dy / 10:g}' for dx, dy in np.diff(tenths, axis=0))
    return f'M{tenths[0, 0] / 10:g} {tenths[0, 1] / 10:g}l{steps}'.replace(' -', '-')


def world_coordinate(mosaic: Mosaic, tile: Tile) -> float:
    """Give the world coordinate (mm) of the middle of a tile along the axis that is cut."""
    middle = mosaic.origin.astype(float).copy()
    middle[tile.right] += tile.width / mosaic.scale / 2
    middle[tile.up] += tile.height / mosaic.scale / 2
    middle[tile.axis] = tile.position
    return float((mosaic.to_world @ [*middle, 1.0])[tile.axis])
