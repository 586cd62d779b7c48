"""Affine and displacement between template and native space.

A `SpatialTransform` maps points of the *template* (fixed image) to points of the *native*
image (moving image), both in RAS+ millimetres::

    native = affine @ (x + displacement(x))

which is what pulls a native image onto the template grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

DISPLACEMENT_STEP_MM = 1 / 1024
"""Displacements are stored as multiples of this length, far below any registration error, so
that the files compress well."""


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
    """

    affine: np.ndarray
    displacement: np.ndarray
    inverse_displacement: np.ndarray
    grid: np.ndarray

    def to_native(self, points: np.ndarray) -> np.ndarray:
        """Map template points, shape (N, 3) in RAS+ mm, to native RAS+ mm."""
        moved = points + sample_vectors(self.displacement, self.grid, points)
        return moved @ self.affine[:3, :3].T + self.affine[:3, 3]

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
    """Keep a transform between steps, with all its digits (``.npz``)."""
    np.savez_compressed(
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
    """
    per_mm = np.linalg.inv(grid[:3, :3])
    gradient = np.stack(
        [np.stack(np.gradient(displacement[..., c]), axis=-1) for c in range(3)], axis=-2
    )
    return np.linalg.det(gradient @ per_mm + np.eye(3)).astype(np.float32)


def sample_vectors(field: np.ndarray, grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Sample a vector field linearly at points; outside the grid the edge value holds.

    Parameters
    ----------
    field : ndarray, shape (X, Y, Z, 3)
    grid : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    points : ndarray, shape (N, 3)
        RAS+ mm.

    Returns
    -------
    ndarray of float32, shape (N, 3)
    """
    index = _to_index(grid, points)
    return np.stack(
        [ndimage.map_coordinates(field[..., c], index, order=1, mode='nearest') for c in range(3)],
        axis=-1,
    )


def grid_points(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the RAS+ mm of every voxel centre, shape (N, 3), last axis of the grid fastest."""
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    index = np.stack([m.ravel() for m in np.meshgrid(*axes, indexing='ij')], axis=-1)
    return (index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


def voxel_points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the RAS+ mm of the voxels of a mask, shape (N, 3), in array order."""
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
    """
    index = _to_index(affine, points)
    return ndimage.map_coordinates(data, index, order=order, mode=outside, cval=0.0)


def _to_index(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(affine)
    return (points @ inverse[:3, :3].T.astype(np.float32) + inverse[:3, 3].astype(np.float32)).T


def save_itk(
    path: Path,
    affine: np.ndarray,
    displacement: np.ndarray,
    grid: np.ndarray,
    *,
    affine_first: bool,
) -> None:
    """Write one direction of a transform as an ITK composite (HDF5).

    The file is read by ANTs, SimpleITK and nitransforms.  ITK works in LPS+ millimetres; the
    conversion is done here.

    Parameters
    ----------
    path : Path
        Target, ``.h5``.
    affine : ndarray, shape (4, 4)
        RAS+ mm → RAS+ mm, applied to points.
    displacement : ndarray, shape (X, Y, Z, 3)
        RAS+ mm.
    grid : ndarray, shape (4, 4)
        Voxel index → RAS+ mm of the displacement.
    affine_first : bool
        True if a point goes through the affine before the displacement.
    """
    import SimpleITK as sitk

    flip = np.diag([-1.0, -1.0, 1.0])
    linear = sitk.AffineTransform(3)
    linear.SetMatrix((flip @ affine[:3, :3] @ flip).ravel().tolist())
    linear.SetTranslation((flip @ affine[:3, 3]).tolist())
    field = sitk.GetImageFromArray(
        np.ascontiguousarray(
            (quantised(displacement) @ flip).transpose(2, 1, 0, 3), dtype=np.float64
        ),
        isVector=True,
    )
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    field.SetSpacing(spacing.tolist())
    field.SetOrigin((flip @ grid[:3, 3]).tolist())
    field.SetDirection((flip @ grid[:3, :3] / spacing).ravel().tolist())
    deform = sitk.DisplacementFieldTransform(field)
    # ITK applies the last transform of a composite first.
    order = [deform, linear] if affine_first else [linear, deform]
    sitk.WriteTransform(sitk.CompositeTransform(order), str(path))
    _compress(path)


def load_itk(to_template: Path, to_native: Path) -> SpatialTransform:
    """Read both directions of a transform as `save_itk` wrote them.

    Parameters
    ----------
    to_template, to_native : Path
        Composites that pull the image onto the template, and the other way.

    Returns
    -------
    SpatialTransform
        To the last digit the one that was written, if its displacements were `quantised`.
    """
    import SimpleITK as sitk

    flip = np.diag([-1.0, -1.0, 1.0])

    def steps(path: Path) -> dict[str, Any]:
        composite = sitk.CompositeTransform(sitk.ReadTransform(str(path)))
        parts = [composite.GetNthTransform(i).Downcast() for i in range(2)]
        return {type(part).__name__: part for part in parts}

    forward, backward = steps(to_template), steps(to_native)
    linear = forward['AffineTransform']
    affine = np.eye(4)
    affine[:3, :3] = flip @ np.reshape(linear.GetMatrix(), (3, 3)) @ flip
    affine[:3, 3] = flip @ linear.GetTranslation()
    fields = [found['DisplacementFieldTransform'] for found in (forward, backward)]
    images = [field.GetDisplacementField() for field in fields]
    vectors = [sitk.GetArrayFromImage(i).transpose(2, 1, 0, 3) @ flip for i in images]
    grid = np.eye(4)
    direction = np.reshape(images[0].GetDirection(), (3, 3))
    grid[:3, :3] = flip @ direction * images[0].GetSpacing()
    grid[:3, 3] = flip @ images[0].GetOrigin()
    there, back = (np.ascontiguousarray(v, np.float32) for v in vectors)
    return SpatialTransform(affine, there, back, grid)


def _compress(path: Path) -> None:
    """Rewrite an HDF5 file with compressed data sets and without a time stamp."""
    import h5py

    packed = path.with_suffix('.packed.h5')

    def copy(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            large = item.size > 1000
            target.create_dataset(
                name,
                data=item[()],
                dtype=item.dtype,
                track_times=False,
                **(
                    {'compression': 'gzip', 'compression_opts': 4, 'shuffle': True}
                    if large
                    else {}
                ),
            )
        else:
            target.require_group(name)

    with h5py.File(path, 'r') as source, h5py.File(packed, 'w') as target:
        source.visititems(copy)
    packed.replace(path)
