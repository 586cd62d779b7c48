"""Guided backpropagation for networks of ReLU and LeakyReLU.

Springenberg et al. 2015, "Striving for Simplicity" (arXiv:1412.6806), extended to LeakyReLU:
an activation passes back only positive gradients, times its own slope.  The activation
modules are replaced for the time of one call, the forward pass keeps every bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bids_brainage.errors import BrainAgeError

#: Activations for which the rule is defined.
SUPPORTED = (nn.LeakyReLU, nn.ReLU)
#: Activations for which it is not: a network that holds one is refused.
UNSUPPORTED = (nn.ELU, nn.GELU, nn.PReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)


class _GuidedRectifier(torch.autograd.Function):
    """(Leaky) rectifier whose backward drops negative gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, backward_slope: float) -> Tensor:
        ctx.save_for_backward(x > 0)
        ctx.backward_slope = backward_slope
        return F.relu(x) if slope == 0 else F.leaky_relu(x, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (positive,) = ctx.saved_tensors
        passed = grads[0].clamp(min=0)
        return torch.where(positive, passed, passed * ctx.backward_slope), None, None


class GuidedActivation(nn.Module):
    """Stand-in of a ReLU or LeakyReLU module: same forward, guided backward.

    Parameters
    ----------
    slope : float
        Slope of the forward pass at negative values (0 for ReLU).
    backward_slope : float
        Factor of the passed gradient at negative values.
    """

    def __init__(self, slope: float, backward_slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.backward_slope = backward_slope

    def forward(self, x: Tensor) -> Tensor:
        """Rectify `x`, never in place."""
        result: Tensor = _GuidedRectifier.apply(x, self.slope, self.backward_slope)
        return result


@contextmanager
def guided_activations(model: nn.Module, *, negative_slope: float | None = None) -> Iterator[int]:
    """Replace every activation of a model by its guided form, and put it back afterwards.

    Parameters
    ----------
    model : Module
        Network whose activations are all ReLU or LeakyReLU modules.
    negative_slope : float or None
        Factor of the passed gradient at negative values; ``None`` keeps the slope of each
        activation, 0 is the strict rule of ReLU networks.

    Yields
    ------
    int
        Number of replaced modules.

    Raises
    ------
    BrainAgeError
        The model has no such activation, or also others.
    """
    unsupported = sorted({type(m).__name__ for m in model.modules() if isinstance(m, UNSUPPORTED)})
    found = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, SUPPORTED)
    ]
    if unsupported or not found:
        other = ', '.join(unsupported) or 'no activation module'
        raise BrainAgeError(
            f'Guided backpropagation of {type(model).__name__}: expected ReLU or LeakyReLU '
            f'activations only, found {other}. Choose another saliency method (gradcam).'
        )
    try:
        for name, module in found:
            slope = float(getattr(module, 'negative_slope', 0.0))
            backward = slope if negative_slope is None else negative_slope
            _set(model, name, GuidedActivation(slope, backward))
        yield len(found)
    finally:
        for name, module in found:
            _set(model, name, module)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition('.')
    setattr(model.get_submodule(parent), child, module)


def guided_backprop(
    model: nn.Module,
    volume: Tensor,
    *others: Tensor | None,
    negative_slope: float | None = None,
) -> Tensor:
    """Guided gradient of the predicted age with respect to the input volume.

    Parameters
    ----------
    model : Module
        Age regressor with ReLU or LeakyReLU activations; it is run in eval mode and returned
        to the mode in which it was.
    volume : Tensor, shape (1, 1, X, Y, Z)
        One preprocessed volume.
    *others : Tensor or None
        What the model takes besides; nothing is asked of it.
    negative_slope : float or None
        See `guided_activations`.

    Returns
    -------
    Tensor, shape (1, 1, X, Y, Z)
        Years per unit of intensity; a positive value raises the age.

    Raises
    ------
    BrainAgeError
        More than one volume was given, or the activations are not those of the method.
    """
    if volume.ndim != 5 or volume.shape[0] != 1:
        raise BrainAgeError(
            f'Guided backpropagation explains one volume at a time: expected shape '
            f'(1, 1, X, Y, Z), found {tuple(volume.shape)}.'
        )
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            guided_activations(model, negative_slope=negative_slope),
        ):
            leaf = volume.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(model(leaf, *others).sum(), leaf)
    finally:
        model.train(was_training)
    return gradient
