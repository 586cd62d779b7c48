"""Random shifts, mirror, warp, smoothing, shading, gamma, noise and gain of training images.

Shift, mirror, gamma and gain are those of Kim et al., npj Aging 2025
(doi:10.1038/s41514-025-00260-x).  The random numbers of a sample depend on seed, epoch and sample
only, never on the device, the batch or the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from bids_brainage.models.views import shifted
from bids_brainage.preprocessing.smoothing import smooth
from bids_brainage.training.recipe import AugmentationRecipe

NODES = 12
"""Random values along each axis of an image, between which warp and shading are interpolated."""


@dataclass(frozen=True)
class Change:
    """What is done to one sample.

    Attributes
    ----------
    shift : tuple of int
        Voxels.
    mirror : bool
        Left to right.
    gamma, gain : float
    noise : float
        Standard deviation as a share of the maximum.
    seed : tuple of int
        Of noise, warp and shading.
    smooth : float
        Standard deviation of a Gaussian, voxels.
    warp : float
        Standard deviation, at the nodes, of a smooth displacement along each axis, voxels.
    shading : float
        Standard deviation, at the nodes, of the log of a smooth local gain.
    """

    shift: tuple[int, int, int]
    mirror: bool
    gamma: float
    gain: float
    noise: float = 0.0
    seed: tuple[int, ...] = ()
    smooth: float = 0.0
    warp: float = 0.0
    shading: float = 0.0


def draw(recipe: AugmentationRecipe, seed: int, epoch: int, sample: int) -> Change:
    """Draw the change of one sample in one epoch."""
    key = (seed, epoch, sample)
    rng = np.random.default_rng(key)
    most = np.asarray(recipe.shift_voxels, dtype=int)
    x, y, z = (int(n) for n in rng.integers(-most, most + 1))
    mirror = bool(rng.random() < recipe.mirror)
    (low, high), (least, most_gain) = recipe.gamma, recipe.gain
    gamma, gain = rng.uniform(low, high), rng.uniform(least, most_gain)
    noise = float(rng.uniform(0, recipe.noise))
    width, warp, shading = (
        float(rng.uniform(0, limit)) for limit in (recipe.smooth, recipe.warp, recipe.shading)
    )
    return Change(
        (x, y, z), mirror, float(gamma), float(gain), noise, (*key, 1), width, warp, shading
    )


def changes_nothing(recipe: AugmentationRecipe) -> bool:
    """Tell whether a recipe leaves every image as it is."""
    return recipe == AugmentationRecipe()


def wavy(seed: Sequence[int], shape: Sequence[int], channels: int) -> Tensor:
    """Interpolate random values (normal, SD 1) of `NODES` nodes along each axis.

    Returns
    -------
    Tensor of float32, shape (channels, X, Y, Z)
    """
    rng = np.random.default_rng(seed)
    nodes = torch.from_numpy(rng.standard_normal((1, channels, NODES, NODES, NODES), dtype='f4'))
    return functional.interpolate(nodes, tuple(shape), mode='trilinear', align_corners=True)[0]


def warped(volume: Tensor, displacement: Tensor) -> Tensor:
    """Sample a volume (1, X, Y, Z) elsewhere: displacement (3, X, Y, Z), voxels; zero outside."""
    shape = volume.shape[-3:]
    axes = [torch.arange(n, dtype=volume.dtype, device=volume.device) for n in shape]
    at = torch.stack(torch.meshgrid(*axes, indexing='ij')) + displacement.to(volume)
    last = at.new_tensor([max(n - 1, 1) for n in shape])
    there = (2 * at.permute(1, 2, 3, 0) / last - 1).flip(-1)
    return functional.grid_sample(volume[None], there[None], align_corners=True)[0]


def apply_change(volume: Tensor, change: Change) -> Tensor:
    """Shift, mirror, warp, smooth and shade an image, then change its values.

    They become ``gain * (m * (v / m) ** gamma + noise)``, m the maximum.

    Parameters
    ----------
    volume : Tensor, shape (1, X, Y, Z)
        RAS+ axes, so the first spatial axis runs from left to right.  Values of 0 and below
        keep their sign under gamma; voxels that are 0 stay so, like a background cut away.
    change : Change
        From `draw`.
    """
    result = shifted(volume, change.shift)
    if change.mirror:
        result = result.flip(-3)
    if change.warp:
        displacement = change.warp * wavy((*change.seed, 1), result.shape[-3:], 3)
        result = warped(result, displacement)
    if change.smooth:
        result = smooth(result, (change.smooth,) * 3) * (result != 0)
    if change.shading:
        field = wavy((*change.seed, 2), result.shape[-3:], 1)
        result = result * (change.shading * field).exp().to(result)
    largest = result.max().clamp_min(1e-12)
    if change.gamma != 1:
        scaled = result / largest
        result = largest * scaled.sign() * scaled.abs().pow(change.gamma)
    if change.noise:
        rng = np.random.default_rng(change.seed)
        normal = torch.from_numpy(rng.standard_normal(tuple(result.shape), dtype='f4'))
        result = result + change.noise * largest * normal.to(result) * (result != 0)
    return result * change.gain


def augment(
    images: Tensor, samples: Sequence[int], recipe: AugmentationRecipe, seed: int, epoch: int
) -> Tensor:
    """Change every image (B, 1, X, Y, Z) of a batch, on the device where it lies."""
    if changes_nothing(recipe):
        return images
    changed = images.new_empty(images.shape)
    for row, sample in enumerate(samples):
        changed[row] = apply_change(images[row], draw(recipe, seed, epoch, int(sample)))
    return changed
