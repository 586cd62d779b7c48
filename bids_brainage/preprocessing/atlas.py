"""The structure atlas: priors of 15 structures in template space.

The priors were made from eight manually checked whole-head label maps (SynthSeg training
maps, Apache-2.0, doi:10.1016/j.media.2023.102789) by ``tools/build_atlas.py``: each map was
registered to the template, averaged with its mirror image, and smoothed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import cast

import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates

from bids_brainage.preprocessing.segmentation import Structure
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.preprocessing.transforms import to_index


@dataclass(frozen=True)
class StructureAtlas:
    """Priors of all structures on a 2 mm template grid.

    Attributes
    ----------
    structures : tuple of Structure
    priors : ndarray of float32, shape (S, X, Y, Z)
        Probability 0 to 1.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm of the template.
    """

    structures: tuple[Structure, ...]
    priors: np.ndarray
    affine: np.ndarray

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Return the priors at template points (N, 3) in RAS+ mm, shape (S, N)."""
        index = to_index(self.affine, points)
        found = np.empty((len(self.priors), len(points)), self.priors.dtype)
        for prior, values in zip(self.priors, found, strict=True):
            map_coordinates(prior, index, order=1, output=values)
        return found


def load_structures() -> tuple[Structure, ...]:
    """Return the structures of the atlas in the order of their labels."""
    text = files('bids_brainage').joinpath('data/atlas/structures.json').read_text('utf-8')
    return tuple(
        Structure(s['index'], s['name'], s['tissue'], s['intensity']) for s in json.loads(text)
    )


def structure_titles() -> dict[str, str]:
    """Return structure name → what to call it on a page."""
    text = files('bids_brainage').joinpath('data/atlas/structures.json').read_text('utf-8')
    return {s['name']: s['title'] for s in json.loads(text)}


def load_atlas() -> StructureAtlas:
    """Return the packaged atlas."""
    path = files('bids_brainage').joinpath(
        f'data/atlas/tpl-{DEFAULT_SPACE}_res-2_atlas-structures_probseg.nii.gz'
    )
    image = cast('nib.spatialimages.SpatialImage', nib.load(str(path)))
    stored = np.asarray(image.dataobj, dtype=np.float32)
    return StructureAtlas(
        structures=load_structures(),
        priors=np.ascontiguousarray(np.moveaxis(stored, 3, 0)),
        affine=np.asarray(image.affine, dtype=float),
    )
