"""Fit how structure volumes change over life: ``data/population/structures.json``.

    python tools/fit_population.py NORMATIVE_DIR

``NORMATIVE_DIR`` holds tables of real people: FreeSurfer volumes of OpenNeuro data sets, DLMUSE
volumes of IXI, DLMUSE centiles for the old.  Everything is put on FreeSurfer's scale.

1. The quantity is the log of a structure's share of the intracranial volume.
2. DLMUSE shares are shifted, structure by structure, onto the FreeSurfer curve (25-70 years);
   the DLMUSE median of each age from 60 on continues the curve where real rows are few.
3. One smooth curve per structure through medians of five-year bins, so that every decade counts.
4. People differ by the covariance of the residuals within a data set (scanner, software and
   recruitment stay out of it), robustly estimated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from fit_volumes import STRUCTURES, centile_volumes, dlmuse_volumes, freesurfer_volumes
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

OUT = Path(__file__).parents[1] / 'bids_brainage' / 'data' / 'population' / 'structures.json'
KNOTS = np.array([5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95], float)
SMOOTHING_YEARS = 5.0
OVERLAP = (25.0, 70.0)
OLD = 60
LEAST_PER_DATA_SET = 15
TRIM = 3.5
"""Residuals beyond this many robust standard deviations do not count."""


def shares(table: pd.DataFrame) -> np.ndarray:
    """Return the log shares of the intracranial volume, shape (n, structures)."""
    return np.log(table[STRUCTURES].to_numpy(float) / table['icv'].to_numpy(float)[:, None])


def curve(age: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return smooth medians at `KNOTS`: kernel over ages, every year with the same weight."""
    years = np.arange(4, 97)
    medians = np.full((len(years), values.shape[1]), np.nan)
    for i, year in enumerate(years):
        width = 1.5
        while (near := np.abs(age - year) <= width).sum() < 15 and width < 6:
            width += 0.5
        if near.sum() >= 5:
            medians[i] = np.median(values[near], axis=0)
    known = ~np.isnan(medians[:, 0])
    filled = np.stack([np.interp(years, years[known], m[known]) for m in medians.T], axis=1)
    smooth = gaussian_filter1d(filled, SMOOTHING_YEARS / 2, axis=0, mode='nearest')
    return np.stack([np.interp(KNOTS, years, s) for s in smooth.T], axis=1)


def at(age: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Evaluate a curve of `curve` at ages."""
    return PchipInterpolator(KNOTS, knots, axis=0)(np.clip(age, KNOTS[0], KNOTS[-1]))


def covariance(residual: np.ndarray) -> np.ndarray:
    """Return the covariance of residuals without outliers."""
    spread = 1.4826 * np.median(np.abs(residual - np.median(residual, axis=0)), axis=0)
    clean = residual[(np.abs(residual) < TRIM * spread).all(axis=1)]
    return np.cov(clean.T)


def within(table: pd.DataFrame, residual: np.ndarray) -> np.ndarray:
    """Return residuals minus the median of their data set, of data sets large enough."""
    parts = []
    for _, rows in table.groupby('dataset').indices.items():
        if len(rows) >= LEAST_PER_DATA_SET:
            parts.append(residual[rows] - np.median(residual[rows], axis=0))
    return np.concatenate(parts)


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('normative_dir', type=Path)
    folder = parser.parse_args().normative_dir
    surfer = freesurfer_volumes(folder)
    surfer = surfer[surfer['valid'] & (surfer['age'] >= KNOTS[0])].reset_index(drop=True)
    muse = dlmuse_volumes(folder).drop_duplicates('person').reset_index(drop=True)
    y, age = shares(surfer), surfer['age'].to_numpy(float)
    first = curve(age, y)
    z, ixi_age = shares(muse), muse['age'].to_numpy(float)
    middle = (ixi_age >= OVERLAP[0]) & (ixi_age <= OVERLAP[1])
    z = z - np.median(z[middle] - at(ixi_age[middle], first), axis=0)
    medians = centile_volumes(folder).assign(icv=1.0)
    centile_age, w = medians.index.to_numpy(float), shares(medians)
    early = (centile_age >= 45) & (centile_age < OLD)
    both = curve(np.concatenate([age, ixi_age]), np.concatenate([y, z]))
    w = w - np.median(w[early] - at(centile_age[early], both), axis=0)
    late = centile_age >= OLD
    # a median of the centiles stands for 30 people of its age
    weight = 30
    all_age = np.concatenate([age, ixi_age, np.repeat(centile_age[late], weight)])
    all_y = np.concatenate([y, z, np.repeat(w[late], weight, axis=0)])
    knots = curve(all_age, all_y)
    adult = (age >= 18).nonzero()[0]
    spread = covariance(
        np.concatenate([
            within(surfer.iloc[adult].reset_index(drop=True), (y - at(age, knots))[adult]),
            z - at(ixi_age, knots) - np.median(z - at(ixi_age, knots), axis=0),
        ])
    )  # fmt: skip
    icv = {
        sex: [round(float(rows['icv'].median()), 1), round(float(rows['icv'].std()), 1)]
        for sex, rows in surfer[surfer['age'] >= 18].groupby(surfer['sex'].str[0].str.upper())
        if sex in ('F', 'M')
    }
    content = {
        'description': 'Log share of each structure in the intracranial volume over life '
        '(FreeSurfer scale), covariance of people of one age, intracranial volumes in ml.',
        'method': 'tools/fit_population.py',
        'sources': [
            'OpenNeuroDerivatives FreeSurfer volumes (67 OpenNeuro data sets, CC0/PDDL)',
            'DLMUSE volumes of IXI (IXI: CC BY-SA 3.0) and DLMUSE centiles (SBIA licence), '
            'NiChart project',
        ],
        'n': {'freesurfer': len(surfer), 'ixi': len(muse)},
        'structures': STRUCTURES,
        'age': KNOTS.tolist(),
        'log_share': np.round(knots, 4).tolist(),
        'covariance': np.round(spread, 6).tolist(),
        'intracranial_ml': icv,
    }
    OUT.write_text(json.dumps(content, separators=(',', ':')) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
