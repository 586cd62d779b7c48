"""Inputs of System D: a zoomed T1w volume and a connectivity matrix.

Wan et al., AMAge-Net (doi:10.64898/2026.03.28.713645).  Connectivity is the Pearson
correlation of regional mean time series with diagonal 1 and no Fisher transform.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bids_brainage.errors import UnusableImageError

Matrix = npt.NDArray[np.float32]

#: Voxels along each axis of the structural input.
EDGE = 128
#: Correlations computed in single precision may pass 1 by this much.
RANGE_TOLERANCE = 1e-4
SYMMETRY_TOLERANCE = 1e-3


def prepare_structural(
    data: npt.NDArray[np.floating], affine: npt.NDArray[np.float64], *, edge: int = EDGE
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Zoom each axis linearly to 128 voxels and scale intensities to [0, 1].

    The first and last voxel centres of every axis stay in place; the aspect ratio of the
    voxels is not kept.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        T1w brain, RAS+ order; non-finite values become 0.
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ mm.
    edge : int
        Voxels along each new axis.

    Returns
    -------
    volume : ndarray of float32, shape (edge, edge, edge)
        Within [0, 1].
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm.

    Raises
    ------
    UnusableImageError
        The image is not a volume of at least two voxels an axis, or is constant.
    """
    if data.ndim != 3 or min(data.shape) < 2:
        raise UnusableImageError(
            f'Expected a volume of at least 2 voxels an axis, found shape {data.shape}.'
        )
    finite = np.where(np.isfinite(data), data, 0).astype(np.float32)
    scale = (np.asarray(data.shape) - 1) / (edge - 1)
    zoomed = ndimage.affine_transform(
        finite, scale, output_shape=(edge,) * 3, order=1, mode='nearest'
    )
    low, high = float(zoomed.min()), float(zoomed.max())
    if high == low:
        raise UnusableImageError(
            f'The image is constant ({low:g}); expected a T1w brain. Check the brain mask.'
        )
    new = np.array(affine, dtype=np.float64)
    new[:3, :3] *= scale
    return (zoomed - low) / (high - low), new


def clean_connectivity(matrix: npt.ArrayLike, *, n_nodes: int, source: str = 'matrix') -> Matrix:
    """Check a correlation matrix and fill what is undefined.

    Parameters
    ----------
    matrix : array_like, shape (n_nodes, n_nodes)
        Pearson correlations; NaN (a region without signal) becomes 0, the diagonal 1.
    n_nodes : int
        Nodes that the model expects.
    source : str
        Name of the matrix for messages.

    Returns
    -------
    ndarray of float32, shape (n_nodes, n_nodes)
        Symmetric, within [-1, 1], diagonal 1.

    Raises
    ------
    UnusableImageError
        The shape differs, a value lies outside [-1, 1], the matrix is not symmetric, or no
        correlation is defined.
    """
    values = np.array(matrix, dtype=np.float64)
    if values.shape != (n_nodes, n_nodes):
        raise UnusableImageError(
            f'{source}: expected a {n_nodes} x {n_nodes} matrix, found shape {values.shape}. '
            'Use the atlas for which the model was trained.'
        )
    np.fill_diagonal(values, 1)
    off_diagonal = values[~np.eye(n_nodes, dtype=bool)]
    if n_nodes > 1 and not np.isfinite(off_diagonal).any():
        raise UnusableImageError(f'{source}: no correlation is defined. Check the time series.')
    values[~np.isfinite(values)] = 0
    largest = np.abs(values).max()
    if largest > 1 + RANGE_TOLERANCE:
        raise UnusableImageError(
            f'{source}: expected Pearson correlations within [-1, 1], found {largest:.3f}. '
            'Give correlations without Fisher transform.'
        )
    difference = np.abs(values - values.T).max()
    if difference > SYMMETRY_TOLERANCE:
        raise UnusableImageError(
            f'{source}: expected a symmetric matrix, found a difference of {difference:.3g} '
            'across the diagonal.'
        )
    return np.clip((values + values.T) / 2, -1, 1).astype(np.float32)


def read_connectivity(path: Path, *, n_nodes: int) -> Matrix:
    """Read a connectivity table with a header row.

    Parameters
    ----------
    path : Path
        Tab-separated (``.tsv``) or comma-separated table; a first column of region names is
        left out.
    n_nodes : int
        Nodes that the model expects.

    Returns
    -------
    ndarray of float32, shape (n_nodes, n_nodes)
        See `clean_connectivity`.

    Raises
    ------
    UnusableImageError
        The table has no numbers, ragged rows, or does not pass `clean_connectivity`.
    """
    delimiter = '\t' if path.suffix == '.tsv' else ','
    with path.open(newline='', encoding='utf-8') as stream:
        rows = [row for row in csv.reader(stream, delimiter=delimiter) if row][1:]
    if rows and len(rows[0]) == n_nodes + 1:
        rows = [row[1:] for row in rows]
    try:
        values = np.array([[_number(cell) for cell in row] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise UnusableImageError(
            f'{path}: expected a header row and {n_nodes} rows of {n_nodes} numbers, found '
            f'{len(rows)} rows ({error}).'
        ) from error
    return clean_connectivity(values, n_nodes=n_nodes, source=str(path))


def _number(cell: str) -> float:
    return float('nan') if cell.strip().lower() in {'', 'n/a', 'nan'} else float(cell)
