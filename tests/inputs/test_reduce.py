"""Resolution halving of System A and intensity scaling of System B."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bids_brainage.errors import UnusableImageError
from bids_brainage.inputs.intensity import scale_by_top_percent
from bids_brainage.inputs.reduce import reduce_half

REDUCTION_TOLERANCE = 1e-6
PUBLISHED_TOP_VOXELS = 72_211


def test_reduction_at_the_published_grid():
    rng = np.random.default_rng(0)
    volume = rng.random((169, 205, 169), dtype=np.float32)
    affine = np.array([[1.0, 0, 0, -84], [0, 1, 0, -120], [0, 0, 1, -72], [0, 0, 0, 1]])
    reduced, moved = reduce_half(volume, affine)
    assert reduced.shape == (84, 102, 84)
    tensor = torch.from_numpy(volume)[None, None]
    trilinear = F.interpolate(tensor, scale_factor=0.5, mode='trilinear', align_corners=False)
    pooled = F.avg_pool3d(tensor, 2)
    for other in (trilinear, pooled):
        np.testing.assert_allclose(reduced, other[0, 0].numpy(), atol=REDUCTION_TOLERANCE)
    np.testing.assert_array_equal(np.diag(moved), [2, 2, 2, 1])
    np.testing.assert_array_equal(moved[:3, 3], [-83.5, -119.5, -71.5])


def test_reduction_keeps_places_in_oblique_space():
    ramp = np.stack(np.meshgrid(*map(np.arange, (6, 4, 8)), indexing='ij'))
    affine = np.array([[0.0, -2, 0, 5], [1.5, 0, 0.1, -3], [0, 0, 3, 7], [0, 0, 0, 1]])
    world = np.einsum('ij,j...->i...', affine[:3, :3], ramp) + affine[:3, 3, None, None, None]
    for axis in range(3):
        reduced, moved = reduce_half(world[axis], affine)
        index = np.array([1, 1, 2, 1])
        assert reduced[1, 1, 2] == pytest.approx((moved @ index)[axis], abs=1e-5)


def test_reduction_refuses_flat_input():
    with pytest.raises(UnusableImageError, match='at least 2'):
        reduce_half(np.ones((4, 4, 1)), np.eye(4))


def test_top_percent_counts_the_whole_grid():
    volume = np.zeros((182, 218, 182), np.float32)
    volume.ravel()[:PUBLISHED_TOP_VOXELS] = 50
    volume.ravel()[0] = 100
    expected = (50 * (PUBLISHED_TOP_VOXELS - 1) + 100) / PUBLISHED_TOP_VOXELS
    scaled = scale_by_top_percent(volume)
    assert scaled[0, 0, 0] == pytest.approx(100 / expected, rel=1e-6)
    volume.ravel()[PUBLISHED_TOP_VOXELS] = 50
    assert scale_by_top_percent(volume)[0, 0, 0] == scaled[0, 0, 0]


def test_scaling_removes_the_unit_and_nothing_else():
    volume = np.random.default_rng(0).random((8, 9, 7)).astype(np.float32)
    scaled = scale_by_top_percent(volume)
    np.testing.assert_allclose(scale_by_top_percent(volume * 713), scaled, rtol=1e-5)
    assert scaled.max() > 1
    assert np.corrcoef(scaled.ravel(), volume.ravel())[0, 1] == pytest.approx(1)


def test_non_finite_values_count_as_zero():
    volume = np.ones((5, 5, 5))
    volume[0, 0] = np.nan
    volume[1, 1, 1] = np.inf
    scaled = scale_by_top_percent(volume)
    assert np.isfinite(scaled).all()
    assert scaled[1, 1, 1] == scaled[0, 0, 0] == 0
    assert scaled[4, 4, 4] == 1


def test_empty_volume_is_refused_with_its_name():
    with pytest.raises(UnusableImageError, match='sub-01_T1w'):
        scale_by_top_percent(np.zeros((4, 4, 4)), source='sub-01_T1w')
