"""Shift every slice to one moment of the repetition, when the metadata say when it was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

REFERENCE_FRACTION = 0.5
"""Moment of the acquisition to which slices are brought, 0 its first and 1 its last slice."""

_ROUNDING_S = 0.002


def slice_times(
    metadata: Mapping[str, Any], n_slices: int, tr: float
) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Return the slice times if they can be used.

    Parameters
    ----------
    metadata : mapping
        BIDS metadata; ``SliceTiming`` in seconds.
    n_slices : int
        Slices of the series.
    tr : float
        Repetition time, seconds.

    Returns
    -------
    times : ndarray, shape (n_slices,), or None
        Seconds within the repetition, by slice as stored; None if they are unusable.
    reason : str
        Why they are not used; empty if they are.
    """
    times = metadata.get('SliceTiming')
    if times is None:
        return None, 'the metadata have no SliceTiming'
    try:
        values = np.array(times, dtype=float)
    except (TypeError, ValueError):
        return None, 'SliceTiming is not a list of numbers'
    if values.shape != (n_slices,):
        return None, f'SliceTiming has {values.size} entries for {n_slices} slices'
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > tr + _ROUNDING_S:
        return None, f'SliceTiming lies outside the repetition time of {tr:g} s'
    if np.ptp(values) == 0:
        return None, 'all slices were taken at the same time'
    return values, ''


def correct_slice_timing(
    data: npt.NDArray[np.float32],
    times: npt.NDArray[np.float64],
    tr: float,
    *,
    axis: int = 2,
    reversed_order: bool = False,
    skip: int = 0,
) -> npt.NDArray[np.float32]:
    """Interpolate every slice in time (cubic spline) to the middle of the acquisition.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z, T)
        Series.
    times : ndarray, shape (n_slices,)
        From `slice_times`.
    tr : float
        Repetition time, seconds.
    axis, reversed_order
        Slice axis of ``data`` and whether ``times`` runs against it (`BoldSeries`).
    skip : int
        Leading volumes that keep their values (not in steady state).

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, T)
        At the ends of the series the nearest volume holds.
    """
    from scipy.interpolate import CubicSpline

    ordered = times[::-1] if reversed_order else times
    moment = ordered.min() + REFERENCE_FRACTION * np.ptp(ordered)
    steps = np.arange(data.shape[3] - skip, dtype=float)
    interpolate = CubicSpline(steps, np.eye(len(steps)))
    out = data.copy()
    for index, taken in enumerate(ordered):
        place = (slice(None),) * axis + (index,)
        # sample k was taken at k·tr + taken; the value at k·tr + moment is wanted
        wanted = np.clip(steps + (moment - taken) / tr, 0, steps[-1])
        weights = interpolate(wanted).astype(np.float32)
        out[place][..., skip:] = data[place][..., skip:] @ weights.T
    return out
