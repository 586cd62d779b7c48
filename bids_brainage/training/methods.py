"""How models are trained: networks by epochs, models on tables at once.

The registry's ``backend`` of an architecture decides, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.models.registry import model_info
from bids_brainage.training.cache import Cache
from bids_brainage.training.export import export_training
from bids_brainage.training.fit import fit_in_processes, whole_batch
from bids_brainage.training.job import Job
from bids_brainage.training.network import check_network
from bids_brainage.training.predictions import Row, prediction_rows
from bids_brainage.training.recipe import Recipe
from bids_brainage.training.table import (
    check_table,
    export_table,
    fit_table_job,
    table_prediction_rows,
)


@dataclass(frozen=True)
class Method:
    """The steps of a training.

    Attributes
    ----------
    check : callable
        Takes architecture, recipe, ``input`` block, ``--device`` and number of processes;
        raises `OptionError` before any input is prepared.
    fit : callable
        Fits all folds of a job.
    predict : callable
        Takes job and cache; returns the predictions of all scans by all folds.
    export : callable
        Takes path, job, cache, rows, cohort, calibration and, for System B, ``fusion``; writes
        the bundle.
    """

    check: Callable[[str, Recipe, Mapping[str, Any], str, int], None]
    fit: Callable[[Job], None]
    predict: Callable[[Job, Cache], list[Row]]
    export: Callable[..., Bundle]


def method_of(arch: str) -> Method:
    """Return how an architecture is trained."""
    return _METHODS[model_info(arch).backend]


def _check_network(
    arch: str, recipe: Recipe, declared: Mapping[str, Any], device: str, processes: int
) -> None:
    check_network(arch, recipe, declared, processes)
    whole_batch(recipe, processes)


_METHODS = {
    'torch': Method(
        _check_network,
        fit_in_processes,
        lambda job, cache: prediction_rows(job, cache, job.accelerator),
        export_training,
    ),
    'numpy': Method(
        lambda arch, recipe, declared, device, processes: check_table(
            arch, declared, device, processes
        ),
        fit_table_job,
        table_prediction_rows,
        export_table,
    ),
}
