"""Find the brain in a T1w image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_brainage.preprocessing.image import foreground_mask

PLAUSIBLE_ML = (450.0, 2300.0)
"""Brain volumes outside this range are not believed: newborns have about 400 ml, the largest
adult brains with their ventricles about 2 litres."""

FADED = (0.05, 0.05)
"""A rim has faded where more than this share of the foreground is darker than this share of the
brighter half's median: 0.1 to 0.5 % in eight skull-stripped scans, 20 % after resampling."""

RIM = 0.15
"""Where a faded rim is cut, as a share of that median: gave the volume before resampling within
0.5 % (two scans, from 1 mm to 2 mm)."""


def find_brain(
    data: np.ndarray,
    affine: np.ndarray,
    *,
    skull_stripped: bool,
    threads: int = 1,
    device: str = 'cpu',
) -> tuple[np.ndarray, str]:
    """Return the brain of an image and how it was found.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        T1w intensities in RAS+ order.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    skull_stripped : bool
        The image holds only a brain (`bids_brainage.preprocessing.image.ImageFacts`).
    threads : int
        CPU threads for the network.
    device : str
        Torch device of the network.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
    method : str
        ``'as given'`` or ``'deepbet'``.
    """
    if skull_stripped:
        return brain_mask_from_stripped(data, foreground_mask(data)), 'as given'
    return brain_mask_deepbet(data, affine, threads=threads, device=device), 'deepbet'


def brain_mask_from_stripped(data: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Return the mask of an image that already holds only a brain.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Intensities, constant outside the brain.
    foreground : ndarray of bool, shape (X, Y, Z)
        Where the image differs from its background.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Largest component with holes (dark fluid that was zeroed) filled.
    """
    foreground = without_faded_rim(data, foreground)
    closed = ndimage.binary_closing(np.pad(foreground, 3), iterations=2)[3:-3, 3:-3, 3:-3]
    return ndimage.binary_fill_holes(largest_component(closed | foreground))


def without_faded_rim(data: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Cut the rim off a brain that was smoothed or resampled after its skull was stripped.

    Such an image fades into its background, and a halo that is hardly brighter would count as
    fluid around the brain.  A brain with a sharp rim is returned as it is,
    and so is one whose dark tissue lies below its background.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        Intensities.
    foreground : ndarray of bool, shape (X, Y, Z)
        Where the image differs from its background.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    if not foreground.any() or foreground.all():
        return foreground
    above = data - np.median(data[~foreground])
    values = above[foreground]
    bright = np.median(values[values >= np.median(values)])
    share, dark = FADED
    faded = (values < dark * bright).mean() > share
    centred = (values < -dark * bright).mean() > share  # as after z-scoring: no rim can be told
    if centred or not faded:
        return foreground
    return foreground & (above > RIM * bright)


def brain_mask_deepbet(
    data: np.ndarray, affine: np.ndarray, *, threads: int = 1, device: str = 'cpu'
) -> np.ndarray:
    """Extract the brain from a whole head with deepbet.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        T1w intensities in RAS+ order.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    threads : int
        CPU threads for the network.
    device : str
        Torch device of the network.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Largest component, holes filled; all False if the network finds no brain.

    References
    ----------
    Fisch et al. (2024), deepbet, doi:10.1016/j.compbiomed.2024.108845; its weights come inside the
    package, so nothing is downloaded.
    """
    import nibabel as nib
    import torch
    from deepbet import BrainExtraction

    torch.set_num_threads(threads)
    extraction = BrainExtraction(no_gpu=True)
    for network in (extraction.model, extraction.bbox_model):
        network.to(device)
    try:
        _, mask, _ = extraction.run(nib.Nifti1Image(data, affine))
    except torch.cuda.OutOfMemoryError:
        raise
    except (AssertionError, ValueError, RuntimeError):
        return np.zeros(data.shape, dtype=bool)
    return np.asarray(mask.dataobj) > 0


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest face-connected component of a mask."""
    labels, n = ndimage.label(mask)
    if n == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def volume_ml(mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the volume of a mask in millilitres."""
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000.0)


def touches_border(mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the area in cm² of brain mask on the outermost planes: brain that is cut off."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    area = 0.0
    for axis in range(3):
        face = float(np.prod(np.delete(sizes, axis)))
        for plane in (0, -1):
            area += np.take(mask, plane, axis).sum() * face
    return area / 100.0
