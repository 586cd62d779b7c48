"""Fit the bundles on tables of other programs: `tables.openneuro` and `tables.ixi`.

    python tools/fit_tables.py NORMATIVE_DIR OUT_DIR

``NORMATIVE_DIR`` holds FreeSurfer's measures of people of 67 OpenNeuro data sets and DLMUSE's of
people of IXI.  Age is told by support vectors (Vapnik 1995) on random Fourier features (Rahimi and
Recht 2007), so that no row of a person is kept; every decade of age weighs the same, up to a cap.
Thickness enters as a share of the mean thickness: what a site adds everywhere cancels.  For the
many data sets of OpenNeuro the most likely age (tools/posterior.py) counts for more than that.

Every figure on the card leaves whole data sets (for IXI, hospitals and families of scans) out.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from posterior import Prior, fit_posterior
from sklearn.model_selection import GroupKFold
from sklearn.svm import SVR

from bids_brainage.bundles.bundle import export_bundle
from bids_brainage.inputs.harmonise import Site, residuals_of, spread_of
from bids_brainage.inputs.measure_titles import CORTICAL, STRUCTURES
from bids_brainage.inputs.measures import features_of, muse_volumes
from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.models.registry import create_model
from bids_brainage.models.volumes import filled
from bids_brainage.segmentation.regions import OUTER_FLUID, load_regions
from bids_brainage.statistics.conformal import calibrate_by_age, leave_one_out_half_widths_by_age
from bids_brainage.training.additive import balanced_weights, feature_distribution

LOG = logging.getLogger('fit_tables')
FOLDS, LEVEL, SEED = 10, 0.90, 0
WAVES, TAIL, EPSILON_YEARS = 1500, 3.0, 2.0
"""Waves; where standardised features are cut off; errors that do not count."""

DECADES = ((0, 18), (18, 30), (30, 40), (40, 50), (50, 60), (60, 120))
PARTS = {'adults (18 and older)': (18, 120), '18 to 45 years': (18, 45), '50 and older': (50, 120)}
SHORT = {'ThickAvg': 'thickness', 'SurfArea': 'area', 'GrayVol': 'volume'}
SHARES = (0.25, 0.5, 1.0)
"""Parts of the other people, for the learning curve."""

REGIONS = sorted(filter(None, CORTICAL))
FREESURFER = [
    *(f'{name}/brain' for name in STRUCTURES), 'brain', 'brain/head', 'cortex thickness',
    *(f'{name} thickness/cortex thickness' for name in REGIONS),
    'cortex area/brain', *(f'{name} area/cortex area' for name in REGIONS),
    *(f'{name} volume/cortex' for name in REGIONS),
]  # fmt: skip
DLMUSE = [
    *(f'{r.name}/brain' for r in load_regions() if r.name != OUTER_FLUID), 'brain/intracranial',
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How a bundle is fitted.

    `width`: of the waves, in units of the usual distance between two people.  `cost`: of errors.
    `offset_years`: added to age before its logarithm; the larger, the more years count alike.
    `weight_cap`: nobody weighs more than so many times the mean.  `likely`: how the most likely
    age is mixed in, if it is.
    """

    width: float
    cost: float
    offset_years: float
    weight_cap: float
    likely: Prior | None = None

    @property
    def form(self) -> str:
        """Of the model."""
        return 'posterior' if self.likely else 'waves'


@dataclass(frozen=True)
class People:
    """Features (NaN where not known), ages in years, and the source that each person is from."""

    features: np.ndarray
    age: np.ndarray
    source: np.ndarray

    def where(self, keep: np.ndarray) -> People:
        """Return a part of the people."""
        return People(self.features[keep], self.age[keep], self.source[keep])


def measures_of(row: dict[str, Any]) -> dict[str, float]:
    """Return the measures of a row of the FreeSurfer table, named as in stats files."""
    found = {}
    for column, value in row.items():
        if pd.isna(value):
            continue
        head, _, rest = column.partition('_')
        if head in ('aseg', 'hdr'):
            found[rest] = value
        elif head in ('lh', 'rh'):
            name = rest.replace('hdr_Cortex_WhiteSurf', 'cortex_Surf')
            name = name.replace('hdr_Cortex_MeanThickness', 'cortex_ThickAvg')
            region, _, what = name.rpartition('_')
            short = SHORT.get(what)
            if short:
                found[f'{head}-{region}-{short}'] = value
    return found


def openneuro(folder: Path) -> People:
    """Return the people of the FreeSurfer table."""
    table = pd.read_csv(folder / 'openneuro_freesurfer_age.csv.gz')
    rows = table.drop(columns=['age', 'sex']).to_dict('records')
    features = np.array([features_of(measures_of(row), FREESURFER) for row in rows])
    return People(features, table['age'].to_numpy(float), table['dataset'].to_numpy(str))


def ixi(folder: Path) -> People:
    """Return the people of the DLMUSE table, measured at 1 mm where there is such a row."""
    table = pd.read_csv(folder / 'ixi_dlmuse_age.csv.gz')
    table = table[table['age'].notna()].sort_values('table')
    person = table['ixi_id'].str.split('-').str[0]
    table = table[~person.duplicated()]
    names = [c for c in table if c.startswith('muse_')]
    rows = table[names].rename(columns=lambda c: c.replace('muse_', 'MUSE-')).to_dict('records')
    features = np.array([log_ratios(muse_volumes(row), DLMUSE) for row in rows])
    return People(features, table['age'].to_numpy(float), table['site'].to_numpy(str))


def distribution_of(people: People, settings: Settings) -> dict[str, list]:
    """Return how people differ, from those with all measures; every decade weighs the same."""
    whole = np.isfinite(people.features).all(axis=1)
    weights = balanced_weights(people.age[whole], cap=settings.weight_cap)
    return feature_distribution(people.features[whole], weights)


def fit(people: People, settings: Settings) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """Return the tensors of the model, and how people differ."""
    known = distribution_of(people, settings)
    features = np.array([filled(row, known) for row in people.features])
    weights = balanced_weights(people.age, cap=settings.weight_cap)
    share = weights / weights.sum()
    centre = share @ features
    spread = np.sqrt(share @ (features - centre) ** 2)
    z = np.clip((features - centre) / spread, -TAIL, TAIL)
    scales = {'centre': centre, 'scale': spread, 'tail': np.array([TAIL])}
    waves = scales | fit_waves(z, people.age, weights, settings)
    if settings.likely is None:
        return waves, known
    likely = fit_posterior(z, people.age, people.source, settings.likely)
    return scales | likely | {f'waves_{name}': value for name, value in waves.items()}, known


def fit_waves(
    z: np.ndarray, age: np.ndarray, weights: np.ndarray, settings: Settings
) -> dict[str, np.ndarray]:
    """Return the tensors of `WavesRegressor` but for scales; `z` are standardised features."""
    n = settings.likely.waves_see if settings.likely else z.shape[1]
    rng = np.random.default_rng(SEED)
    directions = np.zeros((WAVES, z.shape[1]))
    directions[:, :n] = rng.normal(size=(WAVES, n)) / (settings.width * np.sqrt(n))
    phase = rng.uniform(0, 2 * np.pi, WAVES)
    waves = np.sqrt(2 / WAVES) * np.cos(z @ directions.T + phase)
    target = np.log(age + settings.offset_years)
    middle, stretch = weights @ target / weights.sum(), age.std() / target.std()
    model = SVR(kernel='precomputed', C=settings.cost, epsilon=EPSILON_YEARS)
    model.fit(waves @ waves.T, (target - middle) * stretch, sample_weight=weights)
    height = np.sqrt(2 / WAVES) * (model.dual_coef_[0] @ waves[model.support_]) / stretch
    return {
        'intercept': np.array([middle + model.intercept_[0] / stretch]),
        'linear': np.zeros(z.shape[1]), 'directions': directions, 'phase': phase,
        'height': height, 'offset_years': np.array([settings.offset_years]),
    }  # fmt: skip


def trained(
    people: People, names: list[str], settings: Settings
) -> tuple[Callable[[np.ndarray], np.ndarray], dict[str, list]]:
    """Return the model that some people make, and how they differ."""
    tensors, known = fit(people, settings)
    model = create_model('tables', features=names, form=settings.form)
    model.load_tensors(tensors)
    return model, known


def predict(known: People, others: People, names: list[str], settings: Settings) -> np.ndarray:
    """Fit on some people and return the ages of others."""
    model, distribution = trained(known, names, settings)
    return model(np.array([filled(row, distribution) for row in others.features]))


def left_out(
    people: People, names: list[str], settings: Settings, share: float = 1.0
) -> np.ndarray:
    """Return the age of each person, told from sources that are not their own.

    With a `share` only that part of the other people is used: of their sources, where there are
    many.
    """
    found = np.empty(len(people.age))
    groups = people.source
    many = len(np.unique(groups)) > FOLDS
    folds = FOLDS if many else len(np.unique(groups))
    units = groups if many else np.arange(len(groups)).astype(str)
    rng = np.random.default_rng(SEED)
    for rest, mine in GroupKFold(folds).split(people.age, people.age, groups):
        order = rng.permutation(np.unique(units[rest]))
        used = rest[np.isin(units[rest], order[: round(share * len(order))])]
        found[mine] = predict(people.where(used), people.where(mine), names, settings)
    return found


def harmonised(people: People, names: list[str], settings: Settings) -> np.ndarray:
    """Return ages as `left_out`, each source brought to scale by its other people; NaN if few."""
    found = np.full(len(people.age), np.nan)
    for rest, mine in GroupKFold(FOLDS).split(people.age, people.age, people.source):
        known, others = people.where(rest), people.where(mine)
        model, distribution = trained(known, names, settings)
        curves, spread = usual_people(known, distribution)
        for source in np.unique(others.source):
            own = np.flatnonzero(others.source == source)
            site = Site(source, tuple(own.astype(str)), residuals_of(
                others.features[own], others.age[own], curves
            ))  # fmt: skip
            for k in own:
                if shift := site.shift_of(str(k), spread):
                    row = filled(others.features[k] + shift.values, distribution)
                    found[mine[k]] = model(row[None])[0]
    return found


def figures(age: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Return n, mean absolute error, bias, correlation, and what the median would do."""
    error = found - age
    return {
        'n': len(age), 'mae': round(float(np.abs(error).mean()), 2),
        'bias': round(float(error.mean()), 2),
        'r': round(float(np.corrcoef(age, found)[0, 1]), 3) if len(age) > 2 else None,
        'median_baseline_mae': round(float(np.abs(age - np.median(age)).mean()), 2),
    }  # fmt: skip


def validation(
    people: People, found: np.ndarray, inside: np.ndarray | None, what: str
) -> list[dict]:
    """Return the rows of the card: everybody, adults, and decades."""
    parts = {'everybody': (0, 120), **PARTS}
    parts |= {f'{low} to {high} years' if high < 120 else f'{low} and older': (low, high)
              for low, high in DECADES}  # fmt: skip
    rows = []
    for name, (low, high) in parts.items():
        part = (people.age >= low) & (people.age < high)
        if part.sum() < 3:
            continue
        row = {
            'dataset': f'real tables, {name}', 'simulated': False,
            **figures(people.age[part], found[part]), 'method': what,
        }  # fmt: skip
        if inside is not None:
            row['interval_coverage'] = round(float(inside[part].mean()), 3)
        rows.append(row)
    return rows


def harmonised_rows(
    people: People, alone: np.ndarray, brought: np.ndarray, method: str
) -> list[dict]:
    """Return the rows of the card of `harmonised`, and of the same people without."""
    told = np.isfinite(brought)
    return [
        row
        for how, ages in (
            ('11 and more people', alone),
            ('11 and more, harmonised', brought),
        )
        for row in validation(people.where(told), ages[told], None, f'{method}, {how}')
        if row['dataset'].removeprefix('real tables, ') in PARTS
    ]


def usual_people(
    people: People, known: dict[str, list]
) -> tuple[dict[str, list], dict[str, list[float]]]:
    """Return the features of the usual person of each age, and how sites differ from them.

    By local linear regression.
    """
    features = np.array([filled(row, known) for row in people.features])
    grid = np.linspace(people.age.min(), people.age.max(), 16)
    curves = []
    for at in grid:
        away = people.age - at
        near = np.sqrt(np.exp(-0.5 * (away / 8.0) ** 2))[:, None]
        line = np.stack([np.ones(len(away)), away], axis=1)
        curves.append(np.linalg.lstsq(near * line, near * features, rcond=None)[0][0])
    usual = {'age': grid.round(3).tolist(), 'features': np.array(curves).T.round(5).tolist()}
    return usual, spread_of(residuals_of(features, people.age, usual), people.source)


def export(people: People, names: list[str], text: dict[str, Any], out: Path) -> None:
    """Fit on everybody, judge and calibrate on sources left out, and write the bundle."""
    groups, takes = people.source, text.pop('takes')
    given = text.pop('settings')
    likely = Prior(**given.pop('likely')) if 'likely' in given else None
    settings = Settings(**given, likely=likely)
    found = left_out(people, names, settings)
    error = found - people.age
    interval = calibrate_by_age(error, found, LEVEL)
    widths = leave_one_out_half_widths_by_age(error, found, LEVEL, groups=list(groups))
    method = text.pop('method')
    rows = validation(people, found, np.abs(error) <= widths, method)
    many = len(np.unique(groups)) > FOLDS
    if many:
        rows += harmonised_rows(people, found, harmonised(people, names, settings), method)
    adult = people.age >= 18
    curve = [
        {'share': share, **figures(people.age[adult], ages[adult])}
        for share in SHARES
        for ages in [found if share == 1 else left_out(people, names, settings, share)]
    ]
    for row in (*rows, *curve):
        LOG.info('%s', row)
    tensors, known = fit(people, settings)
    usual, spread = usual_people(people, known)
    sites = {'site_spread': spread} if many else {}
    age = people.age
    metadata = {
        **text,
        'arch': 'tables', 'arch_options': {'features': names, 'form': settings.form},
        'status': 'trained',
        'input': {
            'kind': 'measures', 'space': None, 'voxel_size_mm': None, 'affine': None,
            'orientation': None, 'normalisation': 'log_ratio', 'skull_stripped': None,
            'shape': [len(names)], 'features': names, **takes,
        },
        'output': {'quantity': 'age', 'unit': 'year', 'kind': 'scalar'},
        'training': {
            **text['training'], 'simulated': False, 'sites': sorted(set(groups)), 'n': len(age),
            'age_min': round(float(age.min()), 1), 'age_max': round(float(age.max()), 1),
            'age_mean': round(float(age.mean()), 1), 'feature_distribution': known,
            'reference_curves': usual, **sites, 'learning_curve': curve,
            'recipe': {
                'waves': WAVES, 'tail': TAIL, 'epsilon_years': EPSILON_YEARS, **asdict(settings),
            },
        },
        'validation': rows,
        'bias_correction': None,
        'conformal': {
            'level': LEVEL, 'half_width_years': interval.half_width.value,
            'by_predicted_age': {
                'age': interval.age.tolist(), 'half_width_years': interval.half_widths.tolist(),
            },
            'n': len(age), 'source': rows[0]['method'],
        },
        'saliency': ['contribution'], 'tolerance_years': 1e-3,
        'golden': {'seed': 0, 'scale': known['mean']},
    }  # fmt: skip
    export_bundle(out / text['name'], tensors, metadata, dtype='float32', overwrite=True)


SOURCES: dict[str, tuple[Callable[[Path], People], list[str]]] = {
    'tables.openneuro': (openneuro, FREESURFER),
    'tables.ixi': (ixi, DLMUSE),
}


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('normative', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--only', choices=SOURCES, help='fit this bundle only')
    options = parser.parse_args()
    cards = json.loads(Path(__file__).with_name('tables_cards.json').read_text('utf-8'))
    for name, (read, features) in SOURCES.items():
        if options.only in (None, name):
            export(read(options.normative), features, cards[name], options.out)


if __name__ == '__main__':
    main()
