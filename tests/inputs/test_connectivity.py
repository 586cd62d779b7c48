"""System D's inputs: zoomed volume and connectivity matrix."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainage.errors import UnusableImageError
from bids_brainage.inputs.connectivity import (
    clean_connectivity,
    prepare_structural,
    read_connectivity,
)

FLOAT32_TOLERANCE = 1e-6


@pytest.fixture
def series():
    return np.random.default_rng(0).normal(size=(60, 5))


def test_zoom_keeps_corners_and_world_positions():
    affine = np.diag([2.0, 1.5, 3.0, 1])
    affine[:3, 3] = (-10, 5, 7)
    index = np.indices((40, 50, 30))
    data = (index * np.array([2.0, 1.5, 3.0])[:, None, None, None]).sum(axis=0)
    volume, new = prepare_structural(data, affine, edge=64)
    assert volume.shape == (64, 64, 64)
    assert volume.min() == 0
    assert volume.max() == 1
    last = new[:3, :3] @ [63, 63, 63] + new[:3, 3]
    np.testing.assert_allclose(last, affine[:3, :3] @ [39, 49, 29] + affine[:3, 3])
    np.testing.assert_array_equal(new[:3, 3], affine[:3, 3])
    # the data are linear in world coordinates, which linear interpolation keeps
    grid = np.indices((64, 64, 64)) * np.diag(new)[:3, None, None, None]
    np.testing.assert_allclose(volume, grid.sum(axis=0) / data.max(), atol=1e-5)


def test_default_edge_is_128():
    volume, _ = prepare_structural(np.random.default_rng(0).random((9, 8, 7)), np.eye(4))
    assert volume.shape == (128, 128, 128)


def test_useless_images_are_refused():
    with pytest.raises(UnusableImageError, match='constant'):
        prepare_structural(np.full((4, 4, 4), 3.0), np.eye(4), edge=8)
    with pytest.raises(UnusableImageError, match='shape'):
        prepare_structural(np.zeros((4, 4, 4, 2)), np.eye(4))


def test_cleaning_fills_diagonal_and_nan():
    matrix = np.array([[np.nan, 0.5, np.nan], [0.5, 0, -0.2], [np.nan, -0.2, 1]])
    expected = [[1, 0.5, 0], [0.5, 1, -0.2], [0, -0.2, 1]]
    np.testing.assert_allclose(clean_connectivity(matrix, n_nodes=3), expected, atol=1e-7)


@pytest.mark.parametrize(
    ('matrix', 'message'),
    [
        (np.eye(4), r'expected a 3 x 3 matrix, found shape \(4, 4\)'),
        (np.array([[1, 2.0, 0], [2.0, 1, 0], [0, 0, 1]]), 'found 2.000'),
        (np.array([[1, 0.5, 0], [0.1, 1, 0], [0, 0, 1]]), 'symmetric'),
        (np.full((3, 3), np.nan), 'no correlation'),
    ],
)
def test_wrong_matrices_are_refused(matrix, message):
    with pytest.raises(UnusableImageError, match=message):
        clean_connectivity(matrix, n_nodes=3, source='sub-1')


@pytest.mark.parametrize('named_rows', [False, True])
@pytest.mark.parametrize(('suffix', 'delimiter'), [('.tsv', '\t'), ('.csv', ',')])
def test_tables_with_and_without_row_names(tmp_path, series, named_rows, suffix, delimiter):
    matrix = np.corrcoef(series.T)
    names = ['A', 'B', 'C', 'D', 'E']
    lines = [delimiter.join((['Node'] if named_rows else []) + names)]
    for name, row in zip(names, matrix, strict=True):
        cells = [repr(float(value)) for value in row]
        lines.append(delimiter.join(([name] if named_rows else []) + cells))
    path = tmp_path / f'sub-1_relmat{suffix}'
    path.write_text('\n'.join(lines) + '\n')
    np.testing.assert_allclose(read_connectivity(path, n_nodes=5), matrix, atol=1e-7)


def test_unreadable_tables_are_named(tmp_path):
    path = tmp_path / 'table.tsv'
    path.write_text('A\tB\n1\t0.2\nx\t1\n')
    with pytest.raises(UnusableImageError, match=r'table\.tsv.*2 rows of 2 numbers'):
        read_connectivity(path, n_nodes=2)
    path.write_text('A\tB\n1\tn/a\n')
    with pytest.raises(UnusableImageError, match='expected a 2 x 2 matrix'):
        read_connectivity(path, n_nodes=2)
