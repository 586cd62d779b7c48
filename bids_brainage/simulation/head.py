"""What surrounds the brain: skull, scalp, eyes, face and neck as simple solids.

Not an anatomy to measure anything on: it gives brain extraction, registration and noise
estimates the surroundings that they meet in a real T1w image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bids_brainage.simulation.grid import Array, Grid, resample_to
from bids_brainage.simulation.warp import smooth_noise

HEAD_TISSUES = (
    'air',
    'csf',
    'dura',
    'bone',
    'marrow',
    'fat',
    'skin',
    'muscle',
    'vitreous',
    'cord',
    'mucosa',
)
NUMBER = {name: number for number, name in enumerate(HEAD_TISSUES)}

#: Layers around the brain: outer limit as distance from the brain surface in mm, tissue.
LAYERS = (
    (13.5, 'skin'),
    (12.0, 'fat'),
    (7.8, 'bone'),
    (6.4, 'marrow'),
    (4.0, 'bone'),
    (2.8, 'dura'),
    (2.0, 'csf'),
)
#: Solids of the soft face and neck: centre and radii in template mm.
FACE = (
    ((0, 28, -60), (70, 72, 66)),
    ((0, 50, -98), (54, 52, 44)),
    ((0, 98, -58), (15, 24, 24)),
    ((0, 26, -95), (64, 52, 48)),
    ((0, -48, -60), (64, 56, 60)),
)
NECK = ((0, -22), (58, 60))
#: Organs in painting order: tissue, centre, radii; off the midline means one on each side.
ORGANS = (
    ('fat', (30, 58, -36), (19, 26, 17)),
    ('muscle', (27, 50, -36), (6, 22, 6)),
    ('skin', (32, 68, -36), (13.5, 13.5, 13.5)),
    ('vitreous', (32, 68, -36), (12, 12, 12)),
    ('muscle', (32, 77.5, -36), (4.5, 2.5, 4.5)),
    ('mucosa', (29, 50, -68), (16, 18, 17)),
    ('air', (29, 50, -68), (14, 16, 15)),
    ('bone', (46, 20, -96), (5, 24, 32)),
    ('marrow', (46, 20, -96), (2.5, 20, 28)),
    ('bone', (55, -22, -42), (16, 16, 18)),
    ('air', (66, -14, -42), (12, 3, 3)),
    ('mucosa', (0, 58, -60), (13, 36, 22)),
    ('air', (0, 40, -40), (9, 14, 9)),
    ('air', (5, 58, -62), (2.5, 34, 19)),
    ('bone', (0, 58, -84), (26, 36, 5)),
    ('bone', (0, 86, -100), (22, 10, 16)),
    ('muscle', (0, 46, -104), (21, 34, 17)),
    ('bone', (0, 76, -124), (30, 16, 11)),
    ('marrow', (0, 76, -124), (26, 12, 7)),
)


def head_labels(brain: np.ndarray, grid: Grid) -> tuple[Grid, np.ndarray]:
    """Tissue numbers of a whole head around a brain mask.

    Parameters
    ----------
    brain : array of bool, shape of `grid`
        Brain mask in template space.
    grid : Grid
        Grid of the mask, template mm.

    Returns
    -------
    grid : Grid
        Head grid with the spacing of `grid`.
    labels : array of uint8
        Indices into `HEAD_TISSUES`.
    """
    coarse = Grid((102, 140, 143), 2.0, (-101.0, -144.0, -168.0))
    fine_shape = tuple(int((n - 1) * 2 / grid.spacing) for n in coarse.shape)
    origin = tuple(o + 0.5 * grid.spacing for o in coarse.origin)
    fine = Grid(fine_shape, grid.spacing, origin)  # type: ignore[arg-type]
    outside, depth, streaks = _coarse_fields(brain, grid, coarse)
    to_fine = [resample_to(field, coarse, fine) for field in (outside, depth, streaks)]
    return fine, _paint(fine, *to_fine)


def _coarse_fields(brain: np.ndarray, grid: Grid, coarse: Grid) -> tuple[Array, Array, Array]:
    """Distance from the brain, depth below the skin (both mm), and a noise for streaks."""
    from scipy.ndimage import (
        binary_closing,
        distance_transform_edt,
        gaussian_filter,
        map_coordinates,
    )

    index = grid.index(coarse.points())
    mask = map_coordinates(brain.astype('f4'), index, order=1) > 0.5
    mask = binary_closing(np.pad(mask, 8), iterations=5)[8:-8, 8:-8, 8:-8]
    outside = distance_transform_edt(~mask, sampling=coarse.spacing) - 0.5 * coarse.spacing
    outside = gaussian_filter(outside.astype('f4'), 1.2)
    noise = smooth_noise(np.random.default_rng(0), coarse.shape, coarse.spacing, 12.0)
    outside = outside * (1 + 0.12 * noise)
    shape = (outside < LAYERS[0][0]) | _face_and_neck(coarse)
    shape = gaussian_filter(shape.astype('f4'), 2.0) > 0.5
    depth = distance_transform_edt(shape, sampling=coarse.spacing)
    depth = depth - distance_transform_edt(~shape, sampling=coarse.spacing)
    streaks = smooth_noise(np.random.default_rng(1), coarse.shape, coarse.spacing, 3.0)
    return outside, gaussian_filter(depth.astype('f4'), 1.0), streaks


def _inside(grid: Grid, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Voxels of `grid` in an ellipsoid, array of bool."""
    total = np.zeros((1, 1, 1), 'f4')
    for k in range(3):
        scaled = ((grid.axis(k) - centre[k]) / radii[k]) ** 2
        total = total + scaled.reshape([-1 if k == j else 1 for j in range(3)])
    return total < 1


def _column(
    grid: Grid, centre: tuple[float, float], radii: tuple[float, float], z: tuple[float, float]
) -> np.ndarray:
    """Voxels in an upright elliptic cylinder between two heights, array of bool."""
    x = ((grid.axis(0) - centre[0]) / radii[0]) ** 2
    y = ((grid.axis(1) - centre[1]) / radii[1]) ** 2
    level = (grid.axis(2) > z[0]) & (grid.axis(2) < z[1])
    return ((x[:, None] + y) < 1)[..., None] & level


def _face_and_neck(grid: Grid) -> np.ndarray:
    """Union of the soft solids below and in front of the brain, array of bool."""
    shape = _column(grid, NECK[0], NECK[1], (-1e3, -60.0))
    for centre, radii in FACE:
        shape |= _inside(grid, centre, radii)
    return shape


def _paint(grid: Grid, outside: Array, depth: Array, streaks: Array) -> np.ndarray:
    """Tissue numbers from the distance fields, then the organs on top."""
    labels = np.where(depth > 0, NUMBER['muscle'], 0).astype('u1')
    deep_fat = (streaks > 1.4) & (depth > 5)
    labels[deep_fat] = NUMBER['fat']
    labels[(depth > 0) & (depth < 6)] = NUMBER['fat']
    labels[(depth > 0) & (depth < 1.6)] = NUMBER['skin']
    vault = _vault(grid)
    for limit, name in LAYERS:
        layer = (outside < limit) & (depth > 0)
        if limit > 8:
            layer &= vault & (depth < 8)
        labels[layer] = NUMBER[name]
    for name, solid in _organs(grid):
        labels[solid & (depth > 2) & (outside > 2.8)] = NUMBER[name]
    return labels


def _vault(grid: Grid) -> np.ndarray:
    """Where scalp, not face, covers the skull: above a plane from brow to nape."""
    y = grid.axis(1)[None, :, None]
    z = grid.axis(2)[None, None, :]
    return np.broadcast_to(z > -38 + 0.32 * y, grid.shape)


Solid = tuple[str, np.ndarray]


def _organs(grid: Grid) -> Iterator[Solid]:
    """Eyes, air spaces, jaw and spine in painting order: (tissue, voxels)."""
    for name, centre, radii in ORGANS:
        for side in (-1, 1) if centre[0] else (1,):
            yield name, _inside(grid, (side * centre[0], *centre[1:]), radii)
    yield 'air', _column(grid, (0, 10), (9, 6), (-128, -52))
    yield 'air', _column(grid, (0, 14), (8, 8), (-1e3, -126))
    yield from _spine(grid)


def _spine(grid: Grid) -> Iterator[Solid]:
    """Vertebrae, discs, canal and cord below the brain stem."""
    yield 'bone', _column(grid, (0, -38), (17, 29), (-1e3, -80))
    for top in range(-82, -190, -19):
        yield 'marrow', _column(grid, (0, -24), (13, 10), (top - 14, top))
        yield 'marrow', _column(grid, (0, -62), (3, 9), (top - 12, top - 4))
    yield 'csf', _column(grid, (0, -46), (9, 8), (-1e3, -66))
    yield 'cord', _column(grid, (0, -46), (5.5, 5), (-1e3, -66))
