"""Posteriors against known tissue: a phantom with known partial volume, and a simulated head."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from bids_brainage.preprocessing.atlas import load_atlas
from bids_brainage.preprocessing.segmentation import Structure, segment
from bids_brainage.preprocessing.transforms import voxel_points

PHANTOM_VOLUME_TOLERANCE = 0.05
RIM_GREY = 0.15  # mean grey matter in voxels that are a mixture of fluid and white matter
# The head has 3 mm voxels, so that hardly a sulcus holds pure fluid: grey matter comes out low.
WHITE_TOLERANCE, GREY_TOLERANCE, VENTRICLE_TOLERANCE = 0.08, 0.20, 0.35
MEANS = {'csf': 150.0, 'gm': 600.0, 'wm': 900.0}
STRUCTURES = (
    Structure(1, 'lateral_ventricle', 'CSF', 'csf'),
    Structure(2, 'cerebral_white_matter', 'WM', 'wm'),
    Structure(3, 'cortex', 'GM', 'gm'),
    Structure(4, 'csf', 'CSF', 'csf'),
)


@pytest.fixture(scope='module')
def phantom():
    """Fluid in white matter in grey matter in fluid, each voxel a mixture; blurred priors."""
    fine = 4
    axis = (np.arange(48 * fine) + 0.5) / fine - 24
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    edges = (0, 8, 16, 20, 99)
    fractions = np.stack(
        [
            ((radius >= a) & (radius < b)).reshape(48, fine, 48, fine, 48, fine).mean((1, 3, 5))
            for a, b in pairwise(edges)
        ]
    )
    coarse = radius.reshape(48, fine, 48, fine, 48, fine).mean((1, 3, 5))
    mask = coarse < 22.5
    clean = np.tensordot([MEANS[s.intensity] for s in STRUCTURES], fractions, 1)
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape)
    priors = np.stack([ndimage.gaussian_filter(f, 1.5) for f in fractions])
    return noisy[mask], priors[:, mask], fractions[:, mask]


@pytest.fixture(scope='module')
def segmented(phantom):
    intensity, priors, _ = phantom
    return segment(intensity, priors, STRUCTURES)


def test_volumes_of_the_phantom(phantom, segmented):
    truth = dict(zip((s.name for s in STRUCTURES), phantom[2].sum(axis=1), strict=True))
    for name, volume in segmented.volumes_ml(1.0).items():
        assert volume == pytest.approx(truth[name], rel=PHANTOM_VOLUME_TOLERANCE), name


def test_intensities_are_found(segmented):
    for name, mean in MEANS.items():
        assert segmented.means[name] == pytest.approx(mean, rel=0.05)
        assert 15 < segmented.sds[name] < 60


def test_rim_of_the_ventricle_is_not_grey(phantom, segmented):
    intensity, _, fractions = phantom
    rim = (fractions[0] > 0.2) & (fractions[1] > 0.2)
    assert rim.sum() > 300
    # intensity alone would call many of them grey
    between = np.abs(intensity[rim] - MEANS['gm']) < 150
    assert between.mean() > 0.3
    assert segmented.tissue('GM')[rim].mean() < RIM_GREY
    error = segmented.tissue('CSF')[rim] - fractions[0][rim]
    assert abs(error.mean()) < 0.1


def test_posteriors_are_probabilities(segmented):
    assert segmented.posterior.min() >= 0
    np.testing.assert_allclose(segmented.posterior.sum(axis=0), 1, atol=1e-5)
    total = sum(segmented.tissue(name) for name in ('GM', 'WM', 'CSF'))
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_labels_are_the_most_probable_structures(phantom, segmented):
    pure = phantom[2].max(axis=0) > 0.99
    expected = np.array([s.index for s in STRUCTURES])[phantom[2].argmax(axis=0)]
    assert (segmented.labels() == expected)[pure].mean() > 0.95


def test_scale_of_the_image_does_not_matter(phantom, segmented):
    intensity, priors, _ = phantom
    other = segment(0.01 * intensity, priors, STRUCTURES)
    np.testing.assert_allclose(other.posterior, segmented.posterior, atol=1e-3)


def test_unforeseen_anatomy_gets_a_label(phantom):
    """A cavity where the atlas knows white matter only is fluid all the same."""
    intensity, priors, fractions = phantom
    changed, white = intensity.copy(), np.flatnonzero(fractions[1] == 1)
    hole = white[:200]
    changed[hole] = np.random.default_rng(1).normal(MEANS['csf'], 25, len(hole))
    narrow = np.where(fractions == 1, fractions, priors)
    found = segment(changed, narrow, STRUCTURES)
    assert found.tissue('CSF')[hole].mean() > 0.9


def test_tissue_of_a_simulated_head(registered, head):
    transform, _ = registered
    atlas = load_atlas()
    points = transform.to_template(voxel_points(head.mask, head.affine))
    found = segment(head.data[head.mask], atlas.sample(points), atlas.structures)
    true = {name: float(t[head.mask].sum()) for name, t in head.truth.tissue.items()}
    assert found.tissue('WM').sum() == pytest.approx(true['wm'], rel=WHITE_TOLERANCE)
    assert found.tissue('GM').sum() == pytest.approx(true['gm'], rel=GREY_TOLERANCE)
    volumes = found.volumes_ml(head.voxel_ml)
    ventricles = volumes['lateral_ventricle'] + volumes['third_ventricle']
    true = sum(head.truth.volumes[f'{name}_ventricle'] for name in ('lateral', 'third'))
    true += head.truth.volumes['temporal_horn']
    assert ventricles == pytest.approx(true, rel=VENTRICLE_TOLERANCE)
    for name, tissue in (('WM', 'wm'), ('GM', 'gm')):
        truth = head.truth.tissue[tissue][head.mask]
        assert np.corrcoef(found.tissue(name), truth)[0, 1] > 0.75
