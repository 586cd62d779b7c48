"""Read one 3-D image and say what it is.

Arrays are always in the closest RAS+ orientation: axis 0 left→right, axis 1
posterior→anterior, axis 2 inferior→superior.  Affines map voxel indices to millimetres in
that same RAS+ world.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np

from bids_brainage.dataset.header import Geometry, geometry_of, refusal_of
from bids_brainage.errors import UnusableImageError

MAX_STRIPPED_ML = 2400.0
"""Non-background volume above which an image holds more than a brain (largest adult brains plus
fluid stay below 2.1 litres; whole heads start at about 2.6 litres)."""


BELOW_ZERO = 0.05
"""Intensities that reach further below zero than this share of their range are no magnitudes but
were centred; interpolation alone leaves less."""


@dataclass(frozen=True)
class ImageFacts:
    """What the header and the intensities of a T1w image say.

    Attributes
    ----------
    shape : tuple of int
        Grid in RAS+ order.
    voxel_size_mm : tuple of float
        Edge lengths in RAS+ order.
    orientation : str
        Axis codes of the file as stored, e.g. ``'LAS'``.
    oblique_degrees : float
        Largest angle between a voxel axis and its world axis.
    data_type : str
        Data type on disk.
    foreground_ml : float
        Volume above background in millilitres.
    skull_stripped : bool
        True if what is above background is no larger than a brain.
    n_nonfinite : int
        Voxels that were NaN or infinite; they were set to 0.
    raised_by : float
        What was added to intensities below zero, in units of the image; 0 for a usual image.
    geometry : Geometry or None
        What the header says of size and orientation, and where it contradicts itself.
    """

    shape: tuple[int, int, int]
    voxel_size_mm: tuple[float, float, float]
    orientation: str
    oblique_degrees: float
    data_type: str
    foreground_ml: float
    skull_stripped: bool
    n_nonfinite: int
    raised_by: float
    geometry: Geometry | None = None

    def as_dict(self) -> dict:
        """Return the facts as plain JSON types."""
        return asdict(self)


def load_image(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image that a step of this program has written.

    Returns
    -------
    data : ndarray
        Voxels in the order and the type of the file.
    affine : ndarray of float64, shape (4, 4)
        Voxel index → RAS+ millimetres.
    """
    image = cast('nib.spatialimages.SpatialImage', nib.load(path))
    return np.asarray(image.dataobj), np.asarray(image.affine, dtype=float)


def save_image(data: np.ndarray, affine: np.ndarray, path: Path, kind: str = 'float32') -> str:
    """Write an image between two steps and return its path.

    Parameters
    ----------
    data : ndarray
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ millimetres.
    path : Path
        ``.nii`` or ``.nii.gz``.
    kind : str
        Type of the voxels in the file.
    """
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=kind), affine), path)
    return str(path)


def extent(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last voxel of a mask along each axis.

    Examples
    --------
    >>> mask = np.zeros((4, 4, 4), bool)
    >>> mask[1, 2, 1:3] = True
    >>> [found.tolist() for found in extent(mask)]
    [[1, 2, 1], [1, 2, 2]]
    """
    where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([w[0] for w in where]), np.array([w[-1] for w in where])


def load_canonical(path: Path) -> tuple[np.ndarray, np.ndarray, ImageFacts]:
    """Read a 3-D image into RAS+ float32 and describe it.

    Parameters
    ----------
    path : Path
        NIfTI file; a singleton fourth axis is dropped.

    Returns
    -------
    data : ndarray of float32, shape (X, Y, Z)
        Intensities in RAS+ order; NaN and infinities are 0, and an image that was centred (by
        z-scoring, say) is raised so that its background is 0.
    affine : ndarray of float64, shape (4, 4)
        Voxel index → RAS+ millimetres, in single precision as NIfTI keeps it: the image reads the
        same from a file that it was written to.
    facts : ImageFacts
        Description of the image.

    Raises
    ------
    UnusableImageError
        If the file cannot be read, is not 3-D, is constant, or its grid is impossible.
    """
    data, affine, stored, data_type, geometry = _read(path)
    bad = ~np.isfinite(data)
    n_nonfinite = int(bad.sum())
    if n_nonfinite:
        data[bad] = 0.0
    low, high = float(data.min()), float(data.max())
    if not high > low:
        raise UnusableImageError(
            f'{path}: every voxel has the value {low:g}; expected an image with contrast. '
            'The file is probably an empty export: convert it again from the scanner data.'
        )
    data, raised_by = raised(data)
    foreground = foreground_mask(data)
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000.0
    foreground_ml = float(foreground.sum() * voxel_ml)
    sizes = [round(float(size), 4) for size in nib.affines.voxel_sizes(affine)]
    facts = ImageFacts(
        shape=(data.shape[0], data.shape[1], data.shape[2]),
        voxel_size_mm=(sizes[0], sizes[1], sizes[2]),
        orientation=''.join(nib.aff2axcodes(stored)),
        oblique_degrees=round(float(np.degrees(nib.affines.obliquity(affine).max())), 2),
        data_type=data_type,
        foreground_ml=round(foreground_ml, 1),
        skull_stripped=constant_background(data) is not None and foreground_ml < MAX_STRIPPED_ML,
        n_nonfinite=n_nonfinite,
        raised_by=raised_by,
        geometry=geometry,
    )
    return data, affine, facts


def load_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask of another program in RAS+ order.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
        Where the image is above one half.
    affine : ndarray of float64, shape (4, 4)
        As of `load_canonical`.

    Raises
    ------
    UnusableImageError
        If the file cannot be read.
    """
    data, affine, *_ = _read(path)
    return data > 0.5, affine


def raised(data: np.ndarray) -> tuple[np.ndarray, float]:
    """Raise an image whose intensities were centred, so that nothing that counts is below zero.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        Intensities.

    Returns
    -------
    data : ndarray of float32, shape (X, Y, Z)
        Intensities above the darkest half percent; a constant background is 0, and everything
        else above it.
    raised_by : float
        What was added; 0 if the image was left as it is.
    """
    if data.min() >= 0:
        return data, 0.0
    background = constant_background(data)
    outside = np.zeros(data.shape, bool) if background is None else data == background
    low, high = (float(v) for v in np.percentile(data[~outside], [0.5, 99.5]))
    floor = low if background is None else min(low, background)
    if floor >= -BELOW_ZERO * (high - floor):
        return data, 0.0
    least = 0.0 if background is None else 1e-3 * (high - floor)
    return np.where(outside, 0, np.maximum(data - floor, least)).astype(np.float32), -floor


def foreground_mask(data: np.ndarray) -> np.ndarray:
    """Return where an image is above its background.

    The background is the most frequent value of the border planes if that value fills at
    least half of them exactly (as after skull stripping or defacing), else everything below
    Otsu's threshold halved.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Intensities.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    mode = constant_background(data)
    if mode is not None:
        return data != mode
    from skimage.filters import threshold_otsu

    return data > 0.5 * threshold_otsu(data[::2, ::2, ::2])


def constant_background(data: np.ndarray) -> float | None:
    """Return the value that fills the background exactly, or None if the background is noise."""
    border = np.concatenate(
        [
            face.ravel()
            for axis in range(3)
            for face in (np.take(data, 0, axis), np.take(data, -1, axis))
        ]
    )
    values, counts = np.unique(border, return_counts=True)
    mode = values[counts.argmax()]
    fills = counts.max() >= 0.5 * border.size and (data == mode).mean() > 0.3
    return float(mode) if fills else None


def check_stream(path: Path) -> None:
    """Refuse a compressed image with a damaged stream.

    Readers of images stop where the voxels end and never see the check sum behind them, so a
    wrong byte would pass as voxels.

    Raises
    ------
    UnusableImageError
        The stream ends early, cannot be decoded, or has another check sum than it says; or the
        name says compressed and the file is not, or the other way round.
    """
    with path.open('rb') as stream:
        compressed = stream.read(2) == b'\x1f\x8b'
    named = path.name.endswith('.gz')
    if compressed != named:
        what, name = ('', path.name + '.gz') if compressed else ('not ', path.name[:-3])
        raise UnusableImageError(
            f'{path}: cannot be read as an image: it is {what}compressed, against its name. '
            f'Rename it to {name}, or check the copy (for example with gzip -t).'
        )
    if not compressed:
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnusableImageError(
            f'{path}: cannot be read as an image: its compressed stream is corrupt ({error}). '
            'Check the copy (for example with gzip -t) and fetch or convert it again.'
        ) from error


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, Geometry | None]:
    """Return RAS+ float32 data, its affine, the affine as stored, type on disk, and geometry."""
    try:
        check_stream(path)
        image = cast('nib.spatialimages.SpatialImage', nib.load(path))
        stored = np.asarray(image.affine, dtype=float)
        data_type = str(image.get_data_dtype())
        if not np.isfinite(stored).all() or abs(np.linalg.det(stored[:3, :3])) < 1e-12:
            raise UnusableImageError(
                f'{path}: the header gives no usable orientation (affine {stored.tolist()}). '
                'Convert the scan again, for example with dcm2niix.'
            )
        geometry = _check_header(path, image)
        if len(image.shape) > 3:
            image = cast('nib.spatialimages.SpatialImage', nib.funcs.squeeze_image(image))
        canonical = nib.as_closest_canonical(image)
        data = np.asarray(canonical.dataobj, dtype=np.float32)
    except UnusableImageError:
        raise
    except Exception as error:
        how = ' (for example with gzip -t)' if path.name.endswith('.gz') else ''
        raise UnusableImageError(
            f'{path}: cannot be read as an image ({type(error).__name__}: {one_line(error)}). '
            f'Expected an intact NIfTI file; check the copy{how} and fetch or convert it again.'
        ) from error
    affine = np.asarray(canonical.affine, np.float32).astype(float)
    return np.array(data, order='C'), affine, stored, data_type, geometry


def one_line(error: Exception) -> str:
    """Return the message of an error without line ends, so that no part of it is lost."""
    return ' '.join(str(error).split())


def _check_header(path: Path, image: nib.spatialimages.SpatialImage) -> Geometry | None:
    """Refuse images that are no magnitudes or several, and headers that contradict themselves."""
    geometry = geometry_of(image)
    if refusal := refusal_of(image, geometry):
        raise UnusableImageError(f'{path}: {refusal}')
    return geometry
