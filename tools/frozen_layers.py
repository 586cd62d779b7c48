"""Fit the last layers of System D to what its first ones, held still, make of the images.

Some hundred people cannot teach a large network. So each image goes through the first layers a
few times, changed at random as the recipe says, and the age is fitted to what comes out: by
ridge regression on the channels of the last transition, every decade of age counting the same
unless the recipe says otherwise. The regression becomes weights of the projection and of the
regressor, so what is kept is a whole network, which ends with that transition.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bids_brainage.models.amagenet import AMAgeNet
from bids_brainage.training.augment import augment
from bids_brainage.training.cache import Cache, open_cache
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.keeper import BEST
from bids_brainage.training.last_layer import ridge
from bids_brainage.training.network import start_model
from bids_brainage.training.splits import TRAINING, VALIDATION
from bids_brainage.training.weights import cohorts_of, row_weights

LOG = logging.getLogger('frozen_layers')
GUISES = 6
"""How often each image is changed at random, besides as it is."""

STILL = 5
"""Stages of the encoder, blocks and transitions, that are held still with the stem."""

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
LINEAR = 2.0
"""Bias of the last transition's normalisation, so that its rectifier rarely cuts."""

RECIPE = {'fit': 'ridge regression on the channels of the last transition', 'guises': GUISES,
          'penalties': PENALTIES}  # fmt: skip


class LastLayers(nn.Module):
    """What follows the layers that are held still, up to the tokens; shares their weights."""

    def __init__(self, model: AMAgeNet) -> None:
        super().__init__()
        self.stages = model.image_encoder.stages[STILL:]
        self.norm = model.image_encoder.norm

    def forward(self, features: Tensor) -> Tensor:
        """Return the mean token before its projection, shape (B, channels)."""
        last: Tensor = self.norm(self.stages(features)).flatten(2).mean(2)
        return last

    def settle(self, features: Tensor) -> None:
        """Let the normalisations take means and spreads from all who train."""
        nn.init.constant_(self.stages[0].norm.bias, LINEAR)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.reset_running_stats()
                module.momentum = None
        self.train()
        with torch.no_grad():
            self(features)
        self.eval()


def features_of(job: Job, cache: Cache, work: Path) -> Tensor:
    """Return what the still layers make of each row in each guise, the first as it is.

    Kept in ``work``, shape (1 + GUISES, rows, channels, X, Y, Z).
    """
    path = work / f'features-{job.arch}.npy'
    if not path.is_file():
        model = start_model(job, cache.ages, 1).eval()
        first = nn.Sequential(model.image_encoder.stem, *model.image_encoder.stages[:STILL])
        found = []
        for guise in range(1 + GUISES):
            LOG.info('guise %d of %d', guise, GUISES)
            for row in range(len(cache.ages)):
                image = torch.from_numpy(np.array(cache.arrays[0][row : row + 1])).float()
                if guise:
                    image = augment(image, [row], job.recipe.augmentation, job.seed, guise)
                with torch.inference_mode():
                    found.append(first(image).half().numpy())
        together = np.concatenate(found)
        np.save(path, together.reshape(1 + GUISES, -1, *together.shape[1:]))
    return torch.from_numpy(np.load(path))


def fit_last_layers(job: Job, work: Path) -> None:
    """Fit every fold; each keeps the penalty that those who choose like best."""
    cache = open_cache(Path(job.cache))
    features = features_of(job, cache, work).float()
    for fold, roles in fold_sources(job).items():
        training, chosen = (cache.rows_of(roles[role]) for role in (TRAINING, VALIDATION))
        model = start_model(job, cache.ages[training], fold).eval()
        error, penalty = fit_fold(job, cache, model, features, training, chosen)
        folder = job.fold_folder(fold)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({'model': model.state_dict()}, folder / BEST)
        LOG.info('fold %d: penalty %g, %.2f years in %d', fold, penalty, error, len(chosen))


def fit_fold(
    job: Job,
    cache: Cache,
    model: AMAgeNet,
    features: Tensor,
    training: np.ndarray,
    chosen: np.ndarray,
) -> tuple[float, float]:
    """Fit the last layers; return the error in those who choose, years, and the penalty."""
    ages, last = cache.ages, LastLayers(model)
    last.settle(features[:, training].flatten(0, 1))
    with torch.no_grad():
        seen = last(features[:, training].flatten(0, 1)).double().numpy()
        new = last(features[0, chosen]).double().numpy()
    weight = row_weights(job.recipe, ages, training, cohorts_of(job, cache))[training]
    guises = len(features)
    lines = ridge(seen, np.tile(ages[training], guises), np.tile(weight, guises), PENALTIES)
    found = [
        (float(np.abs(new @ line + at_zero - ages[chosen]).mean()), penalty, line, at_zero)
        for penalty, (line, at_zero) in zip(PENALTIES, lines, strict=True)
    ]
    error, penalty, line, at_zero = min(found, key=lambda one: one[0])
    put_line(model, line, at_zero)
    return error, penalty


def put_line(model: AMAgeNet, line: np.ndarray, at_zero: float) -> None:
    """Write a regression into projection and regressor; the other units begin without a say."""
    span, projection = model.age_max - model.age_min, model.image_projection
    hidden, output = model.regressor[0], model.regressor[2]
    with torch.no_grad():
        projection.weight[0] = torch.from_numpy(line / span).float()
        projection.bias[0] = 0
        hidden.weight[0] = 0
        hidden.weight[0, 0], hidden.bias[0] = 1, 1  # the rectifier cuts no possible age
        output.weight[0] = 0
        output.weight[0, 0], output.bias[0] = 1, (at_zero - model.age_min) / span - 1


def told(job: Job) -> dict[str, Any]:
    """Return what the bundle says of how it was fitted."""
    return {**RECIPE, 'augmentation': job.recipe.as_dict()['augmentation']}
