"""Registration recovers a known pose and a known smooth warp, and repeats bit for bit."""

import numpy as np
import pytest

from bids_brainage.errors import ProcessingError
from bids_brainage.preprocessing.registration import (
    MIN_AFFINE_OVERLAP,
    dice,
    register,
    score,
)
from bids_brainage.preprocessing.transforms import SpatialTransform, sample_image, voxel_points

# A 3 mm scan registered on 4 mm; measured: mean 1.36, 95 % 2.55, affine alone 3.74 mm.
MEAN_ERROR_MM = 1.7
P95_ERROR_MM = 3.2
SCALE_TOLERANCE = 0.05
ROTATION_TOLERANCE_DEGREES = 4.0


def errors(transform, head):
    """Return the distance of every brain voxel from its true template position, mm."""
    found = transform.to_template(voxel_points(head.mask, head.affine))
    return np.linalg.norm(found - head.truth.template_points[:, head.mask].T, axis=1)


def test_known_pose_and_warp_are_recovered(registered, head):
    transform, _ = registered
    error = errors(transform, head)
    assert error.mean() < MEAN_ERROR_MM
    assert np.quantile(error, 0.95) < P95_ERROR_MM
    assert error.mean() < 0.5 * errors(transform.linear(), head).mean()


def test_direction_is_template_to_native(registered, head):
    transform, _ = registered
    template = head.truth.template_points[:, head.mask].T
    native = voxel_points(head.mask, head.affine)
    stretch = np.linalg.norm(transform.affine[:3, :3], 2)
    error = np.linalg.norm(transform.to_native(template) - native, axis=1)
    assert error.mean() < MEAN_ERROR_MM * stretch


def test_score_tells_size_and_rotation(registered, head, fixed):
    transform, tries = registered
    found = score(transform, fixed.image, fixed.mask, head.data, head.mask, head.affine)
    truth = head.truth.template_points[:, head.mask].T
    native = voxel_points(head.mask, head.affine)
    linear = np.linalg.lstsq(truth - truth.mean(0), native - native.mean(0), rcond=None)[0].T
    assert found.scale == pytest.approx(np.linalg.det(linear), rel=SCALE_TOLERANCE)
    u, _, vt = np.linalg.svd(linear)
    true_rotation = np.degrees(np.arccos((np.trace(u @ vt) - 1) / 2))
    assert found.rotation_degrees == pytest.approx(true_rotation, abs=ROTATION_TOLERANCE_DEGREES)
    assert found.overlap > 0.97
    assert found.overlap > tries['affine_overlap'] > 0.9
    assert found.similarity > 0.85
    assert tries['affine_starts'] == 1
    assert 0 < found.jacobian_min < 1 < found.jacobian_max


def test_result_does_not_depend_on_threads_or_chance(registered, head, fixed):
    transform, _ = registered
    again, _ = register(
        fixed.image, fixed.mask, fixed.affine, head.data, head.mask, head.affine, threads=2
    )
    np.testing.assert_array_equal(again.affine, transform.affine)
    np.testing.assert_array_equal(again.displacement, transform.displacement)
    np.testing.assert_array_equal(again.inverse_displacement, transform.inverse_displacement)


def test_sloppy_is_coarser_but_no_other_place(registered, head, fixed, capfd):
    quick, _ = register(
        fixed.image, fixed.mask, fixed.affine, head.data, head.mask, head.affine, sloppy=True
    )
    precise = errors(registered[0], head).mean()
    assert precise < errors(quick, head).mean() < 3 * precise
    assert capfd.readouterr().out == ''  # greedy's own chatter stays out of the terminal


def test_strongly_tilted_head_is_found(head, fixed):
    """The head of the world turned by 30 degrees: same voxels, another affine."""
    turn = np.eye(4)
    angle = np.radians(30)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    transform, _ = register(
        fixed.image, fixed.mask, fixed.affine, head.data, head.mask, turn @ head.affine,
        sloppy=True,
    )  # fmt: skip
    native = voxel_points(head.mask, turn @ head.affine)
    error = np.linalg.norm(
        transform.to_template(native) - head.truth.template_points[:, head.mask].T, axis=1
    )
    assert error.mean() < 2 * MEAN_ERROR_MM


def test_what_is_no_brain_is_refused(fixed, head):
    mask = np.zeros_like(head.mask)
    mask[20:24, 5:80, 20:24] = True  # a rod
    with pytest.raises(ProcessingError, match='best of 3 starts') as refusal:
        register(
            fixed.image, fixed.mask, fixed.affine, head.data * mask, mask, head.affine,
            sloppy=True,
        )  # fmt: skip
    assert refusal.match(f'at least {MIN_AFFINE_OVERLAP:.2f}')
    assert refusal.match('brain mask')


def test_score_of_a_wrong_transform_is_low(head, fixed):
    away = np.eye(4)
    away[:3, 3] = 80
    nothing = np.zeros((*fixed.mask.shape, 3), np.float32)
    found = score(
        SpatialTransform(away, nothing, nothing, fixed.affine),
        fixed.image, fixed.mask, head.data, head.mask, head.affine,
    )  # fmt: skip
    assert found.overlap < 0.5
    assert found.scale == pytest.approx(1)
    assert found.rotation_degrees == pytest.approx(0, abs=1e-3)


def test_tissue_far_outside_the_template_is_measured_at_its_size(fixed):
    nothing = np.zeros((*fixed.mask.shape, 3), np.float32)
    double = np.diag([2.0, 2.0, 2.0, 1.0])
    transform = SpatialTransform(double, nothing, nothing, fixed.affine)
    edge = abs(np.linalg.det(fixed.affine[:3, :3])) / 1000
    leaked = fixed.mask.copy()
    leaked[:3, :4, :5] = True  # the corner of the template's grid

    def beyond(mask):
        return score(
            transform, fixed.image, fixed.mask, fixed.image, mask, double @ fixed.affine
        ).beyond_ml

    assert beyond(fixed.mask) == 0
    assert beyond(leaked) == pytest.approx(60 * edge, rel=1e-5)
    off_grid = np.pad(fixed.mask, 20)
    off_grid[:2, :2, :2] = True
    shifted = double @ fixed.affine
    shifted[:3, 3] -= shifted[:3, :3] @ np.full(3, 20)
    image = np.pad(fixed.image, 20)
    found = score(transform, fixed.image, fixed.mask, image, off_grid, shifted)
    assert found.beyond_ml == pytest.approx(8 * edge, rel=1e-5)


def test_dice_is_symmetric_and_bounded():
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    assert dice(a, b) == 0
    a[:4], b[2:6] = True, True
    assert dice(a, b) == dice(b, a) == 0.5
    assert dice(a, a) == 1


def test_outside_of_the_native_grid_counts_as_no_brain(head):
    far = np.full((1, 3), 1e4, np.float32)
    assert sample_image(head.data, head.affine, far)[0] == 0
