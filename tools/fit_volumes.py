"""Fit the default bundle `volumes.lifespan` on tables of real people.

    python tools/fit_volumes.py NORMATIVE_DIR MEASURED_TSV OUT_DIR

``NORMATIVE_DIR`` holds the tables of real people (FreeSurfer volumes of OpenNeuro data sets,
DLMUSE volumes of IXI, DLMUSE centiles); ``MEASURED_TSV`` holds what this program measured on
scans of people with known age (from ``tools/collect_volumes.py``), among them some who are in
the tables.  Steps:

1. log volume ratios of every person; implausible rows left out;
2. DLMUSE features shifted onto the FreeSurfer scale, so that both follow one age curve;
3. for ages 60 to 93, where real rows are few, people drawn from the centile norms with the
   residuals of real older people;
4. additive spline regression, every five-year bin with the same weight (up to a cap);
5. our measurements shifted onto the FreeSurfer scale by people measured both ways;
6. slope and intercept calibrated on the measured scans; every reported figure leaves the
   person out of all of steps 4 to 6.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from bids_brainage.bundles.bundle import export_bundle
from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.preprocessing.atlas import load_structures
from bids_brainage.statistics.conformal import half_width, leave_one_out_half_widths

LOG = logging.getLogger('fit_volumes')
FEATURES = (
    'lateral_ventricle/brain', 'brain/intracranial', 'cortex/brain',
    'cerebral_white_matter/brain', 'third_ventricle/brain', 'thalamus/brain',
    'hippocampus/brain', 'caudate+putamen+pallidum/brain',
    'cerebellum_cortex+cerebellum_white_matter/brain', 'brainstem/brain',
)  # fmt: skip
KNOTS, SMOOTHNESS, SHRINKAGE, WEIGHT_CAP = 9, 3.0, 1.0, 8.0
LEVEL = 0.90
ADULT = 18.0
ICV_ML, BRAIN_FRACTION = (900.0, 2200.0), (0.60, 0.92)
SEED = 0
STRUCTURES = [s.name for s in load_structures() if s.name != 'csf']


@dataclass(frozen=True)
class People:
    """Features, ages and names of people measured one way."""

    features: np.ndarray
    age: np.ndarray
    person: np.ndarray
    valid: np.ndarray

    def where(self, keep: np.ndarray) -> People:
        """Return a part of the people."""
        return People(self.features[keep], self.age[keep], self.person[keep], self.valid[keep])


def features_of(volumes: pd.DataFrame, intracranial: pd.Series) -> np.ndarray:
    """Return the features of people whose volumes are in millilitres."""
    brain = volumes[STRUCTURES].sum(axis=1)
    table = volumes[STRUCTURES].assign(csf=(intracranial - brain).clip(lower=1e-3))
    return np.array([log_ratios(row, FEATURES) for row in table.to_dict('records')])


def freesurfer_volumes(folder: Path) -> pd.DataFrame:
    """Read the FreeSurfer table (OpenNeuro): structures and ``icv`` in ml, and who it is.

    Column ``valid`` is False where the intracranial volume is implausible.
    """
    table = pd.read_csv(folder / 'openneuro_freesurfer_age.csv.gz', na_values='n/a')

    def both(*names: str) -> pd.Series:
        return sum(
            table[f'aseg_{side}-{name}'].fillna(0) for name in names for side in ('Left', 'Right')
        )

    volumes = pd.DataFrame({
        'lateral_ventricle': both('Lateral-Ventricle', 'Inf-Lat-Vent', 'choroid-plexus'),
        'third_ventricle': table['aseg_3rd-Ventricle'],
        'fourth_ventricle': table['aseg_4th-Ventricle'],
        'cortex': table['hdr_CortexVol'],
        'cerebral_white_matter': table['hdr_CerebralWhiteMatterVol'],
        'cerebellum_cortex': both('Cerebellum-Cortex'),
        'cerebellum_white_matter': both('Cerebellum-White-Matter'),
        'thalamus': both('Thalamus'),
        'caudate': both('Caudate', 'Accumbens-area'),
        'putamen': both('Putamen'),
        'pallidum': both('Pallidum'),
        'hippocampus': both('Hippocampus'),
        'amygdala': both('Amygdala'),
        'brainstem': table['aseg_Brain-Stem'] + both('VentralDC'),
    }) / 1000  # fmt: skip
    icv = table['hdr_eTIV'] / 1000
    fraction = volumes.sum(axis=1) / icv
    valid = icv.between(*ICV_ML) & fraction.between(*BRAIN_FRACTION) & (volumes > 0).all(axis=1)
    person = table['dataset'] + '_' + table['participant_id']
    names = table[['dataset', 'age', 'sex']]
    return volumes.assign(icv=icv, valid=valid, person=person, **names)


def freesurfer(folder: Path) -> People:
    """Return the features of the FreeSurfer table."""
    table = freesurfer_volumes(folder)
    valid = table['valid'].to_numpy()
    features = np.full((len(table), len(FEATURES)), np.nan)
    features[valid] = features_of(table[valid], table['icv'][valid])
    person = table['person'].to_numpy()
    adult = valid & (table['age'] >= ADULT).to_numpy()
    centre = np.nanmedian(features[adult], axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(features[adult] - centre), axis=0)
    valid = valid & (np.nanmax(np.abs(features - centre) / spread, axis=1, initial=0) < 6)
    return People(features, table['age'].to_numpy(float), person, valid)


MUSE = {
    'lateral_ventricle': (49, 50, 51, 52), 'third_ventricle': (4,), 'fourth_ventricle': (11,),
    'cerebellum_cortex': (38, 39, 71, 72, 73), 'cerebellum_white_matter': (40, 41),
    'thalamus': (59, 60), 'caudate': (36, 37, 23, 30), 'putamen': (57, 58), 'pallidum': (55, 56),
    'hippocampus': (47, 48), 'amygdala': (31, 32), 'brainstem': (35, 61, 62),
}  # fmt: skip
DEEP = ('thalamus', 'caudate', 'putamen', 'pallidum', 'hippocampus', 'amygdala')


def _with_cortex(volumes: pd.DataFrame, grey: pd.Series, white: pd.Series) -> pd.DataFrame:
    deep = volumes[list(DEEP)].sum(axis=1)
    return volumes.assign(
        cortex=grey - volumes['cerebellum_cortex'] - deep,
        cerebral_white_matter=white - volumes['cerebellum_white_matter'],
    )


def dlmuse_volumes(folder: Path) -> pd.DataFrame:
    """Read the DLMUSE table (IXI): structures and ``icv`` in ml, and who it is."""
    table = pd.read_csv(folder / 'ixi_dlmuse_age.csv.gz')
    volumes = pd.DataFrame(
        {name: sum(table[f'muse_{code}'] for code in codes) for name, codes in MUSE.items()}
    )
    volumes = _with_cortex(volumes, table['muse_601'], table['muse_604']) / 1000
    names = table[['age', 'table']].assign(person=table['ixi_id'])
    return volumes.assign(icv=table['muse_702'] / 1000, **names)


def dlmuse(folder: Path) -> dict[str, People]:
    """Return the features of the DLMUSE table: the 1 mm and the 2 mm run."""
    table = dlmuse_volumes(folder)
    everyone = People(
        features_of(table, table['icv']),
        table['age'].to_numpy(float),
        table['person'].to_numpy(),
        np.ones(len(table), bool),
    )
    return {
        run: everyone.where(table['table'].str.startswith(run).to_numpy())
        for run in ('1mm', '2mm')
    }


def centile_volumes(folder: Path) -> pd.DataFrame:
    """Read the DLMUSE centiles: the median person of each age, per intracranial volume."""
    names = pd.read_csv(folder / 'muse_roi_names.csv').set_index('Index')['Name']
    table = pd.read_csv(folder / 'dlmuse_centiles_CN_icv_normalised.csv.gz')
    medians = table.pivot_table(index='Age', columns='VarName', values='centile_50')
    volumes = pd.DataFrame(
        {name: sum(medians[names[code]] for code in codes) for name, codes in MUSE.items()}
    )
    return _with_cortex(volumes, medians['GM'], medians['WM'])


def centile_medians(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return ages and the features of the median person of each age (DLMUSE centiles)."""
    volumes = centile_volumes(folder)
    return volumes.index.to_numpy(float), features_of(volumes, pd.Series(1.0, volumes.index))


def balanced_weights(age: np.ndarray) -> np.ndarray:
    """Return weights that give every five-year bin the same sum, capped."""
    index = np.clip(((age - 15) // 5).astype(int), 0, 16)
    weight = 1 / np.maximum(np.bincount(index, minlength=17), 1)
    weight = weight / np.median(weight)
    return np.minimum(weight, WEIGHT_CAP)[index]


def curve_offset(reference: People, other: People) -> np.ndarray:
    """Return how far other people lie off the reference's age curve, per feature."""
    base = reference.where((reference.age >= 20) & (reference.age <= 75))
    mine = other.where((other.age >= 25) & (other.age <= 70))
    weight = balanced_weights(base.age)
    return np.array(
        [
            np.median(
                mine.features[:, j]
                - np.polyval(np.polyfit(base.age, base.features[:, j], 2, w=weight), mine.age)
            )
            for j in range(len(FEATURES))
        ]
    )


@dataclass(frozen=True)
class Tables:
    """Training people on one scale, and every row for matching people by name."""

    training: People
    lookup: People
    n_real: int
    n_drawn: int


def combine(folder: Path) -> Tables:
    """Bring all tables onto the FreeSurfer scale and add people drawn from the centiles."""
    surfer, muse = freesurfer(folder), dlmuse(folder)
    adults = surfer.where(surfer.valid & (surfer.age >= ADULT))
    shifted = {}
    for run, people in muse.items():
        moved = people.features - curve_offset(adults, people)
        shifted[run] = People(moved, people.age, people.person, people.valid)
    both = _join(list(shifted.values()))
    _, first = np.unique(both.person, return_index=True)
    ixi = both.where(np.sort(first))
    drawn = draw_old(ixi, *centile_medians(folder))
    training = _join([adults, ixi, drawn])
    return Tables(
        training, _join([surfer.where(surfer.valid), both]), len(adults.age) + len(ixi.age),
        len(drawn.age),
    )  # fmt: skip


def _join(parts: list[People]) -> People:
    return People(
        *(
            np.concatenate([getattr(p, f) for p in parts])
            for f in ('features', 'age', 'person', 'valid')
        )
    )


def draw_old(ixi: People, ages: np.ndarray, medians: np.ndarray) -> People:
    """Draw people of 60 to 93 from the centile norms with residuals of real older people."""
    rng = np.random.default_rng(SEED)
    base = ixi.where(ixi.age >= 45)
    fits = [np.polyfit(base.age, base.features[:, j], 2) for j in range(len(FEATURES))]
    curve = np.stack([np.polyval(f, base.age) for f in fits], axis=1)
    residuals = base.features - curve
    overlap = np.arange(45, 66)
    at = np.stack([np.interp(overlap, ages, medians[:, j]) for j in range(len(FEATURES))], 1)
    offset = (at - np.stack([np.polyval(f, overlap) for f in fits], 1)).mean(axis=0)
    wanted = np.repeat(np.arange(60, 94), 6).astype(float)
    middle = np.stack([np.interp(wanted, ages, medians[:, j]) for j in range(len(FEATURES))], 1)
    features = middle - offset + residuals[rng.integers(0, len(residuals), len(wanted))]
    n = len(wanted)
    names = np.array([f'drawn-{i}' for i in range(n)], dtype=object)
    return People(features, wanted + rng.random(n), names, np.ones(n, bool))


@dataclass(frozen=True)
class Splines:
    """A fitted additive model: intercept, knots and values of each feature's function."""

    intercept: float
    knots: np.ndarray
    values: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return ages of people, shape (N,)."""
        parts = [
            np.interp(features[:, j], self.knots[j], self.values[j]) for j in range(len(FEATURES))
        ]
        return self.intercept + np.sum(parts, axis=0)


def fit(people: People) -> Splines:
    """Fit the additive model by penalised weighted least squares."""
    weight = balanced_weights(people.age)
    x, y, n = people.features, people.age, len(people.age)
    columns, penalties, knots, centres = [np.ones((n, 1))], [np.zeros((1, 1))], [], []
    for j in range(x.shape[1]):
        order = np.argsort(x[:, j])
        share = np.cumsum(weight[order]) / weight.sum()
        knot = np.interp(np.linspace(0.01, 0.99, KNOTS), share, x[order, j])
        hats = np.stack([np.interp(x[:, j], knot, e) for e in np.eye(KNOTS)], axis=1)
        centre = np.average(hats, axis=0, weights=weight)
        spread = np.sqrt(np.cov(x[:, j], aweights=weight))
        slope = np.diff(np.eye(KNOTS), axis=0) / (np.diff(knot) / spread)[:, None]
        bend = np.diff(slope, axis=0)
        penalties.append(
            SMOOTHNESS * bend.T @ bend
            + SHRINKAGE * slope.T @ slope / (KNOTS - 1)
            + 1e-6 * np.eye(KNOTS)
        )
        columns.append(hats - centre)
        knots.append(knot)
        centres.append(centre)
    design = np.hstack(columns)
    weight = weight / weight.mean()
    gram = design.T @ (design * weight[:, None]) / n + block_diag(*penalties) / 100
    beta = np.linalg.solve(gram, design.T @ (weight * y) / n)
    values = beta[1:].reshape(-1, KNOTS)
    values = values - np.sum(values * np.array(centres), axis=1, keepdims=True)
    return Splines(float(beta[0]), np.array(knots), values)


def pair_offset(measured: pd.DataFrame, own: np.ndarray, tables: Tables, without: str) -> list:
    """Return differences (ours minus tables) of people measured both ways, one left out."""
    rows = []
    for i, row in enumerate(measured.itertuples()):
        if row.participant_id == without or not isinstance(row.table_person, str):
            continue
        hit = np.flatnonzero(tables.lookup.person == row.table_person)
        if len(hit):
            rows.append(own[i] - tables.lookup.features[hit[0]])
    return rows


def predict_left_out(measured: pd.DataFrame, own: np.ndarray, tables: Tables) -> np.ndarray:
    """Return raw ages of all measured scans, each person left out of tables and pairs."""
    raw = np.empty(len(measured))
    for person in measured['participant_id'].unique():
        mine = (measured['participant_id'] == person).to_numpy()
        named = measured.loc[mine, 'table_person'].iloc[0]
        model = fit(tables.training.where(tables.training.person != named))
        offset = np.mean(pair_offset(measured, own, tables, person), axis=0)
        raw[mine] = model(own[mine] - offset)
    return raw


def calibrate_left_out(measured: pd.DataFrame, raw: np.ndarray) -> np.ndarray:
    """Return calibrated ages, slope and intercept fitted on the other people."""
    out = np.empty(len(raw))
    for person in measured['participant_id'].unique():
        mine = (measured['participant_id'] == person).to_numpy()
        line = np.polyfit(raw[~mine], measured['age'][~mine], 1)
        out[mine] = np.polyval(line, raw[mine])
    return out


def coverage(error: np.ndarray, part: np.ndarray) -> float:
    """Return the share of `part` whose error lies in the interval that all others give."""
    half = leave_one_out_half_widths(error, LEVEL)
    return round(float((np.abs(error) <= half)[part].mean()), 3)


LEFT_OUT = 'leave one person out of tables, matching and calibration'


def figures(name: str, age: pd.Series, predicted: np.ndarray, method: str = LEFT_OUT) -> dict:
    """Return one validation row: errors in years beside always saying the median age."""
    error = predicted - age.to_numpy()
    return {
        'dataset': name,
        'simulated': False,
        'n': len(age),
        'mae': round(float(np.abs(error).mean()), 2),
        'bias': round(float(error.mean()), 2),
        'r': round(float(np.corrcoef(predicted, age)[0, 1]), 3),
        'median_baseline_mae': round(float((age - age.median()).abs().mean()), 2),
        'method': method,
    }


def table_figures(tables: Tables) -> dict:
    """Return cross-validated figures on the tables themselves (10 folds by person)."""
    people = tables.training
    real = np.array([not str(p).startswith('drawn-') for p in people.person])
    fold = np.random.default_rng(SEED).integers(0, 10, len(people.age))
    predicted = np.empty(len(people.age))
    for k in range(10):
        predicted[fold == k] = fit(people.where(fold != k))(people.features[fold == k])
    method = '10-fold cross-validation over people, before calibration'
    return figures('tables of real adults', pd.Series(people.age[real]), predicted[real], method)


def main() -> None:
    """Fit, measure, calibrate, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('normative_dir', 'measured_tsv', 'out_dir'):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    tables = combine(options.normative_dir)
    measured = pd.read_csv(options.measured_tsv, sep='\t', na_values='n/a')
    measured = measured[(measured['age'] >= ADULT)].reset_index(drop=True)
    own = np.array(
        [
            log_ratios({s: row[s] for s in (*STRUCTURES, 'csf')}, FEATURES)
            for row in measured.to_dict('records')
        ]
    )
    raw = predict_left_out(measured, own, tables)
    calibrated = calibrate_left_out(measured, raw)
    validation = [figures('real scans, all adults', measured['age'], calibrated)]
    healthy = measured['group'].isin(['healthy', 'healthy control']).to_numpy()
    validation.append(
        figures('real scans, stated healthy adults', measured['age'][healthy], calibrated[healthy])
    )
    error = calibrated - measured['age'].to_numpy()
    validation[0]['interval_coverage'] = coverage(error, np.full(len(error), True))
    validation[1]['interval_coverage'] = coverage(error, healthy)
    for row in (*validation, table_figures(tables)):
        LOG.info('%s', row)
    half = half_width(error, LEVEL).value
    export(tables, measured, own, raw, validation, half, options.out_dir)


def export(tables, measured, own, raw, validation, half, out_dir: Path) -> None:
    """Fold offset and calibration into the weights and write the bundle."""
    people = tables.training
    model = fit(people)
    pairs = np.array(pair_offset(measured, own, tables, ''))
    slope, intercept = np.polyfit(raw, measured['age'], 1)
    noise = np.cov(pairs.T) / 1.0
    spread = np.cov(people.features.T, aweights=balanced_weights(people.age)) + noise
    tensors = {
        'intercept': np.array([slope * model.intercept + intercept], np.float64),
        'knots': model.knots.astype(np.float64),
        'values': (slope * model.values).astype(np.float64),
        'offset': -pairs.mean(axis=0).astype(np.float64),
    }
    middle = np.average(people.features, axis=0, weights=balanced_weights(people.age))
    card = json.loads((Path(__file__).parent / 'volumes_card.json').read_text('utf-8'))
    card['arch_options'] = {'features': list(FEATURES)}
    card['input'] |= {'shape': [len(FEATURES)], 'features': list(FEATURES)}
    card['training'] |= {
        'n': tables.n_real,
        'age_min': ADULT,
        'age_max': 93.0,
        'age_mean': round(float(np.average(people.age, weights=balanced_weights(people.age))), 1),
        'feature_distribution': {
            'mean': middle.tolist(),
            'precision': np.linalg.inv(spread).tolist(),
        },
        'recipe': {
            'knots': KNOTS, 'smoothness': SMOOTHNESS, 'shrinkage': SHRINKAGE,
            'weight_cap': WEIGHT_CAP, 'n_drawn_from_centiles': tables.n_drawn,
            'n_pairs': len(pairs),
            'cross_validation_on_tables': table_figures(tables),
            'calibration_slope': round(float(slope), 4),
            'calibration_intercept': round(float(intercept), 3),
        },
    }  # fmt: skip
    card['validation'] = validation
    card['conformal'] = {
        'level': LEVEL,
        'half_width_years': round(float(half), 2),
        'n': len(measured),
        'source': 'absolute leave-one-out errors on real scans of adults',
    }
    card['golden'] = {'seed': 0, 'scale': [float(v) for v in middle - tensors['offset']]}
    bundle = export_bundle(out_dir / card['name'], tensors, card, dtype='float64', overwrite=True)
    LOG.info('wrote %s', bundle.path)


if __name__ == '__main__':
    main()
