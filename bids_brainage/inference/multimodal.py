"""What a model of structure and connectivity looked at: gate, nodes and structures.

Wan et al., AMAge-Net (doi:10.64898/2026.03.28.713645).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.preprocessing.atlas import load_atlas, load_structures
from bids_brainage.preprocessing.bold.atlases import Atlas
from bids_brainage.preprocessing.bold.painting import paint
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.preprocessing.transforms import grid_points, sample_image

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
    structures: Path | None = None,
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
    structures : Path or None
        Labels of the person's own structures in the space of the image; given one, the gradient
        inside them is computed.

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
    sensitivity = {}
    if structures is not None and inputs[0] is not None and affine is not None:
        sensitivity = structure_sensitivity(members, inputs, affine, structures)
    return FusionFacts(
        modality=details[0].modality,
        gate=float(np.mean([float(d.gate[0]) for d in details])),
        nodes=tuple(np.mean(weights, axis=0).tolist()) if weights else (),
        structures=sensitivity,
    )


def structure_sensitivity(
    members: list[Any], inputs: tuple[Any, ...], affine: npt.NDArray[np.float64], labels: Path
) -> dict[str, float]:
    """Return the mean absolute gradient of the age inside each structure of the person.

    Parameters
    ----------
    members : list of torch.nn.Module
    inputs : tuple of Tensor or None
    affine : ndarray, shape (4, 4)
        Grid of the image → RAS+ mm of the space that it is aligned with.
    labels : Path
        Structure labels in that space: those of the template lie elsewhere, as the image is not
        deformed.

    Returns
    -------
    dict
        Structure → years per unit of intensity, NaN where it has no voxel.
    """
    import nibabel as nib

    from bids_brainage.inference.importance import image_gradient, region_means

    gradient = np.mean([image_gradient(member, *inputs) for member in members], axis=0)
    image = nib.nifti1.load(labels)
    found = sample_image(
        np.asarray(image.dataobj, np.uint8),
        np.asarray(image.affine, float),
        grid_points(gradient.shape, affine),
        order=0,
    )
    structures = load_structures()
    means = region_means(gradient, found.reshape(gradient.shape), [s.index for s in structures])
    return dict(zip((s.name for s in structures), means.tolist(), strict=True))


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
