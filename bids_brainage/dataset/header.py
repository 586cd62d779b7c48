"""What the header of an image says about how it was taken, without reading its voxels."""

from __future__ import annotations

from pathlib import Path

SAME_GRID_MM = 1e-3
"""Affines and voxel sizes that differ by less are the same; bundles state six decimals."""

THICK_MM = 3.0
"""Slice distance from which a scan counts as one of thick slices."""

ANISOTROPY = 1.5
"""Smallest ratio of slice distance to in-plane voxel edge of such a scan."""


def is_thick_axial(path: Path) -> bool:
    """Return whether an image consists of thick axial slices, as clinical 2-D scans do.

    Parameters
    ----------
    path : Path
        NIfTI file; one that cannot be read counts as no.

    Returns
    -------
    bool
        True if the distance of planes along the axis nearest to inferior-superior is at least
        3 mm and at least 1.5 times the larger of the other voxel edges.
    """
    import nibabel as nib
    import numpy as np

    try:
        image = nib.nifti1.load(path)
        codes = nib.orientations.aff2axcodes(image.affine)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError):
        return False
    spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
    axial = [index for index, code in enumerate(codes) if code in ('I', 'S')]
    if len(axial) != 1:
        return False
    in_plane = max(spacing[index] for index in range(3) if index != axial[0])
    distance = spacing[axial[0]]
    return bool(distance >= THICK_MM and distance >= ANISOTROPY * in_plane)
