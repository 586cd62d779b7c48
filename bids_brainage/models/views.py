"""One image seen in several ways, so that an age depends less on where the slices lay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from torch import Tensor


def views(image: Tensor, shift: Sequence[int]) -> Iterator[Tensor]:
    """Yield an image and its mirror image, each moved along every combination of axes.

    Parameters
    ----------
    image : Tensor, shape (B, C, X, Y, Z)
        RAS+: the mirror swaps left and right, axis 2.
    shift : sequence of int
        Voxels along x, y, z; the image is moved by minus, none and plus so many.  An axis with 0
        is left alone.  What comes in is 0.

    Yields
    ------
    Tensor, shape of `image`
        ``2 * 3 ** k`` of them, with `k` axes that move.
    """
    steps = [(-s, 0, s) if s else (0,) for s in shift]
    for seen in (image, image.flip(2)):
        for shifts in product(*steps):
            yield shifted(seen, shifts)


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
