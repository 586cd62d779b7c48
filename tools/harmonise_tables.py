"""Would harmonising the tables of a new site help?  Data sets left out, some people given ages.

    python tools/harmonise_tables.py NORMATIVE_DIR [OUT.tsv]

Every data set is left out of the fit of `tables.openneuro`, as on its card.  Of its people, some
are drawn as the site's healthy reference, and the others are judged, in five ways:

* as the program does: nothing is changed;
* features: each measure is shifted by how far the reference lies from people of the same age, as
  in ComBat with age as covariate (Johnson et al. 2007): the shift is shrunken towards none by the
  variance between and within the data sets of the fit;
* features with scale: also divided by the ratio of the spreads, shrunken alike;
* ages: the mean error of the reference is taken off, which needs no option (`calibrate.md`);
* ages shrunken: the same, shrunken as the features are.

The reference is drawn anew `DRAWS` times.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from fit_tables import FOLDS, FREESURFER, People, Settings, fit, openneuro, usual_people
from sklearn.model_selection import GroupKFold

from bids_brainage.models.volumes import filled
from bids_brainage.models.waves import WavesRegressor

LOG = logging.getLogger('harmonise_tables')
REFERENCE = (10, 20, 40)
JUDGED, DRAWS, SEED = 10, 10, 0
WAYS = ('nothing', 'features', 'features with scale', 'ages', 'ages shrunken')


def residuals(features: np.ndarray, age: np.ndarray, usual: dict[str, list]) -> np.ndarray:
    """Return how far measures lie from those of usual people of the age."""
    curves = [np.interp(age, usual['age'], curve) for curve in usual['features']]
    return features - np.array(curves).T


def shares(away: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of a column between, and within, sources of 10 people and more."""
    groups = [away[source == name] for name in np.unique(source) if (source == name).sum() >= 10]
    within = np.mean([group.var(axis=0, ddof=1) for group in groups], axis=0)
    noise = np.mean([group.var(axis=0, ddof=1) / len(group) for group in groups], axis=0)
    means = np.array([group.mean(axis=0) for group in groups])
    return np.maximum(means.var(axis=0, ddof=1) - noise, 0), within


def judge(people: People, settings: Settings) -> pd.DataFrame:
    """Return one row for each data set, size of its reference, and way."""
    rows = []
    rng = np.random.default_rng(SEED)
    for rest, mine in GroupKFold(FOLDS).split(people.age, people.age, people.source):
        known = people.where(rest)
        tensors, distribution = fit(known, settings)
        model = WavesRegressor(FREESURFER)
        model.load_tensors(tensors)
        usual = usual_people(known, distribution)
        whole = np.array([filled(row, distribution) for row in known.features])
        away = residuals(whole, known.age, usual)
        between, within = shares(away, known.source)
        error_between, error_within = shares((model(whole) - known.age)[:, None], known.source)
        for name in np.unique(people.source[mine]):
            site = people.where(mine[people.source[mine] == name])
            features = np.array([filled(row, distribution) for row in site.features])
            found, apart = model(features), residuals(features, site.age, usual)
            for n in REFERENCE:
                if len(site.age) < n + JUDGED:
                    continue
                trust = n * between / (n * between + within)
                trust_age = n * error_between / (n * error_between + error_within)
                errors: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
                for _ in range(DRAWS):
                    order = rng.permutation(len(site.age))
                    own, others = order[:n], order[n:]
                    shift = trust * apart[own].mean(axis=0)
                    spread = np.sqrt(apart[own].var(axis=0, ddof=1) / within) ** trust
                    scaled = features - apart + (apart - shift) / np.maximum(spread, 0.5)
                    offset = (found - site.age)[own].mean()
                    for way, ages in {
                        'nothing': found,
                        'features': model(features - shift),
                        'features with scale': model(scaled),
                        'ages': found - offset,
                        'ages shrunken': found - trust_age[0] * offset,
                    }.items():
                        errors[way].append(np.abs(ages - site.age)[others])
                rows += [
                    {'source': name, 'reference': n, 'judged': len(site.age) - n, 'way': way,
                     'mae': float(np.mean(values))}
                    for way, values in errors.items()
                ]  # fmt: skip
        LOG.info('%d data sets are done', len({row['source'] for row in rows}))
    return pd.DataFrame(rows)


def main() -> None:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('normative', type=Path)
    parser.add_argument('out', type=Path, nargs='?')
    options = parser.parse_args()
    cards = json.loads(Path(__file__).with_name('tables_cards.json').read_text('utf-8'))
    people = openneuro(options.normative)
    table = judge(people, Settings(**cards['tables.openneuro']['settings']))
    if options.out:
        table.to_csv(options.out, sep='\t', index=False)
    for n, part in table.groupby('reference'):
        wide = part.pivot(index='source', columns='way', values='mae')[list(WAYS)]
        weight = part.drop_duplicates('source').set_index('source')['judged']
        pooled = wide.mul(weight, axis=0).sum() / weight.sum()
        better = (wide.lt(wide['nothing'], axis=0)).mean()
        LOG.info('\nreference of %d: %d data sets, %d people', n, len(wide), weight.sum())
        LOG.info(
            '%s',
            pd.DataFrame({
                'mae by person': pooled, 'mae by data set': wide.mean(),
                'worst': wide.max(), 'share better': better,
            }).round(2).to_string(),
        )  # fmt: skip


if __name__ == '__main__':
    main()
