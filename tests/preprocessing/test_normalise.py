"""Maps brought to the template keep their volume, and maps brought back stay in the brain."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_brainage.preprocessing.normalise import (
    MODULATION_SMOOTHING_MM,
    modulate,
    pull,
    pull_inside,
    push_to_native,
    template_coordinates,
)
from bids_brainage.preprocessing.transforms import SpatialTransform, grid_points

VOLUME_TOLERANCE = 0.01
ROUND_TRIP_CORRELATION = 0.98


@pytest.fixture(scope='module')
def doubling():
    """Template → native: twice as large along x, moved along z."""
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[2, 3] = 7
    nothing = np.zeros((12, 12, 12, 3), np.float32)
    return SpatialTransform(affine, nothing, nothing, np.diag([2.0, 2.0, 2.0, 1.0]))


def test_modulated_grey_matter_has_the_native_volume(registered, head, archive):
    from bids_brainage.preprocessing.template import find_template

    transform, _ = registered
    grid = nib.load(find_template(archive, resolution=2).mask)
    grey = np.asarray(nib.as_closest_canonical(head.truth.brain_mask).dataobj, np.float32)
    grey *= head.truth.tissue['gm']
    where = template_coordinates(transform, grid.shape, grid.affine)
    smooth = ndimage.gaussian_filter(grey, MODULATION_SMOOTHING_MM / 3)
    normal = pull(smooth, head.affine, where, grid.shape)
    modulated = modulate(normal, transform.jacobian(), transform.grid, grid.affine)
    native_ml = grey.sum(dtype=float) * head.voxel_ml
    assert modulated.sum(dtype=float) * 8 / 1000 == pytest.approx(native_ml, rel=VOLUME_TOLERANCE)
    # and not because nothing had to be done
    assert abs(normal.sum(dtype=float) * 8 / 1000 / native_ml - 1) > 10 * VOLUME_TOLERANCE


def test_modulation_multiplies_by_the_volume_change(doubling):
    flat = np.full((10, 10, 10), 0.5, np.float32)
    modulated = modulate(flat, doubling.jacobian(), doubling.grid, np.eye(4))
    np.testing.assert_allclose(modulated, 1.0, rtol=1e-6)


def test_pull_reads_where_the_transform_points(doubling):
    where = template_coordinates(doubling, (3, 4, 5), np.eye(4))
    expected = grid_points((3, 4, 5), np.eye(4)) * (2, 1, 1) + (0, 0, 7)
    np.testing.assert_allclose(where, expected)
    native = np.arange(8 * 6 * 14, dtype=np.float32).reshape(8, 6, 14)
    pulled = pull(native, np.eye(4), where, (3, 4, 5), order=0)
    np.testing.assert_array_equal(pulled, native[:6:2, :4, 7:12])


def test_some_voxels_are_read_as_all_are(doubling):
    where = template_coordinates(doubling, (3, 4, 5), np.eye(4))
    native = np.random.default_rng(0).random((8, 6, 14)).astype(np.float32)
    inside = np.random.default_rng(1).random((3, 4, 5)) > 0.5
    pulled = pull_inside(native, np.eye(4), where, inside)
    np.testing.assert_array_equal(pulled, pull(native, np.eye(4), where, (3, 4, 5)) * inside)


def test_map_comes_back_to_where_it_was(registered, head, fixed):
    transform, _ = registered
    points = grid_points(fixed.mask.shape, fixed.affine)
    waves = np.cos(points / 20).sum(axis=1).reshape(fixed.mask.shape).astype(np.float32)
    native = push_to_native(
        waves, fixed.affine, transform, head.mask.shape, head.affine, head.mask
    )
    assert (native[~head.mask] == 0).all()
    expected = np.cos(head.truth.template_points[:, head.mask] / 20).sum(axis=0)
    assert np.corrcoef(native[head.mask], expected)[0, 1] > ROUND_TRIP_CORRELATION
