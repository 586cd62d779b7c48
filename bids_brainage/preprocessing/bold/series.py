"""Read one BOLD series and check what its header and metadata say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError
from bids_brainage.preprocessing.image import check_stream, one_line

MIN_VOLUMES = 5
"""Fewer volumes are a localiser or an aborted scan, not a series."""

PLAUSIBLE_TR = (0.1, 10.0)
"""Repetition times outside this range (seconds) mean a wrong unit."""

TR_TOLERANCE = 0.001
"""Difference of header and metadata in seconds above which they contradict each other."""

_SECONDS = {'sec': 1.0, 'msec': 1e-3, 'usec': 1e-6, 'unknown': 1.0}


@dataclass(frozen=True)
class BoldSeries:
    """A BOLD series in RAS+ order.

    Attributes
    ----------
    data : ndarray of float32, shape (X, Y, Z, T)
        Intensities; NaN and infinities are 0.
    affine : ndarray of float64, shape (4, 4)
        Voxel index → RAS+ mm.
    tr : float
        Repetition time in seconds: that of the metadata, else of the header.
    header_tr : float or None
        Repetition time of the header in seconds; None if it has none.
    tr_mismatch : bool
        Header and metadata differ by more than `TR_TOLERANCE`.
    slice_axis : int
        Array axis along which slices were acquired.
    slices_reversed : bool
        The first acquired-order entry of ``SliceTiming`` belongs to the last index of that axis.
    n_nonfinite : int
        Values that were NaN or infinite.
    """

    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    tr: float
    header_tr: float | None
    tr_mismatch: bool
    slice_axis: int
    slices_reversed: bool
    n_nonfinite: int

    @property
    def n_volumes(self) -> int:
        """Number of volumes."""
        return int(self.data.shape[3])


def load_bold(path: Path, metadata: Mapping[str, Any] | None = None) -> BoldSeries:
    """Read a BOLD series into RAS+ order.

    Parameters
    ----------
    path : Path
        4-D NIfTI file.
    metadata : mapping, optional
        BIDS metadata of the series: ``RepetitionTime`` (s) and
        ``SliceEncodingDirection`` are used.

    Returns
    -------
    BoldSeries

    Raises
    ------
    UnusableImageError
        The file cannot be read, is not a series of at least five volumes, is constant, or has no
        repetition time in header or metadata.
    """
    facts = dict(metadata or {})
    image = _open(path)
    try:
        canonical = nib.as_closest_canonical(image)
        data = np.array(canonical.dataobj, dtype=np.float32)
    except Exception as error:
        raise _unreadable(path, error) from error
    bad = ~np.isfinite(data)
    n_nonfinite = int(bad.sum())
    data[bad] = 0
    if not data.std(axis=3).any():
        raise UnusableImageError(
            f'{path}: no voxel changes over its {data.shape[3]} volumes. Convert the scan again.'
        )
    header_tr = _header_tr(image)
    tr, mismatch = _choose_tr(path, facts.get('RepetitionTime'), header_tr)
    axis, reversed_ = slice_axis(image.affine, str(facts.get('SliceEncodingDirection', 'k')))
    affine = np.asarray(canonical.affine, float)
    return BoldSeries(data, affine, tr, header_tr, mismatch, axis, reversed_, n_nonfinite)


def slice_axis(stored_affine: np.ndarray, direction: str = 'k') -> tuple[int, bool]:
    """Find the slice axis of the stored image after its reorientation to RAS+.

    Parameters
    ----------
    stored_affine : ndarray, shape (4, 4)
        Affine of the file as stored.
    direction : str
        BIDS ``SliceEncodingDirection``: ``i``, ``j`` or ``k``, with ``-`` when the first entry of
        ``SliceTiming`` is the slice of the largest index.

    Returns
    -------
    axis : int
        Axis of the RAS+ array.
    reversed : bool
        True if entry 0 of ``SliceTiming`` is the last slice of the RAS+ array.
    """
    stored = 'ijk'.find(direction[:1])
    if stored < 0:
        raise UnusableImageError(
            f'SliceEncodingDirection is {direction!r}; expected i, j or k, with or without "-". '
            'Correct the JSON side file.'
        )
    axis, flip = nib.io_orientation(stored_affine)[stored]
    return int(axis), (flip < 0) != direction.endswith('-')


def count_non_steady(data: np.ndarray, *, look: int = 10, limit: float = 3.5) -> int:
    """Count the leading volumes before the magnetisation is in its steady state.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z, T)
        Series.
    look : int
        Leading volumes that are looked at.
    limit : float
        Robust z-score (median and MAD of the rest) of the mean signal above which a leading volume
        counts; T1 saturation makes the first volumes brighter, never darker.

    Returns
    -------
    int
        0 if the first volume is already steady.
    """
    signal = data.mean(axis=(0, 1, 2), dtype=np.float64)
    rest = signal[min(look, len(signal) // 2) :]
    centre = np.median(rest)
    spread = 1.4826 * np.median(np.abs(rest - centre))
    floor = 0.003 * abs(centre)
    steady = signal[:look] <= centre + limit * max(spread, floor)
    return int(np.argmax(steady)) if steady.any() else min(look, len(signal) // 2)


def series_facts(path: Path, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what header and metadata say about a series, without reading its values.

    Parameters and errors are those of `load_bold`.

    Returns
    -------
    dict
        ``tr``, ``header_tr`` (s), ``tr_mismatch``, ``n_volumes``.
    """
    image = _open(path)
    header_tr = _header_tr(image)
    tr, mismatch = _choose_tr(path, (metadata or {}).get('RepetitionTime'), header_tr)
    return {
        'tr': tr,
        'header_tr': header_tr,
        'tr_mismatch': mismatch,
        'n_volumes': int(image.shape[3]),
    }


def signal_mask(image: Any, *, volumes: int = 20) -> npt.NDArray[np.bool_]:
    """Return where a masked, preprocessed series changes over its first volumes.

    Parameters
    ----------
    image : nibabel image, shape (X, Y, Z, T)
    volumes : int
        Volumes that are read.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    part = np.asarray(image.dataobj[..., :volumes])
    return np.isfinite(part).all(axis=3) & (np.ptp(part, axis=3) > 0)


def _open(path: Path) -> Any:
    try:
        check_stream(path)
        image: Any = nib.load(path)
        shape = tuple(image.shape)
    except UnusableImageError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if len(shape) != 4 or shape[3] < MIN_VOLUMES:
        raise UnusableImageError(
            f'{path}: expected a 4-D series of at least {MIN_VOLUMES} volumes, found shape '
            f'{shape}. It may be a reference image (sbref) or an aborted scan.'
        )
    return image


def _unreadable(path: Path, error: Exception) -> UnusableImageError:
    return UnusableImageError(
        f'{path}: cannot be read as an image ({type(error).__name__}: {one_line(error)}). '
        'Expected an intact 4-D NIfTI file; check the copy and fetch or convert it again.'
    )


def _header_tr(image: Any) -> float | None:
    value = float(image.header.get_zooms()[3])
    units = image.header.get_xyzt_units()[1] if hasattr(image.header, 'get_xyzt_units') else 'sec'
    seconds = value * _SECONDS.get(units, 1.0)
    if units == 'unknown' and seconds > PLAUSIBLE_TR[1]:
        seconds /= 1000.0  # milliseconds without a word
    return seconds if seconds > 0 else None


def _choose_tr(path: Path, stated: Any, header: float | None) -> tuple[float, bool]:
    if stated is not None and not isinstance(stated, (int, float)):
        raise UnusableImageError(
            f'{path}: RepetitionTime is {stated!r}; expected a number of seconds. Correct '
            'the JSON side file.'
        )
    tr = float(stated) if stated is not None else header
    if tr is None or not PLAUSIBLE_TR[0] <= tr <= PLAUSIBLE_TR[1]:
        raise UnusableImageError(
            f'{path}: repetition time {tr} s; expected {PLAUSIBLE_TR[0]} to {PLAUSIBLE_TR[1]} s. '
            'Give RepetitionTime in seconds in the JSON side file.'
        )
    mismatch = stated is not None and header is not None and abs(tr - header) > TR_TOLERANCE
    return tr, mismatch
