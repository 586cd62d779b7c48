"""Fit the centiles of volumes by age that reports show.

    python tools/normative_curves.py MEASURED_TSV [--out CURVES_JSON]

``MEASURED_TSV`` comes from ``tools/measure_regions.py`` with the packaged segmentation weights,
whose hash the curves carry.  The logarithm of a structure's share of the intracranial volume is
Gaussian with a mean that is a natural cubic spline of age (plus a shift by sex, where the Bayesian
information criterion wants one) and a standard deviation that is log-linear in age.  Every person
counts as measured by networks that have not learnt from them.  People whose image came without
skull have no intracranial volume and are left out.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fit_regions import FOLDS, HOME, REGIONS, family_of, unseen_rows
from scipy.stats import norm

from bids_brainage.segmentation.norms import (
    CENTILES,
    INTRACRANIAL,
    load_structures,
    shares,
    structure_volumes,
)
from bids_brainage.segmentation.weights import card, weights_path

LOG = logging.getLogger('normative_curves')
KNOTS = (25.0, 45.0, 60.0, 72.0)
LEFT_OUT = ('NiChart',)
"""Sources on whose scanner networks that have not seen it cut the fluid short, so that old brains
look whole; some of these people also look like one person at several ages."""

STEP_YEARS, ROUNDS = 2.5, 20
DESCRIPTION = (
    'Mean and standard deviation, at the ages listed, of the natural logarithm of the share: a '
    'natural cubic spline of age, with a shift by sex (F, M) where the Bayesian information '
    'criterion wants one, and a standard deviation that is log-linear in age '
    '(tools/normative_curves.py). Every person was measured by networks that had not learnt from '
    'them.'
)
STRUCTURES = [s.name for s in load_structures() if s.name != INTRACRANIAL]


@dataclass(frozen=True)
class Fit:
    """Mean and log SD of the log share: coefficients, and the shift by sex (M minus F)."""

    mean: np.ndarray
    spread: np.ndarray
    sex: float
    bic: float

    def at(self, age: np.ndarray, sex: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and SD at ages; `sex` is 0.5 for men, -0.5 for women, 0 for either."""
        scaled = (age - 50) / 20
        spread = np.exp(self.spread[0] + self.spread[1] * scaled)
        return basis(age) @ self.mean + self.sex * sex, spread


def basis(age: np.ndarray) -> np.ndarray:
    """Return the natural cubic spline basis of ages (N, knots), straight beyond the knots."""
    knots = (np.array(KNOTS) - 50) / 20
    x = (np.asarray(age, float) - 50) / 20

    def piece(k: int) -> np.ndarray:
        above = np.maximum(x - knots[k], 0) ** 3 - np.maximum(x - knots[-1], 0) ** 3
        return above / (knots[-1] - knots[k])

    last = piece(len(knots) - 2)
    return np.column_stack([np.ones_like(x), x, *(piece(k) - last for k in range(len(knots) - 2))])


def fit(age: np.ndarray, sex: np.ndarray, log_share: np.ndarray, with_sex: bool) -> Fit:
    """Fit mean and spread in turn: weighted least squares, then Fisher scoring of the spread."""
    columns = [basis(age)] + ([sex[:, None]] if with_sex else [])
    design = np.column_stack(columns)
    line = np.column_stack([np.ones_like(age), (age - 50) / 20])
    spread = np.array([np.log(log_share.std()), 0.0])
    for _ in range(ROUNDS):
        weight = np.exp(-line @ spread)
        beta = np.linalg.lstsq(design * weight[:, None], log_share * weight, rcond=None)[0]
        excess = ((log_share - design @ beta) * weight) ** 2 - 1
        spread = spread + np.linalg.lstsq(2 * line, excess, rcond=None)[0]
    sd = np.exp(line @ spread)
    likelihood = norm.logpdf(log_share, design @ beta, sd).sum()
    n_free = design.shape[1] + 2
    bic = n_free * np.log(len(age)) - 2 * likelihood
    n_basis = columns[0].shape[1]
    return Fit(beta[:n_basis], spread, float(beta[n_basis]) if with_sex else 0.0, float(bic))


def read_people(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return who is fitted on, and log shares (people, structures) on the scale of all members.

    The two members are brought onto one scale with the people of `HOME`, whose halves are of like
    ages; no age is used for it.
    """
    table = unseen_rows(path)
    whole = ~table['skull_stripped'].to_numpy(bool) & ~table['source'].isin(LEFT_OUT)
    table = table[whole].reset_index(drop=True)
    rows = table[REGIONS].clip(lower=1e-3).to_dict('records')
    found = [shares(structure_volumes(row)) for row in rows]
    logs = np.log([[row[name] for name in STRUCTURES] for row in found])
    home, member = (table['source'] == HOME).to_numpy(), table['member'].to_numpy(str)
    centre = logs[home].mean(axis=0)
    for name in ('0', '1'):
        mine = member == name
        logs[mine] += centre - logs[mine & home].mean(axis=0)
    return table, logs


def below(age: np.ndarray, sex: np.ndarray, logs: np.ndarray, family: np.ndarray) -> list[float]:
    """Return the share (per cent) of people left out, in ten folds, below each centile."""
    families, first = np.unique(family, return_index=True)
    order = families[np.argsort(age[first])]
    fold = {name: i % FOLDS for i, name in enumerate(order)}
    mine = np.array([fold[name] for name in family])
    z = np.empty(len(age))
    for number in range(FOLDS):
        known, new = mine != number, mine == number
        found = fit(age[known], sex[known], logs[known], with_sex=False)
        mean, sd = found.at(age[new], 0.0)
        z[new] = (logs[new] - mean) / sd
    return [round(float(100 * (z < norm.ppf(c / 100)).mean()), 1) for c in CENTILES]


def make_curves(table: pd.DataFrame, logs: np.ndarray) -> dict[str, Any]:
    """Return the content of ``curves.json``."""
    age = table['age'].to_numpy(float)
    sex = table['sex'].map({'M': 0.5, 'F': -0.5}).to_numpy(float)
    told = np.isfinite(sex)
    family = np.array([family_of(name) for name in table['participant_id']])
    low, high = np.floor(age.min()), np.ceil(age.max())
    grid = np.unique(np.append(np.arange(low, high, STEP_YEARS), high))
    structures: dict[str, Any] = {}
    coverage: dict[str, Any] = {}
    for name, values in zip(STRUCTURES, logs.T, strict=True):
        either = fit(age, sex, values, with_sex=False)
        plain = fit(age[told], sex[told], values[told], with_sex=False)
        by_sex = fit(age[told], sex[told], values[told], with_sex=True)
        lines = {'all': _line(either, grid, 0.0)}
        if by_sex.bic < plain.bic:
            lines |= {'F': _line(by_sex, grid, -0.5), 'M': _line(by_sex, grid, 0.5)}
        structures[name] = lines
        coverage[name] = below(age, sex, values, family)
        LOG.info('%-26s below %s: %s%s', name, CENTILES, coverage[name],
                 f', M - F {by_sex.sex:+.3f}' if 'F' in lines else '')  # fmt: skip
    network = card()
    return {
        'title': 'Shares of the intracranial volume by age',
        'description': DESCRIPTION,
        'license': 'CC BY-SA 4.0, since most were measured in images of IXI (CC BY-SA 3.0)',
        'copyright': network['copyright'],
        'segmentation': {'name': network['name'], 'version': network['version']},
        'weights_sha256': network['weights_sha256'],
        'n': len(age),
        'n_by_sex': {s: int((table['sex'] == s).sum()) for s in ('F', 'M')},
        'sources': {s: int(n) for s, n in sorted(table['source'].value_counts().items())},
        'age_min': float(low),
        'age_max': float(high),
        'people_left_out_below': {'centiles': list(CENTILES), **coverage},
        'age': grid.tolist(),
        'structures': structures,
    }


def _line(found: Fit, grid: np.ndarray, sex: float) -> dict[str, list[float]]:
    mean, sd = found.at(grid, sex)
    return {'mean': np.round(mean, 4).tolist(), 'sd': np.round(sd, 4).tolist()}


def as_text(curves: dict[str, Any]) -> str:
    """Write JSON with one line for each fact and each structure."""
    lines = []
    for key, value in curves.items():
        text = json.dumps(value)
        if isinstance(value, dict) and len(text) > 100:
            inner = ',\n'.join(f'  {json.dumps(k)}: {json.dumps(v)}' for k, v in value.items())
            text = f'{{\n{inner}\n }}'
        lines.append(f' {json.dumps(key)}: {text}')
    return '{\n' + ',\n'.join(lines) + '\n}\n'


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n', 1)[0])
    parser.add_argument('measured', type=Path)
    parser.add_argument('--out', type=Path, default=weights_path().with_name('curves.json'))
    options = parser.parse_args()
    table, logs = read_people(options.measured)
    curves = make_curves(table, logs)
    options.out.write_text(as_text(curves), 'utf-8')


if __name__ == '__main__':
    main()
