"""Maps of cerebral blood volume (CBV, System B): onto the template grid, checked, and in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bids_brainage.errors import UnusableImageError
from bids_brainage.inputs.arrays import load_image
from bids_brainage.inputs.intensity import scale_by_top_percent
from bids_brainage.inputs.kinds import Files, PreparedInput
from bids_brainage.preprocessing import normalise
from bids_brainage.preprocessing.transforms import SpatialTransform, grid_points, sample_image

MIN_COVERAGE = 0.95
"""Share of the brain in which a map must have finite values."""


def cbv_on_template(
    data: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    grid: np.ndarray,
    transform: SpatialTransform | None = None,
    *,
    source: str = 'CBV map',
) -> np.ndarray:
    """Resample a CBV map onto the template grid, once, and cut it to the brain.

    Parameters
    ----------
    data, affine
        Map, shape (X, Y, Z), any unit, and its grid (RAS+ mm).
    mask : ndarray of bool, shape (U, V, W)
        Brain of the person in template space.
    grid : ndarray, shape (4, 4)
        Its grid.
    transform : SpatialTransform or None
        Template → native of the T1w image; None for a map in template space.
    source : str
        Name of the file, for messages.

    Returns
    -------
    ndarray of float32, shape (U, V, W)
        Trilinear samples in the unit of the map, 0 outside the brain; values that are not
        finite count as 0.

    Raises
    ------
    UnusableImageError
        The map has finite values in less than 95 % of the brain, or is constant there.
    """
    box, corner = normalise.brain_box(mask, grid, margin_mm=0.0)
    inside = mask[box]
    if transform is None:
        where = grid_points(inside.shape, corner)
    else:
        where = normalise.template_coordinates(transform, inside.shape, corner)
    finite = np.isfinite(data)

    def pull(volume: np.ndarray) -> np.ndarray:
        return sample_image(volume.astype(np.float32), affine, where).reshape(inside.shape)

    covered = float((pull(finite)[inside] > 0.5).mean())
    if covered < MIN_COVERAGE:
        raise UnusableImageError(
            f'{source}: the map has finite values in {100 * covered:.0f} % of the brain, expected '
            f'at least {100 * MIN_COVERAGE:.0f} %. Is it the map of this scan, in this space?'
        )
    values = pull(np.where(finite, data, 0.0)) * inside
    if not np.ptp(values[inside]) > 0:
        raise UnusableImageError(
            f'{source}: every voxel of the brain is {values[inside][0]:g}; expected a map.'
        )
    full = np.zeros(mask.shape, np.float32)
    full[box] = values
    return full


def cbv_pair(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Read a T1w image and its map, and divide both by the mean of their brightest 1 %.

    Parameters
    ----------
    declared : mapping
        ``input`` block of a generator's training; its ``shape`` is the grid of both.
    files : mapping
        ``t1w`` and ``cbv`` → derivative in template space, without the skull.

    Returns
    -------
    PreparedInput
        T1w and map, shape (1, X, Y, Z), dimensionless, 0 outside the brain (where the T1w is 0).

    Raises
    ------
    UnusableImageError
        Another grid than the template's, or nothing to scale by.
    """
    shape = tuple(declared['shape'])
    (t1w, affine), (cbv, affine_cbv) = (load_image(files, role) for role in ('t1w', 'cbv'))
    for role, volume in (('t1w', t1w), ('cbv', cbv)):
        if volume.shape != shape:
            raise UnusableImageError(
                f"{role} has shape {volume.shape}, expected the template's {shape}. Run "
                'the participant level again.'
            )
    if not np.allclose(affine, affine_cbv, atol=1e-3):
        raise UnusableImageError(
            'T1w and map lie on different grids. Run the participant level again.'
        )
    brain = t1w != 0
    arrays = tuple(
        scale_by_top_percent(volume * brain, source=role)[None]
        for volume, role in ((t1w, 'T1w'), (cbv, 'map'))
    )
    return PreparedInput(arrays, affine, declared['space'])
