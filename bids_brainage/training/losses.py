"""Losses: squared, absolute or distribution error, plus System A's auxiliary terms.

The ranking and age-difference terms have the form of TSAN (Liu et al., IEEE TMI 2021), with a
closed soft rank in the place of its learned sorter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bids_brainage.training.recipe import LossRecipe


def soft_ranks(predicted: Tensor, temperature_years: float = 1.0) -> Tensor:
    """Return differentiable ranks divided by their number.

    Parameters
    ----------
    predicted : Tensor, shape (B,)
        Ages, years.
    temperature_years : float
        Difference over which an order is decided.

    Returns
    -------
    Tensor, shape (B,)
        ``(1 + sum over j != i of sigmoid((p_i - p_j) / temperature)) / B``.
    """
    wins = torch.sigmoid((predicted[:, None] - predicted[None, :]) / temperature_years)
    count = len(predicted)
    return (1 + wins.sum(dim=1) - wins.diagonal()) / count


def average_ranks(age: Tensor) -> Tensor:
    """Return ranks from 1, ties averaged, divided by their number; shape (B,)."""
    below = (age[None, :] < age[:, None]).sum(dim=1)
    equal = (age[None, :] == age[:, None]).sum(dim=1)
    return (below + (equal + 1) / 2) / len(age)


def rank_loss(predicted: Tensor, age: Tensor, temperature_years: float = 1.0) -> Tensor:
    """Mean squared difference of the normalised ranks of prediction and age; at most 1/3."""
    return (soft_ranks(predicted, temperature_years) - average_ranks(age)).square().mean()


def difference_loss(predicted: Tensor, age: Tensor) -> Tensor:
    """Mean over pairs of ``((p_i - p_j) - (y_i - y_j))**2`` in closed form, years squared.

    Over all pairs it is twice the unbiased variance of the errors.
    """
    return 2 * (predicted - age).var(correction=1)


def soft_labels(age: Tensor, bin_centres: Tensor, sigma_years: float) -> Tensor:
    """Spread ages over bins as a normal distribution; (B, n_bins), sums to 1."""
    distance = (bin_centres[None, :] - age[:, None]) / sigma_years
    return (-0.5 * distance.square()).softmax(dim=1)


class AgeLoss(nn.Module):
    """The loss of a recipe.

    Parameters
    ----------
    recipe : LossRecipe
        Which terms, with which weights.
    unit_years : float
        Years that count as 1 (the range of the training ages where the recipe asks for it).
    """

    def __init__(self, recipe: LossRecipe, unit_years: float = 1.0) -> None:
        super().__init__()
        self.recipe = recipe
        self.unit_years = unit_years

    def main(self, predicted: Tensor, age: Tensor) -> Tensor:
        """Error of each sample in the loss' unit, squared, absolute or Huber's; shape (B,)."""
        error = (predicted - age) / self.unit_years
        if self.recipe.main == 'l1':
            return error.abs()
        if self.recipe.main == 'huber':
            delta = self.recipe.huber_delta_years / self.unit_years
            return nn.functional.huber_loss(
                error, torch.zeros_like(error), reduction='none', delta=delta
            )
        return error.square()

    def distribution(self, log_probabilities: Tensor, age: Tensor, centres: Tensor) -> Tensor:
        """Kullback-Leibler divergence of each sample's soft label from the prediction; (B,)."""
        label = soft_labels(age, centres, self.recipe.bin_sigma_years)
        known = label * (label.clamp_min(1e-30).log() - log_probabilities)
        return known.sum(dim=1)

    def auxiliary(self, predicted: Tensor, age: Tensor) -> Tensor:
        """Weighted rank and age-difference terms of a batch; 0 for a single sample."""
        weight = self.recipe.auxiliary_weight
        if weight == 0 or len(age) < 2:
            return predicted.new_zeros(())
        rank = rank_loss(predicted, age, self.recipe.temperature_years)
        difference = difference_loss(predicted, age) / self.unit_years**2
        return weight * (rank + self.recipe.difference_weight * difference)
