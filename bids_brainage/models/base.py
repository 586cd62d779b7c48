"""What every torch architecture of the registry promises to the rest of the package."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bids_brainage.errors import OptionError


class AgeRegressor(nn.Module):
    """Base of the age regressors: one scalar age in years per sample.

    A subclass implements ``forward(*inputs) -> (B,)`` and names two of its sub-modules, so
    that callers never need to know which architecture they hold.

    Attributes
    ----------
    gradcam_layer : str
        Dotted name of the sub-module whose output Grad-CAM weighs; that output is
        ``(B, K, X, Y, Z)``. Empty when the architecture has no such layer.
    output_layer : str
        Dotted name of the last :class:`torch.nn.Linear`, whose bias is an age. Empty when
        the output is not in years.
    saliency_methods : tuple of str
        Attribution methods that make sense for the architecture, the default first:
        ``'gradcam'`` (needs `gradcam_layer`), ``'guided_backprop'``, ``'attention'`` (needs a
        method ``attention_maps(*inputs) -> dict[str, Tensor]`` that returns maps
        ``(B, X, Y, Z)`` on coarse grids).
    """

    gradcam_layer: str = ''
    output_layer: str = ''
    saliency_methods: tuple[str, ...] = ()

    def set_output_bias(self, mean_age: float) -> None:
        """Start the output at the mean age (years) of the training set.

        With a learning rate of 1e-4 a bias that starts at 0 needs thousands of steps to
        reach adult ages; the architecture is unchanged.
        """
        if not self.output_layer:
            return
        layer = self.get_submodule(self.output_layer)
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            raise TypeError(f'{self.output_layer} of {type(self).__name__} is no biased Linear.')
        nn.init.constant_(layer.bias, mean_age)

    def folds(self) -> list[AgeRegressor]:
        """Return the networks whose mean this one is: itself, if it is no ensemble."""
        return [self]

    def forward_details(self, *args: Any, **kwargs: Any) -> Any:
        """Predict and tell how two kinds of images were put together; None if it takes one."""
        return None


class MapGenerator(nn.Module):
    """Base of the U-shaped networks that generate maps of cerebral blood volume.

    Attributes
    ----------
    encoders : torch.nn.ModuleList
        From the finest to the coarsest level.
    pool : torch.nn.Module
        Halves the grid between two of them.
    by_slices : bool
        The network sees axial slices, not patches.
    """

    encoders: nn.ModuleList
    pool: nn.Module
    by_slices = False

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the output of every encoder, the finest first.

        Raises
        ------
        OptionError
            An axis cannot be halved at each level.
        """
        multiple = 2 ** (len(self.encoders) - 1)
        if any(n % multiple for n in x.shape[2:]):
            raise OptionError(
                f'AICBV generator: expected axes that are multiples of {multiple} voxels, '
                f'found {tuple(x.shape[2:])}. Pad the input.'
            )
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(self.pool(x) if level else x)
            skips.append(x)
        return skips
