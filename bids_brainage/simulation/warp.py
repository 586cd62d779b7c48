"""Smooth invertible warps: stationary velocity fields and their exponentials.

Fields have shape (3, nx, ny, nz), are in mm and live on a `Grid`.  A displacement ``u``
means the map ``x -> x + u(x)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Array, sample_vectors


def identity_index(shape: tuple[int, ...]) -> Array:
    """Voxel indices of a volume, shape (3, nx, ny, nz)."""
    return np.indices(shape, dtype='f4')


def compose(outer: Array, inner: Array, spacing: float) -> Array:
    """Displacement of ``outer after inner`` on the same grid (zero outside the grid)."""
    index = identity_index(inner.shape[1:]) + inner / np.float32(spacing)
    return inner + sample_vectors(outer, index)


def exponentiate(velocity: Array, spacing: float, squarings: int = 6) -> Array:
    """Flow of a stationary velocity field for unit time, by scaling and squaring.

    The inverse map is ``exponentiate(-velocity, ...)``.

    Parameters
    ----------
    velocity : array, shape (3, nx, ny, nz)
        mm per unit time.
    spacing : float
        Voxel size, mm.
    squarings : int
        The first step lasts ``2 ** -squarings``.

    Returns
    -------
    array, shape (3, nx, ny, nz)
        Displacement, mm.

    References
    ----------
    Arsigny et al., MICCAI 2006, doi:10.1007/11866565_113.
    """
    displacement = velocity * np.float32(0.5**squarings)
    for _ in range(squarings):
        displacement = compose(displacement, displacement, spacing)
    return displacement


def jacobian_determinant(displacement: Array, spacing: float) -> Array:
    """Local volume change of ``x -> x + u(x)``: 1 keeps, > 1 grows, <= 0 folds.

    Returns
    -------
    array, shape (nx, ny, nz), float32
    """
    matrix = np.stack([np.stack(np.gradient(u, spacing)) for u in displacement])
    for k in range(3):
        matrix[k, k] += 1
    a, b, c = matrix
    return (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        - a[1] * (b[0] * c[2] - b[2] * c[0])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    ).astype('f4')


def _wave_numbers(shape: tuple[int, ...], spacing: float) -> list[NDArray]:
    """Angular wave numbers for `rfftn`, ready to broadcast, rad/mm."""
    x, y, z = shape
    axes = (np.fft.fftfreq(x, spacing), np.fft.fftfreq(y, spacing), np.fft.rfftfreq(z, spacing))
    return [
        (2 * np.pi * axis).astype('f4').reshape([-1 if k == j else 1 for j in range(3)])
        for k, axis in enumerate(axes)
    ]


def curl_free_velocity(divergence: Array, spacing: float, sigma: float) -> Array:
    """Gradient field whose divergence is a low-passed copy of `divergence`.

    Solves ``lap(p) = gauss(divergence)`` with periodic borders in Fourier space and returns
    ``grad(p)``; the mean of the divergence is lost.

    Parameters
    ----------
    divergence : array, shape (nx, ny, nz)
        Wanted rate of log volume change, per unit time.
    spacing, sigma : float
        Voxel size and SD of the Gaussian low-pass, mm.

    Returns
    -------
    array, shape (3, nx, ny, nz), mm per unit time
    """
    from scipy.fft import irfftn, rfftn

    waves = _wave_numbers(divergence.shape, spacing)
    squared = sum(k * k for k in waves)
    squared[0, 0, 0] = 1
    spectrum = rfftn(divergence) * np.exp(-0.5 * sigma**2 * squared) / squared
    return np.stack([irfftn(-1j * k * spectrum, divergence.shape) for k in waves]).astype('f4')


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], spacing: float, sigma: float
) -> Array:
    """Gaussian random field of unit variance.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    spacing : float
        Voxel size, mm.
    sigma : float
        SD of the Gaussian kernel that makes it smooth, mm.

    Returns
    -------
    array, shape `shape`, float32
    """
    from scipy.fft import irfftn, rfftn

    white = rng.standard_normal(shape, dtype='f4')
    squared = sum(k * k for k in _wave_numbers(shape, spacing))
    smooth = irfftn(rfftn(white) * np.exp(-0.5 * sigma**2 * squared), shape)
    return ((smooth - smooth.mean()) / smooth.std()).astype('f4')


def border_window(shape: tuple[int, ...], width: int) -> Array:
    """Factor that falls from 1 to 0 over the outer `width` voxels, shape `shape`."""
    window = np.ones(shape, 'f4')
    for k, n in enumerate(shape):
        edge = np.minimum(np.arange(n), np.arange(n)[::-1])
        ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(edge / width, 0, 1))
        window *= ramp.astype('f4').reshape([-1 if k == j else 1 for j in range(3)])
    return window
