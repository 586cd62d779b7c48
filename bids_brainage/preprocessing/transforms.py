"""Affine and displacement between template and native space.

A `SpatialTransform` maps points of the *template* (fixed image) to points of the *native*
image (moving image), both in RAS+ millimetres::

    native = affine @ (x + displacement(x))

which is what pulls a native image onto the template grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

PARALLEL = 1e-9
"""Largest part of one axis along another of grids that count as parallel."""

DISPLACEMENT_STEP_MM = 1 / 1024
"""Displacements are stored as multiples of this length, far below any registration error, so
that the files compress well."""


INVERSE_MM, INVERSE_TURNS = 0.01, 60
"""Where the search of an inverse displacement ends, and how often it tries at most."""


@dataclass(frozen=True)
class SpatialTransform:
    """Template → native transform with its inverse displacement.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        RAS+ mm of the template → RAS+ mm of the native image.
    displacement : ndarray of float32, shape (X, Y, Z, 3)
        RAS+ mm, added to a template point before the affine.
    inverse_displacement : ndarray of float32, shape (X, Y, Z, 3)
        RAS+ mm, added after the inverse affine: ``x = z + inverse(z)``, ``z = affine⁻¹ native``.
    grid : ndarray, shape (4, 4)
        Voxel index of the displacement grids → RAS+ mm of the template.

    Examples
    --------
    >>> right = np.zeros((2, 2, 2, 3), np.float32)
    >>> right[..., 0] = 5  # each template point goes 5 mm to the right before the affine
    >>> transform = SpatialTransform(np.diag([2.0, 2, 2, 1]), right, -right, np.eye(4))
    >>> transform.to_native(np.array([[1.0, 2, 3]])).tolist()
    [[12.0, 4.0, 6.0]]
    >>> transform.to_template(np.array([[12.0, 4, 6]])).tolist()
    [[1.0, 2.0, 3.0]]
    >>> float(transform.jacobian().mean())  # 2 x 2 x 2
    8.0
    >>> transform.linear().to_native(np.array([[1.0, 2, 3]])).tolist()
    [[2.0, 4.0, 6.0]]
    """

    affine: np.ndarray
    displacement: np.ndarray
    inverse_displacement: np.ndarray
    grid: np.ndarray

    def to_native(self, points: np.ndarray) -> np.ndarray:
        """Map template points, shape (N, 3) in RAS+ mm, to native RAS+ mm."""
        moved = self.to_aligned(points)
        return moved @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_aligned(self, points: np.ndarray) -> np.ndarray:
        """Map template points to where they lie in the image aligned by the affine alone.

        Examples
        --------
        >>> shift = np.full((2, 2, 2, 3), 3.0, np.float32)
        >>> twice = np.diag([2.0, 2.0, 2.0, 1.0])
        >>> transform = SpatialTransform(twice, shift, -shift, np.eye(4))
        >>> point = np.array([[1.0, 0.0, 0.0]])
        >>> transform.to_aligned(point).tolist(), transform.to_native(point).tolist()
        ([[4.0, 3.0, 3.0]], [[8.0, 6.0, 6.0]])
        """
        return points + sample_vectors(self.displacement, self.grid, points)

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map native points, shape (N, 3) in RAS+ mm, to template RAS+ mm."""
        inverse = np.linalg.inv(self.affine)
        moved = points @ inverse[:3, :3].T + inverse[:3, 3]
        return moved + sample_vectors(self.inverse_displacement, self.grid, moved)

    def linear(self) -> SpatialTransform:
        """Return the affine alone, without the displacements."""
        still = np.zeros_like(self.displacement)
        return replace(self, displacement=still, inverse_displacement=still)

    def jacobian(self) -> np.ndarray:
        """Return the volume change template → native on the displacement grid.

        Returns
        -------
        ndarray of float32, shape (X, Y, Z)
            Determinant of the whole mapping: 2 means that a template voxel covers twice its
            volume in the native brain.
        """
        return jacobian_determinant(self.displacement, self.grid) * np.float32(
            abs(np.linalg.det(self.affine[:3, :3]))
        )


def save_transform(path: Path, transform: SpatialTransform) -> None:
    """Keep a transform between steps, with all its digits (``.npz``).

    Not compressed: that takes six seconds and saves two fifths.
    """
    np.savez(
        path,
        affine=transform.affine,
        displacement=transform.displacement,
        inverse_displacement=transform.inverse_displacement,
        grid=transform.grid,
    )


def load_transform(path: Path) -> SpatialTransform:
    """Read what `save_transform` wrote."""
    with np.load(path) as stored:
        return SpatialTransform(**{name: stored[name] for name in stored.files})


def quantised(displacement: np.ndarray) -> np.ndarray:
    """Round displacements to multiples of `DISPLACEMENT_STEP_MM`, so that files keep them."""
    return np.round(displacement / DISPLACEMENT_STEP_MM) * DISPLACEMENT_STEP_MM


def inverted(displacement: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the displacement that undoes another one.

    Parameters
    ----------
    displacement : ndarray, shape (X, Y, Z, 3)
        RAS+ mm; it folds nowhere.
    grid : ndarray, shape (4, 4)
        Voxel index → RAS+ mm, of the result, too.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, 3)
        ``v`` with ``v(y) = -displacement(y + v(y))``, to within `INVERSE_MM`.

    References
    ----------
    Chen et al. (2008), doi:10.1118/1.2816107: fixed-point iteration.

    Examples
    --------
    >>> stretch = np.zeros((5, 1, 1, 3))
    >>> stretch[..., 0] = 0.5 * np.arange(5)[:, None, None]  # x goes to 1.5 x
    >>> back = inverted(stretch, np.eye(4))
    >>> float(np.round(back[3, 0, 0, 0], 2))  # 3 comes from 2
    -1.0
    """
    points = grid_points(displacement.shape[:3], grid)
    found = np.zeros_like(points)
    left = np.arange(len(points))
    for turn in range(INVERSE_TURNS):
        before = found[left]
        after = -sample_vectors(displacement, grid, points[left] + before)
        # half a step ends the swinging where the displacement compresses strongly
        found[left] = after if turn < INVERSE_TURNS // 4 else (before + after) / 2
        left = left[np.abs(after - before).max(axis=1) > INVERSE_MM]
    return found.reshape(displacement.shape)


def jacobian_determinant(displacement: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return det(I + ∂u/∂x) of a displacement field.

    Parameters
    ----------
    displacement : ndarray, shape (X, Y, Z, 3)
        RAS+ mm.
    grid : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        1 where volume is kept, above 1 where the mapping expands, 0 or below where it folds.

    Examples
    --------
    >>> stretch = np.zeros((3, 3, 3, 3))
    >>> stretch[..., 0] = 0.5 * np.arange(3)[:, None, None]  # x goes to 1.5 x
    >>> float(jacobian_determinant(stretch, np.eye(4)).mean())
    1.5
    """
    per_mm = np.linalg.inv(grid[:3, :3])
    rows = (np.stack(np.gradient(displacement[..., c]), axis=-1) @ per_mm for c in range(3))
    x, y, z = (row + unit for row, unit in zip(rows, np.eye(3), strict=True))
    return (x * np.cross(y, z)).sum(axis=-1).astype(np.float32)


def sample_vectors(field: np.ndarray, grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Sample a vector field linearly at points; outside the grid the edge value holds.

    Parameters
    ----------
    field : ndarray, shape (X, Y, Z, C)
    grid : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    points : ndarray, shape (N, 3)
        RAS+ mm.

    Returns
    -------
    ndarray of float32, shape (N, C)

    Examples
    --------
    >>> field = np.zeros((2, 2, 2, 3))
    >>> field[1, ..., 2] = 4  # upwards, and the more so the further right
    >>> sample_vectors(field, np.eye(4), np.array([[0.5, 0, 0], [9, 0, 0]])).tolist()
    [[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]]
    """
    index = to_index(grid, points)
    return np.stack(
        [
            ndimage.map_coordinates(field[..., c], index, order=1, mode='nearest')
            for c in range(field.shape[-1])
        ],
        axis=-1,
    )


def sample_vectors_on_grid(
    field: np.ndarray, grid: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Sample a vector field linearly at the voxel centres of another grid.

    The same as `sample_vectors` at `grid_points`, several times faster where the axes of both
    grids are parallel: then one axis is interpolated after the other.

    Parameters
    ----------
    field : ndarray, shape (X, Y, Z, C)
    grid : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    shape, affine
        Of the other grid.

    Returns
    -------
    ndarray of float32, shape (N, C)
        Last axis of the other grid fastest.

    Examples
    --------
    >>> field = np.zeros((2, 2, 2, 3))
    >>> field[1, ..., 2] = 4
    >>> sample_vectors_on_grid(field, np.eye(4), (3, 1, 1), np.diag([0.5, 1, 1, 1]))[:, 2].tolist()
    [0.0, 2.0, 4.0]
    """
    between = np.linalg.inv(grid) @ affine
    if np.count_nonzero(np.abs(between[:3, :3]) > PARALLEL) > 3:
        return sample_vectors(field, grid, grid_points(shape, affine)).astype(np.float32)
    field = field.astype(np.float32)
    for axis in (2, 1, 0):
        index = between[axis, axis] * np.arange(shape[axis]) + between[axis, 3]
        index = np.clip(index, 0, field.shape[axis] - 1)
        low = np.floor(index).astype(int)
        high = np.minimum(low + 1, field.shape[axis] - 1)
        weight = (
            (index - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(4)])
        )
        first = field.take(low, axis)
        field = first + weight * (field.take(high, axis) - first)
    return field.reshape(-1, field.shape[-1])


def grid_points(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the RAS+ mm of every voxel centre, shape (N, 3), last axis of the grid fastest.

    Examples
    --------
    >>> affine = np.array([[2.0, 0, 0, -10], [0, 2, 0, 0], [0, 0, 2, 5], [0, 0, 0, 1]])
    >>> grid_points((2, 1, 2), affine).tolist()
    [[-10.0, 0.0, 5.0], [-10.0, 0.0, 7.0], [-8.0, 0.0, 5.0], [-8.0, 0.0, 7.0]]
    """
    points = np.empty((*shape, 3), np.float32)
    for axis in range(3):
        steps = np.ix_(*(affine[axis, a] * np.arange(n) for a, n in enumerate(shape)))
        points[..., axis] = steps[0] + steps[1] + steps[2] + affine[axis, 3]
    return points.reshape(-1, 3)


def voxel_points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the RAS+ mm of the voxels of a mask, shape (N, 3), in array order.

    Examples
    --------
    >>> mask = np.zeros((3, 3, 3), bool)
    >>> mask[2, 0, 1] = True
    >>> voxel_points(mask, np.diag([2.0, 2, 2, 1])).tolist()
    [[4.0, 0.0, 2.0]]
    """
    index = np.argwhere(mask)
    return (index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


def sample_image(
    data: np.ndarray,
    affine: np.ndarray,
    points: np.ndarray,
    *,
    order: int = 1,
    outside: str = 'constant',
) -> np.ndarray:
    """Sample an image at points.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    points : ndarray, shape (N, 3)
        RAS+ mm, in the space of ``affine``.
    order : int
        Spline order; 0 is nearest neighbour, 1 is trilinear.
    outside : str
        ``'constant'`` gives 0 outside the grid, ``'nearest'`` the value of the edge.

    Returns
    -------
    ndarray, shape (N,)

    Examples
    --------
    >>> image = np.arange(8.0).reshape(2, 2, 2)  # 4 x + 2 y + z
    >>> sample_image(image, np.eye(4), np.array([[0.5, 0.5, 0], [5, 0, 0]])).tolist()
    [3.0, 0.0]
    """
    index = to_index(affine, points)
    return ndimage.map_coordinates(data, index, order=order, mode=outside, cval=0.0)


def to_index(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return voxel indices of points (N, 3; RAS+ mm), shape (3, N); they need not be whole."""
    inverse = np.linalg.inv(affine).astype(np.float32)
    index = inverse[:3, :3] @ points.T
    index += inverse[:3, 3:]
    return index
