"""Sample the images of a person on the grid of any space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bids_brainage.preprocessing.normalise import CHUNK, brain_box
from bids_brainage.preprocessing.transforms import SpatialTransform, sample_image, voxel_points


@dataclass(frozen=True)
class Sampling:
    """Where the voxels of a grid lie in the person's own image and in the template.

    Attributes
    ----------
    inside : ndarray of bool, shape (X, Y, Z)
        Voxels of the grid that can hold brain, N of them.
    affine : ndarray, shape (4, 4)
        Voxel index of the grid → RAS+ mm.
    native, template : ndarray of float32, shape (N, 3)
        RAS+ mm of the native image, and of the template that scans are registered to.
    """

    inside: np.ndarray
    affine: np.ndarray
    native: np.ndarray
    template: np.ndarray

    def pull(
        self, data: np.ndarray, affine: np.ndarray, *, native: bool, order: int = 1
    ) -> np.ndarray:
        """Resample an image onto the grid.

        Parameters
        ----------
        data, affine
            Image on any grid of the native or of the template space.
        native : bool
            Which of the two.
        order : int
            0 nearest neighbour, 1 trilinear.

        Returns
        -------
        ndarray, shape (X, Y, Z)
            0 where no brain can be.
        """
        points = self.native if native else self.template
        values = sample_image(data, affine, points, order=order)
        out = np.zeros(self.inside.shape, values.dtype)
        out[self.inside] = values
        return out


def sample_space(
    brain: np.ndarray,
    affine: np.ndarray,
    transform: SpatialTransform,
    between: SpatialTransform | None = None,
) -> Sampling:
    """Relate the grid of a space to a person.

    Parameters
    ----------
    brain : ndarray of bool, shape (X, Y, Z)
        Brain of the space's own template.
    affine : ndarray, shape (4, 4)
        Voxel index of that grid → RAS+ mm.
    transform : SpatialTransform
        Template that scans are registered to → native image.
    between : SpatialTransform, optional
        Space → that template; none if it is the same space.
    """
    box, _ = brain_box(brain, affine)
    inside = np.zeros(brain.shape, bool)
    inside[box] = True
    points = voxel_points(inside, affine)
    template = points if between is None else _in_chunks(between.to_native, points)
    return Sampling(inside, affine, _in_chunks(transform.to_native, template), template)


def sample_native(mask: np.ndarray, affine: np.ndarray, transform: SpatialTransform) -> Sampling:
    """Relate the brain voxels of the native grid to the template; see `sample_space`."""
    points = voxel_points(mask, affine)
    return Sampling(mask, affine, points, _in_chunks(transform.to_template, points))


def _in_chunks(mapping: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """Map points part by part, which keeps the memory small."""
    parts = [mapping(points[i : i + CHUNK]) for i in range(0, len(points), CHUNK)]
    return np.concatenate(parts).astype(np.float32)
