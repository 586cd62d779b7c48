"""Attention of a model's last layer as maps on the input grid."""

from __future__ import annotations

import torch
from torch import Tensor

from bids_brainage.errors import ProcessingError
from bids_brainage.inference.saliency.gradcam import Map, upsample


def attention(model: torch.nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Map]:
    """Resample the attention of one prediction to the input grid.

    Parameters
    ----------
    model : Module
        A regressor with a method ``attention_maps(*inputs)`` (System A: the head-averaged
        cross-attention of both class tokens; not in the paper).
    inputs : tuple of Tensor
        The model's inputs for one scan; the first is the image (1, 1, X, Y, Z).

    Returns
    -------
    dict of ndarray, float32, shape (X, Y, Z)
        By stream.  Attention weights, non-negative; on the token grid they sum to 1.

    Raises
    ------
    ProcessingError
        When the model has no attention maps.
    """
    maps_of = getattr(model, 'attention_maps', None)
    if maps_of is None:
        raise ProcessingError(
            f'{type(model).__name__} has no attention maps. Choose another saliency method.'
        )
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            maps = maps_of(*inputs)
    finally:
        model.train(training)
    shape = tuple(inputs[0].shape[2:])
    return {stream: upsample(weights[0], shape) for stream, weights in maps.items()}
