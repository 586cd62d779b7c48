"""Finding the brain: in a stripped image, in a whole head, and how much of it is cut off."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bids_brainage.preprocessing import brainmask
from bids_brainage.preprocessing.image import foreground_mask, load_canonical
from bids_brainage.preprocessing.registration import dice

STRIPPED_DICE = 0.98
DEEPBET_DICE = 0.90  # simulated heads of 3 mm; real heads of 1 mm are closer


def test_stripped_image_keeps_its_mask_and_loses_holes_and_specks(take_scan):
    bare = take_scan('mask', skull_strip=True)
    data = bare.data.copy()
    centre = np.argwhere(bare.mask).mean(axis=0).astype(int)
    hole = tuple(slice(c - 2, c + 3) for c in centre)
    data[hole] = 0
    data[:2, :2, :2] = 500
    mask = brainmask.brain_mask_from_stripped(data, foreground_mask(data))
    assert dice(mask, bare.mask) > STRIPPED_DICE
    assert mask[hole].all()
    assert not mask[:3, :3, :3].any()


def test_stripped_image_that_was_smoothed_loses_its_halo(take_scan):
    bare = take_scan('mask', skull_strip=True)
    sharp = foreground_mask(bare.data)
    assert brainmask.without_faded_rim(bare.data, sharp) is sharp
    smooth = gaussian_filter(bare.data.astype('f4'), 0.6)
    halo = foreground_mask(smooth)
    mask = brainmask.brain_mask_from_stripped(smooth, halo)
    assert halo.sum() > 1.3 * bare.mask.sum()
    assert mask.sum() == pytest.approx(bare.mask.sum(), rel=0.08)
    assert dice(mask, bare.mask) > 0.96


def test_halo_is_measured_from_the_background(take_scan):
    bare = take_scan('mask', skull_strip=True)
    smooth = gaussian_filter(bare.data.astype('f4'), 0.6)
    above = brainmask.without_faded_rim(smooth - 1000, smooth != 0)
    assert np.array_equal(above, brainmask.without_faded_rim(smooth, smooth != 0))


def test_brain_that_was_centred_keeps_its_mask(take_scan):
    bare = take_scan('mask', skull_strip=True)
    brain = bare.data[bare.mask]
    centred = np.where(bare.mask, (bare.data - brain.mean()) / brain.std(), 0)
    assert brainmask.without_faded_rim(centred, bare.mask) is bare.mask


def test_stripped_image_may_fill_its_grid():
    full = np.ones((20, 20, 20), bool)
    assert brainmask.brain_mask_from_stripped(full.astype(float), full).all()


def test_deepbet_finds_the_brain_of_a_head(head):
    mask = brainmask.brain_mask_deepbet(head.data, head.affine)
    assert dice(mask, head.mask) > DEEPBET_DICE


def uniform(head, snr=40.0):
    """Make of a head the uniform image of MP2RAGE: 0 to 4095, and noise where there is no signal.

    Both inversion images get noise; the ratio of the two is tissue contrast within the head and
    salt and pepper around 2048 in air and bone (Marques et al. 2010,
    doi:10.1016/j.neuroimage.2009.10.002).
    """
    rng = np.random.default_rng(0)
    bright = np.clip(head.data / np.percentile(head.data[head.mask], 95), 0, 1.1)
    wanted = 0.75 * bright - 0.4501
    ratio = (1 - np.sqrt(1 - 4 * wanted**2)) / (2 * wanted)
    signal = gaussian_filter((bright > 0.08).astype(float), 0.4)
    first = signal * ratio + rng.normal(0, 1 / snr, signal.shape)
    second = signal + rng.normal(0, 1 / snr, signal.shape)
    return np.float32(2047.5 + 4095 * first * second / (first**2 + second**2))


def test_brain_is_found_in_the_noise_around_a_uniform_image(head, tmp_path):
    path = tmp_path / 'sub-01_UNIT1.nii.gz'
    nib.save(nib.Nifti1Image(uniform(head), head.affine), path)
    data, affine, facts = load_canonical(path)
    corner = data[:8, :8, -8:]
    assert abs(np.mean(corner) - 2048) < 200 and np.std(corner) > 1000  # no quiet background
    assert not facts.skull_stripped
    mask, method = brainmask.find_brain(data, affine, skull_stripped=facts.skull_stripped)
    assert method == 'deepbet'
    assert dice(mask, head.mask) > DEEPBET_DICE
    found, true = (brainmask.volume_ml(m, affine) for m in (mask, head.mask))
    assert found == pytest.approx(true, rel=0.05)


def test_largest_component():
    mask = np.zeros((9, 9, 9), bool)
    mask[1, 1, 1] = mask[4:7, 4:7, 4:7] = True
    kept = brainmask.largest_component(mask)
    assert kept.sum() == 27
    assert not kept[1, 1, 1]
    assert not brainmask.largest_component(np.zeros((3, 3, 3), bool)).any()


def test_cut_area_and_volume_are_in_cm2_and_ml():
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    mask = np.zeros((10, 20, 10), bool)
    mask[2:8, 5:15, :4] = True  # 6 x 10 voxels of 1 x 2 mm on the lowest plane
    assert brainmask.touches_border(mask, affine) == pytest.approx(6 * 10 * 2 / 100)
    assert brainmask.volume_ml(mask, affine) == pytest.approx(6 * 10 * 4 * 10 / 1000)
    mask[..., :4], mask[2:8, 5:15, 3:7] = False, True
    assert brainmask.touches_border(mask, affine) == 0
