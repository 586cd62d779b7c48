"""Maps of cerebral blood volume: found by name, checked, and brought onto the template."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.aicbv import find_cbv_map
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError, UnusableImageError
from bids_brainage.inference.aicbv import save_generator
from bids_brainage.inference.generate import generate
from bids_brainage.inputs.cbv import cbv_on_template
from bids_brainage.preprocessing.transforms import SpatialTransform

SPACE = 'MNI152NLin2009aSym'
SHAPE = (20, 24, 22)
GRID = np.diag([2.0, 2.0, 2.0, 1.0])


def put(path, data, affine=GRID):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


@pytest.fixture
def scan(tmp_path):
    relative = 'sub-01/ses-1/anat/sub-01_ses-1_run-2_T1w.nii.gz'
    path = put(tmp_path / 'bids' / relative, np.ones(SHAPE))
    entities = {'sub': '01', 'ses': '1', 'run': '2'}
    return Scan(path, relative, '01', '1', '2', entities, 'T1w', 'anat')


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'maps'
    folder.mkdir()
    return folder


def place(root, name):
    return root / 'sub-01' / 'ses-1' / 'anat' / name


@pytest.mark.parametrize(
    ('name', 'space'),
    [
        ('sub-01_ses-1_run-2_desc-aicbv_T1w.nii.gz', 'T1w'),
        ('sub-01_ses-1_run-2_space-T1w_desc-aicbv_T1w.nii', 'T1w'),
        (f'sub-01_ses-1_run-2_space-{SPACE}_res-1_desc-aicbv_T1w.nii.gz', SPACE),
    ],
)
def test_map_is_found_by_the_name_of_its_scan(scan, root, name, space):
    path = put(place(root, name), np.ones(SHAPE))
    found = find_cbv_map('cbv', root, scan, SPACE)
    assert (found.path, found.space) == (path, space)
    assert found.uri == f'bids:cbv:sub-01/ses-1/anat/{name}'


def test_own_space_comes_before_template_space(scan, root):
    put(place(root, f'sub-01_ses-1_run-2_space-{SPACE}_desc-aicbv_T1w.nii.gz'), np.ones((9, 9, 9)))
    own = put(place(root, 'sub-01_ses-1_run-2_desc-aicbv_T1w.nii.gz'), np.ones(SHAPE))
    assert find_cbv_map('cbv', root, scan, SPACE).path == own


@pytest.mark.parametrize(
    'name', ['sub-01_ses-1_desc-aicbv_T1w.nii.gz', 'sub-01_ses-1_run-1_desc-aicbv_T1w.nii.gz']
)
def test_map_of_another_run_is_not_taken(scan, root, name):
    put(place(root, name), np.ones(SHAPE))
    assert find_cbv_map('cbv', root, scan, SPACE) is None


def test_unusable_maps_are_refused_with_the_reason(scan, root):
    path = place(root, 'sub-01_ses-1_run-2_desc-aicbv_T1w.nii.gz')
    shifted = GRID.copy()
    shifted[0, 3] = 1.5
    for data, affine, told in (
        (np.ones((9, 9, 9)), GRID, r'shape \(9, 9, 9\).*expected the grid of sub-01_ses-1_run-2'),
        (np.ones(SHAPE), shifted, '1.5 mm'),
        (np.ones((*SHAPE, 2)), GRID, 'three axes'),
    ):
        put(path, data, affine)
        with pytest.raises(UnusableImageError, match=told):
            find_cbv_map('cbv', root, scan, SPACE)
    path.write_bytes(b'')
    with pytest.raises(MissingInputError, match='datalad get'):
        find_cbv_map('cbv', root, scan, SPACE)
    path.write_bytes(b'no image')
    with pytest.raises(UnusableImageError, match='cannot be read'):
        find_cbv_map('cbv', root, scan, SPACE)
    path.unlink()
    put(place(root, 'sub-01_ses-1_run-2_space-fsLR_desc-aicbv_T1w.nii.gz'), np.ones(SHAPE))
    with pytest.raises(UnusableImageError, match=f'space fsLR; expected .* {SPACE}'):
        find_cbv_map('cbv', root, scan, SPACE)


def test_side_file_must_not_name_another_scan(scan, root):
    path = put(place(root, 'sub-01_ses-1_run-2_desc-aicbv_T1w.nii.gz'), np.ones(SHAPE))
    side = path.with_name(path.name.replace('.nii.gz', '.json'))
    folder = 'bids:raw:sub-01/ses-1/anat'
    side.write_text(json.dumps({'Sources': [f'{folder}/sub-01_ses-1_run-1_T1w.nii.gz']}))
    with pytest.raises(UnusableImageError, match='run-1_T1w'):
        find_cbv_map('cbv', root, scan, SPACE)
    side.write_text(json.dumps({'Sources': [f'{folder}/{scan.path.name}', 'a_desc-x_T1w.nii']}))
    assert find_cbv_map('cbv', root, scan, SPACE).path == path


def ramp(shape, affine):
    """Intensity that is linear in RAS+ mm, so that trilinear samples are exact."""
    points = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    return (500 + points @ [3.0, -2.0, 1.0]).reshape(shape)


@pytest.fixture
def mask():
    inside = np.zeros(SHAPE, bool)
    inside[4:16, 5:19, 4:18] = True
    return inside


def test_map_of_own_space_follows_the_transform(mask):
    move = np.eye(4)
    move[:3, 3] = (4.0, -3.0, 2.5)
    still = np.zeros((*SHAPE, 3), np.float32)
    native = GRID.copy()
    native[:3, 3] = -12.0
    data = ramp((34, 36, 34), native)
    warped = cbv_on_template(data, native, mask, GRID, SpatialTransform(move, still, still, GRID))
    expected = ramp(SHAPE, move @ GRID)
    assert np.allclose(warped[mask], expected[mask], atol=1e-3)
    assert not warped[~mask].any()


def test_map_of_template_space_is_only_resampled(mask):
    coarse = np.diag([3.0, 3.0, 3.0, 1.0])
    warped = cbv_on_template(ramp((16, 18, 16), coarse), coarse, mask, GRID)
    assert np.allclose(warped[mask], ramp(SHAPE, GRID)[mask], atol=1e-3)


def test_map_must_cover_the_brain_and_show_something(mask):
    data = ramp(SHAPE, GRID)
    data[0, 0, 0] = np.nan  # outside the brain: no matter
    assert np.isfinite(cbv_on_template(data, GRID, mask, GRID)).all()
    data[:9] = np.nan
    with pytest.raises(UnusableImageError, match=r'finite values in 5\d % of the brain'):
        cbv_on_template(data, GRID, mask, GRID)
    with pytest.raises(UnusableImageError, match='every voxel of the brain is 7'):
        cbv_on_template(np.full(SHAPE, 7.0), GRID, mask, GRID, source='m.nii')


def test_generator_makes_a_map_of_the_brain(tmp_path, mask):
    import torch

    from bids_brainage.models.aicbv_mamba import AICBVMamba

    torch.manual_seed(0)
    options = {'preset': 'test'}
    save_generator(AICBVMamba(**options), tmp_path / 'mamba.safetensors', options)
    t1w = ramp(SHAPE, GRID)
    made = generate(tmp_path / 'mamba.safetensors', t1w.astype(np.float32), mask, device='cpu')
    assert made.shape == SHAPE
    assert np.ptp(made[mask]) > 0
    assert not made[~mask].any()
    again = generate(tmp_path / 'mamba.safetensors', 3 * t1w.astype(np.float32), mask)
    assert np.allclose(again, made, atol=1e-4)  # the scale of the scan does not matter
