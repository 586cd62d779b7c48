"""Reading a T1w image: what is accepted, what is refused, and what is said about it."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.errors import UnusableImageError
from bids_brainage.preprocessing.image import (
    MAX_STRIPPED_ML,
    constant_background,
    foreground_mask,
    load_canonical,
    load_image,
    raised,
    save_image,
)

AFFINE_MM = 1e-3  # float32 of the header
VOLUME_TOLERANCE = 0.03
SHAPE = (30, 36, 28)


def noise(shape=SHAPE):
    return np.random.default_rng(0).uniform(1, 100, shape).astype(np.float32)


def save(path, data, affine=None):
    affine = np.diag([4.0, 4.0, 4.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def save_without_check(path, affine):
    """Write a header affine that nibabel itself would refuse to make."""
    image = nib.Nifti1Image(noise(), np.eye(4))
    header = image.header
    header['sform_code'] = 1
    for row, name in enumerate(('srow_x', 'srow_y', 'srow_z')):
        header[name] = affine[row]
    with path.open('wb') as stream:
        stream.write(header.binaryblock + b'\0' * 4 + noise().tobytes(order='F'))
    return path


@pytest.mark.parametrize('orientation', ['LAS', 'PSR', 'LSA', 'PIR'])
def test_storage_order_changes_nothing(take_scan, head, orientation):
    other = take_scan(f'stored-{orientation}', orientation=orientation)
    data, affine, facts = load_canonical(other.path)
    assert facts.orientation == orientation
    np.testing.assert_array_equal(data, head.data)
    np.testing.assert_allclose(affine, head.affine, atol=AFFINE_MM)
    np.testing.assert_array_equal(other.mask, head.mask)


def test_oblique_head_is_described(take_scan):
    oblique = take_scan('tilted', slab_rotation=(20.0, -10.0, 15.0))
    facts = load_canonical(oblique.path)[2]
    assert facts.orientation == 'RAS'
    assert 20 < facts.oblique_degrees < 30
    assert facts.voxel_size_mm == (3.0, 3.0, 3.0)


@pytest.mark.parametrize('kind', [np.uint8, np.int16, np.float64])
def test_data_types_come_as_float32(tmp_path, kind):
    data, _, facts = load_canonical(save(tmp_path / 'a.nii.gz', noise().astype(kind)))
    assert data.dtype == np.float32
    assert facts.data_type == np.dtype(kind).name
    np.testing.assert_array_equal(data, noise().astype(kind).astype(np.float32))


def test_single_volume_of_a_series_is_taken(tmp_path):
    data, _, facts = load_canonical(save(tmp_path / 'a.nii', noise()[..., None]))
    np.testing.assert_array_equal(data, noise())
    assert facts.shape == SHAPE


def test_damaged_voxels_become_zero_and_are_counted(tmp_path):
    bad = noise()
    bad[3, 4, 5], bad[6, 7, 8], bad[9, 9, 9] = np.nan, np.inf, -np.inf
    data, _, facts = load_canonical(save(tmp_path / 'a.nii', bad))
    assert facts.n_nonfinite == 3
    assert data[3, 4, 5] == data[6, 7, 8] == data[9, 9, 9] == 0
    assert np.isfinite(data).all()


NAN = np.diag([4.0, 4.0, 4.0, 1.0])
NAN[0, 3] = np.nan
FLAT = np.diag([4.0, 4.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ('make', 'found', 'advice'),
    [
        (lambda p: save_without_check(p, NAN), 'nan', 'Convert the scan again'),
        (lambda p: save_without_check(p, FLAT), 'no usable orientation', 'dcm2niix'),
        (lambda p: save(p, np.full(SHAPE, 7.0, np.float32)), 'the value 7', 'convert it again'),
        (lambda p: save(p, np.full(SHAPE, np.nan, np.float32)), 'the value 0', 'convert it'),
        (lambda p: save(p, noise((*SHAPE, 5))), r'\(30, 36, 28, 5\)', 'single volume'),
        (lambda p: save(p, noise(SHAPE[:2])), r'\(30, 36\)', 'single volume'),
        (lambda p: save(p, noise(), np.eye(4)), r'\[30, 36, 28\] mm', 'at least 60 mm'),
        (
            lambda p: save(p, noise((40, 40, 8)), np.diag([4.0, 4, 9, 1])),
            r'\[40, 40, 8\] voxels',
            'does not cover the brain',
        ),
        (lambda p: save(p, noise(), np.diag([4.0, 4, 12, 1])), r'12\.0\] mm', 'Check the units'),
    ],
    ids=['nan', 'flat', 'constant', 'all-nan', '4-D', '2-D', 'small', 'few planes', 'units'],
)
def test_unusable_images_are_refused_with_file_finding_and_advice(tmp_path, make, found, advice):
    path = make(tmp_path / 'sub-01_T1w.nii')
    with pytest.raises(UnusableImageError, match=r'sub-01_T1w\.nii') as refusal:
        load_canonical(path)
    assert refusal.match(found)
    assert refusal.match(advice)


@pytest.mark.parametrize('content', ['truncated', 'text', 'empty'])
def test_broken_files_are_refused(tmp_path, content):
    path = save(tmp_path / 'sub-01_T1w.nii.gz', noise())
    whole = path.read_bytes()
    broken = {'truncated': whole[: len(whole) // 2], 'text': gzip.compress(b'no'), 'empty': b''}
    path.write_bytes(broken[content])
    with pytest.raises(UnusableImageError, match=r'sub-01_T1w\.nii\.gz') as refusal:
        load_canonical(path)
    assert refusal.match('cannot be read as an image')
    assert refusal.match('gzip -t')


def test_skull_stripped_input_is_detected(take_scan, head):
    facts = load_canonical(take_scan('bare', skull_strip=True).path)[2]
    assert facts.skull_stripped
    mask_ml = head.mask.sum() * head.voxel_ml
    assert facts.foreground_ml == pytest.approx(mask_ml, rel=VOLUME_TOLERANCE)


def test_whole_and_defaced_heads_are_not_skull_stripped(head, tmp_path):
    assert not load_canonical(head.path)[2].skull_stripped
    defaced = np.where(head.data > 0.1 * head.data.mean(), head.data, 0)
    defaced[:, -25:, :30] = 0  # the face
    facts = load_canonical(save(tmp_path / 'defaced.nii', defaced, head.affine))[2]
    assert constant_background(defaced) == 0
    assert facts.foreground_ml > MAX_STRIPPED_ML
    assert not facts.skull_stripped


def test_background_may_have_any_value():
    data = np.full(SHAPE, -5.0, np.float32)
    data[8:22, 8:22, 8:22] = noise((14, 14, 14))
    assert constant_background(data) == -5
    assert foreground_mask(data).sum() == 14**3
    assert constant_background(noise()) is None


def test_centred_brain_is_raised_above_its_background(tmp_path, take_scan):
    bare = take_scan('mask', skull_strip=True)
    brain = bare.data[bare.mask]
    centred = np.where(bare.mask, (bare.data - brain.mean()) / brain.std(), 0)
    data, _, facts = load_canonical(save(tmp_path / 'z.nii.gz', centred.astype('f4'), bare.affine))
    assert facts.raised_by > 1 and facts.skull_stripped
    np.testing.assert_array_equal(data > 0, bare.mask)
    above = data[bare.mask] > data[bare.mask].min()
    steps = data[bare.mask][above] * brain.std() - brain[above]
    np.testing.assert_allclose(steps, steps[0], atol=1e-3 * np.ptp(brain))


@pytest.mark.parametrize('strip', [False, True])
def test_image_centred_as_a_whole_is_raised_to_what_it_was(take_scan, head, strip):
    whole = take_scan('mask', skull_strip=True).data if strip else head.data
    centred = ((whole - whole.mean()) / whole.std()).astype('f4')
    data, by = raised(centred)
    assert by == pytest.approx(-(np.percentile(centred, 0.5)), rel=1e-3)
    assert data.min() == 0
    assert np.corrcoef(data.ravel(), whole.ravel())[0, 1] > 0.999


def test_ringing_of_interpolation_is_left_alone(head):
    ringing = head.data.astype('f4')
    ringing[::7, ::7, ::7] = -0.5 * ringing.max()
    data, by = raised(ringing)
    assert by == 0 and data is ringing


@pytest.mark.parametrize('kind', ['float32', 'uint8'])
def test_images_between_steps_keep_voxels_grid_and_type(tmp_path, kind):
    data = np.arange(24.0).reshape(2, 3, 4)
    affine = np.array([[0, -2.0, 0, 9], [1.5, 0, 0, -4], [0, 0, 3, 2], [0, 0, 0, 1]])
    path = save_image(data.transpose(2, 0, 1), affine, tmp_path / 'x.nii.gz', kind)
    found, grid = load_image(path)
    assert found.dtype == kind and np.array_equal(found, data.transpose(2, 0, 1))
    assert grid.dtype == float and np.array_equal(grid, affine)
