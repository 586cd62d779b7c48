"""Several trainings of one architecture that predict together: mean or median of their ages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bids_brainage.errors import OptionError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.stored_order import straight_through


class FoldEnsemble(AgeRegressor):
    """Mean of the fold models (Kim et al., npj Aging 2025, doi:10.1038/s41514-025-00260-x).

    Parameters
    ----------
    members : sequence of AgeRegressor
        Networks of one architecture, each with its own weights.
    combine : {'mean', 'median'}
        How their ages become one; the median is that of La Rosa et al., Imaging Neuroscience
        2025 (doi:10.1162/imag_a_00487).

    Attributes
    ----------
    members : torch.nn.ModuleList
        The networks.  Saliency maps of an ensemble are the mean of theirs.
    """

    def __init__(self, members: Sequence[AgeRegressor], *, combine: str = 'mean') -> None:
        super().__init__()
        if combine not in ('mean', 'median'):
            raise OptionError(f'combine: expected mean or median, found {combine!r}.')
        self.combine = combine
        first = members[0]
        self.members = nn.ModuleList(members)
        self.saliency_methods = first.saliency_methods
        self.gradcam_layer = f'members.0.{first.gradcam_layer}' if first.gradcam_layer else ''

    def set_output_bias(self, mean_age: float) -> None:
        """Start every member at the mean age (years) of the training set."""
        for member in self.members:
            assert isinstance(member, AgeRegressor)
            member.set_output_bias(mean_age)

    def folds(self) -> list[AgeRegressor]:
        """Return the members."""
        return list(self.members)  # type: ignore[arg-type]

    def member_ages(self, *inputs: Tensor) -> Tensor:
        """Return the age that each member predicts, years, shape ``(n_members, B)``."""
        return torch.stack([member(*inputs) for member in self.members])

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the mean or median age over the members, years, shape ``(B,)``.

        The gradient of the median is that of the mean, so that every member is explained.
        """
        ages = self.member_ages(*inputs)
        mean = ages.mean(dim=0)
        return mean if self.combine == 'mean' else straight_through(ages.quantile(0.5, 0), mean)

    def attention_maps(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the mean of the members' attention maps, each ``(B, X, Y, Z)``."""
        maps = [member.attention_maps(*inputs) for member in self.members]  # type: ignore[operator]
        return {name: torch.stack([m[name] for m in maps]).mean(dim=0) for name in maps[0]}
