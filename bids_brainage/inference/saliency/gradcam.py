"""Grad-CAM for 3-D regressors.

Selvaraju et al., IJCV 2020 (doi:10.1007/s11263-019-01228-7), with the predicted age in
place of a class score, as Jomsky et al. (arXiv:2412.01865v3) use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bids_brainage.errors import ProcessingError

Map = npt.NDArray[np.float32]


@contextmanager
def _explained(model: nn.Module, layer: nn.Module) -> Iterator[list[Tensor]]:
    """Put the model in eval mode and start the graph at the output of one layer.

    Nothing before that layer is recorded, which spares most of the memory of a full
    backward pass.  Modes and gradient flags are restored afterwards.
    """
    captured: list[Tensor] = []

    def start_graph(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        captured.append(leaf)
        # A copy, so that a following in-place activation cannot overwrite the leaf.
        return leaf.clone()

    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    handle = layer.register_forward_hook(start_graph)
    try:
        model.eval().requires_grad_(False)
        yield captured
    finally:
        handle.remove()
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def upsample(coarse: Tensor, shape: tuple[int, ...]) -> Map:
    """Resample a map (X, Y, Z) to the input grid, trilinearly, cell borders aligned."""
    full = F.interpolate(coarse[None, None], size=shape, mode='trilinear', align_corners=False)
    values: Map = full[0, 0].detach().cpu().numpy()
    return values


def gradcam(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    layer: str | None = None,
    relu: bool = True,
) -> Map:
    """Show where the image pushes one predicted age up.

    ``alpha_k`` is the mean over voxels of d(age)/d(A_k); the map is
    ``ReLU(sum_k alpha_k A_k)``, resampled to the grid of the first input.

    Parameters
    ----------
    model : Module
        Regressor of shape (1,) ages in years.
    inputs : tuple of Tensor
        The model's inputs for one scan; the first is the image (1, 1, X, Y, Z).
    layer : str or None
        Dotted name of the explained layer; None takes the model's ``gradcam_layer``.
    relu : bool
        False shows the absolute value instead: for an age, evidence that pulls the
        prediction down matters as well.

    Returns
    -------
    ndarray, float32, shape (X, Y, Z)
        Years (up to the linearisation), non-negative, not thresholded.

    Raises
    ------
    ProcessingError
        When the model names no layer, or the layer does not give one volume of features.
    """
    name = layer or getattr(model, 'gradcam_layer', '')
    if not name:
        raise ProcessingError(f'{type(model).__name__} declares no layer for Grad-CAM.')
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _explained(model, model.get_submodule(name)) as captured,
    ):
        age = model(*inputs)
        if len(captured) != 1 or captured[0].ndim != 5 or len(captured[0]) != 1:
            shapes = [tuple(t.shape) for t in captured]
            raise ProcessingError(
                f'Grad-CAM of {type(model).__name__}: layer {name!r} gave {shapes}, expected one '
                'output (1, channels, X, Y, Z). Explain one scan at a time.'
            )
        (gradient,) = torch.autograd.grad(age.sum(), captured[0])
    features = captured[0].detach()
    weights = gradient.mean(dim=(2, 3, 4), keepdim=True)
    evidence = (weights * features).sum(dim=1)[0]
    evidence = evidence.relu() if relu else evidence.abs()
    return upsample(evidence, tuple(inputs[0].shape[2:]))
