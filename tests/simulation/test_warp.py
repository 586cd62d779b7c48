import numpy as np
import torch

from bids_brainage.simulation.grid import Grid, resample_to, sample, spline_matrix
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.warp import border_window, curl_free_velocity, smooth_noise

SPACING = 3.0  # mm
INVERSE_TOLERANCE = 0.3  # mm, mean


def smooth_velocity(seed: int, size: float) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    noise = np.stack([smooth_noise(rng, (32, 28, 30), SPACING, 12.0) for _ in range(3)])
    return torch.from_numpy((size * noise * border_window(noise.shape[1:], 6)).astype('f4'))


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
    grid = Grid((32, 28, 30), SPACING, (0.0, 0.0, 0.0))
    points = field.grid_points(grid)
    forward, inverse = (field.exponentiate(v, grid, points) for v in (velocity, -velocity))
    assert forward.abs().max() > 3  # a warp worth the test
    assert field.jacobian(forward, SPACING).min() > 0
    rest = forward + field.sample(inverse, grid, points + forward)
    assert rest.norm(dim=0).mean() < INVERSE_TOLERANCE / 3


def test_jacobian_of_a_uniform_scaling():
    x = torch.from_numpy(np.indices((6, 7, 8)).astype('f4') * SPACING)
    np.testing.assert_allclose(field.jacobian(0.1 * x, SPACING), 1.1**3, rtol=1e-5)


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
