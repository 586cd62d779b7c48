"""What a model of structure and connectivity looked at: gate, nodes and structures.

Wan et al., AMAge-Net (doi:10.64898/2026.03.28.713645).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.preprocessing.atlas import load_atlas
from bids_brainage.preprocessing.bold.atlases import Atlas
from bids_brainage.preprocessing.bold.painting import paint
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.preprocessing.transforms import grid_points

NODES = 'nodes'
"""Name of the map of node importances."""


@dataclass(frozen=True)
class FusionFacts:
    """How one prediction came from two kinds of images.

    Attributes
    ----------
    modality : str
        ``'both'``, ``'structural'`` or ``'functional'``: what it rests on.
    gate : float
        Weight of connectivity in the fusion, 0 to 1.
    nodes : tuple of float
        Attention over the regions of the atlas, sums to 1; empty without connectivity.
    structures : dict
        Structure → mean absolute gradient of the predicted age inside it, years per unit of
        intensity; NaN where it has no voxel, empty without an image.
    """

    modality: str
    gate: float
    nodes: tuple[float, ...]
    structures: dict[str, float]


def fusion_facts(
    model: Any,
    inputs: tuple[Any, ...],
    affine: npt.NDArray[np.float64] | None,
    *,
    explain: bool = True,
) -> FusionFacts | None:
    """Ask a model how it put both kinds of images together.

    Parameters
    ----------
    model : torch.nn.Module
        The members of an ensemble are averaged.
    inputs : tuple of Tensor or None
        Image (1, 1, X, Y, Z) and connectivity (1, N, N).
    affine : ndarray, shape (4, 4), or None
        Grid of the image → RAS+ mm of template space.
    explain : bool
        Compute the gradient inside structures.

    Returns
    -------
    FusionFacts or None
        None for a model that takes one kind of image.
    """
    import torch

    members = model.folds()
    with torch.no_grad():
        details = [member.forward_details(*inputs) for member in members]
    if None in details:
        return None
    weights = [
        d.node_importance[0].cpu().numpy() for d in details if d.node_importance is not None
    ]
    structures = {}
    if explain and inputs[0] is not None and affine is not None:
        structures = structure_sensitivity(members, inputs, affine)
    return FusionFacts(
        modality=details[0].modality,
        gate=float(np.mean([float(d.gate[0]) for d in details])),
        nodes=tuple(np.mean(weights, axis=0).tolist()) if weights else (),
        structures=structures,
    )


def structure_sensitivity(
    members: list[Any], inputs: tuple[Any, ...], affine: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Return the mean absolute gradient of the age inside each structure of the atlas."""
    from bids_brainage.inference.importance import image_gradient, region_means

    gradient = np.mean([image_gradient(member, *inputs) for member in members], axis=0)
    atlas = load_atlas()
    priors = atlas.sample(grid_points(gradient.shape, affine))
    index = np.array([s.index for s in atlas.structures])
    labels = np.where(priors.sum(axis=0) > 0.5, index[priors.argmax(axis=0)], 0)
    means = region_means(gradient, labels.reshape(gradient.shape), index)
    return dict(zip((s.name for s in atlas.structures), means.tolist(), strict=True))


def node_map(facts: FusionFacts, atlas: Atlas) -> tuple[npt.NDArray[np.float32], np.ndarray, str]:
    """Paint the node importances into the atlas.

    Returns
    -------
    map : ndarray of float32, shape (X, Y, Z)
        Importance at every voxel, 0 outside regions.
    affine : ndarray, shape (4, 4)
    space : str
    """
    grid = load_atlas()
    painted, affine = paint(atlas, np.array(facts.nodes), grid.priors.shape[1:], grid.affine)
    return painted, affine, DEFAULT_SPACE
