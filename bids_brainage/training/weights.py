"""What each scan counts in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bids_brainage.training.additive import aligned_weights, balanced_weights
from bids_brainage.training.cache import Cache
from bids_brainage.training.job import Job
from bids_brainage.training.recipe import Recipe
from bids_brainage.tsv import read_tsv

Rows = npt.NDArray[np.intp]


def row_weights(
    recipe: Recipe, ages: npt.NDArray[np.float64], training: Rows, cohorts: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return what each cached row counts in the loss; the training rows have a mean of 1."""
    weights = np.ones(len(ages))
    if recipe.loss.weights == 'decades':
        weights[training] = balanced_weights(ages[training])
    elif recipe.loss.weights == 'cohorts':
        weights[training] = aligned_weights(ages[training], [cohorts[k] for k in training])
    return weights


def cohorts_of(job: Job, cache: Cache) -> list[str]:
    """Return the cohort of each cached row."""
    cohorts = {row['source']: row['cohort'] for row in read_tsv(job.split)}
    return [cohorts.get(source, '') for source in cache.sources]
