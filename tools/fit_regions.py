"""Compare ways to tell the age from region volumes, and fit the default bundle `volumes.adults`.

    python tools/fit_regions.py MEASURED_TSV CORRECTED_TSV NORMATIVE_DIR OUT_DIR [--compare]

``MEASURED_TSV`` comes from ``tools/measure_regions.py``: what this program measures in real
adults, each by networks that have not seen them.  ``CORRECTED_TSV`` is the same with the bias
field of each image taken out (``--corrected``): everybody is fitted twice, as one person, so that
the age hangs less on what was done to an image before it came here.  Two views of every
candidate: ten folds over people (who look alike stays together), and each source left out.

The rule, written before the candidates were compared: the smaller mean of two errors decides, the
one of IXI's Hammersmith Hospital in ten folds and the one of everybody with their source left
out.  Of candidates that are within 0.2 years of the best, an additive model is taken, since what
it says of a region is exact, and of these the one with fewer sources of rows.  (Straight lines are
additive, too.)
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from likely import LINES_SHARE, RIDGE, STIFFNESS, Likely
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from steady import NOISE, OLD, Centiles, Steady, read_centiles

from bids_brainage.bundles.bundle import export_bundle
from bids_brainage.bundles.validation import SOURCE_LEFT_OUT
from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.models.volumes import filled
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import card
from bids_brainage.statistics.conformal import (
    calibrate_by_age,
    leave_one_out_half_widths_by_age,
)
from bids_brainage.training.additive import (
    balanced_weights,
    contributions,
    feature_distribution,
    fit_additive,
    smooth_by_age,
)
from bids_brainage.training.table import default_features

LOG = logging.getLogger('fit_regions')
LEFT_ALONE = 'hippocampus/brain'
"""Not a feature: in these people its share hardly changes with age, and a smaller one would count
as younger.  Without it people of left-out sources are 0.3 years closer, people left out 0.1
farther."""

FEATURES = [f for f in default_features() if f != LEFT_ALONE] + ['brain/intracranial']
FLUID = FEATURES.index('brain/intracranial')
REGIONS = [region.name for region in load_regions()]
LEVEL, FOLDS = 0.90, 10
HOME = 'IXI Hammersmith'
LOOK_ALIKE = (('12', '15', '16'), ('09', '10'), ('17', '18'), ('19', '21'))
"""People of NiChart who look like one person at several ages."""

PATIENTS = 'multiple sclerosis'
"""Group that is neither fitted on nor judged: their brains are not to look usual for their age."""

AGE_GROUPS = ((0, 45), (45, 60), (60, 120))
STIFFNESSES = (30.0, 50.0, 100.0, 200.0, 300.0)


@dataclass(frozen=True)
class People:
    """Features (N, F; NaN where not known), ages, and who they are."""

    features: np.ndarray
    age: np.ndarray
    source: np.ndarray
    family: np.ndarray

    @property
    def person(self) -> np.ndarray:
        """Who each row is: people of one family are of different ages."""
        return np.char.add(self.family.astype(str), np.char.mod(' %.3f', self.age))

    def where(self, keep: np.ndarray) -> People:
        """Return a part of the people."""
        return People(*(getattr(self, n)[keep] for n in ('features', 'age', 'source', 'family')))

    def and_also(self, others: People) -> People:
        """Return these people and others."""
        names = ('features', 'age', 'source', 'family')
        return People(*(np.concatenate([getattr(self, n), getattr(others, n)]) for n in names))


def family_of(name: str) -> str:
    """Return the people of whom one must not be told from the others."""
    if name.startswith('sub-nichart'):
        for group in LOOK_ALIKE:
            if name[-2:] in group:
                return f'nichart{group[0]}'
    return name


def features_of(volumes: pd.DataFrame, with_fluid: np.ndarray) -> np.ndarray:
    """Return the features of people, NaN for those that need a fluid that is not there."""
    rows = volumes[REGIONS].clip(lower=1e-3).to_dict('records')
    features = np.array([log_ratios(row, FEATURES) for row in rows])
    features[~with_fluid, FLUID] = np.nan
    return features


def healthy_scans(path: Path) -> pd.DataFrame:
    """Return the rows of the first scan of each person who is not a patient of `PATIENTS`."""
    table = pd.read_csv(path, sep='\t', na_values='n/a', dtype={'member': str, 'learnt': str})
    table = table[table['group'] != PATIENTS]
    first = table.drop_duplicates('person')['scan']
    return table[table['scan'].isin(first)]


def member_rows(path: Path, member: str) -> pd.DataFrame:
    """Return the rows of `healthy_scans` by one member of the ensemble, or by ``all``."""
    table = healthy_scans(path)
    return table[table['member'] == member].reset_index(drop=True)


def unseen_rows(path: Path) -> pd.DataFrame:
    """Return one row a person, measured by the member that has not learnt from them.

    By all members, where none has.
    """
    table = healthy_scans(path)
    other = {'0': '1', '1': '0', 'none': 'all'}
    return table[table['member'] == table['learnt'].map(other)].reset_index(drop=True)


@dataclass(frozen=True)
class Measured:
    """One scan of each person.

    Attributes
    ----------
    everybody, everybody_corrected : People
        Measured by all members of the ensemble, as stored and without the bias field: what the
        bundle is fitted on.
    unseen, unseen_corrected : People
        Measured by the member that has not learnt from the person (by all, where none has): what
        is judged.  The two members are brought onto one scale with the people of `HOME`, whose
        halves are of like ages; no age is used for it.
    table : DataFrame
        Who they are.
    """

    everybody: People
    everybody_corrected: People
    unseen: People
    unseen_corrected: People
    table: pd.DataFrame


def measured_people(stored: Path, corrected: Path) -> Measured:
    """Read both tables."""
    (table, new), (table_too, new_too) = (
        (member_rows(path, 'all'), unseen_rows(path)) for path in (stored, corrected)
    )
    if table['scan'].tolist() != table_too['scan'].tolist():
        raise ValueError(f'{corrected} has other scans than {stored}, or another order')
    everybody, unseen, unseen_too = _people(table), _people(new), _people(new_too)
    home, member = unseen.source == HOME, new['member'].to_numpy(str)
    centre = np.nanmean(everybody.features[home], axis=0)
    for name in ('0', '1'):
        mine = member == name
        offset = centre - np.nanmean(unseen.features[mine & home], axis=0)
        unseen.features[mine] += offset
        unseen_too.features[mine] += offset
    return Measured(everybody, _people(table_too), unseen, unseen_too, table)


def _people(table: pd.DataFrame) -> People:
    return People(
        features_of(table, ~table['skull_stripped'].to_numpy(bool)),
        table['age'].to_numpy(float),
        table['source'].to_numpy(str),
        np.array([family_of(name) for name in table['participant_id']]),
    )


def measured_twice(path: Path) -> np.ndarray:
    """Return how the features of each person differ between the two networks, in their order."""
    first, second = (_people(member_rows(path, name)) for name in ('0', '1'))
    return first.features - second.features


def table_people(folder: Path, measured: pd.DataFrame, people: People) -> People:
    """Return people of IXI's other scanners measured by DLMUSE at 1 mm, on our scale.

    The scale is that of people of Hammersmith Hospital who were measured both ways; their ages
    are not used for it.
    """
    table = pd.read_csv(folder / 'ixi_dlmuse_age.csv.gz')
    table = table[(table['table'] == '1mm_IXI_ROIs') & table['age'].notna()].copy()
    table['muse_1'] = table['muse_600']
    volumes = pd.DataFrame(
        {r.name: table[[f'muse_{c}' for c in r.muse]].sum(axis='columns') for r in load_regions()}
    ) / 1000  # fmt: skip
    theirs = features_of(volumes, np.ones(len(table), bool))
    person = table['ixi_id'].str.split('-').str[0].to_numpy(str)
    ours = {who: row for who, row in zip(measured['person'], people.features, strict=True)}
    home = table['site'].to_numpy(str) == 'HH'
    pairs = [
        (ours[who], row)
        for who, row in zip(person[home], theirs[home], strict=True)
        if who in ours
    ]
    offset = np.median([a - b for a, b in pairs], axis=0)
    rest = ~home & ~np.isin(person, list(ours))
    return People(
        theirs[rest] + offset,
        table['age'].to_numpy(float)[rest],
        np.where(table['site'].to_numpy(str) == 'Guys', 'IXI Guys', 'IXI IOP')[rest],
        np.array([f'table-{who}' for who in person[rest]]),
    )


class Model(Protocol):
    """A regression of age."""

    def fit(self, features: np.ndarray, age: np.ndarray) -> Any:
        """Learn."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years."""


class Additive:
    """The additive model of this program."""

    def fit(self, features: np.ndarray, age: np.ndarray) -> Additive:
        """Learn, with the weights of `balanced_weights`."""
        self.tensors = fit_additive(features, age)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years."""
        return self.tensors['intercept'][0] + contributions(self.tensors, features).sum(axis=1)


class Weighted:
    """A regression of scikit-learn on standardised features, every decade weighing the same."""

    def __init__(self, make: Callable[[], Any], weighted: bool = True) -> None:
        self.make, self.weighted = make, weighted

    def fit(self, features: np.ndarray, age: np.ndarray) -> Weighted:
        """Learn."""
        self.model = make_pipeline(StandardScaler(), self.make())
        last = self.model.steps[-1][0]
        weight = {f'{last}__sample_weight': balanced_weights(age)} if self.weighted else {}
        self.model.fit(features, age, **weight)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years."""
        return self.model.predict(features)


class Mean:
    """The mean of several regressions."""

    def __init__(self, *models: Model) -> None:
        self.models = models

    def fit(self, features: np.ndarray, age: np.ndarray) -> Mean:
        """Learn."""
        for model in self.models:
            model.fit(features, age)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years."""
        return np.mean([model.predict(features) for model in self.models], axis=0)


def _ridge() -> Weighted:
    return Weighted(lambda: RidgeCV(np.logspace(-1, 3, 17)))


def _process() -> Weighted:
    kernel = ConstantKernel(100) * RBF(8) + ConstantKernel(10) * DotProduct(1) + WhiteKernel(40)
    return Weighted(lambda: GaussianProcessRegressor(kernel, normalize_y=True), weighted=False)


def _vectors() -> Weighted:
    return Weighted(lambda: SVR(C=30, gamma=0.005, epsilon=2))


def _trees() -> Weighted:
    return Weighted(lambda: HistGradientBoostingRegressor(max_depth=3, learning_rate=0.05))


Make = Callable[[np.ndarray, People], Model]
"""Makes a model, told which of the measured people it may know, and all whom it may know."""


def candidates(noise: np.ndarray, centiles: Centiles) -> dict[str, Make]:
    """Return what is compared; `noise` is from `measured_twice`."""
    alone: dict[str, Callable[[], Model]] = {
        'additive': Additive,
        'ridge': _ridge,
        'Gaussian process': _process,
        'support vectors': _vectors,
        'boosted trees': _trees,
        'mean of additive, process, vectors': lambda: Mean(Additive(), _process(), _vectors()),
    }
    found: dict[str, Make] = {
        name: lambda known, people, make=make: make() for name, make in alone.items()
    }
    found['lines, noise heeded'] = lambda known, people: Steady(noise[known], None, people.person)
    found['lines, noise heeded, centiles of the old'] = lambda known, people: Steady(
        noise[known], centiles, people.person
    )
    found['most likely age and these lines'] = likely(noise, centiles)
    found['the same, stiffness chosen inside'] = chosen_inside(noise, centiles)
    return found


def likely(noise: np.ndarray, centiles: Centiles, stiffness: float = STIFFNESS) -> Make:
    """Return what makes the model of the bundle."""
    return lambda known, people: Likely(
        noise[known], centiles, people.source, people.person, stiffness
    )


def chosen_inside(noise: np.ndarray, centiles: Centiles) -> Make:
    """Return what makes that model with the stiffness that is best for the people it may know.

    The mean of the errors under 45, from 45 to 60, and over 60, in ten folds over these people
    and with each of their sources left out.
    """

    def make(known: np.ndarray, people: People) -> Model:
        more = np.full((len(people.age) - known.sum(), noise.shape[1]), np.nan)
        theirs = np.vstack([noise[known], more])

        def error(stiffness: float) -> float:
            inner = likely(theirs, centiles, stiffness)
            views = (folds_of(people), people.source)
            away = [np.abs(left_out(inner, people, None, v) - people.age) for v in views]
            groups = [(people.age >= low) & (people.age < high) for low, high in AGE_GROUPS]
            return sum(a[group].mean() for a in away for group in groups if group.any())

        best = min(STIFFNESSES, key=error)
        return Likely(theirs, centiles, people.source, people.person, best)

    return make


def predict_others(model: Model, known: People, others: People) -> np.ndarray:
    """Fit on some people and return the ages of others."""
    learnt, people = _complete(known)
    asked = np.array([filled(row, people) for row in others.features])
    return model.fit(learnt, known.age).predict(asked)


def left_out(make: Make, people: People, more: People | None, groups: np.ndarray) -> np.ndarray:
    """Return the age of each person, their group left out.

    Rows of `more` are learnt from, too, but for those of the group's families, and of its sources
    if these are left out altogether.
    """
    found = np.empty(len(people.age))
    for group in np.unique(groups):
        mine = groups == group
        known = people.where(~mine)
        if more is not None:
            whole_source = set(people.source[mine]) - set(people.source[~mine])
            theirs = np.isin(more.source, list(whole_source))
            theirs |= np.isin(more.family, people.family[mine])
            known = known.and_also(more.where(~theirs))
        found[mine] = predict_others(make(~mine, known), known, people.where(mine))
    return found


def folds_of(people: People, seed: int = 0) -> np.ndarray:
    """Return ten folds over families, each with people of every age."""
    families, first = np.unique(people.family, return_index=True)
    order = np.argsort(people.age[first] + np.random.default_rng(seed).random(len(first)))
    number = dict(zip(families[order], np.arange(len(order)) % FOLDS, strict=True))
    return np.array([number[family] for family in people.family])


def figures(age: np.ndarray, found: np.ndarray) -> dict[str, float | int | None]:
    """Return n, mean absolute error, bias and correlation."""
    error = found - age
    r = float(np.corrcoef(age, found)[0, 1]) if len(age) > 2 else None
    return {
        'n': len(age), 'mae': round(float(np.abs(error).mean()), 2),
        'bias': round(float(error.mean()), 2), 'r': None if r is None else round(r, 3),
        'median_baseline_mae': round(float(np.abs(age - np.median(age)).mean()), 2),
    }  # fmt: skip


def table_of(people: People, found: np.ndarray, inside: np.ndarray | None = None) -> pd.DataFrame:
    """Return the figures of everybody, of each source and of each age group."""
    parts = {'everybody': np.ones(len(people.age), bool)}
    parts |= {source: people.source == source for source in np.unique(people.source)}
    for low, high in AGE_GROUPS:
        name = (
            f'{low} to {high} years'
            if low and high < 120
            else f'under {high}'
            if not low
            else f'{low} and older'
        )
        parts[name] = (people.age >= low) & (people.age < high)
    rows = []
    for name, part in parts.items():
        row: dict[str, Any] = {'people': name, **figures(people.age[part], found[part])}
        if inside is not None:
            row['inside'] = round(float(inside[part].mean()), 3)
        rows.append(row)
    return pd.DataFrame(rows)


def _largest_bias(people: People, found: np.ndarray) -> str:
    """Return the source of at least five people with the largest bias, and the bias."""
    error = found - people.age
    sources = [s for s in np.unique(people.source) if (people.source == s).sum() >= 5]
    worst = max(sources, key=lambda s: abs(error[people.source == s].mean()))
    return f'{worst} {error[people.source == worst].mean():+.1f}'


def compare(
    people: People, learnt_beside: dict[str, People | None], makes: dict[str, Make], out: Path
) -> None:
    """Write the figures of all candidates in both views, with each kind of rows beside."""
    home, rows = people.source == HOME, []
    for extra, others in learnt_beside.items():
        for name, make in makes.items():
            folds = left_out(make, people, others, folds_of(people))
            sources = left_out(make, people, others, people.source)
            one, two = figures(people.age[home], folds[home]), figures(people.age, sources)
            rows.append({
                'candidate': name + extra, 'criterion': (one['mae'] + two['mae']) / 2,
                **{f'folds_home_{k}': v for k, v in one.items()},
                **{f'folds_all_{k}': v for k, v in figures(people.age, folds).items()},
                **{f'sources_all_{k}': v for k, v in two.items()},
                'largest_bias': _largest_bias(people, sources),
            })  # fmt: skip
            LOG.info('%s', {k: v for k, v in rows[-1].items() if 'baseline' not in k})
    pd.DataFrame(rows).to_csv(out / 'candidates.tsv', sep='\t', index=False)


def _complete(people: People) -> tuple[np.ndarray, dict[str, list]]:
    """Return the features with what is not known filled in, and how the people differ."""
    whole = people.where(np.isfinite(people.features).all(axis=1))
    distribution = feature_distribution(
        whole.features, balanced_weights(whole.age, whole.person.tolist())
    )
    return np.array([filled(row, distribution) for row in people.features]), distribution


def export(
    measured: Measured,
    noise: np.ndarray,
    centiles: Centiles,
    out: Path,
    text: dict[str, Any],
) -> None:
    """Fit on everybody, judge and calibrate on people left out, and write bundle and tables."""
    make, people, beside = likely(noise, centiles), measured.unseen, measured.unseen_corrected
    folds = left_out(make, people, beside, folds_of(people))
    sources = left_out(make, people, beside, people.source)
    widths = leave_one_out_half_widths_by_age(
        folds - people.age, folds, LEVEL, groups=list(people.family)
    )
    inside = np.abs(folds - people.age) <= widths
    by_fold = table_of(people, folds, inside)
    interval = calibrate_by_age(folds - people.age, folds, LEVEL)
    by_source = table_of(people, sources)
    for name, table in (('folds', by_fold), ('sources', by_source)):
        table.to_csv(out / f'{name}.tsv', sep='\t', index=False)
        LOG.info('%s\n%s', name, table.to_string())
    known = measured.everybody.and_also(measured.everybody_corrected)
    features, distribution = _complete(known)
    model = Likely(noise, centiles, known.source, known.person).fit(features, known.age)
    ages, usual = smooth_by_age(features, known.age)
    curves = {'age': ages.round(3).tolist(), 'features': usual.T.round(5).tolist()}
    metadata = {
        **text,
        'arch': 'volumes',
        'arch_options': {'features': FEATURES, 'form': 'posterior'},
        'status': 'trained',
        'input': {
            'kind': 'region_volumes', 'space': 'T1w', 'voxel_size_mm': None, 'affine': None,
            'orientation': None, 'normalisation': 'log_ratio', 'skull_stripped': None,
            'shape': [len(FEATURES)], 'features': FEATURES,
            'segmentation': {key: card()[key] for key in ('name', 'weights_sha256')},
        },
        'output': {'quantity': 'age', 'unit': 'year', 'kind': 'scalar'},
        'training': {
            **text['training'],
            'simulated': False,
            'sites': sorted(set(known.source)),
            'n': len(people.age),
            'age_min': round(float(known.age.min()), 1),
            'age_max': round(float(known.age.max()), 1),
            'age_mean': round(float(known.age.mean()), 1),
            'feature_distribution': distribution,
            'reference_curves': curves,
            'recipe': {
                'stiffness': STIFFNESS, 'ridge': RIDGE, 'lines_share': LINES_SHARE,
                'penalty': model.lines.penalty, 'noise': NOISE, 'centiles_from': OLD,
            },
        },
        'validation': [
            *_validation(by_fold, 'people left out (10 folds)', LEVEL),
            *_validation(by_source, SOURCE_LEFT_OUT, None),
        ],
        'bias_correction': None,
        'conformal': {
            'level': LEVEL,
            'half_width_years': interval.half_width.value,
            'by_predicted_age': {
                'age': interval.age.tolist(),
                'half_width_years': interval.half_widths.tolist(),
            },
            'n': len(people.age),
            'source': 'people left out (10 folds), measured by networks that have not seen them',
        },
        'saliency': ['contribution'],
        'tolerance_years': 1e-6,
        'golden': {'seed': 0, 'scale': distribution['mean']},
    }  # fmt: skip
    export_bundle(out / text['name'], model.tensors, metadata, dtype='float64', overwrite=True)


def _validation(table: pd.DataFrame, method: str, level: float | None) -> list[dict[str, Any]]:
    rows = []
    for row in table.to_dict('records'):
        if row['n'] < 3:
            continue
        values = {k: (None if pd.isna(v) else v) for k, v in row.items() if k != 'people'}
        coverage = {'interval_coverage': values.pop('inside')} if level else {}
        rows.append(
            {'dataset': f'real scans, {row["people"]}', 'simulated': False, **values,
             'method': method, **coverage}
        )  # fmt: skip
    return rows


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    for name in ('measured', 'corrected', 'normative', 'out'):
        parser.add_argument(name, type=Path)
    parser.add_argument('--compare', action='store_true', help='compare candidates, fit none')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    measured = measured_people(options.measured, options.corrected)
    noise = measured_twice(options.measured)
    centiles = read_centiles(options.normative, FEATURES)
    if options.compare:
        people, corrected = measured.unseen, measured.unseen_corrected
        table = table_people(options.normative, measured.table, people)
        beside = {
            '': None,
            ' + corrected images': corrected,
            ' + both and the IXI table': corrected.and_also(table),
        }
        compare(people, beside, candidates(noise, centiles), options.out)
        return
    text = json.loads(Path(__file__).with_name('regions_card.json').read_text('utf-8'))
    export(measured, noise, centiles, options.out, text)


if __name__ == '__main__':
    main()
