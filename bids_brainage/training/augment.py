"""Random shifts, mirror, gamma and gain of training images.

Kim et al., npj Aging 2025 (doi:10.1038/s41514-025-00260-x).  The random numbers of a sample
depend on seed, epoch and sample only, never on the device, the batch or the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bids_brainage.training.recipe import AugmentationRecipe


@dataclass(frozen=True)
class Change:
    """What is done to one sample: shift in voxels, left-right mirror, gamma and gain."""

    shift: tuple[int, int, int]
    mirror: bool
    gamma: float
    gain: float


def draw(recipe: AugmentationRecipe, seed: int, epoch: int, sample: int) -> Change:
    """Draw the change of one sample in one epoch."""
    rng = np.random.default_rng([seed, epoch, sample])
    most = np.asarray(recipe.shift_voxels, dtype=int)
    x, y, z = (int(n) for n in rng.integers(-most, most + 1))
    mirror = bool(rng.random() < recipe.mirror)
    (low, high), (least, most_gain) = recipe.gamma, recipe.gain
    gamma, gain = rng.uniform(low, high), rng.uniform(least, most_gain)
    return Change((x, y, z), mirror, float(gamma), float(gain))


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
    """Shift, mirror, then gamma and gain: ``gain * m * (v / m) ** gamma``, m the maximum.

    Parameters
    ----------
    volume : Tensor, shape (1, X, Y, Z)
        RAS+ axes, so the first spatial axis runs from left to right.  Values of 0 and below
        keep their sign under gamma.
    change : Change
        From `draw`.
    """
    result = shifted(volume, change.shift)
    if change.mirror:
        result = result.flip(-3)
    if change.gamma != 1:
        largest = result.max().clamp_min(1e-12)
        scaled = result / largest
        result = largest * scaled.sign() * scaled.abs().pow(change.gamma)
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
