"""Inputs of published networks: crop, voxel size and intensity as their authors have them.

All start from the skull-stripped T1w brain on the 1 mm MNI152 grid of FSL (182 x 218 x 182) in
RAS+ order.  The authors' programs read arrays as they are stored on that grid, from right to
left, so the voxel at which a crop or a step begins is counted from the right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from bids_brainage.errors import UnusableImageError

Volume = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]

BOX = (182, 218, 182)
"""Voxels of FSL's MNI152 grid at 1 mm."""

SYNTHBA_MM = 1.4
SYNTHBA_SHAPE = (130, 130, 130)

PYMENT_SHAPE = (167, 212, 160)
PYMENT_START = (9, 2, 0)
"""First voxel kept, RAS+: the authors keep 6 to 172 of 182 counted from the right."""

WHITE = 110.0
"""Intensity of white matter that FreeSurfer aims at, of 255."""

BRIGHTEST = 255.0

PROMINENCE = 0.05
"""Share of the highest bin by which a peak of the histogram has to stand out."""

BRAINAGENEXT_SHAPE = (160, 192, 160)


def _checked(data: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the finite values of a volume on FSL's grid.

    Raises
    ------
    UnusableImageError
        The grid is another, or nothing is above zero.
    """
    if data.shape != BOX:
        raise UnusableImageError(
            f'Expected a volume of {BOX} voxels of 1 mm, found shape {data.shape}. Resample to '
            'the MNI152 grid of FSL.'
        )
    finite = np.where(np.isfinite(data), data, 0).astype(np.float64)
    if not finite.max() > 0:
        raise UnusableImageError(
            'Found no voxel above zero, expected a brain. Check the brain mask.'
        )
    return finite


def _moved(affine: npt.ArrayLike, start: npt.ArrayLike, step: float = 1.0) -> Affine:
    """Return the affine of a grid that begins at voxel `start` and goes in steps of `step`."""
    new = np.array(affine, dtype=np.float64)
    new[:3, 3] += new[:3, :3] @ np.asarray(start, dtype=np.float64)
    new[:3, :3] *= step
    return new


def prepare_synthba(
    data: npt.NDArray[np.floating], affine: npt.ArrayLike
) -> tuple[Volume, Affine]:
    """Sample at 1.4 mm, crop about the centre, scale to 0 to 1.

    SynthBA: Puglisi et al., MetroXRAINE 2024 (doi:10.48550/arXiv.2406.00365).

    Parameters
    ----------
    data : ndarray, shape (182, 218, 182)
        Brain, RAS+.
    affine : array_like, shape (4, 4)
        Voxel index to RAS+ mm.

    Returns
    -------
    volume : ndarray of float32, shape (130, 130, 130)
        Trilinear samples without smoothing, between 0 and 1.
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm.

    Raises
    ------
    UnusableImageError
        The grid is another, or the image is empty.
    """
    finite = _checked(data)
    sampled = [round((n - 1) / SYNTHBA_MM + 1) for n in BOX]
    begin = [n // 2 - kept // 2 for n, kept in zip(sampled, SYNTHBA_SHAPE, strict=True)]
    start = SYNTHBA_MM * np.array(begin, dtype=float)
    # from the right: the last sample lies on the last voxel less what was cropped there
    start[0] = BOX[0] - 1 - start[0] - SYNTHBA_MM * (SYNTHBA_SHAPE[0] - 1)
    volume = ndimage.affine_transform(
        finite, np.full(3, SYNTHBA_MM), start, SYNTHBA_SHAPE, order=1, mode='nearest'
    )
    low, high = volume.min(), volume.max()
    if not high > low:
        raise UnusableImageError(
            f'All voxels are {low:g}, expected a brain. Check the registration.'
        )
    scaled = (volume - low) / (high - low)
    return scaled.astype(np.float32), _moved(affine, start, SYNTHBA_MM)


def white_matter(data: npt.NDArray[np.floating]) -> float:
    """Return the intensity of white matter in a T1w brain: the brightest peak.

    Parameters
    ----------
    data : ndarray
        Skull-stripped T1w image, zero outside the brain.

    Returns
    -------
    float
        Centre of the last peak of the smoothed histogram from the median to the 99.5th
        percentile of the voxels above zero, or of its highest bin if nothing stands out.
    """
    brain = data[data > 0]
    low, high = np.percentile(brain, [50, 99.5])
    if not high > low:
        return float(high)
    counts, edges = np.histogram(brain, bins=100, range=(low, high))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 3)
    peaks, _ = signal.find_peaks(smooth, prominence=PROMINENCE * smooth.max())
    peak = int(peaks[-1] if len(peaks) else smooth.argmax())
    return float(edges[peak] + edges[peak + 1]) / 2


def prepare_pyment(data: npt.NDArray[np.floating], affine: npt.ArrayLike) -> tuple[Volume, Affine]:
    """Crop, and scale so that white matter is 110 of 255.

    Leonardsen et al., NeuroImage 2022 (doi:10.1016/j.neuroimage.2022.119210), who take the
    intensities of FreeSurfer, here replaced by `white_matter`, divided by 255.

    Parameters
    ----------
    data : ndarray, shape (182, 218, 182)
        Brain, RAS+.
    affine : array_like, shape (4, 4)
        Voxel index to RAS+ mm.

    Returns
    -------
    volume : ndarray of float32, shape (167, 212, 160)
        Between 0 and 1, white matter about 0.43.
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm.

    Raises
    ------
    UnusableImageError
        The grid is another, or the image is empty.
    """
    finite = _checked(data)
    scaled = np.clip(finite * (WHITE / white_matter(finite)), 0, BRIGHTEST) / BRIGHTEST
    window = tuple(slice(a, a + n) for a, n in zip(PYMENT_START, PYMENT_SHAPE, strict=True))
    return scaled[window].astype(np.float32), _moved(affine, PYMENT_START)


def prepare_brainagenext(
    data: npt.NDArray[np.floating], affine: npt.ArrayLike
) -> tuple[Volume, Affine]:
    """Cut out the brain, put it in the middle of the grid, z-score it.

    La Rosa et al., Imaging Neuroscience 2025 (doi:10.1162/imag_a_00487).

    Parameters
    ----------
    data : ndarray, shape (182, 218, 182)
        Brain, RAS+.
    affine : array_like, shape (4, 4)
        Voxel index to RAS+ mm.

    Returns
    -------
    volume : ndarray of float32, shape (160, 192, 160)
        Less the mean and over the standard deviation (n - 1) of the voxels above zero.
    affine : ndarray, shape (4, 4)
        Its voxel index to RAS+ mm; the middle of the grid is that of the brain's box.

    Raises
    ------
    UnusableImageError
        The grid is another, or the image is empty or constant.
    """
    stored = _checked(data)[::-1]
    volume = np.zeros(BRAINAGENEXT_SHAPE)
    begin = np.empty(3)
    source, target = [], []
    for axis, wanted in enumerate(BRAINAGENEXT_SHAPE):
        others = tuple(k for k in range(3) if k != axis)
        inside = np.flatnonzero((stored > 0).any(axis=others))
        first, size = int(inside[0]), int(inside[-1] - inside[0] + 1)
        shift = size // 2 - wanted // 2 if size > wanted else -((wanted - size) // 2)
        kept = min(size, wanted)
        source.append(slice(first + max(shift, 0), first + max(shift, 0) + kept))
        target.append(slice(max(-shift, 0), max(-shift, 0) + kept))
        begin[axis] = first + shift
    volume[tuple(target)] = stored[tuple(source)]
    values = volume[volume > 0]
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    if not spread > 0:
        raise UnusableImageError(
            'All voxels of the brain are alike, expected an image. Check the brain mask.'
        )
    begin[0] = BOX[0] - begin[0] - BRAINAGENEXT_SHAPE[0]  # counted from the left again
    scored = (volume[::-1] - values.mean()) / spread
    return scored.astype(np.float32), _moved(affine, begin)
