"""Names of atlases, apart so that reading options imports nothing heavy."""

from __future__ import annotations

import re

DEFAULT_ATLAS = 'power2011'
COORDINATE_ATLASES = ('power2011', 'dosenbach2010', 'seitzman2018')
"""Names of the atlases that need no file: their coordinates come with nilearn."""


def is_path(atlas: str) -> bool:
    """Return whether an atlas is given as the path of a label image."""
    return '/' in atlas or atlas.endswith(('.nii', '.nii.gz'))


def atlas_label(atlas: str) -> str:
    """Return the label of an atlas in file names.

    Examples
    --------
    >>> atlas_label('power2011'), atlas_label('/data/AAL_90.nii.gz')
    ('power2011', 'AAL90')
    >>> atlas_label('Schaefer2018:desc-100Parcels7Networks:res-02')
    'Schaefer2018100Parcels7Networks'
    """
    if is_path(atlas):
        name = atlas.rsplit('/', 1)[-1].split('.', 1)[0]
    else:
        name, *parts = atlas.split(':')
        name += ''.join(part.removeprefix('desc-') for part in parts if part.startswith('desc-'))
    return re.sub(r'[^0-9a-zA-Z]', '', name)
