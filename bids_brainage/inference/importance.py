"""Importance of brain regions and of graph nodes for System D.

Wan et al., AMAge-Net (doi:10.64898/2026.03.28.713645).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bids_brainage.errors import BrainAgeError


def image_gradient(
    model: nn.Module, image: Tensor, *others: Tensor | None
) -> npt.NDArray[np.float32]:
    """Sensitivity of the predicted age to each voxel.

    Parameters
    ----------
    model : Module
        Regressor; run in eval mode and returned to the mode in which it was.
    image : Tensor, shape (1, 1, X, Y, Z)
        Structural input of one scan.
    *others : Tensor or None
        Further inputs of the model, for System D the connectivity (1, N, N).

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Absolute gradient of the prediction (not of a loss, which would weigh each subject by
        its error), years per unit of intensity.

    Raises
    ------
    BrainAgeError
        More than one scan was given.
    """
    if image.ndim != 5 or image.shape[0] != 1:
        raise BrainAgeError(
            f'Saliency explains one scan at a time: expected shape (1, 1, X, Y, Z), found '
            f'{tuple(image.shape)}.'
        )
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = image.detach().clone().requires_grad_(True)
            age = model(leaf, *(None if o is None else o.clone() for o in others))
            (gradient,) = torch.autograd.grad(age.sum(), leaf)
    finally:
        model.train(training)
    magnitude: npt.NDArray[np.float32] = gradient[0, 0].abs().cpu().numpy()
    return magnitude


def region_means(
    values: npt.NDArray[np.floating], atlas: npt.NDArray[np.integer], labels: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Mean of a map inside each region.

    Parameters
    ----------
    values : ndarray, shape (X, Y, Z)
        Map.
    atlas : ndarray of int, shape (X, Y, Z)
        Region of each voxel on the same grid (nearest-neighbour resampled), 0 outside.
    labels : array_like of int, shape (n,)
        Positive labels of the wanted regions, in the wanted order.

    Returns
    -------
    ndarray, shape (n,)
        NaN for regions without a voxel.

    Raises
    ------
    BrainAgeError
        The grids differ, or a label is not positive.
    """
    wanted = np.asarray(labels, dtype=np.int64)
    if values.shape != atlas.shape:
        raise BrainAgeError(
            f'Regional means: expected an atlas of shape {values.shape}, found {atlas.shape}. '
            'Resample the atlas to the grid of the map.'
        )
    if wanted.size == 0 or wanted.min() < 1:
        raise BrainAgeError('Regional means: expected positive labels (0 is the background).')
    regions = np.where(atlas > 0, atlas, 0).astype(np.int64).ravel()
    length = max(int(regions.max()), int(wanted.max())) + 1
    count = np.bincount(regions, minlength=length)[wanted]
    total = np.bincount(regions, weights=values.ravel(), minlength=length)[wanted]
    return np.divide(total, count, out=np.full(len(wanted), np.nan), where=count > 0)
