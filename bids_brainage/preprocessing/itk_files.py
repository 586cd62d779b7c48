"""Transforms as ITK composites, which ANTs, SimpleITK and nitransforms read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.preprocessing.transforms import SpatialTransform, quantised


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
