"""Regions and their volumes in one T1w image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_brainage.preprocessing.image import extent
from bids_brainage.preprocessing.resample import onto_grid
from bids_brainage.segmentation.refine import refine
from bids_brainage.segmentation.regions import load_regions

if TYPE_CHECKING:
    from bids_brainage.segmentation.network import StructureUNet

VOXEL_MM = 2.0
"""Edge of the voxels that the network sees."""

BOX = (80, 96, 80)
"""Smallest box that it is shown, voxels along the RAS+ axes: that of its training."""

MARGIN, STEP = 2, 16
RANGE = (0.005, 0.995)
"""Quantiles of the intensities in the box that become -0.5 and 0.5."""


@dataclass(frozen=True)
class Regions:
    """What the network found.

    Attributes
    ----------
    labels : ndarray of uint8, shape (X, Y, Z)
        Label of the most probable region, 0 background, on a grid of `VOXEL_MM`.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm of the image.
    volumes_ml : dict
        Region → millilitres: sum of its probabilities.
    """

    labels: np.ndarray
    affine: np.ndarray
    volumes_ml: dict[str, float]


def network_grid(mask: np.ndarray, affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape and affine of the box that the network is shown.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Brain.
    affine : ndarray, shape (4, 4)
        Its grid, RAS+ order.

    Returns
    -------
    shape : tuple of int
        At least `BOX`, more in steps of 16 for a brain that is larger.
    affine : ndarray, shape (4, 4)
        The brain's middle in the middle of the box, axes along those of the image.  A voxel of
        the image lies on the first one, so that images of these voxels are taken as they are.
    """
    size = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = extent(mask)
    needed = (high - low + 1) * size / VOXEL_MM + 2 * MARGIN
    shape = tuple(
        max(least, STEP * int(np.ceil(n / STEP))) for least, n in zip(BOX, needed, strict=True)
    )
    target = np.eye(4)
    target[:3, :3] = affine[:3, :3] / size * VOXEL_MM
    centre = affine[:3, :3] @ ((low + high) / 2) + affine[:3, 3]
    first = centre - target[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.round(np.linalg.solve(affine[:3, :3], first - affine[:3, 3]))
    target[:3, 3] = affine[:3, :3] @ index + affine[:3, 3]
    return shape, target


def network_input(
    data: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray
) -> np.ndarray:
    """Return the intensities that the network is shown on the grid of `network_grid`, float32."""
    return scaled(onto_grid(data, affine, shape, target, order=3))


def scaled(data: np.ndarray) -> np.ndarray:
    """Return intensities with the quantiles `RANGE` at -0.5 and 0.5, as float32."""
    low, high = np.quantile(data[::2, ::2, ::2], RANGE)
    return ((data - low) / max(high - low, 1e-6) - 0.5).astype(np.float32)


def probabilities(
    networks: Sequence[StructureUNet], data: np.ndarray, *, mirror: bool = False
) -> np.ndarray:
    """Return the mean of what several networks find in a box.

    Parameters
    ----------
    networks : sequence of StructureUNet
        All on one device.
    data : ndarray of float32, shape (X, Y, Z)
        Scaled intensities; edges are multiples of 16.
    mirror : bool
        Also look at the mirror image, left and right exchanged; twice the time, and ages of people
        left out are no closer.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, classes)
        Probabilities; they sum to 1.
    """
    import torch

    total: torch.Tensor | None = None
    views = (False, True) if mirror else (False,)
    with torch.inference_mode():
        for network in networks:
            where = next(network.parameters()).device
            for flipped in views:
                view = torch.from_numpy(np.ascontiguousarray(data[::-1] if flipped else data))
                x = view[None, None].to(where, memory_format=torch.channels_last_3d)
                found = network(x)[0].permute(1, 2, 3, 0).softmax(-1)
                found = found.flip(0) if flipped else found
                total = found if total is None else total.add_(found)
    if total is None:
        raise ValueError('no network was given')
    return (total / (len(networks) * len(views))).cpu().numpy()


def region_volumes(found: np.ndarray) -> dict[str, float]:
    """Return the volume of each region, millilitres, from probabilities (X, Y, Z, classes)."""
    sums = found.sum(axis=(0, 1, 2), dtype=np.float64) * VOXEL_MM**3 / 1000
    return {region.name: float(sums[region.index]) for region in load_regions()}


def measure(
    data: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    networks: Sequence[StructureUNet],
    *,
    mirror: bool = False,
) -> Regions:
    """Find the regions of a brain and their volumes.

    Parameters
    ----------
    data : ndarray, shape (X, Y, Z)
        T1w intensities in RAS+ order, whole head or skull-stripped, any voxel size.
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain; says where to look.
    networks : sequence of StructureUNet
    mirror : bool
        See `probabilities`.

    Returns
    -------
    Regions
    """
    shape, target = network_grid(mask, affine)
    box = network_input(data, affine, shape, target)
    found = refine(probabilities(networks, box, mirror=mirror), box)
    return Regions(found.argmax(axis=-1).astype(np.uint8), target, region_volumes(found))
