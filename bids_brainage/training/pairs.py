"""Pairs of a T1w and a map of cerebral blood volume, and what a generator sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.names import side_file
from bids_brainage.outputs.files import read_json
from bids_brainage.preprocessing.template import DEFAULT_SPACE

GRID = (197, 233, 189)
"""Voxels of the template, 1 mm."""

Volume = npt.NDArray[Any]
Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def pair_block() -> dict[str, Any]:
    """Return the ``input`` block of a generator's training."""
    return {
        'kind': 'cbv_pair',
        'space': DEFAULT_SPACE,
        'voxel_size_mm': [1.0, 1.0, 1.0],
        'shape': list(GRID),
        'affine': None,
        'orientation': 'RAS',
        'normalisation': 'divided by the mean of the brightest 1 % of all voxels of the grid',
        'skull_stripped': True,
    }


def pair_problem(files: Mapping[str, Path], output_dir: Path) -> str:
    """Say why a map is none to learn from: absent, or generated itself; empty if it is one."""
    path = files['cbv']
    facts = read_json(side_file(path))
    if not path.is_file():
        problem = f'no map of cerebral blood volume (desc-aicbv_T1w) in {output_dir}'
    elif 'GeneratorWeights' in facts:
        problem = f'the map was itself generated (with {facts["GeneratorWeights"]})'
    else:
        return ''
    return (
        f'{problem}. A generator learns from measured maps only: run the participant level with '
        '--derivatives aicbv=PATH first.'
    )


def draw_patch(t1w: Volume, cbv: Volume, rng: np.random.Generator, edge: int) -> Pair:
    """Cut a cube around a random brain voxel, zeros beyond the grid.

    Parameters
    ----------
    t1w, cbv : ndarray, shape (X, Y, Z)
        From `bids_brainage.inputs.cbv.cbv_pair`.
    rng : numpy.random.Generator
        Chooses the voxel.
    edge : int
        Voxels along each axis of the cube.

    Returns
    -------
    tuple of ndarray of float32, shape (1, edge, edge, edge)
        T1w and map.
    """
    centre = rng.integers(t1w.shape)
    while t1w[tuple(centre)] == 0:
        centre = rng.integers(t1w.shape)
    corner = centre - edge // 2
    return _cut(t1w, corner, edge), _cut(cbv, corner, edge)


def _cut(volume: Volume, corner: npt.NDArray[np.integer[Any]], edge: int) -> Any:
    result = np.zeros((1, edge, edge, edge), np.float32)
    low, high = np.maximum(corner, 0), np.minimum(corner + edge, volume.shape)
    first, last = low - corner, high - corner
    cube = result[0, first[0] : last[0], first[1] : last[1], first[2] : last[2]]
    cube[...] = volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return result


def draw_slice(t1w: Volume, cbv: Volume, rng: np.random.Generator) -> Pair:
    """Take a random axial slice with brain, the T1w divided by the volume's maximum.

    Parameters
    ----------
    t1w, cbv, rng
        See `draw_patch`.

    Returns
    -------
    tuple of ndarray of float32, shape (1, 352, 352)
        T1w and map, as `bids_brainage.inference.aicbv_slices` fits them on the square.
    """
    from bids_brainage.inference.aicbv_slices import fit_slices

    plane = int(rng.integers(t1w.shape[2]))
    while not t1w[..., plane].any():
        plane = int(rng.integers(t1w.shape[2]))
    pair = t1w[..., [plane]].astype(np.float32) / np.float32(t1w.max()), cbv[..., [plane]]
    x, y = (fit_slices(part.astype(np.float32)).transpose(2, 0, 1) for part in pair)
    return x, y
