"""Learning rates and stopping as pure functions of the step and of what was measured.

Nothing has a state of its own, so a resumed training sees exactly the rates that an
uninterrupted one would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bids_brainage.training.recipe import Recipe

# Smallest relative improvement that a plateau schedule counts (as in torch).
PLATEAU_THRESHOLD = 1e-4


def warmup_cosine(
    step: int, warmup_steps: int, total_steps: int, start: float, peak: float, final: float
) -> float:
    """Return the learning rate of one optimiser step.

    Linear from `start` to `peak` over the warm-up, then half a cosine to `final`
    (Zhu et al., Bioengineering 2026, doi:10.3390/bioengineering13030315).

    Parameters
    ----------
    step : int
        Optimiser steps done before, from 0.
    warmup_steps, total_steps : int
        Steps of the warm-up, and of all epochs.
    start, peak, final : float
        Learning rates.
    """
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    share = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * share))


def plateau(
    losses: Sequence[float], peak: float, patience: int, factor: float, minimum: float
) -> float:
    """Return the learning rate after some epochs, halved (say) when the loss stands still.

    Parameters
    ----------
    losses : sequence of float
        Validation loss of each finished epoch.
    peak : float
        Rate of the first epoch.
    patience : int
        Epochs without improvement that are borne; the next one lowers the rate.
    factor, minimum : float
        What the rate is multiplied by, and where it stops.
    """
    rate, best, bad = peak, math.inf, 0
    for loss in losses:
        if loss < best * (1 - PLATEAU_THRESHOLD) or best == math.inf:
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            lowered = max(rate * factor, minimum)
            rate, bad = (lowered if rate - lowered > 1e-8 else rate), 0
    return rate


def learning_rate(
    recipe: Recipe, step: int, steps_per_epoch: int, losses: Sequence[float]
) -> float:
    """Return the learning rate of one step.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    step : int
        Optimiser steps done before, over all epochs.
    steps_per_epoch : int
        Steps of one epoch.
    losses : sequence of float
        Validation loss of each finished epoch.
    """
    plan, peak = recipe.schedule, recipe.optimiser.learning_rate
    if plan.name == 'warmup_cosine':
        return warmup_cosine(
            step,
            plan.warmup_epochs * steps_per_epoch,
            recipe.run.epochs * steps_per_epoch,
            plan.start_rate,
            peak,
            plan.final_rate,
        )
    if plan.name == 'plateau':
        return plateau(losses, peak, plan.patience, plan.factor, plan.minimum_rate)
    if plan.name == 'step':
        return peak * plan.factor ** (step // steps_per_epoch // plan.step_epochs)
    return peak


def best_epoch(values: Sequence[float]) -> int:
    """Return the index of the lowest value, the first of equal ones; NaN never wins."""
    known = [(value, index) for index, value in enumerate(values) if math.isfinite(value)]
    return min(known)[1] if known else 0


def finished(values: Sequence[float], epochs: int, patience: int) -> bool:
    """Tell whether training ends after these epochs.

    Parameters
    ----------
    values : sequence of float
        What is monitored, one value an epoch, lower is better.
    epochs : int
        Most epochs.
    patience : int
        Epochs without a new best value after which to stop; 0 never does.
    """
    if len(values) >= epochs:
        return True
    return bool(patience and values and len(values) - 1 - best_epoch(values) >= patience)
