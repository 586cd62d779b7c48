"""Transforms: both directions, volume change, and the files that other programs read."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from bids_brainage.preprocessing.itk_files import load_itk, save_itk
from bids_brainage.preprocessing.transforms import (
    DISPLACEMENT_STEP_MM,
    INVERSE_MM,
    SpatialTransform,
    grid_points,
    inverted,
    jacobian_determinant,
    load_transform,
    quantised,
    sample_image,
    sample_vectors,
    sample_vectors_on_grid,
    save_transform,
    voxel_points,
)

ROUND_TRIP_MM = 0.25  # mean, of the registration's own inverse on 4 mm
ITK_MM = 2e-3  # rounding of the stored field, single precision of the sampling
INTENSITY_TOLERANCE = 0.02  # of the brightest voxel, trilinear in two programs
LPS = np.array([-1.0, -1.0, 1.0])


def smooth_field(grid, shape, size=5.0):
    x, y, z = (grid_points(shape, grid) / 30).T
    field = np.stack([np.sin(y), np.cos(x + z), np.sin(x) * np.cos(y)], axis=-1)
    return (size * field).reshape(*shape, 3).astype(np.float32)


@pytest.fixture(scope='module')
def known():
    """An affine with shear and a smooth displacement on an oblique grid, inverted by hand."""
    shape = (24, 28, 26)
    grid = np.array([[5.0, 0.4, 0, -60], [-0.4, 5.0, 0.3, -70], [0, -0.3, 5.0, -65], [0, 0, 0, 1]])
    affine = np.array([[0.9, 0.1, 0, 5], [-0.2, 1.1, 0.1, -8], [0, 0.05, 0.95, 12], [0, 0, 0, 1]])
    field = smooth_field(grid, shape, size=2.0)
    points = grid_points(shape, grid)
    inverse = np.zeros_like(points)
    for _ in range(30):  # fixed point of inverse(z) = -field(z + inverse(z))
        inverse = -sample_vectors(field, grid, points + inverse)
    return SpatialTransform(affine, field, inverse.reshape(*shape, 3), grid)


def inner(known, n=500):
    rng = np.random.default_rng(0)
    index = rng.uniform(5, 18, (n, 3))
    return (index @ known.grid[:3, :3].T + known.grid[:3, 3]).astype(np.float32)


def test_directions_are_inverse_to_each_other(known):
    points = inner(known)
    assert np.abs(known.to_template(known.to_native(points)) - points).max() < 0.05


def test_registration_gives_both_directions(registered, head):
    transform, _ = registered
    native = voxel_points(head.mask, head.affine)
    back = transform.to_native(transform.to_template(native))
    assert np.linalg.norm(back - native, axis=1).mean() < ROUND_TRIP_MM


@pytest.mark.parametrize('squeeze', [0.0, 0.8])
def test_inverse_undoes_a_displacement_even_where_it_compresses(known, squeeze):
    field = known.displacement.copy()
    shape = field.shape[:3]
    field[..., 0] -= squeeze * (grid_points(shape, known.grid)[:, 0].reshape(shape) + 60)
    back = inverted(field, known.grid)
    points = grid_points(shape, known.grid)
    there = points + back.reshape(-1, 3)
    returned = there + sample_vectors(field, known.grid, there)
    assert np.abs(returned - points).max() < 2 * INVERSE_MM


def test_displacement_moves_before_the_affine(known):
    points = inner(known, 5)
    moved = points + sample_vectors(known.displacement, known.grid, points)
    expected = moved @ known.affine[:3, :3].T + known.affine[:3, 3]
    np.testing.assert_allclose(known.to_native(points), expected)


def test_linear_part_is_the_affine_alone(known):
    points = inner(known, 5)
    expected = points @ known.affine[:3, :3].T + known.affine[:3, 3]
    np.testing.assert_allclose(known.linear().to_native(points), expected)
    np.testing.assert_allclose(known.linear().to_template(expected), points, atol=1e-4)


def test_linear_field_has_the_determinant_of_its_matrix():
    grid = np.array([[2.0, 0.3, 0, 1], [-0.3, 2.0, 0, 2], [0, 0, 3.0, 3], [0, 0, 0, 1]])
    matrix = np.array([[0.2, 0.1, 0], [0, -0.1, 0.05], [0.03, 0, 0.3]])
    shape = (6, 7, 8)
    field = (grid_points(shape, grid) @ matrix.T).reshape(*shape, 3)
    expected = np.linalg.det(np.eye(3) + matrix)
    np.testing.assert_allclose(jacobian_determinant(field, grid), expected, rtol=1e-4)
    scaled = SpatialTransform(np.diag([2.0, 1.5, -1, 1]), field, field, grid)
    np.testing.assert_allclose(scaled.jacobian(), 3 * expected, rtol=1e-4)


def test_fold_has_a_negative_determinant():
    grid = np.eye(4)
    field = np.zeros((6, 6, 6, 3))
    field[..., 0] = -2 * np.arange(6)[:, None, None]
    assert (jacobian_determinant(field, grid) < 0).all()


@pytest.mark.parametrize('direction', ['to_native', 'to_template'])
def test_itk_file_maps_points_alike(known, tmp_path, direction):
    path = tmp_path / 'transform.h5'
    if direction == 'to_native':
        save_itk(path, known.affine, known.displacement, known.grid, affine_first=False)
        points = inner(known, 50)
    else:
        inverse = np.linalg.inv(known.affine)
        save_itk(path, inverse, known.inverse_displacement, known.grid, affine_first=True)
        points = known.to_native(inner(known, 50))
    read = sitk.ReadTransform(str(path))
    found = np.array([read.TransformPoint((LPS * p).tolist()) for p in points]) * LPS
    expected = getattr(known, direction)(points)
    assert np.abs(expected - points).max() > 1  # it does move
    np.testing.assert_allclose(found, expected, atol=ITK_MM)


def test_itk_resampling_pulls_the_head_onto_the_template(registered, head, fixed, tmp_path):
    transform, _ = registered
    path = tmp_path / 'to_template.h5'
    save_itk(path, transform.affine, transform.displacement, transform.grid, affine_first=False)

    def image(data, affine):
        made = sitk.GetImageFromArray(data.astype(np.float32).transpose(2, 1, 0))
        size = np.linalg.norm(affine[:3, :3], axis=0)
        made.SetSpacing(size.tolist())
        made.SetOrigin((LPS * affine[:3, 3]).tolist())
        made.SetDirection((np.diag(LPS) @ affine[:3, :3] / size).ravel().tolist())
        return made

    pulled = sitk.GetArrayFromImage(
        sitk.Resample(
            image(head.data, head.affine),
            image(fixed.image, fixed.affine),
            sitk.ReadTransform(str(path)),
            sitk.sitkLinear,
        )
    ).transpose(2, 1, 0)
    points = transform.to_native(grid_points(fixed.mask.shape, fixed.affine))
    own = sample_image(head.data, head.affine, points).reshape(fixed.mask.shape)
    difference = np.abs(pulled - own)[fixed.mask]
    assert difference.max() < INTENSITY_TOLERANCE * head.data.max()


def test_itk_file_is_small_and_the_same_every_time(known, tmp_path):
    digests = set()
    for name in ('a.h5', 'b.h5'):
        save_itk(tmp_path / name, known.affine, known.displacement, known.grid, affine_first=True)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert (tmp_path / 'a.h5').stat().st_size < 0.7 * known.displacement.size * 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.h5', 'b.h5']


def test_stored_transform_keeps_all_digits(known, tmp_path):
    save_transform(tmp_path / 't.npz', known)
    again = load_transform(tmp_path / 't.npz')
    for name in ('affine', 'displacement', 'inverse_displacement', 'grid'):
        np.testing.assert_array_equal(getattr(again, name), getattr(known, name))
        assert getattr(again, name).dtype == getattr(known, name).dtype


def test_itk_files_give_back_all_digits_of_what_the_registration_hands_on(known, tmp_path):
    rounded = replace(
        known,
        displacement=quantised(known.displacement),
        inverse_displacement=quantised(known.inverse_displacement),
    )
    assert np.abs(rounded.displacement - known.displacement).max() <= DISPLACEMENT_STEP_MM / 2
    there, back = tmp_path / 'there.h5', tmp_path / 'back.h5'
    inverse = np.linalg.inv(rounded.affine)
    save_itk(there, rounded.affine, rounded.displacement, rounded.grid, affine_first=False)
    save_itk(back, inverse, rounded.inverse_displacement, rounded.grid, affine_first=True)
    found = load_itk(there, back)
    for name in ('affine', 'displacement', 'inverse_displacement'):
        assert np.array_equal(getattr(found, name), getattr(rounded, name)), name
    assert found.displacement.dtype == rounded.displacement.dtype
    assert np.allclose(found.grid, rounded.grid, rtol=0, atol=1e-12)  # oblique, by a square root


def test_samples_outside_are_zero_or_the_edge():
    data = np.arange(27.0).reshape(3, 3, 3)
    outside = np.array([[-5.0, 1, 1]], np.float32)
    assert sample_image(data, np.eye(4), outside)[0] == 0
    assert sample_image(data, np.eye(4), outside, outside='nearest')[0] == data[0, 1, 1]
    field = np.stack([data] * 3, axis=-1)
    assert sample_vectors(field, np.eye(4), outside)[0, 0] == data[0, 1, 1]


@pytest.mark.parametrize('turn', [0.0, 0.2])
def test_vectors_on_a_grid_are_those_at_its_points(turn):
    grid = np.array([[5.0, 0, 0, -60], [0, -5.0, 0, 70], [0, 0, 4.0, -65], [0, 0, 0, 1]])
    field = smooth_field(grid, (24, 28, 26))
    affine = np.array([[1.3, turn, 0, -9], [0, 0.7, 0, 11], [0, 0, 1.0, -30], [0, 0, 0, 1]])
    shape = (15, 40, 90)  # reaches beyond the field
    found = sample_vectors_on_grid(field, grid, shape, affine)
    expected = sample_vectors(field, grid, grid_points(shape, affine))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_grid_and_voxel_points_agree():
    affine = np.array([[2.0, 0.1, 0, -4], [0, 3.0, 0, 5], [0, 0.2, 1.5, 6], [0, 0, 0, 1]])
    mask = np.ones((3, 4, 5), bool)
    np.testing.assert_allclose(grid_points(mask.shape, affine), voxel_points(mask, affine))
    mask[0] = False
    assert len(voxel_points(mask, affine)) == 40
    assert DISPLACEMENT_STEP_MM < ITK_MM
