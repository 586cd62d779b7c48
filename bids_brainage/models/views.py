"""One image seen in several ways, so that an age depends less on where the slices lay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from torch import Tensor
from torch.nn import functional as F


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
        for x, y, z in product(*steps):
            # a negative pad cuts off at the other end
            yield F.pad(seen, (z, -z, y, -y, x, -x))
