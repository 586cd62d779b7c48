"""A BOLD series of a head whose motion, position and correlated regions are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_brainage.preprocessing.bold.atlases import Atlas, Region
from bids_brainage.preprocessing.bold.motion import to_matrix
from bids_brainage.preprocessing.transforms import SpatialTransform

TR = 2.0
CENTRE = np.array([0.0, -18.0, 8.0])
# four regions in each of three networks, in cortex or thalamus of the template (MNI mm)
PLACES = {
    'A': [(-46, -22, 46), (46, -22, 46), (-8, -28, 60), (8, -28, 60)],
    'B': [(-44, 28, 26), (44, 28, 26), (-44, -54, 44), (44, -54, 44)],
    'C': [(-12, -80, 4), (12, -80, 4), (-30, -84, 12), (30, -84, 12)],
}
RADIUS_MM = 9.0


@dataclass(frozen=True)
class Phantom:
    """The series and its truth; ``motion`` is (T, 6), reference → volume, about ``CENTRE``."""

    image: nib.Nifti1Image
    motion: np.ndarray
    coregistration: np.ndarray
    signals: np.ndarray
    atlas: Atlas


@cache
def template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return T1w brain, mask and affine of the 2 mm template in nilearn."""
    from nilearn import datasets

    t1w = datasets.load_mni152_template(resolution=2)
    mask = datasets.load_mni152_brain_mask(resolution=2)
    inside = np.asarray(mask.dataobj) > 0
    return np.asarray(t1w.dataobj, np.float32) * inside, inside, t1w.affine


def identity_transform() -> SpatialTransform:
    """Template and T1w are one here: a displacement of zero on a coarse grid."""
    grid = np.diag([20.0, 20.0, 20.0, 1.0])
    grid[:3, 3] = (-100, -140, -80)
    zero = np.zeros((11, 12, 10, 3), np.float32)
    return SpatialTransform(np.eye(4), zero, zero, grid)


def known_motion(n_volumes: int, seed: int = 3) -> np.ndarray:
    """Return a slow drift with breathing, and one jerk of 1 mm and 1 degree for two volumes."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_volumes)
    motion = np.cumsum(rng.normal(0, 1, (n_volumes, 6)), axis=0) * [*[0.03] * 3, *[0.0004] * 3]
    motion[:, 1] += 0.1 * np.sin(2 * np.pi * t * TR / 7)
    jerk = n_volumes // 3
    motion[jerk : jerk + 2] += [0.6, -0.5, 0.7, 0.017, 0.008, -0.010]
    return motion - motion[n_volumes // 2]


def region_signals(n_volumes: int, seed: int = 5) -> np.ndarray:
    """Return (T, 12) signals between 0.015 and 0.09 Hz: networks, and a link of B with C."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.rfftfreq(n_volumes, TR)

    def noise(n: int) -> np.ndarray:
        spectrum = rng.normal(size=(len(frequency), n)) + 1j * rng.normal(size=(len(frequency), n))
        spectrum[(frequency < 0.015) | (frequency > 0.09)] = 0
        series = np.fft.irfft(spectrum, n_volumes, axis=0)
        return series / series.std(axis=0)

    a, b, c = noise(3).T
    c = 0.5 * b + np.sqrt(0.75) * c
    shared = np.stack([a] * 4 + [b] * 4 + [c] * 4, axis=1)
    return 0.8 * shared + 0.6 * noise(12)


def make_phantom(
    n_volumes: int = 100,
    *,
    shape: tuple[int, int, int] = (32, 38, 26),
    voxel_mm: float = 5.5,
    seed: int = 0,
    moving: bool = True,
    noise: float = 6.0,
) -> Phantom:
    """Scan the template as BOLD (fluid bright, mean 600, signal change 2 %, noise 1 %)."""
    rng = np.random.default_rng(seed)
    t1w, inside, t1w_affine = template()
    bright = np.where(inside, 900 - 600 * t1w / np.percentile(t1w[inside], 98), 0.0)
    bright = ndimage.gaussian_filter(np.clip(bright, 0, None).astype(np.float32), 0.8)
    motion = known_motion(n_volumes) if moving else np.zeros((n_volumes, 6))
    place = to_matrix(np.array([4.0, -7.0, 5.0, 0.08, -0.04, 0.06]), CENTRE)
    signals = region_signals(n_volumes)
    spots = _spots(t1w.shape, t1w_affine)
    affine = np.diag([voxel_mm] * 3 + [1.0])
    centre = CENTRE + np.array([4.0, -7.0, 5.0])
    affine[:3, 3] = centre - voxel_mm * (np.array(shape) - 1) / 2
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    data = np.empty((*shape, n_volumes), np.float32)
    for t in range(n_volumes):
        # a voxel of volume t shows the reference point M⁻¹ w, and that the T1w point C⁻¹ M⁻¹ w
        back = np.linalg.inv(t1w_affine) @ np.linalg.inv(to_matrix(motion[t], CENTRE) @ place)
        where = back[:3, :3] @ world + back[:3, 3:]
        found = ndimage.map_coordinates(bright, where, order=1)
        region = ndimage.map_coordinates(spots, where, order=0)
        found *= 1 + 0.02 * np.append(0, signals[t])[region]
        data[..., t] = found.reshape(shape) + rng.normal(0, noise, shape)
    image = nib.Nifti1Image(data, affine)
    image.header.set_zooms((voxel_mm,) * 3 + (TR,))
    image.header.set_xyzt_units('mm', 'sec')
    return Phantom(image, motion, place, signals, _atlas())


def _spots(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return the number of the region at every voxel, 0 outside."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    spots = np.zeros(index.shape[1], np.uint8)
    places = [xyz for network in PLACES.values() for xyz in network]
    for number, xyz in enumerate(places, start=1):
        spots[((world - np.array(xyz)[:, None]) ** 2).sum(axis=0) <= RADIUS_MM**2] = number
    return spots.reshape(shape)


def _atlas() -> Atlas:
    places = [(network, xyz) for network, all_ in PLACES.items() for xyz in all_]
    regions = tuple(
        Region(i, f'{network}{i}', network, 'L' if xyz[0] < 0 else 'R', xyz, 6.0)
        for i, (network, xyz) in enumerate(places, start=1)
    )
    return Atlas('phantom', 'Regions of the phantom', 'none', regions)
