"""Smooth velocity fields and noise, of which warps are made (`lifespan.field`).

Fields have shape (3, nx, ny, nz), are in mm and live on a `Grid`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Array


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
