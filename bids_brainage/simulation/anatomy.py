"""Brain anatomy from the template that comes inside nilearn's wheel.

ICBM152 2009a nonlinear symmetric (`MNI152NLin2009aSym`): grey and white matter probability
and brain mask at 1 mm.  What they leave of the mask is cerebrospinal fluid.

References
----------
Fonov et al., NeuroImage 2011, doi:10.1016/j.neuroimage.2010.07.033.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bids_brainage.simulation.grid import Array, Grid, nearest, resample_to, sample, sample_vectors
from bids_brainage.simulation.head import NUMBER, head_labels
from bids_brainage.simulation.warp import smooth_noise

TISSUES = ('csf', 'gm', 'wm')
REGIONS = (
    'ventricles',
    'sulcal_csf',
    'cortex',
    'hippocampus',
    'deep_grey',
    'white_matter',
    'cerebellum',
)
#: Empty margin around the brain on its grid, voxels of 1 mm (even).
BORDER = 10
#: Zones of the template, so that region = tissue fraction x zone.
CEREBRUM, VENTRICLE, HIPPOCAMPUS, DEEP, CEREBELLUM = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Anatomy:
    """What every simulated person is a warp of.

    Attributes
    ----------
    grid : Grid
        Brain grid, template mm, RAS.
    tissue : array, shape (3, nx, ny, nz)
        Fractions of CSF, GM, WM; they sum to `mask`.
    mask : array, shape (nx, ny, nz)
        Brain mask, 0-1.
    surround : array, shape (nx, ny, nz)
        Fluid between brain and skull, outside `mask`, 0-1.
    zone : array of uint8, shape (nx, ny, nz)
        Zone numbers of this module, 0 outside the brain.
    texture : array, shape (nx, ny, nz)
        What the template's T1w adds to its tissue means, in units of the WM intensity.
    head_grid : Grid
        Larger grid with face and neck.
    head : array of uint8, shape of `head_grid`
        Tissue numbers of `head.HEAD_TISSUES`, also below the brain.
    """

    grid: Grid
    tissue: Array
    mask: Array
    surround: Array
    zone: np.ndarray
    texture: Array
    head_grid: Grid
    head: np.ndarray


@lru_cache(maxsize=2)
def load_anatomy(spacing: int = 1) -> Anatomy:
    """Template anatomy on a grid of 1 or 2 mm (kept in memory for the next call)."""
    fine, volumes = _load_template()
    zone = _zones(fine, *volumes[:3])
    grid = _blocks(fine, spacing)
    grey, white, mask, t1w = (_block_mean(v, spacing) for v in volumes)
    tissue = np.stack([np.clip(mask - grey - white, 0, 1), grey, white])
    means = (tissue.reshape(3, -1) @ t1w.ravel()) / tissue.reshape(3, -1).sum(1)
    texture = np.where(mask > 0.5, t1w - np.tensordot(means, tissue, 1), 0) / means[2]
    head_grid, head = head_labels(mask > 0.5, grid)
    surround = (1 - mask) * (head[grid_box(grid, head_grid)] == NUMBER['csf'])
    surround[:, :, grid.axis(2) < mask_floor(grid, mask)] = 0
    zone = _block_vote(zone, spacing)
    return Anatomy(grid, tissue, mask, surround, zone, texture.astype('f4'), head_grid, head)


def mask_floor(grid: Grid, mask: Array) -> float:
    """Height of the lowest brain voxel, mm: below it the spinal canal begins."""
    return float(grid.axis(2)[np.flatnonzero(mask.any((0, 1)))[0]])


def grid_box(inner: Grid, outer: Grid) -> tuple[slice, slice, slice]:
    """Voxels of `outer` that are those of `inner` (same spacing, aligned)."""
    start = np.rint((np.asarray(inner.origin) - outer.origin) / outer.spacing).astype(int)
    x, y, z = (slice(int(a), int(a) + n) for a, n in zip(start, inner.shape, strict=True))
    return x, y, z


def _load_template() -> tuple[Grid, list[Array]]:
    """Grey, white, mask and T1w at 1 mm, cut to the brain with an empty `BORDER`."""
    from nilearn import datasets

    images = [
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
        datasets.load_mni152_template(resolution=1),
    ]
    mask = images[2].get_fdata(dtype=np.float32)
    inside = np.argwhere(mask > 0)
    low, high = inside.min(0), inside.max(0) + 1
    pad = [(BORDER, BORDER + (b - a) % 2) for a, b in zip(low, high, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    volumes = [np.pad(i.get_fdata(dtype=np.float32)[box] * mask[box], pad) for i in images]
    origin = images[0].affine[:3, 3] + low - BORDER
    x, y, z = volumes[0].shape
    return Grid((x, y, z), 1.0, (origin[0], origin[1], origin[2])), volumes


def _blocks(grid: Grid, size: int) -> Grid:
    """Grid whose voxels are blocks of `size` voxels of `grid`."""
    x, y, z = (n // size for n in grid.shape)
    start = [o + 0.5 * (size - 1) * grid.spacing for o in grid.origin]
    return Grid((x, y, z), size * grid.spacing, (start[0], start[1], start[2]))


def _block_mean(volume: Array, size: int) -> Array:
    """Mean over blocks of `size` voxels a side."""
    x, y, z = (n // size for n in volume.shape)
    return volume.reshape(x, size, y, size, z, size).mean((1, 3, 5), dtype='f4')


def _block_vote(zone: np.ndarray, size: int) -> np.ndarray:
    """Commonest zone of each block of `size` voxels a side, 0 only where nothing else is."""
    numbers = range(1, int(zone.max()) + 1)
    share = np.stack([_block_mean((zone == k).astype('f4'), size) for k in numbers])
    return np.where(share.any(0), share.argmax(0) + 1, 0).astype('u1')


def _zones(grid: Grid, grey: Array, white: Array, mask: Array) -> np.ndarray:
    """Zone numbers from geometric rules in template mm (approximate by design)."""
    from scipy.ndimage import binary_dilation, distance_transform_edt

    x, y, z = np.meshgrid(*(grid.axis(k) for k in range(3)), indexing='ij', sparse=True)
    side = np.abs(x)
    csf = mask - grey - white
    # Blocks of 2 mm close the narrow fissures, which should not count as surface.
    depth = distance_transform_edt(_block_mean(mask, 2) > 0.5, sampling=2 * grid.spacing)
    depth = depth.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    zone = np.where(mask > 0, CEREBRUM, 0).astype('u1')
    tentorium = -5 + 0.3 * (y + 40) - 0.3 * side
    zone[(mask > 0) & (y < -36) & (z < tentorium) & (side > 0.9 * (y + 36) + 14)] = CEREBELLUM
    centre = (side < 34) & (y > -38) & (y < 26) & (z > -14) & (z < 24) & (depth > 18)
    insula = side > 28 + 0.1 * z
    zone[centre & ~insula & (csf < 0.5)] = DEEP
    hippocampus = ((side - 27) / 9) ** 2 + ((y + 22 + 0.5 * (z + 14)) / 20) ** 2
    zone[(hippocampus + ((z + 14) / 8) ** 2 < 1) & (mask > 0)] = HIPPOCAMPUS
    core = (csf > 0.25) & (depth > 22) & (side < 40) & (y > -50) & (y < 40)
    core &= (z > -22) & (z < 32) & ~((y < -30) & (side < 8)) & ~((y < -45) & (side < 14))
    core &= ~((z < -2) & (side < 18) & ((y > 8) | (y < -24)))
    near = binary_dilation(core, iterations=2) & (depth > 18)
    zone[near & ((zone == CEREBRUM) | core | (zone == DEEP) & (csf > 0.05))] = VENTRICLE
    return zone


def region_fractions(tissue: Array, zone: np.ndarray, surround: Array) -> Array:
    """Fractions of `REGIONS`, shape (7, ...); they sum to the intracranial space.

    Parameters
    ----------
    tissue : array, shape (3, ...)
        CSF, GM, WM fractions.
    zone : array of uint8, shape (...)
        Zone numbers of this module.
    surround : array, shape (...)
        Fluid around the brain, counted as sulcal CSF.
    """
    csf, grey, white = tissue
    cerebellum = zone == CEREBELLUM
    ventricle = zone == VENTRICLE
    deep = (zone == DEEP) | ventricle
    return np.stack(
        [
            csf * ventricle,
            csf * ~ventricle + surround,
            grey * (zone == CEREBRUM),
            grey * (zone == HIPPOCAMPUS),
            grey * deep,
            white * ~cerebellum,
            (grey + white) * cerebellum,
        ]
    )


def sample_regions(anatomy: Anatomy, tissue: Array, points: Array) -> tuple[Array, Array]:
    """Tissue (3, ...) and region (7, ...) fractions at template points (3, ...) in mm."""
    index = anatomy.grid.index(points)
    at_points = sample_vectors(tissue, index)
    zone = nearest(anatomy.zone, index)
    surround = sample(anatomy.surround, index)
    return at_points, region_fractions(at_points, zone, surround)


def individual_folds(anatomy: Anatomy, rng: np.random.Generator, strength: float) -> Array:
    """Draw one person's sharper tissue map from the template's probabilities.

    Where the template is unsure (the average of many cortices), a band of smooth noise
    decides, so that people differ in their sulci and the map loses its blur.

    Parameters
    ----------
    anatomy : Anatomy
    rng : numpy.random.Generator
    strength : float
        SD of the noise on the log probabilities; 0 only sharpens.

    Returns
    -------
    array, shape (3, nx, ny, nz), float32: CSF, GM, WM, summing to the mask
    """
    source = anatomy.grid.coarser(2.0, 4.0) if anatomy.grid.spacing < 2 else anatomy.grid
    sharper = np.sqrt(anatomy.tissue) * anatomy.tissue
    for number in (0, 2):
        noise = smooth_noise(rng, source.shape, source.spacing, 3.0)
        if source is not anatomy.grid:
            noise = resample_to(noise, source, anatomy.grid)
        sharper[number] *= np.exp(np.float32(strength) * noise)
    total = sharper.sum(0)
    return sharper * (anatomy.mask / np.maximum(total, 1e-6))
