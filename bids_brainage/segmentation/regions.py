"""The regions that the segmentation network tells apart.

They are those of the MUSE atlas (Doshi et al. 2016, doi:10.1016/j.neuroimage.2015.11.073), left
and right together, its cortex summed up by lobe and face.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

OUTER_FLUID = 'csf'
"""Region that lies within the skull but is not brain."""


@dataclass(frozen=True)
class Region:
    """One region.

    Attributes
    ----------
    index : int
        Label in segmentations; 0 is background.
    name : str
        Identifier, e.g. ``'lateral_ventricle'``.
    title : str
        What a page calls it.
    tissue : str
        ``'CSF'``, ``'GM'`` or ``'WM'``.
    muse : tuple of int
        Codes of the MUSE atlas that it is made of.
    """

    index: int
    name: str
    title: str
    tissue: str
    muse: tuple[int, ...]


@cache
def load_regions() -> tuple[Region, ...]:
    """Return all regions in the order of their labels, which start at 1."""
    text = files('bids_brainage').joinpath('data/segmentation/regions.json').read_text('utf-8')
    return tuple(Region(**{**row, 'muse': tuple(row['muse'])}) for row in json.loads(text))
