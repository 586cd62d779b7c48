"""What a real segmentation and registration do wrong, drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Grid
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.warp import smooth_noise

#: About which an affine registration errs: the middle of the brain, mm.
MIDDLE = (0.0, -18.0, 8.0)


@dataclass(frozen=True)
class Imperfection:
    """Errors of a real segmentation and registration.

    Most of an error belongs to the person's anatomy and comes back with every scan; a later
    scan differs from the first by the share `rescan`.

    Attributes
    ----------
    gain_sd : float
        SD of the log of the whole map's gain.
    patch_sd, patch_mm : float
        SD of the log of a smooth local gain, and its smoothness.
    shift_mm, shift_smooth_mm : float
        SD of the misplacement along each axis, and its smoothness.
    affine_mm, affine_degrees, affine_scale_sd : float
        SD of shift, rotation and log scale along and about each axis of an affine registration.
    shading_sd, shading_mm : float
        SD of the log of the bias field that is left, and its smoothness; new in every scan.
    registered : tuple of float
        Least and most of the warp that the deformation finds, drawn once for each person.  On 30
        real scans the log volume of the lateral ventricles varies by 0.67 between people, and
        still by 0.20 after registration, on 12 generated heads that went through the program by
        0.79 and 0.19; with a share of 0.65 it would be 0.32.
    rim : tuple of float
        Least and most grey matter that the segmentation sees where white matter and fluid blur
        into each other, per product of their shares, drawn once for each person.  Around the
        bodies of the lateral ventricles, 12 generated heads that went through the program have
        0.12 before the age of 35 and 0.13 after that of 74, real ones 0.12 and 0.13.
    rescan : float
        SD of what a later scan adds, relative to the SDs above.
    """

    gain_sd: float = 0.02
    patch_sd: float = 0.06
    patch_mm: float = 15.0
    shift_mm: float = 1.0
    shift_smooth_mm: float = 15.0
    affine_mm: float = 1.0
    affine_degrees: float = 1.0
    affine_scale_sd: float = 0.015
    shading_sd: float = 0.04
    shading_mm: float = 35.0
    registered: tuple[float, float] = (0.65, 0.95)
    rim: tuple[float, float] = (0.2, 1.4)
    rescan: float = 0.5

    def draw_gain(self, key: tuple[int, ...], scan: int, grid: Grid) -> NDArray[np.float32]:
        """Draw the gain of scan 1, 2, ... of a person on a grid, shape of `grid`."""
        total = np.zeros(grid.shape, 'f4')
        for rng, share in self._parts(key, scan):
            patches = smooth_noise(rng, grid.shape, grid.spacing, self.patch_mm)
            part = self.gain_sd * rng.standard_normal() + self.patch_sd * patches
            total += np.float32(share) * part.astype('f4')
        return np.exp(total)

    def draw_shift(self, key: tuple[int, ...], scan: int) -> NDArray[np.float32]:
        """Draw the misplacement of scan 1, 2, ... in mm on `FLOW`, shape (3, ...)."""
        total = np.zeros((3, *FLOW.shape), 'f4')
        for rng, share in self._parts(key, scan):
            for axis in total:
                noise = smooth_noise(rng, FLOW.shape, FLOW.spacing, self.shift_smooth_mm)
                axis += np.float32(share * self.shift_mm) * noise
        return total

    def draw_affine(self, key: tuple[int, ...], scan: int) -> NDArray[np.float64]:
        """Draw the error of an affine registration, template mm to template mm, shape (4, 4)."""
        from scipy.spatial.transform import Rotation

        drawn = np.zeros((3, 3))
        for rng, share in self._parts(key, scan):
            drawn += share * rng.standard_normal((3, 3))
        turn = Rotation.from_euler('xyz', self.affine_degrees * drawn[0], degrees=True)
        error = np.eye(4)
        error[:3, :3] = turn.as_matrix() * np.exp(self.affine_scale_sd * drawn[1])
        middle = np.array(MIDDLE)
        error[:3, 3] = middle - error[:3, :3] @ middle + self.affine_mm * drawn[2]
        return error

    def draw_shading(self, key: tuple[int, ...], grid: Grid) -> NDArray[np.float32]:
        """Draw what is left of a scan's bias field on a grid, shape of `grid`."""
        noise = smooth_noise(np.random.default_rng(key), grid.shape, grid.spacing, self.shading_mm)
        return np.exp(self.shading_sd * noise).astype('f4')

    def draw_habits(self, key: tuple[int, ...]) -> tuple[float, float]:
        """Draw the share of a person's warp that is found, and the weight of the rim."""
        rng = np.random.default_rng(key)
        return float(rng.uniform(*self.registered)), float(rng.uniform(*self.rim))

    def _parts(
        self, key: tuple[int, ...], scan: int
    ) -> Iterator[tuple[np.random.Generator, float]]:
        """Random numbers and share of the person's part, and of the scan's after the first."""
        yield np.random.default_rng([*key, 1]), 1.0
        if scan > 1:
            yield np.random.default_rng([*key, scan]), self.rescan
