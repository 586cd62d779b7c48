"""Whether a saliency map depends on what the network has learnt.

Parameter-randomisation test of Adebayo et al., NeurIPS 2018 (arXiv:1810.03292): a map that
looks the same with shuffled weights explains the image, not the prediction.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


def _average_ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(np.ravel(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Rank correlation of two maps, ties averaged.

    Parameters
    ----------
    first, second : array_like
        Maps of equal shape.

    Returns
    -------
    float or None
        In [-1, 1]; None when a map is constant.
    """
    a, b = (ranks - ranks.mean() for ranks in map(_average_ranks, (first, second)))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else None


def randomised_copy(model: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a model with the entries of every parameter tensor shuffled.

    The distribution of each tensor's values stays, what was learnt does not.

    Parameters
    ----------
    model : Module
        Left as it is.
    seed : int
        Of the shuffles; the result is the same on every device.
    """
    shuffled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in shuffled.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            flat = parameter.detach().cpu().flatten()[order]
            parameter.copy_(flat.view(parameter.shape))
    return shuffled
