"""From tissue to a T1w image: contrast, scanner grid, blur, bias field, noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from bids_brainage.simulation.grid import Array, spline_matrix, upsample
from bids_brainage.simulation.head import HEAD_TISSUES
from bids_brainage.simulation.template import TISSUES

#: Lowest and highest T1w intensity of each tissue, white matter = 1.  With those of fluid and grey
#: matter, ventricles show 0.23 to 0.47 and cortex 0.65 to 0.73 of the white matter, as in real
#: scans (5th to 95th percentile of 40 of IXI, Hammersmith, and 8 of NiChart, inside DLMUSE's
#: labels).
CONTRAST = {
    'csf': (0.38, 0.62),
    'gm': (0.71, 0.80),
    'wm': (1.0, 1.0),
    'dura': (0.25, 0.50),
    'bone': (0.02, 0.12),
    'marrow': (0.45, 0.95),
    'fat': (1.00, 1.70),
    'skin': (0.45, 0.75),
    'muscle': (0.40, 0.60),
    'vitreous': (0.10, 0.22),
    'cord': (0.80, 0.95),
    'mucosa': (0.50, 0.80),
    'air': (0.0, 0.02),
}
#: Least and largest weight of the template's own contrast within tissue.
TEXTURE = (0.75, 1.0)
#: Storage orders met in T1w data: canonical, radiological, sagittal, coronal.
ORIENTATIONS = ('RAS', 'LAS', 'LPS', 'PSR', 'PIR', 'LSA')
#: Template point placed at the scanner's centre, mm.
HEAD_CENTRE = np.array([0.0, -2.0, -22.0])
#: Height (mm from the centre) where the coil has lost half its sensitivity, and softness.
COIL_EDGE = (-108.0, 9.0)
#: Field of view left-right, front-back, up-down, mm.
FIELD_OF_VIEW = (184.0, 252.0, 252.0)


@dataclass(frozen=True)
class Acquisition:
    """Everything that changes between two scans of the same anatomy.

    Attributes
    ----------
    contrast : dict
        Tissue name to intensity, white matter = 1.
    rotation : tuple of float
        Head rotation about x, y, z in the scanner, degrees.
    translation : tuple of float
        Head shift in the scanner, mm.
    slab_rotation : tuple of float
        Rotation of the voxel grid against the scanner axes, degrees.
    bias : float
        SD of the log bias field inside the head.
    noise : float
        SD of each Rician channel, in units of white matter.
    texture : float
        Weight of the template's within-tissue contrast.
    gain : float
        Stored value of white matter.
    orientation : str
        Order and direction of the stored axes.
    seed : tuple of int
        Stream of the bias field and the noise.
    """

    contrast: dict[str, float]
    rotation: tuple[float, float, float]
    translation: tuple[float, float, float]
    slab_rotation: tuple[float, float, float]
    bias: float
    noise: float
    texture: float
    gain: float
    orientation: str
    seed: tuple[int, ...]

    def parameters(self) -> dict:
        """JSON-ready copy, rounded to 4 digits."""

        def tidy(value: object) -> object:
            if isinstance(value, float):
                return round(value, 4)
            if isinstance(value, dict):
                return {k: tidy(v) for k, v in value.items()}
            return [tidy(v) for v in value] if isinstance(value, tuple) else value

        return {name: tidy(value) for name, value in asdict(self).items()}


def draw_acquisition(
    seed: tuple[int, ...],
    orientation: str | None = None,
    protocol: tuple[int, ...] | None = None,
) -> Acquisition:
    """Draw the settings of one scan.

    Parameters
    ----------
    seed : tuple of int
        The same seed gives the same scan.
    orientation : str, optional
        Storage order such as ``RAS``; drawn from `ORIENTATIONS` when left out.
    protocol : tuple of int, optional
        What the contrast is drawn from, instead of `seed`: scans of one protocol share it.
    """
    rng = np.random.default_rng([*seed, 0])
    sequence = np.random.default_rng([*(protocol or seed), 2])
    contrast = {name: float(sequence.uniform(*limits)) for name, limits in CONTRAST.items()}

    def triple(x: float, y: float, z: float) -> tuple[float, float, float]:
        values = np.clip(rng.standard_normal(3), -2.5, 2.5) * (x, y, z)
        return float(values[0]), float(values[1]), float(values[2])

    return Acquisition(
        contrast=contrast,
        rotation=triple(6.0, 3.0, 3.0),
        translation=triple(2.0, 4.0, 4.0),
        slab_rotation=triple(4.0, 1.5, 1.5),
        bias=float(rng.uniform(0.05, 0.2)),
        noise=float(rng.uniform(0.015, 0.045)),
        texture=float(sequence.uniform(*TEXTURE)),
        gain=float(rng.uniform(300, 1200)),
        orientation=str(rng.choice(ORIENTATIONS)) if orientation is None else orientation,
        seed=(*seed, 1),
    )


@dataclass(frozen=True)
class ScannerGrid:
    """Voxels of one scan in RAS order.

    Attributes
    ----------
    shape : tuple of int
    voxel : tuple of float
        Voxel size along x, y, z, mm.
    affine : array, shape (4, 4)
        Voxel index to scanner mm.
    """

    shape: tuple[int, int, int]
    voxel: tuple[float, float, float]
    affine: NDArray[np.float64]

    def coarse(self, step: float = 3.0) -> tuple[Array, tuple[Array, Array, Array]]:
        """Scanner points on a coarse lattice, and the matrices that refine its values.

        Returns
        -------
        points : array, shape (3, cx, cy, cz), scanner mm
        matrices : tuple of three arrays (n, c) for `grid.upsample`
        """
        nodes, matrices = [], []
        for n, size in zip(self.shape, self.voxel, strict=True):
            count = max(4, int(np.ceil((n - 1) * size / step)) + 1)
            axis = np.linspace(0, max(n - 1, 1), count)
            nodes.append(axis)
            matrices.append(spline_matrix(axis, np.arange(n)))
        index = np.stack(np.meshgrid(*nodes, indexing='ij'))
        points = np.tensordot(self.affine[:3, :3], index, 1)
        points += self.affine[:3, 3].reshape(3, 1, 1, 1)
        return points.astype('f4'), (matrices[0], matrices[1], matrices[2])


def rotation_matrix(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotation about x, then y, then z, shape (3, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()


def scanner_grid(acquisition: Acquisition, voxel: tuple[float, float, float]) -> ScannerGrid:
    """Voxel grid of a scan: the field of view, turned by the slab rotation."""
    shape = tuple(max(4, round(f / v)) for f, v in zip(FIELD_OF_VIEW, voxel, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(acquisition.slab_rotation) * np.asarray(voxel)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return ScannerGrid((shape[0], shape[1], shape[2]), voxel, affine)


def head_to_scanner(acquisition: Acquisition, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine (4, 4) from head mm (template-sized) to scanner mm: size, then pose."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(acquisition.rotation) * scale
    affine[:3, 3] = np.asarray(acquisition.translation) - affine[:3, :3] @ HEAD_CENTRE
    return affine


def paint(tissue: Array, mask: Array, texture: Array, acquisition: Acquisition) -> Array:
    """Noise-free brain intensities in template space, times the mask."""
    levels = np.array([acquisition.contrast[name] for name in TISSUES], 'f4')
    image = np.tensordot(levels, tissue, 1)
    return np.maximum(image + np.float32(acquisition.texture) * texture * mask, 0)


def paint_head(labels: np.ndarray, acquisition: Acquisition) -> Array:
    """Intensities of everything around the brain, shape of `labels`."""
    levels = np.array([acquisition.contrast[name] for name in HEAD_TISSUES], 'f4')
    return levels[labels]


def slice_blur(volume: Array, spacing: float, voxel: tuple[float, float, float]) -> Array:
    """Low-pass a template volume to the resolution of a coarser voxel (Gaussian)."""
    from scipy.ndimage import gaussian_filter

    sigma = [np.sqrt(max(0.0, v**2 - spacing**2)) * 0.42 / spacing for v in voxel]
    return volume if max(sigma) == 0 else gaussian_filter(volume, sigma)


def finish(image: Array, acquisition: Acquisition, voxel: tuple[float, float, float]) -> Array:
    """Bias field and Rician noise, in units of white matter.

    Parameters
    ----------
    image : array, shape (nx, ny, nz)
        Noise-free intensities on the scanner grid.

    Returns
    -------
    array, same shape, float32, >= 0

    References
    ----------
    Gudbjartsson & Patz, MRM 1995, doi:10.1002/mrm.1910340618 (Rician noise).
    """
    field, noise = (np.random.default_rng([*acquisition.seed, k]) for k in range(2))
    image = image * bias_field(field, image.shape, acquisition.bias)
    image *= coil_falloff(image.shape[2], voxel[2])
    # A real scan averages more signal in a larger voxel.
    sigma = np.float32(acquisition.noise / np.sqrt(max(1.0, float(np.prod(voxel)))))
    real = image + sigma * noise.standard_normal(image.shape, dtype='f4')
    return np.hypot(real, sigma * noise.standard_normal(image.shape, dtype='f4'))


def bias_field(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> Array:
    """Smooth positive field: exp of a random cubic-spline surface with SD `strength`."""
    control = rng.standard_normal((5, 5, 5)).astype('f4')
    control *= np.float32(strength) / control.std()
    x, y, z = (spline_matrix(np.linspace(0, 1, 5), np.linspace(0.1, 0.9, n)) for n in shape)
    return np.exp(upsample(control, (x, y, z)))


def coil_falloff(slices: int, thickness: float) -> Array:
    """Sensitivity of a head coil along the neck, one factor (0-1) per axial slice."""
    height = (np.arange(slices) - (slices - 1) / 2) * thickness
    return (1 / (1 + np.exp(-(height - COIL_EDGE[0]) / COIL_EDGE[1]))).astype('f4')
