"""Reading a T1w image: what is accepted, what is refused, and what is said about it."""

import gzip
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.header import header_words
from bids_brainage.errors import UnusableImageError
from bids_brainage.preprocessing.bold.series import load_bold
from bids_brainage.preprocessing.image import (
    MAX_STRIPPED_ML,
    constant_background,
    foreground_mask,
    load_canonical,
    load_image,
    raised,
    save_image,
)
from bids_brainage.preprocessing.quality import header_measures, image_flags

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


def with_header(path, *, shape=SHAPE, forms=(1, 1), **changes):
    """Save an image whose header is changed field by field."""
    image = nib.Nifti1Image(noise(shape), np.diag([4.0, 4.0, 4.0, 1.0]))
    image.set_sform(image.affine, forms[0])
    image.set_qform(image.affine, forms[1])
    for name, value in {'vox_offset': 352, **changes}.items():
        image.header[name] = value
    with path.open('wb') as stream:
        stream.write(image.header.binaryblock + b'\0' * 4 + noise(shape).tobytes(order='F'))
    return path


def sform(x, y=4.0, z=4.0):
    return {'srow_x': [x, 0, 0, 0], 'srow_y': [0, y, 0, 0], 'srow_z': [0, 0, z, 0]}


CONTRADICTIONS = [
    ('sform 3 times', sform(12, 12, 12), ['12 x 12 x 12', '4 x 4 x 4']),
    ('sform 17 % off', sform(4.68), ['4.68 x 4 x 4', '4 x 4 x 4']),
    ('left-right', {'srow_x': [-4, 0, 0, 0]}, ['sform (LAS)', 'qform (RAS)', '180 degrees']),
    ('metre', {'xyzt_units': 1, 'pixdim': [1, *[4e-3] * 3, 1, 1, 1, 1], **sform(4e-3, 4e-3, 4e-3)},
     ['in meters', '0.004 x 0.004 x 0.004']),
    ('micron', {'xyzt_units': 3, 'pixdim': [1, *[4e3] * 3, 1, 1, 1, 1], **sform(4e3, 4e3, 4e3)},
     ['in microns', '4000 x 4000 x 4000']),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'changes', 'found'), CONTRADICTIONS)
def test_geometry_that_contradicts_itself_is_refused_with_both_values(
    tmp_path, name, changes, found
):
    path = with_header(tmp_path / 'sub-01_T1w.nii', **changes)
    with pytest.raises(UnusableImageError, match=r'sub-01_T1w\.nii: ') as refusal:
        load_canonical(path)
    for text in (*found, 'convert the scan again'):
        assert text in str(refusal.value)


@pytest.mark.parametrize(
    ('changes', 'flag', 'words'),
    [
        (sform(4.2), 'header_voxel_size', ['4.2 x 4 x 4', '4 x 4 x 4 mm']),
        ({'quatern_d': np.sin(0.1)}, 'header_orientation', ['11 degrees', 'the sform was used']),
        ({'forms': (0, 0)}, 'header_no_orientation', ['codes are 0', 'left and right']),
        ({'xyzt_units': 1}, 'header_unit', ['unit meter', 'as millimetres only']),
        ({'xyzt_units': 3}, 'header_unit', ['unit micron', '4 x 4 x 4']),
    ],
    ids=['5 % off', 'turned', 'no form', 'metre', 'micron'],
)
def test_small_contradictions_are_told_and_flagged(tmp_path, changes, flag, words):
    path = with_header(tmp_path / 'sub-01_T1w.nii', **changes)
    facts = load_canonical(path)[2].as_dict()
    measures = header_measures(facts)
    assert image_flags(measures) == [flag]
    (told,) = header_words(path)
    assert told == facts['geometry']['words'][0]
    for word in words:
        assert word in told


@pytest.mark.parametrize('forms', [(1, 1), (2, 1), (1, 0), (0, 1)])
def test_consistent_header_needs_no_word(tmp_path, forms):
    path = with_header(tmp_path / 'sub-01_T1w.nii', forms=forms, xyzt_units=2)
    geometry = load_canonical(path)[2].geometry
    assert (geometry.words, geometry.refusal) == ((), '')
    assert geometry.form == ('sform' if forms[0] else 'qform')
    assert image_flags(header_measures({'geometry': asdict(geometry)})) == []


def test_qform_that_is_no_rotation_is_told(tmp_path):
    path = with_header(tmp_path / 'sub-01_T1w.nii', quatern_b=2.0)
    assert 'the qform cannot be read' in load_canonical(path)[2].geometry.words[0]


@pytest.mark.parametrize('slope', [0.0, np.nan])
def test_scaling_that_is_none_is_left_out(tmp_path, slope):
    path = with_header(tmp_path / 'sub-01_T1w.nii', scl_slope=slope, scl_inter=slope)
    np.testing.assert_array_equal(load_canonical(path)[0], noise())


def test_volumes_of_one_are_taken_along_any_axis(tmp_path):
    data = load_canonical(save(tmp_path / 'a.nii', noise()[..., None, None]))[0]
    np.testing.assert_array_equal(data, noise())


@pytest.mark.parametrize(
    ('data', 'what'),
    [
        (np.zeros(SHAPE, [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]), r'colours \(RGB\)'),
        (noise().astype(np.complex64), 'complex numbers'),
    ],
)
def test_voxels_that_are_no_magnitudes_are_refused(tmp_path, data, what):
    with pytest.raises(UnusableImageError, match=rf'a\.nii: the voxels are {what}.*magnitude'):
        load_canonical(save(tmp_path / 'a.nii', data))


def broken(path, content):
    """Write a compressed image that is damaged in one way."""
    whole = bytearray(save(path, noise()).read_bytes())
    middle, names = len(whole) // 2, {'check sum': -8, 'length': -2}
    if content in names:
        whole[names[content]] ^= 1
    elif content == 'one byte':
        whole[middle] ^= 1
    else:
        whole = {'truncated': whole[:middle], 'text': gzip.compress(b'no'), 'empty': b''}[content]
    path.write_bytes(whole)
    return path


CORRUPT = ['truncated', 'check sum', 'length', 'one byte']


@pytest.mark.parametrize('content', [*CORRUPT, 'text', 'empty'])
def test_broken_files_are_refused(tmp_path, content):
    path = broken(tmp_path / 'sub-01_T1w.nii.gz', content)
    with pytest.raises(UnusableImageError, match=r'sub-01_T1w\.nii\.gz') as refusal:
        load_canonical(path)
    assert refusal.match('cannot be read as an image')
    assert refusal.match('gzip -t')
    assert ('stream is corrupt' in str(refusal.value)) == (content in CORRUPT)


@pytest.mark.parametrize('content', CORRUPT)
def test_corrupt_series_are_refused(tmp_path, content):
    path = broken(tmp_path / 'sub-01_task-rest_bold.nii.gz', content)
    with pytest.raises(UnusableImageError, match=r'bold\.nii\.gz.*stream is corrupt'):
        load_bold(path)


def test_every_wrong_byte_of_a_stream_is_found(tmp_path):
    whole = save(tmp_path / 'a.nii.gz', noise()).read_bytes()
    path = tmp_path / 'b.nii.gz'
    for place in np.random.default_rng(0).integers(10, len(whole), 50):
        changed = bytearray(whole)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(UnusableImageError):
            load_canonical(path)


def test_compression_against_the_name_is_told(tmp_path):
    plain, packed = save(tmp_path / 'a.nii', noise()), save(tmp_path / 'b.nii.gz', noise())
    plain, packed = plain.rename(tmp_path / 'c.nii.gz'), packed.rename(tmp_path / 'd.nii')
    with pytest.raises(UnusableImageError, match=r'not compressed.*Rename it to c\.nii,'):
        load_canonical(plain)
    with pytest.raises(UnusableImageError, match=r'it is compressed.*Rename it to d\.nii\.gz,'):
        load_canonical(packed)


def test_file_cut_short_is_told_on_one_line(tmp_path):
    path = save(tmp_path / 'sub-01_T1w.nii', noise())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UnusableImageError, match='Expected 120960 bytes, got 4648') as refusal:
        load_canonical(path)
    assert '\n' not in str(refusal.value)
    assert refusal.match('could the file be damaged')


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


def colours(shape):
    return np.zeros(shape, np.dtype([('R', 'u1'), ('G', 'u1'), ('B', 'u1')]))


@pytest.mark.parametrize(
    ('data', 'edge', 'said'),
    [
        (colours((30, 30, 30)), 4.0, 'the voxels are colours (RGB)'),
        (np.ones((30, 30, 30), np.complex64), 4.0, 'the voxels are complex numbers'),
        (np.ones((30, 30, 30, 2), np.float32), 4.0, 'expected one 3-D volume, found shape'),
        (np.ones((30, 30, 30), np.float32), 1.0, 'the field of view is [30, 30, 30] mm'),
        (np.ones((30, 30, 30), np.float32), 20.0, 'voxel size [20.0, 20.0, 20.0] mm'),
    ],
    ids=['colours', 'complex', 'several', 'field of view', 'voxel size'],
)
def test_dry_run_tells_what_the_run_will_refuse(tmp_path, data, edge, said):
    path = tmp_path / 'sub-01_T1w.nii'
    nib.save(nib.Nifti1Image(data, np.diag([edge, edge, edge, 1])), path)
    (told,) = header_words(path)
    assert told.startswith('will be refused: ') and said in told
    with pytest.raises(UnusableImageError) as error:
        load_canonical(path)
    assert str(error.value) == f'{path}: {told.removeprefix("will be refused: ")}'


def test_dry_run_tells_of_sizes_that_contradict_each_other(tmp_path):
    path = with_header(tmp_path / 'sub-01_T1w.nii', **sform(5.0))
    (told,) = header_words(path)
    assert 'will be refused: the sform says voxels of 5 x 4 x 4 mm' in told
