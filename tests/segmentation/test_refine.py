"""Probabilities of a network that does not believe what the image shows."""

import numpy as np
import pytest

from bids_brainage.segmentation.measure import VOXEL_MM, network_grid, network_input
from bids_brainage.segmentation.refine import refine
from bids_brainage.segmentation.regions import load_regions

INDEX = {region.name: region.index for region in load_regions()}
FLUID, CORTEX, WHITE = (
    INDEX[name] for name in ('csf', 'frontal_lateral_cortex', 'frontal_white_matter')
)
SHAPE = (32, 32, 32)


@pytest.fixture
def ball():
    """White matter in cortex in air, and a wide sulcus in both that the network calls cortex."""
    axis = np.arange(32) - 15.5
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    truth = np.where(radius < 9, WHITE, np.where(radius < 13, CORTEX, 0))
    sulcus = (radius < 13) & (radius > 8) & (np.abs(axis) < 3)
    truth[sulcus] = FLUID
    data = np.select([truth == WHITE, truth == CORTEX, truth == FLUID], [900.0, 600.0, 200.0], 50)
    data += np.random.default_rng(0).normal(0, 30, SHAPE)
    data *= 1 + 0.01 * axis[:, None, None]  # a bias field
    found = np.full((*SHAPE, len(INDEX) + 1), 1e-4, np.float32)
    for label in (0, WHITE, CORTEX, FLUID):
        found[truth == label, label] = 1
    found[sulcus] = 1e-4
    found[sulcus, CORTEX], found[sulcus, FLUID] = 0.8, 0.2
    edge = (radius > 12) & (radius < 14) & ~sulcus & (truth != 0)
    found[edge, FLUID] = 0.3
    outer = (radius >= 13) & (radius < 14.5)  # fluid around the brain, sure enough
    data[outer] = 200 * (1 + 0.01 * np.broadcast_to(axis[:, None, None], SHAPE)[outer])
    found[outer] = 1e-4
    found[outer, FLUID] = 1
    found /= found.sum(-1, keepdims=True)
    return data, found, sulcus


def test_dark_sulcus_becomes_fluid_and_the_rest_stays(ball):
    data, found, sulcus = ball
    refined = refine(found, data)
    assert (found[sulcus].argmax(1) == CORTEX).all()
    assert (refined[sulcus].argmax(1) == FLUID).mean() > 0.95
    others = ~sulcus
    same = refined[others].argmax(1) == found[others].argmax(1)
    assert same.mean() > 0.99
    assert refined.sum(-1) == pytest.approx(1, abs=1e-5)
    assert found[..., 0] == pytest.approx(refined[..., 0], abs=0.05)


def test_scale_of_the_intensities_does_not_matter(ball):
    data, found, _ = ball
    assert refine(found, 3 * data - 1000) == pytest.approx(refine(found, data), abs=1e-3)


def test_nothing_to_learn_intensities_from(ball):
    data, _, _ = ball
    nothing = np.zeros((*SHAPE, len(INDEX) + 1), np.float32)
    nothing[..., 0] = 1
    assert (refine(nothing, data) == nothing).all()


def test_image_of_the_networks_voxels_is_taken_as_it_is():
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = -61.3, -70.2, -44.4
    data = np.random.default_rng(0).uniform(0, 100, (60, 70, 60))
    mask = np.zeros(data.shape, bool)
    mask[10:51, 8:61, 12:50] = True
    shape, target = network_grid(mask, affine)
    first = np.round((affine[:3, 3] - target[:3, 3]) / VOXEL_MM).astype(int)
    shown = network_input(data, affine, shape, target)
    inside = tuple(slice(a, a + n) for a, n in zip(first, data.shape, strict=True))
    assert np.corrcoef(shown[inside].ravel(), data.ravel())[0, 1] > 1 - 1e-9
