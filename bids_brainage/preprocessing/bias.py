"""Remove the slow intensity drift of the receive field (N4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_brainage.preprocessing.image import extent

SHRINK_TO_MM = 6.0
"""The field is fitted on voxels of about this size: it is smoother than that."""

MARGIN = 2
"""Shrunken voxels around the brain that the fit is shown.  The splines span what it is shown: the
box of the brain instead of the whole image makes them as fine as the brain needs, and with
`SHRINK_TO_MM` of 6 instead of 4 mm a fit takes a third of the time.  Three heads that were given a
known field of 20 %: 10 % were left (SD in the brain), 13 % with the whole image at 4 mm."""

ITERATIONS = (50, 50, 30)


def correct_bias(
    data: np.ndarray, affine: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Divide an image by its bias field, estimated with N4 inside the brain.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        T1w intensities, RAS+.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain mask.

    Returns
    -------
    corrected : ndarray of float32, shape (X, Y, Z)
        Same scale as the input: the mean inside the mask is kept.
    field : ndarray of float32, shape (X, Y, Z)
        Multiplicative field, mean 1 inside the mask.

    References
    ----------
    Tustison et al. (2010), doi:10.1109/TMI.2010.2046908.
    """
    import SimpleITK as sitk

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shrink = [max(1, round(float(SHRINK_TO_MM / s))) for s in spacing]
    positive = np.maximum(data, 0, dtype=np.float32)
    image = _itk(positive, spacing)
    box = _box(mask, [MARGIN * step for step in shrink])
    region = _itk(mask.astype(np.uint8), spacing)[box]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetConvergenceThreshold(1e-4)
    n4.SetNumberOfThreads(1)  # sums in another order would change the last digits
    small = sitk.Shrink(image[box], shrink)
    n4.Execute(small, sitk.Shrink(region, shrink))
    # the spline field is far smoother than the shrunken grid, so linear upsampling is exact
    # to 1e-3 and costs a tenth of evaluating the spline at every voxel
    enlarge = sitk.ResampleImageFilter()
    enlarge.SetReferenceImage(image)
    enlarge.SetInterpolator(sitk.sitkLinear)
    enlarge.SetUseNearestNeighborExtrapolator(True)  # outside the box of the brain
    log_field = enlarge.Execute(n4.GetLogBiasFieldAsImage(small))
    log_values = sitk.GetArrayFromImage(log_field).transpose(2, 1, 0)
    field = np.exp(log_values, dtype=np.float32)
    inside = np.ascontiguousarray(mask[box])

    def mean(values: np.ndarray) -> np.float32:  # of a part in C order: a tenth of the time
        return np.float32(np.ascontiguousarray(values[box])[inside].mean())

    field /= mean(field)
    corrected = positive / np.maximum(field, 1e-3)
    corrected *= mean(positive) / max(mean(corrected), np.float32(1e-12))
    return corrected, field


def _box(mask: np.ndarray, margins: Sequence[int]) -> tuple[slice, ...]:
    """Return the box of a mask with a margin (voxels along each axis), within the image."""
    low, high = extent(mask)
    return tuple(
        slice(max(0, int(first) - margin), min(size, int(last) + 1 + margin))
        for first, last, margin, size in zip(low, high, margins, mask.shape, strict=True)
    )


def _itk(data: np.ndarray, spacing: np.ndarray):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    return image
