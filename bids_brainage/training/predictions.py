"""What the trained folds say about every scan, and the table of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.outputs.files import write_tsv
from bids_brainage.training.cache import Cache
from bids_brainage.training.job import Job, fold_sources, learnt_sources
from bids_brainage.training.split_table import SCAN_COLUMNS
from bids_brainage.tsv import read_tsv

COLUMNS = (*SCAN_COLUMNS, 'predicted_age')
Row = dict[str, Any]
PREDICT_ROWS = 8


def trained_model(job: Job, cache: Cache, fold: int) -> Any:
    """Return the network of a fold with its best weights, in eval mode on the CPU."""
    import torch

    from bids_brainage.training.network import start_model

    state = torch.load(job.fold_folder(fold) / 'best.pt', map_location='cpu', weights_only=True)
    rows = cache.rows_of(learnt_sources(fold_sources(job)[fold]))
    model = start_model(job, cache.ages[rows], fold)
    model.load_state_dict(state['model'])
    return model.eval()


def predict_rows(
    model: Any, cache: Cache, device: str = 'cpu', rows: Sequence[int] | None = None
) -> npt.NDArray[np.float64]:
    """Predict cached rows, all of them or some: years, shape (n_rows,), NaN for the others."""
    import torch

    model = model.to(device)
    asked = np.arange(len(cache.sources)) if rows is None else np.asarray(rows)
    ages = np.full(len(cache.sources), np.nan)
    with torch.inference_mode():
        for first in range(0, len(asked), PREDICT_ROWS):
            batch = asked[first : first + PREDICT_ROWS]
            inputs = [
                torch.from_numpy(np.array(a[batch])).to(device).float() for a in cache.arrays
            ]
            ages[batch] = model(*inputs).double().cpu().numpy()
    model.to('cpu')
    return ages


def prediction_rows(job: Job, cache: Cache, device: str = 'cpu') -> list[Row]:
    """Predict all scans by all folds.

    Parameters
    ----------
    job : Job
        A finished training.
    cache : Cache
        Its inputs.
    device : str
        Torch device.

    Returns
    -------
    list of dict
        Keys are `COLUMNS`; one row per scan and fold.  The prediction of a scan that was cut
        into synthetic ones is their mean.
    """
    return fold_rows(
        job, cache, lambda fold: predict_rows(trained_model(job, cache, fold), cache, device)
    )


def fold_rows(
    job: Job, cache: Cache, ages_by: Callable[[int], npt.NDArray[np.float64]]
) -> list[Row]:
    """Return the rows of all scans and folds; see `prediction_rows`.

    Parameters
    ----------
    job, cache
        A finished training and its inputs.
    ages_by : callable
        Fold → predicted age of every cached row, years, shape (n_rows,).
    """
    table = read_tsv(job.split)
    result: list[Row] = []
    for fold, roles in fold_sources(job).items():
        predicted: dict[str, list[float]] = defaultdict(list)
        for source, age in zip(cache.sources, ages_by(fold).tolist(), strict=True):
            predicted[source].append(age)
        known = {row['source']: row for row in table if row['fold'] == str(fold)}
        for role, sources in roles.items():
            for source in sorted(sources & set(predicted)):
                row = known[source]
                result.append(
                    {
                        **{name: row.get(name) for name in COLUMNS},
                        'fold': fold,
                        'role': role,
                        'age': float(row['age']),
                        'predicted_age': float(np.mean(predicted[source])),
                    }
                )
    return result


def write_predictions(path: Path, rows: Iterable[Row]) -> None:
    """Write the table."""
    write_tsv(path, list(rows), COLUMNS)


def read_predictions(path: Path) -> list[Row]:
    """Read what `write_predictions` wrote."""
    return [
        {**row, 'age': float(row['age']), 'predicted_age': float(row['predicted_age'])}
        for row in read_tsv(path)
    ]


def of_role(rows: Sequence[Row], *roles: str) -> list[Row]:
    """Return the rows of some roles."""
    return [row for row in rows if row['role'] in roles]


def per_scan(rows: Sequence[Row]) -> list[Row]:
    """Average the folds' predictions of each scan."""
    return _averaged(rows, 'source')


def per_person(rows: Sequence[Row]) -> list[Row]:
    """Average ages and predictions of each person, so that everybody counts once."""
    return _averaged(rows, 'participant_id')


def _averaged(rows: Sequence[Row], key: str) -> list[Row]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return [
        {
            **members[0],
            'age': float(np.mean([m['age'] for m in members])),
            'predicted_age': float(np.mean([m['predicted_age'] for m in members])),
        }
        for members in groups.values()
    ]


def columns(rows: Sequence[Row]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return ages and predicted ages, years, shape (n,) each."""
    age = np.array([row['age'] for row in rows], dtype=float)
    return age, np.array([row['predicted_age'] for row in rows], dtype=float)
