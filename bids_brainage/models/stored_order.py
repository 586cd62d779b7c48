"""Networks that were trained on arrays stored from right to left, given RAS+ arrays."""

from __future__ import annotations

from torch import Tensor, nn


class StoredOrder(nn.Module):
    """Reverse the first spatial axis, or leave it.

    Mirrored kernels would do only where every step along the axis meets both ends alike; a
    stride of 2 on an even number of voxels does not.

    Parameters
    ----------
    mirrored : bool
        Reverse it.
    """

    def __init__(self, mirrored: bool) -> None:
        super().__init__()
        self.mirrored = mirrored

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, X, Y, Z)`` to the same shape."""
        return x.flip(2) if self.mirrored else x


def straight_through(value: Tensor, smooth: Tensor) -> Tensor:
    """Return `value`, with the gradient of `smooth`: of an age that is cut off or counted."""
    return value.detach() + (smooth - smooth.detach())
