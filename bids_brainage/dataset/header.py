"""What the header of an image says about how it was taken, without reading its voxels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFUSED_PERCENT = 10.0
"""Difference of voxel edges between two places of a header from which an image is refused: a brain
that is a tenth longer along each axis has a third more volume, more than sex and age make."""

REFUSED_DEGREES = 45.0
"""Angle between the two orientations of a header from which an axis, or left and right, change."""

WORTH_TELLING = (1.0, 5.0)
"""Percent and degrees that rounding and the correction of a tilt do not reach."""

LEAST_MM, LEAST_VOXELS = 60.0, 10
"""Field of view along each axis below which no brain is covered."""

_PLAUSIBLE_MM = (0.1, 10.0)
_MM_PER_UNIT = {'meter': 1000.0, 'micron': 0.001}

SAME_GRID_MM = 1e-3
"""Affines and voxel sizes that differ by less are the same; bundles state six decimals."""

THICK_MM = 3.0
"""Slice distance from which a scan counts as one of thick slices."""

ANISOTROPY = 1.5
"""Smallest ratio of slice distance to in-plane voxel edge of such a scan."""


def unreadable() -> tuple[type[Exception], ...]:
    """Return what nibabel raises for a file that is no whole image, to be caught."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError
    from nibabel.wrapstruct import WrapStructError

    python = (OSError, EOFError, ValueError, OverflowError, zlib.error)
    return (*python, ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError)


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
    except unreadable():
        return False
    spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
    axial = [index for index, code in enumerate(codes) if code in ('I', 'S')]
    if len(axial) != 1:
        return False
    in_plane = max(spacing[index] for index in range(3) if index != axial[0])
    distance = spacing[axial[0]]
    return bool(distance >= THICK_MM and distance >= ANISOTROPY * in_plane)


@dataclass(frozen=True)
class Geometry:
    """Size and orientation of an image as the places of its header state them.

    Attributes
    ----------
    form : str
        What gives position and size: ``sform``, ``qform``, or ``none`` of both.
    size_error_percent : float
        Largest difference of a voxel edge in the form used from ``pixdim``.
    form_angle_degrees : float
        Largest angle between an axis in the sform and in the qform; 0 if one is not valid.
    foreign_unit : str
        ``meter`` or ``micron`` where the header does not say millimetre; else empty.
    words : tuple of str
        Each contradiction, with both values and what was used.
    refusal : str
        Why the image cannot be used; empty if it can.
    """

    form: str
    size_error_percent: float
    form_angle_degrees: float
    foreign_unit: str
    words: tuple[str, ...]
    refusal: str


def geometry_of(image: Any) -> Geometry | None:
    """Compare the places of a NIfTI header that state size and orientation.

    The affine of nibabel is used: that of the sform if its code is above 0, else of the qform,
    else the order of storage.

    Parameters
    ----------
    image : nibabel image

    Returns
    -------
    Geometry or None
        None for an image that is not NIfTI.
    """
    import nibabel as nib
    import numpy as np

    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        return None
    codes = {name: int(header[f'{name}_code']) for name in ('sform', 'qform')}
    form = next((name for name, code in codes.items() if code > 0), 'none')
    stated = np.abs(np.asarray(header['pixdim'][1:4], float))
    used = nib.affines.voxel_sizes(np.asarray(image.affine, float))
    percent = angle = 0.0
    said, used_then = [], []
    if (stated > 0).all() and np.isfinite(used).all():
        percent = float(100 * np.abs(used / stated - 1).max())
    if percent > WORTH_TELLING[0]:
        said.append(f'the {form} says voxels of {_sizes(used)} mm and pixdim {_sizes(stated)} mm')
        used_then.append(f'the {form} was used, because its code is {codes.get(form)}')
    if min(codes.values()) > 0:
        try:
            angle = _angle(header.get_sform(), header.get_qform())
        except ValueError as error:
            said.append(f'the qform cannot be read ({error})')
            used_then.append('the sform was used')
    if angle > WORTH_TELLING[1]:
        used_axes, other_axes = _axes(header.get_best_affine()), _axes(header.get_qform())
        said.append(
            f'sform ({used_axes}) and qform ({other_axes}) are turned by {angle:.0f} degrees '
            'against each other'
        )
        used_then.append('the sform was used, because readers of NIfTI take it first')
    words = [': '.join(pair) for pair in zip(said, used_then, strict=True)]
    refusal = '; '.join(said)
    if percent <= REFUSED_PERCENT and angle <= REFUSED_DEGREES:
        refusal = ''
    if form == 'none':
        words.append(
            'neither sform nor qform is valid (both codes are 0): the axes were taken as they '
            'are stored, so that left and right are not known'
        )
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:  # a code that NIfTI does not have
        unit = 'unknown'
    factor = _MM_PER_UNIT.get(unit, 1.0)
    if factor != 1.0:
        words.append(f'the header says the unit {unit}, and its sizes {_sizes(used)} make sense '
                     'as millimetres only: they were taken as millimetres')  # fmt: skip
        low, high = _PLAUSIBLE_MM
        if low <= (used * factor).min() and (used * factor).max() <= high:
            refusal = f'its header is in {unit}s (voxels of {_sizes(used)})'
    return Geometry(
        form,
        round(percent, 2),
        round(angle, 2),
        unit if factor != 1.0 else '',
        tuple(words),
        refusal,
    )


def _angle(first: Any, second: Any) -> float:
    """Return the largest angle in degrees between the same axis of two affines."""
    import numpy as np

    units = [m[:3, :3] / np.maximum(np.linalg.norm(m[:3, :3], axis=0), 1e-12) for m in
             (np.asarray(first, float), np.asarray(second, float))]  # fmt: skip
    cosines = np.clip((units[0] * units[1]).sum(axis=0), -1, 1)
    return float(np.degrees(np.arccos(cosines)).max())


def _axes(affine: Any) -> str:
    """Return the directions of three axes; a question mark for one that leads nowhere."""
    import nibabel as nib

    return ''.join(code or '?' for code in nib.aff2axcodes(affine))


def _sizes(values: Any) -> str:
    return ' x '.join(f'{value:.4g}' for value in values)


def refusal_of(image: Any, geometry: Geometry | None) -> str:
    """Return why an image cannot be used, as far as its header says it; empty if it can.

    Parameters
    ----------
    image : nibabel image
    geometry : Geometry or None
        From `geometry_of`.
    """
    import nibabel as nib
    import numpy as np

    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind == 'c':
        what = 'colours (RGB)' if kind.fields is not None else 'complex numbers'
        return (
            f'the voxels are {what}, expected one number each. '
            'Use the magnitude image as it came from the scanner.'
        )
    if geometry is not None and geometry.refusal:
        return (
            f'{geometry.refusal}. Which is right cannot be known here: convert the scan '
            'again (for example with dcm2niix), or correct the header.'
        )
    shape = tuple(image.shape)
    if len(shape) < 3 or set(shape[3:]) - {1}:
        return (
            f'expected one 3-D volume, found shape {shape}. '
            'Keep a single volume or average the repetitions first.'
        )
    return _refusal_of_grid(np.array(shape[:3]), nib.affines.voxel_sizes(image.affine))


def _refusal_of_grid(shape: Any, zooms: Any) -> str:
    """Return what is wrong with the voxels along each axis and their edges in mm."""
    extent = zooms * shape
    if min(shape) < LEAST_VOXELS or extent.min() < LEAST_MM:
        return (
            f'the field of view is {extent.round().astype(int).tolist()} mm on a grid of '
            f'{shape.tolist()} voxels; expected at least {LEAST_MM:.0f} mm and {LEAST_VOXELS} '
            'voxels along each axis. The scan does not cover the brain, or its voxel size is '
            'wrong.'
        )
    if zooms.max() > _PLAUSIBLE_MM[1] or zooms.min() < _PLAUSIBLE_MM[0]:
        return (
            f'voxel size {zooms.round(3).tolist()} mm; expected 0.1 to 10 mm. '
            'Check the units in the header.'
        )
    return ''


def header_words(path: Path) -> list[str]:
    """Return what is wrong in the header of an image; nothing if it cannot be read."""
    import nibabel as nib

    try:
        image = nib.load(path)
        geometry = geometry_of(image)
        refusal = refusal_of(image, geometry)
    except unreadable():
        return []
    if refusal:
        return [f'will be refused: {refusal}']
    return list(geometry.words) if geometry else []
