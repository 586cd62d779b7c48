"""Preparation of routine clinical T1w scans for System C.

Kim et al., npj Aging 2025 (doi:10.1038/s41514-025-00260-x), "Preprocessing": skull-stripped
scan, (research scans, training only) synthetic slicing, 2 mm interpolation, intensity
normalisation, crop or pad to 160 x 240 x 80 mm, background filter.  No registration and no
bias-field correction.

Every array is in RAS+ order (axis 2 runs from inferior to superior); affines map voxel
indices to RAS+ millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.errors import UnusableImageError

Volume = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]

#: Slice distance in mm that synthetic slicing reaches or passes.
SLICE_DISTANCE_MM = 7.0
VOXEL_SIZE_MM = 2.0
#: Voxels of the final grid: sagittal 160, coronal 240, axial 80 mm.
GRID = (80, 120, 40)
CLIP_PERCENTILE = 99.9
CORE_PERCENTILES = (1.0, 99.0)
#: Scans whose final grid has a larger share of background voxels are unusable.
MAX_BACKGROUND = 0.92
#: Absorbs floating-point error of k = ceil(distance / spacing), so that 7 / 1.4 stays 5.
_CEIL_GUARD = 1e-9


@dataclass(frozen=True)
class Intensities:
    """What the normalisation measured.

    Attributes
    ----------
    mean, sd : float
        Mean and population standard deviation of the foreground between its 1st and 99th
        percentile, in the units of the scan.
    clip : float
        Largest value kept, in units of `sd`.
    """

    mean: float
    sd: float
    clip: float


@dataclass(frozen=True)
class ClinicalInput:
    """A scan on the grid of System C.

    Attributes
    ----------
    volume : ndarray of float32, shape (80, 120, 40)
        Intensity over its standard deviation, background 0.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    intensities : Intensities
        Constants of the normalisation.
    background : float
        Share of background voxels.
    """

    volume: Volume
    affine: Affine
    intensities: Intensities
    background: float


def slicing_factor(spacing_mm: float, distance_mm: float = SLICE_DISTANCE_MM) -> int:
    """Planes to step so that the slice distance reaches 7 mm.

    Parameters
    ----------
    spacing_mm : float
        Native distance of the axial planes.
    distance_mm : float
        Distance to reach.

    Returns
    -------
    int
        ``ceil(distance / spacing)``, 1 for scans that are thick already.

    Raises
    ------
    UnusableImageError
        The spacing is not positive.

    Examples
    --------
    >>> slicing_factor(1.0), slicing_factor(3.0), slicing_factor(8.0)
    (7, 3, 1)
    """
    if not spacing_mm > 0:
        raise UnusableImageError(
            f'Slice distance is {spacing_mm} mm, expected a positive number. Repair the header.'
        )
    return max(1, math.ceil(distance_mm / spacing_mm - _CEIL_GUARD))


def synthetic_slices(
    data: Volume,
    affine: Affine,
    *,
    distance_mm: float = SLICE_DISTANCE_MM,
) -> list[tuple[Volume, Affine]]:
    """Make the 2-D acquisitions that a research scan contains.

    For every offset o below k, keep the axial planes o, o+k, o+2k, ...; the offsets
    together hold every plane once.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        RAS+ order.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    distance_mm : float
        Slice distance to reach, see `slicing_factor`.

    Returns
    -------
    list of (ndarray, ndarray)
        One volume with its affine an offset, in order of the offset.  An offset without a
        plane (a scan of fewer than k planes) is left out.
    """
    step = slicing_factor(float(np.linalg.norm(affine[:3, 2])), distance_mm)
    scans = []
    for offset in range(min(step, data.shape[2])):
        new = np.array(affine, dtype=np.float64)
        new[:3, 2] *= step
        new[:3, 3] += offset * affine[:3, 2]
        scans.append((np.ascontiguousarray(data[:, :, offset::step]), new))
    return scans


def resample_isotropic(
    data: Volume, affine: Affine, voxel_size_mm: float = VOXEL_SIZE_MM
) -> tuple[Volume, Affine]:
    """Interpolate trilinearly to isotropic voxels along the scan's own axes.

    The first voxel centre stays where it was; the last new one lies within half a voxel of
    the last old one, samples beyond which repeat the border.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        RAS+ order.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    voxel_size_mm : float
        Edge of the new voxels.

    Returns
    -------
    data : ndarray of float32
        Resampled volume.
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    scale = voxel_size_mm / spacing
    extent = (np.asarray(data.shape) - 1) / scale
    shape = tuple(int(n) for n in np.floor(extent + 0.5).astype(int) + 1)
    resampled = ndimage.affine_transform(
        data.astype(np.float32, copy=False), scale, output_shape=shape, order=1, mode='nearest'
    )
    new = np.array(affine, dtype=np.float64)
    new[:3, :3] *= scale
    return resampled, new


def normalise(data: Volume, *, background: float = 0.0) -> tuple[Volume, Intensities]:
    """Divide by the spread of the foreground and clip the brightest voxels.

    The paper standardises to ``(v - mean) / sd`` and then subtracts the value that the
    background has got, which together is ``(v - background) / sd``.

    Parameters
    ----------
    data : ndarray
        Skull-stripped intensities.
    background : float
        Intensity of voxels outside the brain.

    Returns
    -------
    volume : ndarray of float32
        Same shape; background 0.
    intensities : Intensities
        Measured constants.

    Raises
    ------
    UnusableImageError
        There is no foreground, or it is constant.
    """
    foreground = data[data != background].astype(np.float64)
    if foreground.size == 0:
        raise UnusableImageError(
            'The scan has no voxel that differs from the background. Check the brain mask.'
        )
    low, high = np.percentile(foreground, CORE_PERCENTILES)
    core = foreground[(foreground >= low) & (foreground <= high)]
    mean, sd = float(core.mean()), float(core.std())
    if sd == 0:
        raise UnusableImageError(
            f'The brain has one intensity only ({mean:g}); expected a T1w image, not a mask.'
        )
    scaled = (data.astype(np.float64) - background) / sd
    clip = float(np.percentile((foreground - background) / sd, CLIP_PERCENTILE))
    return np.minimum(scaled, clip).astype(np.float32), Intensities(mean, sd, clip)


def crop_or_pad(
    data: Volume, affine: Affine, *, shape: tuple[int, int, int] = GRID
) -> tuple[Volume, Affine]:
    """Cut or zero-fill a volume to a fixed grid, the bounding box of the brain in its middle.

    The middle of the image can miss half of the brain.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Background 0.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    shape : tuple of int
        Voxels of the new grid.

    Returns
    -------
    data : ndarray, shape `shape`
        Cropped or padded volume.
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm.
    """
    lower, upper = np.zeros(3, dtype=int), np.asarray(data.shape)
    if data.any():
        for axis in range(3):
            others = tuple(i for i in range(3) if i != axis)
            occupied = np.flatnonzero((data != 0).any(axis=others))
            lower[axis], upper[axis] = occupied[0], occupied[-1] + 1
    # half-integer starts are rounded down, so that the result does not depend on parity rules
    start = (lower + upper - np.asarray(shape)) // 2
    result = np.zeros(shape, dtype=data.dtype)
    source, target = [], []
    for axis in range(3):
        first = max(0, start[axis])
        last = max(first, min(data.shape[axis], start[axis] + shape[axis]))
        source.append(slice(first, last))
        target.append(slice(first - start[axis], last - start[axis]))
    result[tuple(target)] = data[tuple(source)]
    new = np.array(affine, dtype=np.float64)
    new[:3, 3] += affine[:3, :3] @ start
    return result, new


def check_background(volume: Volume, *, source: str = 'scan') -> float:
    """Refuse a volume that holds too little brain.

    Parameters
    ----------
    volume : ndarray
        On the final grid, background 0.
    source : str
        Name of the scan for the message.

    Returns
    -------
    float
        Share of background voxels.

    Raises
    ------
    UnusableImageError
        More than 92 % of the voxels are background.
    """
    background = 1 - np.count_nonzero(volume) / volume.size
    if background > MAX_BACKGROUND:
        needed = math.ceil(volume.size - MAX_BACKGROUND * volume.size - _CEIL_GUARD)
        raise UnusableImageError(
            f'{source}: {100 * background:.1f} % of the {volume.size} voxels are background '
            f'({np.count_nonzero(volume)} brain voxels), expected at most '
            f'{100 * MAX_BACKGROUND:.0f} % (at least {needed}). The field of view may be cut or '
            'the brain mask too small: look at the mask.'
        )
    return background


def prepare_clinical(
    data: Volume,
    affine: Affine,
    *,
    shape: tuple[int, int, int] = GRID,
    voxel_size_mm: float = VOXEL_SIZE_MM,
    source: str = 'scan',
) -> ClinicalInput:
    """Bring one skull-stripped scan to the input grid of System C.

    Research scans go through `synthetic_slices` first, clinical 2-D scans do not.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        T1w, RAS+ order, 0 outside the brain; non-finite values become 0.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    shape : tuple of int
        Voxels of the grid; published are 80 x 120 x 40.
    voxel_size_mm : float
        Edge of its voxels; published are 2 mm.
    source : str
        Name of the scan for messages.

    Returns
    -------
    ClinicalInput
        The volume on the grid, with what was measured on the way.

    Raises
    ------
    UnusableImageError
        The scan is not three-dimensional, has no contrast, or holds too little brain.
    """
    if data.ndim != 3:
        raise UnusableImageError(
            f'{source}: expected three dimensions, found shape {data.shape}. Give one volume.'
        )
    finite = np.where(np.isfinite(data), data, 0).astype(np.float32)
    resampled, new_affine = resample_isotropic(finite, affine, voxel_size_mm)
    try:
        normalised, intensities = normalise(resampled)
    except UnusableImageError as error:
        raise UnusableImageError(f'{source}: {error}') from error
    volume, affine_grid = crop_or_pad(normalised, new_affine, shape=shape)
    background = check_background(volume, source=source)
    return ClinicalInput(volume, affine_grid, intensities, background)
