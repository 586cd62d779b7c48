"""Space-filling scan orders: permutations, unit steps, locality."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainage.errors import OptionError
from bids_brainage.models.scan_paths import (
    hilbert_path,
    raster_path,
    scan_paths,
    snake_path,
)

GRIDS = [(1, 1, 1), (2, 2, 2), (4, 4, 4), (12, 12, 12), (3, 5, 2), (5, 6, 4)]


def step_lengths(path, grid):
    """City-block length of each step."""
    return np.abs(np.diff(np.stack(np.unravel_index(path, grid)), axis=1)).sum(axis=0)


def neighbour_gaps(path, grid):
    """Difference in step number of voxels that share a face."""
    position = np.empty(len(path), dtype=int)
    position[path] = np.arange(len(path))
    position = position.reshape(grid)
    return np.concatenate([np.abs(np.diff(position, axis=axis)).ravel() for axis in range(3)])


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('order', ['hilbert', 'snake', 'raster'])
@pytest.mark.parametrize('block', range(6))
def test_paths_are_permutations_with_their_inverses(grid, order, block):
    paths, inverses = scan_paths(grid, order, block=block)
    n_voxels = np.prod(grid)
    assert paths.shape == inverses.shape == (8, n_voxels)
    for path, inverse in zip(paths, inverses, strict=True):
        np.testing.assert_array_equal(np.sort(path), np.arange(n_voxels))
        np.testing.assert_array_equal(path[inverse], np.arange(n_voxels))
        np.testing.assert_array_equal(inverse[path], np.arange(n_voxels))


@pytest.mark.parametrize('edge', [2, 4, 8, 16])
def test_hilbert_on_powers_of_two_has_unit_steps_only(edge):
    assert (step_lengths(hilbert_path((edge,) * 3), (edge,) * 3) == 1).all()


@pytest.mark.parametrize(
    ('make', 'unit_share', 'longest', 'median_gap'),
    [(hilbert_path, 0.996, 7, 3), (snake_path, 1.0, 1, 11), (raster_path, 0.917, 23, 12)],
)
def test_steps_and_locality_on_the_bottleneck_grid(make, unit_share, longest, median_gap):
    grid = (12, 12, 12)
    path = make(grid)
    lengths = step_lengths(path, grid)
    assert (lengths == 1).mean() == pytest.approx(unit_share, abs=5e-4)
    assert lengths.max() == longest
    assert np.median(neighbour_gaps(path, grid)) == median_gap


def test_directions_are_rotations_and_reversals():
    paths, _ = scan_paths((4, 4, 4))
    cells = np.stack(np.unravel_index(paths, (4, 4, 4)), axis=-1)
    np.testing.assert_array_equal(paths[1::2], paths[::2, ::-1])
    np.testing.assert_array_equal(cells[2], cells[0] * [1, -1, -1] + [0, 3, 3])
    np.testing.assert_array_equal(cells[4], cells[0] * [-1, 1, -1] + [3, 0, 3])
    np.testing.assert_array_equal(cells[6], cells[0] * [-1, -1, 1] + [3, 3, 0])
    assert len({path.tobytes() for path in paths}) == 8


def test_six_blocks_permute_the_axes_and_the_seventh_repeats():
    first = [scan_paths((4, 4, 4), 'snake', block=i)[0][0].tobytes() for i in range(7)]
    assert len(set(first)) == 6
    assert first[6] == first[0]


def test_unknown_order_is_refused():
    with pytest.raises(OptionError, match='hilbert, snake, raster'):
        scan_paths((2, 2, 2), 'peano')
