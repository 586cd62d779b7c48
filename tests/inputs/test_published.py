"""Inputs of published networks equal the transforms that their authors use, in stored order."""

import numpy as np
import pytest

from bids_brainage.errors import UnusableImageError
from bids_brainage.inputs.published import (
    BOX,
    prepare_brainagenext,
    prepare_pyment,
    prepare_synthba,
    white_matter,
)
from bids_brainage.models.registry import model_info

TOLERANCE = 1e-5
AFFINE = np.eye(4)
AFFINE[:3, 3] = -91, -126, -72


@pytest.fixture(scope='module')
def brain():
    """A lopsided brain on FSL's grid, RAS+: grey matter about 70, white about 100."""
    rng = np.random.default_rng(0)
    data = np.zeros(BOX, np.float32)
    data[20:151, 15:201, 12:140] = rng.normal(70, 5, (131, 186, 128))
    data[50:121, 50:161, 40:110] = rng.normal(100, 3, (71, 111, 70))
    return data


def stored(data):
    return np.ascontiguousarray(data[::-1])


def monai_transforms():
    return pytest.importorskip('monai.transforms', reason='MONAI is the independent build')


def test_synthba_is_what_monai_makes_of_the_stored_array(brain):
    transforms = monai_transforms()
    made = stored(brain)[None]
    for step in (
        transforms.Spacing(pixdim=1.4),
        transforms.ResizeWithPadOrCrop(spatial_size=(130, 130, 130), mode='minimum'),
        transforms.ScaleIntensity(minv=0, maxv=1),
    ):
        made = step(made)
    volume, affine = prepare_synthba(brain, AFFINE)
    np.testing.assert_allclose(stored(volume), np.asarray(made)[0], atol=1e-4)
    np.testing.assert_allclose(affine, model_info('densenet201').input['affine'], atol=1e-9)


@pytest.mark.parametrize('wide', [False, True])
def test_brainagenext_is_what_monai_makes_of_the_stored_array(brain, wide):
    transforms = monai_transforms()
    brain = brain.copy()
    if wide:  # larger than the grid along two axes, odd along one
        brain[3:176, 90, 80] = 60
        brain[90, 4:214, 80] = 60
    made = stored(brain)[None]
    for step in (
        transforms.CropForeground(allow_smaller=True),
        transforms.SpatialPad(spatial_size=(160, 192, 160)),
        transforms.CenterSpatialCrop(roi_size=(160, 192, 160)),
    ):
        made = step(made)
    made = np.asarray(made)[0].astype(float)
    values = made[made > 0]
    volume, affine = prepare_brainagenext(brain, AFFINE)
    expected = (made - values.mean()) / values.std(ddof=1)
    np.testing.assert_allclose(stored(volume), expected, atol=TOLERANCE)
    # the affine puts every voxel where it was
    inside = np.argwhere(volume > volume.min())[::100_001]
    there = np.rint(inside @ affine[:3, :3].T + affine[:3, 3] - AFFINE[:3, 3]).astype(int)
    scale = values.std(ddof=1)
    for index, place in zip(inside, there, strict=True):
        found = volume[tuple(index)] * scale + values.mean()
        assert found == pytest.approx(brain[tuple(place)], abs=1e-3)


def test_pyment_is_the_crop_of_the_stored_array_with_white_matter_at_110(brain):
    assert white_matter(brain) == pytest.approx(100, abs=1.5)
    volume, affine = prepare_pyment(brain, AFFINE)
    crop = stored(brain)[6:173, 2:214, 0:160]
    expected = np.clip(crop * 110 / white_matter(brain), 0, 255) / 255
    np.testing.assert_allclose(stored(volume), expected, atol=TOLERANCE)
    np.testing.assert_allclose(affine, model_info('sfcn_ranking').input['affine'])


@pytest.mark.parametrize('prepare', [prepare_synthba, prepare_pyment, prepare_brainagenext])
def test_what_is_no_brain_on_the_grid_is_refused(prepare, brain):
    with pytest.raises(UnusableImageError, match=r'\(182, 218, 182\).* found shape'):
        prepare(brain[:100], AFFINE)
    with pytest.raises(UnusableImageError, match='brain mask'):
        prepare(np.zeros(BOX, np.float32), AFFINE)
