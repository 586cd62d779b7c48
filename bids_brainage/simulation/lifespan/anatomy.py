"""Real heads to carve people out of: label maps brought onto one grid.

A label map (FreeSurfer numbers inside the brain, 5xx outside, as SynthSeg's training maps) is
registered to the template by the program's own registration.  The anatomy lives in *head
space*: the template's axes after the affine part alone, so that its own shape is kept.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import MissingInputError
from bids_brainage.simulation.grid import Array, Grid

LOG = logging.getLogger(__name__)

#: Structures of the atlas, in its order, and their FreeSurfer labels.
LABELS: dict[str, tuple[int, ...]] = {
    'csf': (24,),
    'lateral_ventricle': (4, 5, 43, 44, 31, 63, 136, 137, 163, 164),
    'third_ventricle': (14, 72),
    'fourth_ventricle': (15,),
    'cortex': (3, 42),
    'cerebral_white_matter': (2, 41, 25, 57, 77, 30, 62),
    'cerebellum_cortex': (8, 47),
    'cerebellum_white_matter': (7, 46),
    'thalamus': (10, 49),
    'caudate': (11, 50, 26, 58),
    'putamen': (12, 51),
    'pallidum': (13, 52),
    'hippocampus': (17, 53),
    'amygdala': (18, 54),
    'brainstem': (16, 28, 60, 85),
}
STRUCTURES = tuple(LABELS)
#: Labels of tissue outside the intracranial space; each is painted on its own.
OUTER = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)
#: Typical T1w intensities for registration, white matter = 1.
T1W = (0.20, 0.15, 0.18, 0.18, 0.62, 1.0, 0.62, 0.95, 0.80, 0.65, 0.70, 0.88, 0.62, 0.62, 0.92)
#: Brain box and whole-head box in head space.
BRAIN = Grid((100, 118, 100), 2.0, (-98.0, -134.0, -80.0))
HEAD = Grid((106, 132, 136), 2.0, (-104.0, -144.0, -152.0))
SCHEMA = 1


@dataclass(frozen=True)
class HeadAnatomy:
    """One real head.

    Attributes
    ----------
    name : str
        Of the label map.
    brain : array of uint8, shape (S, nx, ny, nz)
        Fractions (255 = all) of `structures` on `BRAIN`; the fluid around the brain is the first.
    outer : array of uint8, shape (11, nx, ny, nz)
        Fractions of `OUTER` on `HEAD`.
    to_head : array of float32, shape (3, nx, ny, nz)
        Displacement in mm from template points on `BRAIN` to head space: what a registration
        of this anatomy finds.
    structures : tuple of str
    """

    name: str
    brain: NDArray[np.uint8]
    outer: NDArray[np.uint8]
    to_head: Array
    structures: tuple[str, ...] = STRUCTURES

    def fractions(self) -> Array:
        """Return the structures' fractions, 0 to 1, shape (S, nx, ny, nz)."""
        return (self.brain / np.float32(255)).astype('f4')


def load_anatomies(folder: Path, cache: Path) -> list[HeadAnatomy]:
    """Prepare the label maps of a folder (about 40 s each, once), or read them back.

    Parameters
    ----------
    folder : Path
        Holds ``training_seg_*.nii.gz``.
    cache : Path
        Where prepared anatomies are kept.

    Raises
    ------
    MissingInputError
        There is no label map.
    """
    maps = sorted(folder.glob('training_seg_*.nii.gz'))
    if not maps:
        raise MissingInputError(
            f'No label map in {folder}: expected training_seg_*.nii.gz (SynthSeg training label '
            'maps, Apache-2.0). Give the folder that holds them.'
        )
    cache.mkdir(parents=True, exist_ok=True)
    return [_cached(path, cache) for path in maps]


def _cached(path: Path, cache: Path) -> HeadAnatomy:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    stored = cache / f'{path.name.split(".")[0]}-{digest}-{SCHEMA}.npz'
    if not stored.is_file():
        LOG.info('Preparing %s', path.name)
        made = prepare_anatomy(path)
        partial = stored.with_suffix('.part.npz')
        np.savez_compressed(
            partial, brain=made.brain, outer=made.outer, to_head=made.to_head,
        )  # fmt: skip
        partial.rename(stored)
    with np.load(stored) as found:
        return HeadAnatomy(
            path.name.split('.')[0], found['brain'], found['outer'], found['to_head'],
        )  # fmt: skip


def prepare_anatomy(path: Path) -> HeadAnatomy:
    """Register one label map to the template and bring it into head space."""
    import nibabel as nib
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    from bids_brainage.preprocessing.registration import register

    source = nib.as_closest_canonical(nib.load(path))
    labels = np.asarray(source.dataobj).astype('i2')
    image, mask = t1w_of(labels)
    template = load_mni152_template(resolution=2)
    template_mask = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    fixed = template.get_fdata(dtype=np.float32)
    transform, _ = register(fixed, template_mask, template.affine, image, mask, source.affine)
    to_native = np.linalg.inv(source.affine) @ transform.affine
    brain = np.stack([_fraction(labels, LABELS[name], BRAIN, to_native) for name in STRUCTURES])
    outer = np.stack([_fraction(labels, (number,), HEAD, to_native) for number in OUTER])
    return HeadAnatomy(
        path.name.split('.')[0],
        brain,
        outer,
        _on_brain_grid(transform.displacement, transform.grid),
    )


def atlas_anatomy() -> HeadAnatomy:
    """Return an average brain made of the packaged structure atlas: needs no label map.

    It has no skull (scans of it are skull-stripped), and its folds are blurred.  A rim of fluid
    is added, which the template's brain mask leaves out.
    """
    from nilearn.datasets import load_mni152_brain_mask
    from scipy.ndimage import binary_dilation

    from bids_brainage.preprocessing.atlas import load_atlas
    from bids_brainage.preprocessing.transforms import sample_image

    points = BRAIN.points().reshape(3, -1).T
    prior = load_atlas().sample(points) ** 2
    mask = load_mni152_brain_mask(resolution=2)
    rim = binary_dilation(np.asarray(mask.dataobj) > 0).astype('f4')
    inside = sample_image(rim, mask.affine, points)
    share = prior / np.maximum(prior.sum(0), 1e-6) * inside
    return HeadAnatomy(
        'atlas',
        np.rint(255 * share).astype('u1').reshape(-1, *BRAIN.shape),
        np.zeros((len(OUTER), *HEAD.shape), 'u1'),
        np.zeros((3, *BRAIN.shape), 'f4'),
    )


def t1w_of(labels: NDArray) -> tuple[Array, NDArray[np.bool_]]:
    """Paint the brain of a label map as a T1w image; returns image and brain mask."""
    from scipy import ndimage

    image = np.zeros(labels.shape, 'f4')
    brain = np.zeros(labels.shape, bool)
    for name, intensity in zip(STRUCTURES, T1W, strict=True):
        here = np.isin(labels, LABELS[name])
        image[here] = intensity
        if name != 'csf':
            brain |= here
    near = ndimage.binary_closing(brain, iterations=4)
    brain = ndimage.binary_fill_holes(brain | (near & (labels > 0)))
    return ndimage.gaussian_filter(image, 0.6) * brain, brain


def _fraction(
    labels: NDArray, numbers: tuple[int, ...], grid: Grid, to_native: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Share of each 2 mm voxel of `grid` that has one of the labels, 0-255."""
    from scipy.ndimage import affine_transform

    half = grid.spacing / 2
    fine = np.diag([half, half, half, 1.0])
    fine[:3, 3] = np.asarray(grid.origin) - half / 2
    index = to_native @ fine
    shape = tuple(2 * n for n in grid.shape)
    here = np.isin(labels, numbers).astype('f4')
    at = affine_transform(here, index[:3, :3], index[:3, 3], shape, order=1, prefilter=False)
    x, y, z = grid.shape
    return np.rint(255 * at.reshape(x, 2, y, 2, z, 2).mean((1, 3, 5))).astype('u1')


def _on_brain_grid(displacement: NDArray, affine: NDArray) -> Array:
    """Displacements (X, Y, Z, 3) of a 2 mm template grid on `BRAIN`, shape (3, ...)."""
    from scipy.ndimage import map_coordinates

    points = BRAIN.points().reshape(3, -1)
    inverse = np.linalg.inv(affine)
    index = inverse[:3, :3] @ points + inverse[:3, 3:]
    return (
        np.stack(
            [
                map_coordinates(displacement[..., k], index, order=1, mode='nearest')
                for k in range(3)
            ]
        )
        .reshape(3, *BRAIN.shape)
        .astype('f4')
    )


@lru_cache(maxsize=1)
def intensity_groups() -> dict[str, tuple[int, ...]]:
    """Return intensity class → indices into `STRUCTURES` (``data/atlas/structures.json``)."""
    from bids_brainage.preprocessing.atlas import load_structures

    groups: dict[str, list[int]] = {}
    for structure in load_structures():
        groups.setdefault(structure.intensity, []).append(STRUCTURES.index(structure.name))
    return {name: tuple(indices) for name, indices in groups.items()}
