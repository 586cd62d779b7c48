"""Fit the last layer of a network alone, at once, by ridge regression.

Some hundred people cannot teach a network without its forgetting what it knew.  So all other
layers stay as they were at the start: each image goes through them as it is and a few times
changed at random, and the age is a linear function of what comes out, with a penalty on the sum
of its squared slopes (Hoerl and Kennard, 1970, doi:10.1080/00401706.1970.10488634).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from bids_brainage.errors import OptionError
from bids_brainage.outputs.files import write_json
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.training.augment import augment, changes_nothing
from bids_brainage.training.cache import Cache
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.keeper import BEST, DONE, replace_state
from bids_brainage.training.network import start_model
from bids_brainage.training.predictions import PREDICT_ROWS
from bids_brainage.training.recipe import LAST_LAYER
from bids_brainage.training.splits import SIMULATED, TRAINING, VALIDATION
from bids_brainage.training.weights import cohorts_of, row_weights

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Those that are tried, in units of the mean square of a row."""

LINEAR_YEARS = 0.01
"""How closely the age must be what the last layer says of its input."""


def fit_last_layer(job: Job, cache: Cache, fold: int) -> None:
    """Fit one fold; its folder then holds ``best.pt`` and ``done.json``.

    The penalty is the one with which the validation people are told best; with it the layer is
    fitted once more, to training and validation people together.  Simulated people are seen once,
    changed at random, and count together what the recipe's share says.

    Raises
    ------
    OptionError
        The age is no linear function of what the last layer is given.
    """
    roles = fold_sources(job)[fold]
    training, chosen = (cache.rows_of(roles[role]) for role in (TRAINING, VALIDATION))
    learnt, n = np.concatenate([training, chosen]), len(training)
    simulated = cache.rows_of(roles.get(SIMULATED, set()))
    model = start_model(job, cache.ages[training], fold).eval().to(job.accelerator)
    changed = not changes_nothing(job.recipe.augmentation)
    guises = range(1 + job.recipe.run.epochs if changed else 1)
    seen = np.stack([features_of(model, job, cache, learnt, guise) for guise in guises])
    parts = [_people(job, cache, learnt, seen)]
    if len(simulated):
        once = features_of(model, job, cache, simulated, guises[-1])
        parts.append(_people(job, cache, simulated, once[None]))
    trained = [parts[0].of(n), *parts[1:]]
    errors = [
        float(np.abs(seen[0, n:] @ line + at_zero - cache.ages[chosen]).mean())
        for line, at_zero in _lines(trained, job.recipe.run.simulated_share, PENALTIES)
    ]
    best = int(np.argmin(errors))
    penalty = PENALTIES[best]
    ((line, at_zero),) = _lines(parts, job.recipe.run.simulated_share, (penalty,))
    put_line(model, line, at_zero)
    folder = job.fold_folder(fold)
    folder.mkdir(parents=True, exist_ok=True)
    replace_state(folder / BEST, {'model': model.cpu().state_dict()})
    facts = {'penalty': penalty, 'val_mae': errors[best], 'inputs': len(line)}
    write_json(folder / DONE, facts)
    log.log(
        IMPORTANT,
        '%s: fold %d, %d inputs of the last layer, %d scans in %d guises%s; penalty %g, '
        'validation MAE %.2f years',
        job.name, fold, len(line), len(learnt), len(guises),
        f' and {len(simulated)} simulated ones' if len(simulated) else '', penalty, errors[best],
    )  # fmt: skip


@dataclass(frozen=True)
class _People:
    """What the last layer is given of scans in G guises, (G, N, D); ages and weights, (N,)."""

    seen: npt.NDArray[np.float32]
    ages: Array
    weights: Array

    def of(self, first: int) -> _People:
        """Return the first scans."""
        return _People(self.seen[:, :first], self.ages[:first], self.weights[:first])


def _people(job: Job, cache: Cache, rows: Rows, seen: npt.NDArray[np.float32]) -> _People:
    weights = row_weights(job.recipe, cache.ages, rows, cohorts_of(job, cache))
    return _People(seen, cache.ages[rows], weights[rows])


def _lines(
    parts: Sequence[_People], share: float, penalties: Sequence[float]
) -> list[tuple[Array, float]]:
    """Fit all guises of real people, and of simulated ones, who count `share` of all together."""
    inputs, ages, weights = [], [], []
    for part, counts in zip(parts, (1 - share, share), strict=False):
        guises, n, wide = part.seen.shape
        inputs.append(part.seen.reshape(guises * n, wide))
        ages.append(np.tile(part.ages, guises))
        weights.append(np.tile(counts * part.weights / part.weights.sum() / guises, guises))
    together = np.concatenate(weights)
    rows = np.concatenate(inputs) if len(inputs) > 1 else inputs[0]
    return ridge(rows, np.concatenate(ages), together / together.mean(), penalties)


def features_of(
    model: Any, job: Job, cache: Cache, rows: Rows, guise: int
) -> npt.NDArray[np.float32]:
    """Return what the last layer is given of cached rows, shape (n_rows, n_inputs).

    Guise 0 shows an image as it is; another one changes it as the recipe says for that epoch.

    Raises
    ------
    OptionError
        The age is no linear function of it.
    """
    import torch

    layer, given = model.get_submodule(model.output_layer), []
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    found = []
    try:
        for first in range(0, len(rows), PREDICT_ROWS):
            batch = rows[first : first + PREDICT_ROWS]
            inputs = [torch.from_numpy(np.array(a[batch])).float() for a in cache.arrays]
            if guise:
                inputs[0] = augment(
                    inputs[0], batch.tolist(), job.recipe.augmentation, job.seed, guise
                )
            with torch.inference_mode():
                ages = model(*(x.to(job.accelerator) for x in inputs))
                # a network that looks at several views of an image means their ages
                features = torch.stack(given).mean(0)
                apart = (layer(features).flatten() - ages.flatten()).abs().max()
            given.clear()
            if apart > LINEAR_YEARS:
                raise OptionError(
                    f'run.fit = "{LAST_LAYER}": the age of {job.arch} is not what its last layer '
                    f'says ({apart:.2f} years apart). Take fit = "steps".'
                )
            found.append(features.float().cpu().numpy())
    finally:
        hook.remove()
    return np.concatenate(found)


def ridge(
    x: npt.NDArray[np.floating[Any]], y: Array, weights: Array, penalties: Iterable[float]
) -> list[tuple[Array, float]]:
    r"""Return slopes and value at zero for each penalty.

    Minimised is :math:`\sum_i w_i (y_i - a - x_i b)^2 + \lambda s\,|b|^2`, s the weighted mean
    square of a centred row, so that a penalty means the same whatever the unit of `x`.

    Parameters
    ----------
    x : ndarray, shape (N, D)
    y, weights : ndarray, shape (N,)
    penalties : iterable of float
        :math:`\lambda`, above 0.

    Returns
    -------
    list of (ndarray, shape (D,), float)

    Examples
    --------
    Without a penalty to speak of it is the straight line, with one of 1 the slope of a single
    variable falls to N / (N + 1) of it:

    >>> x, y = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0])
    >>> [(line.round(2).tolist(), round(at, 2)) for line, at in ridge(x, y, np.ones(3), (1e-9, 1))]
    [([2.0], 1.0), ([1.5], 1.5)]
    """
    middle = (weights / weights.sum()).astype(x.dtype) @ x
    mean, root = float(np.average(y, weights=weights)), np.sqrt(weights)
    centred = x - middle  # may be large, so it is changed in place
    centred *= root[:, None].astype(x.dtype)
    wide = x.shape[1] > x.shape[0]  # then by the rows (the dual form), else by the variables
    gram = (centred @ centred.T if wide else centred.T @ centred).astype(float)
    size = float(np.trace(gram)) / weights.sum()
    target = root * (y - mean)
    found = []
    for penalty in penalties:
        damped = gram + penalty * size * np.eye(len(gram))
        if wide:
            line = centred.T @ linalg.solve(damped, target, assume_a='pos')
        else:
            line = linalg.solve(damped, centred.T @ target, assume_a='pos')
        found.append((line, mean - float(middle @ line)))
    return found


def put_line(model: Any, line: Array, at_zero: float) -> None:
    """Write a straight line into the last layer of a network."""
    import torch

    layer = model.get_submodule(model.output_layer)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(line)[None])
        layer.bias.fill_(at_zero)
