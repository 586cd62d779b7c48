"""System C's preparation: slicing, 2 mm grid, v/sigma, crop, background filter."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainage.errors import UnusableImageError
from bids_brainage.inputs.clinical import (
    GRID,
    check_background,
    crop_or_pad,
    normalise,
    prepare_clinical,
    resample_isotropic,
    slicing_factor,
    synthetic_slices,
)

IDENTITY_TOLERANCE = 1e-6
MM_TOLERANCE = 1e-4


def oblique_affine(spacing: tuple[float, float, float]) -> np.ndarray:
    angle = np.deg2rad(10)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (-80, -110, -60)
    return affine


def ellipsoid(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    grid = np.indices(shape)
    centre = (np.array(shape) - 1)[:, None, None, None] / 2
    radius = np.array(shape)[:, None, None, None] * 0.4
    inside = (((grid - centre) / radius) ** 2).sum(axis=0) < 1
    noise = np.random.default_rng(seed).normal(100, 15, shape)
    return np.where(inside, noise, 0).astype(np.float32)


def world_coordinate_volume(shape, affine, axis):
    """Each voxel holds its own world coordinate, so any wrong affine shows in the values."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    return world[axis].reshape(shape).astype(np.float32)


@pytest.mark.parametrize(
    ('spacing', 'factor'),
    [(0.5, 14), (0.8, 9), (1.0, 7), (1.2, 6), (1.4, 5), (1.5, 5), (2, 4), (3, 3), (5, 2), (7, 1)],
)
def test_slicing_factor_table(spacing, factor):
    assert slicing_factor(spacing) == factor


def test_thick_scans_are_kept_and_bad_spacing_is_refused():
    assert slicing_factor(9.0) == 1
    with pytest.raises(UnusableImageError, match='positive'):
        slicing_factor(0.0)


@pytest.mark.parametrize('n_planes', [23, 28])
def test_offsets_cover_every_plane_once(n_planes):
    data = np.broadcast_to(np.arange(n_planes, dtype=np.float32), (2, 2, n_planes))
    scans = synthetic_slices(data, np.eye(4))
    planes = np.concatenate([volume[0, 0] for volume, _ in scans])
    assert len(scans) == 7
    assert sorted(planes.tolist()) == list(range(n_planes))


def test_slicing_keeps_world_positions():
    affine = oblique_affine((1.0, 1.0, 1.2))
    data = world_coordinate_volume((5, 6, 20), affine, axis=2)
    for volume, new in synthetic_slices(data, affine):
        expected = world_coordinate_volume(volume.shape, new, axis=2)
        np.testing.assert_allclose(volume, expected, atol=MM_TOLERANCE)
        assert np.linalg.norm(new[:3, 2]) == pytest.approx(7.2)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_interpolation_keeps_world_positions(axis):
    affine = oblique_affine((1.0, 0.9, 6.5))
    data = world_coordinate_volume((41, 39, 12), affine, axis)
    resampled, new = resample_isotropic(data, affine)
    expected = world_coordinate_volume(resampled.shape, new, axis)
    np.testing.assert_allclose(np.linalg.norm(new[:3, :3], axis=0), 2.0)
    # the last plane of an axis may repeat the border by up to half a voxel
    inner = (slice(-1),) * 3
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=MM_TOLERANCE * 10)
    assert np.abs(resampled - expected).max() <= 1.0 + MM_TOLERANCE


def test_interpolation_on_the_same_grid_changes_nothing():
    data = ellipsoid((10, 12, 8))
    resampled, new = resample_isotropic(data, np.diag([2.0, 2, 2, 1]))
    np.testing.assert_array_equal(resampled, data)
    np.testing.assert_array_equal(new, np.diag([2.0, 2, 2, 1]))


def test_normalisation_equals_standardising_then_subtracting_the_background():
    data = ellipsoid((20, 20, 20))
    volume, measured = normalise(data)
    foreground = data[data != 0].astype(float)
    low, high = np.percentile(foreground, [1, 99])
    core = foreground[(foreground >= low) & (foreground <= high)]
    literal = (data - core.mean()) / core.std()
    literal = literal - (0 - core.mean()) / core.std()
    literal = np.minimum(literal, np.percentile(literal[data != 0], 99.9))
    np.testing.assert_allclose(volume, literal, atol=IDENTITY_TOLERANCE * literal.max())
    assert measured.mean == pytest.approx(core.mean())
    assert measured.sd == pytest.approx(core.std())
    assert volume.max() == pytest.approx(measured.clip, rel=IDENTITY_TOLERANCE)


def test_normalisation_ignores_scale_and_background_level():
    data = ellipsoid((16, 16, 16))
    plain, _ = normalise(data)
    scaled, _ = normalise(data * 7)
    shifted, _ = normalise(data + 20, background=20)
    np.testing.assert_allclose(scaled, plain, atol=1e-5)
    np.testing.assert_allclose(shifted, plain, atol=1e-4)


@pytest.mark.parametrize(('value', 'message'), [(0, 'no voxel'), (5, 'one intensity')])
def test_images_without_contrast_are_refused(value, message):
    data = np.zeros((8, 8, 8), dtype=np.float32)
    data[2:5] = value
    with pytest.raises(UnusableImageError, match=message):
        normalise(data)


@pytest.mark.parametrize('shape', [(90, 130, 70), (60, 100, 30), (90, 100, 41)])
def test_crop_keeps_world_positions(shape):
    affine = oblique_affine((2.0, 2.0, 2.0))
    affine[:3, 3] = 500  # no coordinate is 0, so padding can be told from data
    data = world_coordinate_volume(shape, affine, axis=1)
    result, new = crop_or_pad(data, affine)
    expected = world_coordinate_volume(GRID, new, axis=1)
    assert result.shape == GRID
    inside = result != 0
    assert inside.sum() == np.prod(np.minimum(shape, GRID))
    np.testing.assert_allclose(result[inside], expected[inside], atol=1e-3)


def test_brain_high_in_the_field_of_view_is_kept_whole():
    data = np.zeros((90, 130, 110), dtype=np.float32)
    data[10:80, 10:125, 72:108] = 1
    brain, _ = crop_or_pad(data, np.eye(4))
    assert brain.sum() == data.sum()


def test_background_limit_is_30720_voxels():
    volume = np.zeros(384_000, dtype=np.float32)
    volume[:30_720] = 1
    assert check_background(volume.reshape(GRID)) == pytest.approx(0.92)
    volume[30_719] = 0
    with pytest.raises(UnusableImageError, match=r'sub-1: .*30719 brain voxels.*at least 30720'):
        check_background(volume.reshape(GRID), source='sub-1')


def test_whole_preparation_of_a_clinical_scan():
    data = ellipsoid((200, 220, 20))
    data[0, 0, 0] = np.nan
    prepared = prepare_clinical(data, np.diag([0.9, 0.9, 6.0, 1]), source='sub-1')
    assert prepared.volume.shape == GRID
    assert prepared.volume.dtype == np.float32
    assert np.isfinite(prepared.volume).all()
    np.testing.assert_allclose(np.diag(prepared.affine), [2, 2, 2, 1])
    assert prepared.volume.max() == pytest.approx(prepared.intensities.clip, rel=1e-5)
    assert 0 < prepared.background < 0.92
    world_centre = prepared.affine[:3, :3] @ (np.array(GRID) / 2) + prepared.affine[:3, 3]
    np.testing.assert_allclose(world_centre, [89.6, 98.6, 57], atol=2.5)


def test_preparation_names_the_scan_in_its_errors():
    with pytest.raises(UnusableImageError, match='sub-9: The scan has no voxel'):
        prepare_clinical(np.zeros((9, 9, 9), dtype=np.float32), np.eye(4), source='sub-9')
    with pytest.raises(UnusableImageError, match='three dimensions'):
        prepare_clinical(np.zeros((9, 9, 9, 2), dtype=np.float32), np.eye(4))
