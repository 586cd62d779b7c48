"""Saliency maps: methods, what to show of them, and whether to believe them.

The methods stand in one table and are imported when used, since they need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.errors import ProcessingError
from bids_brainage.inference.saliency.display import SliceChoice, choose_slices, keep_top

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ['METHODS', 'SliceChoice', 'choose_slices', 'explain', 'keep_top']

METHODS = ('gradcam', 'guided_backprop', 'attention')


def explain(
    method: str, model: Any, inputs: tuple[Any, ...], *, relu: bool = True
) -> dict[str, npt.NDArray[np.float32]]:
    """Explain one prediction by the method of a name.

    Parameters
    ----------
    method : str
        ``'gradcam'``, ``'guided_backprop'`` or ``'attention'``.
    model : torch.nn.Module
        A regressor from the registry; for an ensemble the maps of its members are averaged.
    inputs : tuple of Tensor
        Its inputs for one scan; the first is the image (1, 1, X, Y, Z).
    relu : bool
        Grad-CAM only: keep positive evidence (True) or show its absolute value.

    Returns
    -------
    dict of ndarray, float32, shape (X, Y, Z)
        On the input grid.  One map called ``''``, or one per stream of an attention model.

    Raises
    ------
    ProcessingError
        When the method is unknown or does not suit the model.
    """
    if (members := getattr(model, 'members', None)) is not None:
        maps = [explain(method, member, inputs, relu=relu) for member in members]
        return {name: np.mean([m[name] for m in maps], axis=0) for name in maps[0]}
    if method == 'gradcam':
        from bids_brainage.inference.saliency.gradcam import gradcam

        return {'': gradcam(model, inputs, relu=relu)}
    if method == 'attention':
        from bids_brainage.inference.saliency.attention import attention

        return attention(model, inputs)
    if method == 'guided_backprop':
        from bids_brainage.inference.guided_backprop import guided_backprop

        return {'': guided_backprop(model, *inputs)[0, 0].detach().cpu().numpy()}
    raise ProcessingError(f'Unknown saliency method {method!r}. Known: {", ".join(METHODS)}.')
