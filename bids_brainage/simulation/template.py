"""The head that every simulated person is a warp of.

Its brain is the template that comes inside nilearn's wheel: ICBM152 2009a nonlinear symmetric
(`MNI152NLin2009aSym`), T1w, grey and white matter probability and brain mask at 1 mm.  What they
leave of the mask is cerebrospinal fluid.  Where its regions lie, the program's own segmentation
network has said (``tools/fit_people.py``).

References
----------
Fonov et al., NeuroImage 2011, doi:10.1016/j.neuroimage.2010.07.033.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from typing import cast

import numpy as np

from bids_brainage.segmentation.regions import load_regions
from bids_brainage.simulation.grid import Array, Grid
from bids_brainage.simulation.head import head_labels
from bids_brainage.simulation.lifespan.anatomy import BRAIN, HeadAnatomy
from bids_brainage.simulation.lifespan.person import Carver, prepare_carver

TISSUES = ('csf', 'gm', 'wm')
REGIONS = tuple(region.name for region in load_regions())
#: Fractions of `REGIONS` on the grid `BRAIN`.
REGION_MAPS = 'data/atlas/tpl-MNI152NLin2009aSym_res-2_atlas-regions_probseg.nii.gz'
#: Empty margin around the brain on its grid, voxels of 1 mm (even).
BORDER = 10


@dataclass(frozen=True)
class Template:
    """Brain and head, on grids of 1 or 2 mm.

    Attributes
    ----------
    grid : Grid
        Brain grid, template mm, RAS.
    tissue : array, shape (3, nx, ny, nz)
        Fractions of CSF, GM, WM; they sum to `mask`.
    mask : array, shape (nx, ny, nz)
        Brain mask, 0-1.
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
    texture: Array
    head_grid: Grid
    head: np.ndarray


@lru_cache(maxsize=2)
def load_template(spacing: int = 1) -> Template:
    """Template head on a grid of 1 or 2 mm (kept in memory for the next call)."""
    fine, volumes = _load_volumes()
    grid = _blocks(fine, spacing)
    grey, white, mask, t1w = (_block_mean(v, spacing) for v in volumes)
    tissue = np.stack([np.clip(mask - grey - white, 0, 1), grey, white])
    means = (tissue.reshape(3, -1) @ t1w.ravel()) / tissue.reshape(3, -1).sum(1)
    texture = np.where(mask > 0.5, t1w - np.tensordot(means, tissue, 1), 0) / means[2]
    head_grid, head = head_labels(mask > 0.5, grid)
    return Template(grid, tissue, mask, texture.astype('f4'), head_grid, head)


@lru_cache(maxsize=1)
def load_carver() -> Carver:
    """Regions of the template brain, ready to be warped (kept in memory)."""
    import nibabel as nib

    with as_file(files('bids_brainage').joinpath(REGION_MAPS)) as path:
        image = cast('nib.Nifti1Image', nib.load(path))
        maps = np.moveaxis(np.asarray(image.dataobj, 'u1'), -1, 0)
    nowhere = np.zeros((0, *BRAIN.shape), 'u1')
    still = np.zeros((3, *BRAIN.shape), 'f4')
    return prepare_carver(HeadAnatomy('template', maps, nowhere, still, REGIONS))


@lru_cache(maxsize=1)
def region_labels() -> np.ndarray:
    """Commonest region of each voxel of `BRAIN`: 1 + its place in `REGIONS`, 0 outside."""
    maps = load_carver().anatomy.brain
    inside = maps.sum(0, dtype='u2') > 127
    return np.where(inside, maps.argmax(0) + 1, 0).astype('u1')


def grid_box(inner: Grid, outer: Grid) -> tuple[slice, slice, slice]:
    """Voxels of `outer` that are those of `inner` (same spacing, aligned)."""
    start = np.rint((np.asarray(inner.origin) - outer.origin) / outer.spacing).astype(int)
    x, y, z = (slice(int(a), int(a) + n) for a, n in zip(start, inner.shape, strict=True))
    return x, y, z


def _load_volumes() -> tuple[Grid, list[Array]]:
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
