"""Random shifts, mirror, smoothing, gamma, noise and gain of training images.

All but smoothing and noise are those of Kim et al., npj Aging 2025
(doi:10.1038/s41514-025-00260-x).  The random numbers of a sample depend on seed, epoch and sample
only, never on the device, the batch or the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_brainage.preprocessing.smoothing import smooth
from bids_brainage.training.recipe import AugmentationRecipe


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
    noise_seed : tuple of int
    smooth : float
        Standard deviation of a Gaussian, voxels.
    """

    shift: tuple[int, int, int]
    mirror: bool
    gamma: float
    gain: float
    noise: float = 0.0
    noise_seed: tuple[int, ...] = ()
    smooth: float = 0.0


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
    width = float(rng.uniform(0, recipe.smooth))
    return Change((x, y, z), mirror, float(gamma), float(gain), noise, (*key, 1), width)


def changes_nothing(recipe: AugmentationRecipe) -> bool:
    """Tell whether a recipe leaves every image as it is."""
    return recipe == AugmentationRecipe()


def shifted(volume: Tensor, shift: Sequence[int]) -> Tensor:
    """Move a volume (..., X, Y, Z) by whole voxels, filling with zeros."""
    result = volume.new_zeros(volume.shape)
    source: list[slice] = []
    target: list[slice] = []
    for step, size in zip(shift, volume.shape[-3:], strict=True):
        moved = max(-size, min(size, step))
        source.append(slice(max(-moved, 0), size - max(moved, 0)))
        target.append(slice(max(moved, 0), size - max(-moved, 0)))
    result[..., target[0], target[1], target[2]] = volume[..., source[0], source[1], source[2]]
    return result


def apply_change(volume: Tensor, change: Change) -> Tensor:
    """Shift, mirror, smooth, then ``gain * (m * (v / m) ** gamma + noise)``, m the maximum.

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
    if change.smooth:
        result = smooth(result, (change.smooth,) * 3) * (result != 0)
    largest = result.max().clamp_min(1e-12)
    if change.gamma != 1:
        scaled = result / largest
        result = largest * scaled.sign() * scaled.abs().pow(change.gamma)
    if change.noise:
        rng = np.random.default_rng(change.noise_seed)
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
