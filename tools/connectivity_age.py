"""What the functional branch of AMAge-Net learns from a small table of connectivity.

The table is movie-watching fMRI of OpenNeuro ds000228 (Richardson et al. 2018), reduced to the
correlations of 64 BASC regions: a NumPy file with the lower triangles in array ``a`` and a table
of its rows with ``age``::

    python tools/connectivity_age.py TABLE_connectivity.npz TABLE_rows.tsv

Only the rows with an age can train a regression of age: 33 adults, most of them in their
twenties.  The 50 children carry no individual ages, and telling children from adults is not
regression of age, so they are left out.

The branch (graph attention, cross-attention block without its image, regressor) is trained with
the published recipe (squared error of ages scaled to [0, 1] by the training fold, Adam at 1e-4,
batches of 8, 50 epochs) and no choice of epoch or option by the result.  Everybody is predicted
by networks that have not seen them, in repeated 5-fold cross-validation; their mean over the
repetitions is scored.  Beside it stand the median age of the training fold, and ridge regression
on the same correlations with a penalty fixed beforehand.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Fit = Callable[[Array, Array, Array, int], Array]

EPOCHS = 50
BATCH = 8
LEARNING_RATE = 1e-4
RIDGE_PENALTY = 1.0
"""Times the mean squared norm of the centred training rows."""


def read_table(connectivity: Path, rows: Path) -> tuple[Array, Array]:
    """Return correlation matrices (n, N, N), diagonal 1, and ages (n,) of the rows with an age."""
    with rows.open(newline='', encoding='utf-8') as stream:
        listed = list(csv.DictReader(stream, delimiter='\t'))
    known = [(int(r['row']), float(r['age'])) for r in listed if r['age'] not in ('n/a', '')]
    with np.load(connectivity) as stored:
        vectors = np.asarray(stored['a'], float)[[row for row, _ in known]]
    return square(vectors), np.array([age for _, age in known])


def square(vectors: Array) -> Array:
    """Return symmetric matrices with diagonal 1 from their lower triangles, row by row."""
    size = round((1 + np.sqrt(1 + 8 * vectors.shape[1])) / 2)
    full = np.tile(np.eye(size), (len(vectors), 1, 1))
    row, column = np.tril_indices(size, -1)
    full[:, row, column] = full[:, column, row] = vectors
    return full


def fit_network(
    train: Array, age: Array, test: Array, seed: int, *, epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
) -> Array:  # fmt: skip
    """Train the functional branch and return the ages of the test people, years."""
    import torch

    from bids_brainage.models.amagenet import AMAgeNet

    torch.set_num_threads(1)  # matrices of 64 x 64 gain nothing from more
    torch.manual_seed(seed)
    model = AMAgeNet(n_nodes=train.shape[1], age_range=(float(age.min()), float(age.max())))
    model.set_output_bias(float(age.mean()))
    span = float(np.ptp(age))
    inputs, target = (torch.from_numpy(a.astype(np.float32)) for a in (train, age))
    parts = (model.graph_encoder, model.graph_projection, model.cross_attention, model.regressor)
    weights = [weight for part in parts for weight in part.parameters()]
    optimiser = torch.optim.Adam(weights, lr=learning_rate)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(target), generator=order).split(BATCH):
            error = (model(None, inputs[batch]) - target[batch]) / span
            optimiser.zero_grad()
            (error**2).mean().backward()
            optimiser.step()
    with torch.no_grad():
        return model(None, torch.from_numpy(test.astype(np.float32))).double().numpy()


def fit_median(train: Array, age: Array, test: Array, seed: int) -> Array:
    """Answer the median age of the training people."""
    return np.full(len(test), np.median(age))


def fit_ridge(train: Array, age: Array, test: Array, seed: int) -> Array:
    """Regress age on the correlations with a fixed penalty."""
    triangle = np.tril_indices(train.shape[1], -1)
    inputs = train[:, triangle[0], triangle[1]]
    centre = inputs.mean(axis=0)
    rows, new = inputs - centre, test[:, triangle[0], triangle[1]] - centre
    kernel = rows @ rows.T
    penalty = RIDGE_PENALTY * np.trace(kernel) / len(rows)
    dual = np.linalg.solve(kernel + penalty * np.eye(len(rows)), age - age.mean())
    return age.mean() + new @ rows.T @ dual


def cross_validate(
    matrices: Array, age: Array, fit: Fit, *, folds: int, repeats: int, seed: int
) -> Array:
    """Return the mean held-out prediction of everybody, years; folds are stratified by age."""
    total = np.zeros(len(age))
    for repeat in range(repeats):
        rng = np.random.default_rng((seed, repeat))
        fold = np.empty(len(age), int)
        order = np.argsort(age + rng.uniform(0, 1e-6, len(age)))
        for start in range(0, len(age), folds):  # neighbours in age go to different folds
            block = order[start : start + folds]
            fold[block] = rng.permutation(folds)[: len(block)]
        for k in range(folds):
            held = fold == k
            total[held] += fit(matrices[~held], age[~held], matrices[held], 1000 * repeat + k)
    return total / repeats


def summary(age: Array, predicted: Array, median: Array, seed: int) -> dict[str, Any]:
    """Return error and correlation with 95 % limits from 2000 resamplings of the people."""
    rng = np.random.default_rng(seed)
    error, baseline = np.abs(predicted - age), np.abs(median - age)
    draws = rng.integers(0, len(age), (2000, len(age)))

    def limits(values: list[float]) -> list[float]:
        return [round(float(v), 2) for v in np.nanpercentile(values, [2.5, 97.5])]

    result: dict[str, Any] = {
        'n': len(age),
        'mae': round(float(error.mean()), 2),
        'mae_95': limits([error[d].mean() for d in draws]),
        'better_than_median': round(float((baseline - error).mean()), 2),
        'better_than_median_95': limits([(baseline - error)[d].mean() for d in draws]),
        'r': None,
    }
    if not np.array_equal(predicted, median):
        result['r'] = round(float(np.corrcoef(age, predicted)[0, 1]), 2)
        result['r_95'] = limits([np.corrcoef(age[d], predicted[d])[0, 1] for d in draws])
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run all three and print their numbers as JSON."""
    parser = argparse.ArgumentParser(
        description='Cross-validate the functional branch of AMAge-Net on a connectivity table.'
    )
    parser.add_argument('connectivity', type=Path, help='.npz with lower triangles in array a')
    parser.add_argument('rows', type=Path, help='.tsv with columns row and age')
    parser.add_argument('--folds', type=int, default=5)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args(arguments)
    matrices, age = read_table(given.connectivity, given.rows)
    plan = {'folds': given.folds, 'repeats': given.repeats, 'seed': given.seed}
    predicted = {
        name: cross_validate(matrices, age, fit, **plan)
        for name, fit in (('median', fit_median), ('ridge', fit_ridge), ('network', fit_network))
    }
    result = {
        'ages': {'min': age.min(), 'median': np.median(age), 'max': age.max()},
        **{
            name: summary(age, p, predicted['median'], given.seed) for name, p in predicted.items()
        },
    }
    sys.stdout.write(json.dumps(result, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
