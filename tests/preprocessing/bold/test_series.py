"""A simulated series with known motion, position and regions gives them back."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from bold_phantom import CENTRE, TR, identity_transform, known_motion, make_phantom, template
from scipy import ndimage

from bids_brainage.errors import ProcessingError, UnusableImageError
from bids_brainage.preprocessing.atlas import load_atlas
from bids_brainage.preprocessing.bold import (
    carpet,
    confounds,
    connectome,
    coregister,
    motion,
    resample,
    series,
    slicetiming,
)
from bids_brainage.preprocessing.transforms import SpatialTransform, voxel_points

MOTION_MM = 0.05  # median over volumes of the RMS error over the head (0.017 measured)
JERK_MM = 0.2  # the same in the worst volume (0.09 measured)
COREGISTRATION_MM = 0.8  # RMS error over the brain of 5.5 mm voxels (0.37 measured)
FD_CORRELATION = 0.99
CONNECTIVITY_R = 0.9  # between found and true correlations of 12 regions (0.98 measured)
SPLINE_ERROR = 0.02  # of a cubic spline on a smooth wave


@dataclass
class Processed:
    phantom: object
    series: series.BoldSeries
    mask: np.ndarray
    motion: motion.Motion
    coregistration: coregister.Coregistration
    grid: np.ndarray
    brain: np.ndarray
    values: np.ndarray
    signal: np.ndarray


@pytest.fixture(scope='module')
def processed(tmp_path_factory):
    phantom = make_phantom(100)
    path = tmp_path_factory.mktemp('bold') / 'bold.nii'
    nib.save(phantom.image, path)
    bold = series.load_bold(path, {'RepetitionTime': TR})
    reference = motion.reference_volume(bold.data)
    mask = motion.head_mask(reference, bold.affine)
    moved = motion.estimate_motion(bold.data, bold.affine, reference, mask)
    t1w, inside, t1w_affine = template()
    found = coregister.coregister(reference, mask, bold.affine, t1w, inside, t1w_affine)
    grid = t1w_affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    brain = inside[::2, ::2, ::2]
    points = resample.bold_points(identity_transform(), found.matrix, voxel_points(brain, grid))
    values, covered = resample.resample_series(bold.data, bold.affine, moved.matrices(), points)
    signal = resample.signal_coverage(values, covered)
    return Processed(phantom, bold, mask, moved, found, grid, brain, values, signal)


def _truth(processed):
    """Volume against reference: the reference is the head of the quiet volumes, not of one."""
    true = np.stack([motion.to_matrix(p, CENTRE) for p in processed.phantom.motion])
    found = processed.motion.matrices()
    offset = np.median(
        [
            motion.to_parameters(np.linalg.inv(a) @ b, CENTRE)
            for a, b in zip(true, found, strict=True)
        ],
        axis=0,
    )
    return found, true @ motion.to_matrix(offset, CENTRE)


def test_motion_comes_back(processed):
    found, true = _truth(processed)
    head = voxel_points(processed.mask, processed.series.affine)
    both = [
        [head @ m[:3, :3].T + m[:3, 3] for m in pair] for pair in zip(found, true, strict=True)
    ]
    error = np.array([np.sqrt(((a - b) ** 2).sum(axis=1).mean()) for a, b in both])
    assert np.median(error) < MOTION_MM
    assert error.max() < JERK_MM


def test_framewise_displacement_follows_the_head(processed):
    found = motion.framewise_displacement(processed.motion.parameters)
    true = motion.framewise_displacement(processed.phantom.motion)
    assert np.isnan(found[0])
    assert np.corrcoef(found[1:], true[1:])[0, 1] > FD_CORRELATION
    jerk = 100 // 3
    assert set(np.flatnonzero(np.nan_to_num(found) > 1)) == {jerk, jerk + 2}


def test_framewise_displacement_by_hand():
    parameters = np.zeros((3, 6))
    parameters[1] = [0.1, -0.2, 0.3, 0.01, 0, -0.02]
    found = motion.framewise_displacement(parameters)
    assert found[1:] == pytest.approx([0.6 + 50 * 0.03] * 2)


def test_parameters_and_matrices_are_inverse():
    rng = np.random.default_rng(0)
    for parameters in rng.uniform(-0.7, 0.7, (20, 6)):
        matrix = motion.to_matrix(parameters, CENTRE)
        assert motion.to_parameters(matrix, CENTRE) == pytest.approx(parameters)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_positive_translation_is_a_head_that_moved_forward():
    ball = np.zeros((24, 24, 24), np.float32)
    ball[8:15, 6:14, 9:15] = 100
    ball = ndimage.gaussian_filter(ball, 1.5)
    moved = ndimage.shift(ball, (0, 1, 0), order=1)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    data = np.stack([ball, moved], axis=3)
    found = motion.estimate_motion(data, affine, ball, ball > 10)
    assert found.parameters[1, :3] == pytest.approx([0, 3, 0], abs=0.1)


def test_coregistration_finds_the_head(processed):
    _, inside, affine = template()
    points = voxel_points(inside, affine)
    pair = (processed.coregistration.matrix, processed.phantom.coregistration)
    a, b = (points @ m[:3, :3].T + m[:3, 3] for m in pair)
    assert np.sqrt(((a - b) ** 2).sum(axis=1).mean()) < COREGISTRATION_MM
    assert processed.coregistration.overlap > 0.97
    assert processed.coregistration.scores()['start'] in ('header', 'centre')


def test_coregistration_gives_the_same_bits_again(processed):
    reference = motion.reference_volume(processed.series.data)
    again = coregister.coregister(
        reference, processed.mask, processed.series.affine, *template()[:2], template()[2]
    )
    np.testing.assert_array_equal(again.matrix, processed.coregistration.matrix)


def test_coregistration_of_two_strangers_is_refused(processed):
    t1w, inside, affine = template()
    bold = processed.series
    ball = np.zeros(bold.data.shape[:3], bool)
    ball[10:16, 10:16, 8:14] = True
    with pytest.raises(ProcessingError, match='same person'):
        coregister.coregister(ball * 100.0, ball, bold.affine, t1w, inside, affine)


def test_one_interpolation_composes_all_three_steps():
    """A linear ramp survives any chain of linear maps: its value says where a point went."""
    shape, affine = (20, 22, 18), np.diag([4.0, 4.0, 4.0, 1.0])
    world = np.indices(shape).reshape(3, -1).T * 4.0
    ramp = (1 + world @ [1.0, 10.0, 0.1]).reshape(shape).astype(np.float32)
    rng = np.random.default_rng(1)
    parameters = rng.normal(0, [1, 1, 1, 0.02, 0.02, 0.02], (3, 6))
    moved = motion.Motion(parameters, np.array([40.0, 40, 36]))
    linear = np.diag([1.05, 0.95, 1.0, 1.0])
    linear[:3, 3] = [2, -1, 3]
    shift = np.zeros((6, 6, 6, 3), np.float32) + np.float32([1.5, -2, 0.5])
    warp = SpatialTransform(linear, shift, -shift, np.diag([20.0, 20, 20, 1]))
    rigid = motion.to_matrix(np.array([3.0, 1, -2, 0.05, -0.03, 0.04]), np.array([40.0, 40, 36]))
    points = rng.uniform(25, 50, (200, 3))
    values, covered = resample.resample_series(
        np.stack([ramp] * 3, axis=3), affine, moved.matrices(),
        resample.bold_points(warp, rigid, points),
    )  # fmt: skip
    native = (points + np.array([1.5, -2, 0.5])) @ linear[:3, :3].T + linear[:3, 3]
    reference = native @ rigid[:3, :3].T + rigid[:3, 3]
    for t, matrix in enumerate(moved.matrices()):
        place = reference @ matrix[:3, :3].T + matrix[:3, 3]
        assert values[:, t] == pytest.approx(1 + place @ [1.0, 10.0, 0.1], rel=1e-3)
    assert covered.all()


def test_motion_correction_quietens_the_series(processed):
    bold, found = processed.series, processed
    still = np.stack([np.eye(4)] * bold.n_volumes)
    points = resample.bold_points(
        identity_transform(), found.coregistration.matrix, voxel_points(found.brain, found.grid)
    )
    uncorrected, _ = resample.resample_series(bold.data, bold.affine, still, points)
    # noise is 6; the tenth of voxels that changes most lies where motion shows, at edges
    before, after = (
        np.percentile(v[found.signal].std(axis=1), 90) for v in (uncorrected, found.values)
    )
    assert after < 0.8 * before


def _images(processed):
    shape = processed.brain.shape
    data = np.zeros((*shape, processed.values.shape[1]), np.float32)
    data[processed.brain] = processed.values
    mask = np.zeros(shape, np.uint8)
    mask[processed.brain] = processed.signal
    return nib.Nifti1Image(data, processed.grid), nib.Nifti1Image(mask, processed.grid)


def test_connectivity_structure_comes_back(processed):
    points = voxel_points(processed.brain, processed.grid)[processed.signal]
    table = confounds.build_confounds(
        processed.values[processed.signal],
        carpet.deep_tissue(load_atlas(), points),
        processed.motion.parameters,
    )
    model = confounds.select_confounds(table, TR, confounds.Denoising())
    # 98 kept volumes hold 35 frequencies of the band: too few for 26 regressors
    assert model.denoising == confounds.Denoising(24, True, 'cosine')
    jerk = 100 // 3
    assert list(np.flatnonzero(~model.keep)) == [jerk, jerk + 2]
    atlas = processed.phantom.atlas
    found = connectome.compute_connectome(*_images(processed), atlas, model, TR)
    true = np.corrcoef(processed.phantom.signals[model.keep].T)
    pairs = np.triu_indices(12, 1)
    assert np.corrcoef(found.correlation[pairs], true[pairs])[0, 1] > CONNECTIVITY_R
    assert (np.diag(found.correlation) == 1).all()
    assert found.series.shape == (98, 12)
    assert found.coverage.min() > 0.9
    assert np.tanh(found.fisher_z[pairs]) == pytest.approx(found.correlation[pairs])
    networks = np.array(atlas.networks())
    same = (networks[:, None] == networks) & ~np.eye(12, dtype=bool)
    assert found.correlation[same].mean() > found.correlation[networks[:, None] != networks].max()


def test_regions_without_signal_are_not_available(processed):
    bold, mask = _images(processed)
    holes = np.asarray(mask.dataobj).copy()
    index = np.linalg.inv(processed.grid) @ [*processed.phantom.atlas.regions[3].xyz, 1]
    x, y, z = np.rint(index[:3]).astype(int)
    holes[x - 3 : x + 4, y - 3 : y + 4, z - 3 : z + 4] = 0
    keep = np.ones(100, bool)
    model = confounds.ConfoundModel((), np.zeros((100, 1)), keep, confounds.Denoising(), 30.0)
    found = connectome.compute_connectome(
        bold, nib.Nifti1Image(holes, mask.affine), processed.phantom.atlas, model, TR
    )
    assert found.coverage[3] == 0
    assert np.isnan(found.series[:, 3]).all()
    assert np.isnan(np.delete(found.correlation[3], 3)).all()
    assert np.isfinite(found.correlation[0, 1])


def test_confounds_of_another_run_are_refused(processed):
    model = confounds.ConfoundModel(
        (), np.zeros((90, 1)), np.ones(90, bool), confounds.Denoising(), 30.0
    )
    with pytest.raises(UnusableImageError, match='100 volumes and the confounds 90'):
        connectome.compute_connectome(*_images(processed), processed.phantom.atlas, model, TR)


def test_written_series_is_read_back(processed, tmp_path):
    path = tmp_path / 'bold.nii'
    resample.write_series(path, processed.values, processed.brain, processed.grid, TR)
    image = nib.load(path)
    assert image.shape == (*processed.brain.shape, 100)
    assert image.header.get_zooms()[3] == pytest.approx(TR)
    back = resample.read_series(image, processed.brain)
    assert np.abs(back - processed.values).max() <= np.abs(processed.values).max() / 65000
    assert not np.asarray(image.dataobj[..., 7])[~processed.brain].any()


def test_carpet_groups_voxels_from_cortex_to_fluid(processed):
    points = voxel_points(processed.brain, processed.grid)
    group = carpet.voxel_groups(load_atlas(), points)
    drawn = carpet.make_carpet(processed.values, group, n_rows=200)
    assert [name for name, _ in drawn.groups] == list(carpet.GROUPS)
    assert drawn.values.shape == (sum(rows for _, rows in drawn.groups), 100)
    assert drawn.values.mean(axis=1) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('axis', [0, 2])
def test_slice_timing_brings_slices_to_one_moment(axis, reverse):
    times = np.linspace(0, 1.8, 10)
    n = 60
    shape = [3, 3, 3, n]
    shape[axis] = 10
    data = np.empty(shape, np.float32)
    taken = times[::-1] if reverse else times
    for index in range(10):
        place = (slice(None),) * axis + (index,)
        data[place] = np.sin(2 * np.pi * (np.arange(n) * TR + taken[index]) / 30)
    fixed = slicetiming.correct_slice_timing(data, times, TR, axis=axis, reversed_order=reverse)
    wanted = np.sin(2 * np.pi * (np.arange(n) * TR + 0.9) / 30)
    assert np.abs(fixed - wanted)[..., 2:-2].max() < SPLINE_ERROR
    assert np.abs(data - wanted).max() > 5 * SPLINE_ERROR


@pytest.mark.parametrize(
    ('metadata', 'reason'),
    [
        ({}, 'no SliceTiming'),
        ({'SliceTiming': [0, 1]}, '2 entries for 3 slices'),
        ({'SliceTiming': [0, 900, 1800]}, 'outside the repetition time'),
        ({'SliceTiming': [0.5, 0.5, 0.5]}, 'same time'),
        ({'SliceTiming': ['a', 1, 2]}, 'not a list'),
    ],
)
def test_unusable_slice_times_are_left_out_with_a_reason(metadata, reason):
    times, found = slicetiming.slice_times(metadata, 3, TR)
    assert times is None
    assert reason in found


@pytest.mark.parametrize(
    ('codes', 'direction', 'axis', 'reverse'),
    [('RAS', 'k', 2, False), ('LAS', 'k', 2, False), ('RAI', 'k', 2, True),
     ('RAI', 'k-', 2, False), ('SRA', 'i', 2, False), ('RSA', 'k', 1, False)],
)  # fmt: skip
def test_slice_axis_follows_the_reorientation(codes, direction, axis, reverse):
    stored = nib.orientations.axcodes2ornt(codes)
    affine = nib.orientations.inv_ornt_aff(stored, (4, 4, 4))
    assert series.slice_axis(np.linalg.inv(affine), direction) == (axis, reverse)


def _save(path, data, tr=TR, unit='sec'):
    image = nib.Nifti1Image(np.asarray(data, np.float32), np.diag([5.0, 5, 5, 1]))
    if data.ndim == 4:
        image.header.set_zooms((5, 5, 5, tr))
        image.header.set_xyzt_units('mm', unit)
    nib.save(image, path)
    return path


def test_repetition_time_is_checked(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(100, 1, (8, 8, 8, 12))
    path = _save(tmp_path / 'a.nii', data, 2000.0, 'msec')
    assert series.load_bold(path).tr == pytest.approx(2.0)
    stated = series.load_bold(path, {'RepetitionTime': 2.5})
    assert (stated.tr, stated.tr_mismatch) == (2.5, True)
    assert series.series_facts(path, {'RepetitionTime': 2.0})['tr_mismatch'] is False
    with pytest.raises(UnusableImageError, match='repetition time 2000'):
        series.load_bold(path, {'RepetitionTime': 2000})
    with pytest.raises(UnusableImageError, match='expected a number'):
        series.load_bold(path, {'RepetitionTime': '2'})


def test_what_is_no_series_is_refused(tmp_path):
    flat = np.full((8, 8, 8, 12), 3.0)
    with pytest.raises(UnusableImageError, match='no voxel changes'):
        series.load_bold(_save(tmp_path / 'flat.nii', flat))
    with pytest.raises(UnusableImageError, match='4-D series'):
        series.load_bold(_save(tmp_path / 'single.nii', flat[..., 0]))
    (tmp_path / 'cut.nii').write_bytes((tmp_path / 'flat.nii').read_bytes()[:400])
    with pytest.raises(UnusableImageError, match='cannot be read'):
        series.load_bold(tmp_path / 'cut.nii')


def test_bright_first_volumes_are_not_steady():
    rng = np.random.default_rng(2)
    data = rng.normal(500, 5, (6, 6, 6, 40)).astype(np.float32)
    assert series.count_non_steady(data) == 0
    data[..., :3] *= [1.3, 1.1, 1.04]
    assert series.count_non_steady(data) == 3


def test_reference_leaves_moving_volumes_out():
    still = make_phantom(12, moving=False, noise=0.0, shape=(20, 22, 16), voxel_mm=9.0)
    data = still.image.get_fdata(dtype=np.float32)
    blurred = data.copy()
    blurred[..., 4:7] = np.roll(blurred[..., 4:7], 2, axis=1)
    a, b = motion.reference_volume(data), motion.reference_volume(blurred)
    assert np.abs(a - b).max() < 0.05 * a.max()


def test_known_motion_holds_still_in_the_middle():
    assert not known_motion(40)[20].any()
