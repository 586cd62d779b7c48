import numpy as np
import pytest

from bids_brainage.errors import OptionError, ProcessingError
from bids_brainage.simulation import ageing
from bids_brainage.simulation.ageing import (
    DRIVEN,
    MIN_SULCAL_SHARE,
    ageing_curve,
    solve_volumes,
    target_volumes,
    volume_ratio,
)
from bids_brainage.simulation.anatomy import REGIONS
from bids_brainage.simulation.grid import Grid, resample_to, sample, spline_matrix
from bids_brainage.simulation.warp import (
    border_window,
    compose,
    curl_free_velocity,
    exponentiate,
    jacobian_determinant,
    smooth_noise,
)

SPACING = 3.0  # mm
INVERSE_TOLERANCE = 0.3  # mm, mean


def smooth_velocity(seed: int, size: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = np.stack([smooth_noise(rng, (32, 28, 30), SPACING, 12.0) for _ in range(3)])
    return (size * noise * border_window(noise.shape[1:], 6)).astype('f4')


def test_grid_maps_its_own_points_to_indices():
    grid = Grid((4, 5, 6), 2.0, (-3.0, 1.0, 7.0))
    points = grid.points()
    np.testing.assert_allclose(points[:, 1, 2, 3], (-1.0, 5.0, 13.0))
    np.testing.assert_allclose(grid.index(points), np.indices(grid.shape), atol=1e-6)
    homogeneous = grid.affine @ (1, 2, 3, 1)
    np.testing.assert_allclose(points[:, 1, 2, 3], homogeneous[:3])


def test_coarser_grid_covers_the_finer_one():
    fine = Grid((31, 20, 25), 1.0, (0.0, -5.0, 2.0))
    coarse = fine.coarser(3.0, 6.0)
    for k in range(3):
        assert coarse.axis(k)[0] <= fine.axis(k)[0] - 6
        assert coarse.axis(k)[-1] >= fine.axis(k)[-1] + 6


def test_spline_upsampling_is_exact_for_a_linear_field():
    fine = Grid((21, 21, 21), 1.0, (0.0, 0.0, 0.0))
    coarse = fine.coarser(4.0, 0.0)
    x, y, z = coarse.points()
    wanted = np.tensordot((1.0, -2.0, 0.5), fine.points(), 1)
    np.testing.assert_allclose(resample_to(x - 2 * y + 0.5 * z, coarse, fine), wanted, atol=1e-4)
    matrix = spline_matrix(np.arange(5.0), np.arange(5.0))
    np.testing.assert_allclose(matrix, np.eye(5), atol=1e-6)


def test_sample_outside_is_zero_or_border():
    volume = np.full((3, 3, 3), 2.0, 'f4')
    far = np.full((3, 1), 10.0, 'f4')
    assert sample(volume, far)[0] == 0
    assert sample(volume, far, np.nan)[0] == 2


def test_exponential_is_invertible_and_does_not_fold():
    velocity = smooth_velocity(0, 4.0)
    forward, inverse = exponentiate(velocity, SPACING), exponentiate(-velocity, SPACING)
    assert np.abs(forward).max() > 3  # a warp worth the test
    assert jacobian_determinant(forward, SPACING).min() > 0
    rest = np.linalg.norm(compose(inverse, forward, SPACING), axis=0)
    assert rest.mean() < INVERSE_TOLERANCE / 3


def test_jacobian_of_a_uniform_scaling():
    x = np.indices((6, 7, 8)).astype('f4') * SPACING
    np.testing.assert_allclose(jacobian_determinant(0.1 * x, SPACING), 1.1**3, rtol=1e-5)


def test_curl_free_velocity_has_the_wanted_divergence():
    rng = np.random.default_rng(3)
    wanted = smooth_noise(rng, (32, 32, 32), SPACING, 12.0)
    velocity = curl_free_velocity(wanted, SPACING, sigma=0.0)
    central = [
        (np.roll(v, -1, k) - np.roll(v, 1, k)) / (2 * SPACING) for k, v in enumerate(velocity)
    ]
    assert np.corrcoef(sum(central).ravel(), wanted.ravel())[0, 1] > 0.999
    curl = np.roll(velocity[0], -1, 1) - np.roll(velocity[0], 1, 1)
    curl -= np.roll(velocity[1], -1, 0) - np.roll(velocity[1], 1, 0)
    assert np.abs(curl / (2 * SPACING)).max() < 0.02 * np.abs(wanted).max()


def test_smooth_noise_is_reproducible_and_standardised():
    first, second = (smooth_noise(np.random.default_rng(5), (20, 20, 20), 2, 6) for _ in '12')
    np.testing.assert_array_equal(first, second)
    assert abs(first.mean()) < 1e-5 and abs(first.std() - 1) < 1e-4


def nested_balls() -> np.ndarray:
    """Seven regions: a ball for each small one, shells for cortex and sulcal fluid."""
    x = (np.indices((40, 40, 40)) - 19.5) * SPACING
    radius = np.linalg.norm(x, axis=0)
    regions = np.zeros((7, 40, 40, 40), 'f4')
    name = {region: k for k, region in enumerate(REGIONS)}
    regions[name['sulcal_csf']] = (radius > 36) & (radius < 43)
    regions[name['cortex']] = (radius > 27) & (radius <= 36)
    regions[name['white_matter']] = radius <= 27
    places = {'ventricles': 0, 'hippocampus': -18, 'deep_grey': 18}
    for region, centre in places.items():
        ball = np.linalg.norm(x - np.reshape((centre, 0, 0), (3, 1, 1, 1)), axis=0) < 8
        regions[name['white_matter']][ball] = 0
        regions[name[region]] = ball
    lower = (x[2] < -18) & (regions[name['cortex']] > 0)
    regions[name['cerebellum']] = lower
    regions[name['cortex']][lower] = 0
    return regions


def test_solved_warp_reaches_the_wanted_volumes():
    regions = nested_balls()
    start = regions.sum((1, 2, 3), dtype='f8')
    wanted = target_volumes(start, np.array([2.2, 0.92, 0.9, 0.88, 0.97, 0.95])) / start
    warp = solve_volumes(regions, SPACING, wanted)
    np.testing.assert_allclose(warp.achieved, wanted, rtol=0.02)
    jacobian = np.exp(warp.log_jacobian)
    after = (regions * jacobian).sum((1, 2, 3)) / start  # the other way to measure
    np.testing.assert_allclose(after, wanted, rtol=0.08)
    assert jacobian.min() > 0
    rest = np.linalg.norm(compose(warp.inverse, warp.forward, SPACING), axis=0)
    assert rest.mean() < INVERSE_TOLERANCE


def test_a_missed_target_is_refused(monkeypatch):
    monkeypatch.setattr(ageing, 'MAX_ROUNDS', 1)
    regions = nested_balls()
    ratio = np.array([1.6, 0.99, 0.95, 0.9, 0.9, 0.95, 0.9])
    with pytest.raises(ProcessingError, match='smaller change'):
        solve_volumes(regions, SPACING, ratio)


def test_targets_keep_the_total_and_some_fluid():
    start = np.array([16.0, 250, 600, 6, 40, 450, 120])
    kept = target_volumes(start, volume_ratio(80.0))
    assert kept.sum() == pytest.approx(start.sum())
    swollen = target_volumes(start, np.full(len(DRIVEN), 1.4))
    sulcal = REGIONS.index('sulcal_csf')
    assert swollen.sum() == pytest.approx(start.sum())
    assert swollen[sulcal] >= MIN_SULCAL_SHARE * start[sulcal]


def test_curve_passes_its_points_and_is_one_at_the_reference():
    curve = ageing_curve()
    np.testing.assert_allclose(volume_ratio(curve['reference_age']), 1)
    ventricles, cortex = DRIVEN.index('ventricles'), DRIVEN.index('cortex')
    ratios = np.array([volume_ratio(age) for age in range(20, 91, 10)])
    assert (np.diff(ratios[:, ventricles]) > 0).all()
    assert (np.diff(ratios[:, cortex]) < 0).all()
    listed = np.array(curve['regions']['ventricles'])
    np.testing.assert_allclose(ratios[:, ventricles] / ratios[0, ventricles], listed / listed[0])


@pytest.mark.parametrize('age', [4.0, 130.0])
def test_age_outside_the_curve_is_refused(age):
    with pytest.raises(OptionError, match='18 to 95'):
        volume_ratio(age)
