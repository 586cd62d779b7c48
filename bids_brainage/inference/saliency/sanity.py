"""Whether a saliency map depends on what the network has learnt.

Parameter-randomisation test of Adebayo et al., NeurIPS 2018 (arXiv:1810.03292): a map that
looks the same with shuffled weights explains the image, not the prediction.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn


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

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4], [10, 20, 40, 30]), 6)  # 1 - 6 * (1 + 1) / (4 * 15)
    0.8
    """
    a, b = np.ravel(first), np.ravel(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


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
