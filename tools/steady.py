"""Straight lines of age on region shares that heed how well each share is measured.

Ideas beside ridge regression (Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634), whose
penalty comes from ten folds over people:

* *Noise.*  Every person was measured by two networks.  Combinations of regions in which the two
  disagree are shrunk more: the penalty of the slopes is I + `NOISE` S with S the mean square of
  the differences, as for errors in variables (Fuller 1987, doi:10.1002/9780470316665).
* *The old.*  Few of our people are above 75, and none where their source is left out.  DLMUSE's
  centiles of thousands of healthy people go to 93, so their medians, brought to the scale of the
  people at hand, count as one person for every year from `OLD` on; around it people differ as
  those at hand differ about their own curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.training.additive import balanced_weights

NOISE = 10.0
OLD, DRAWS = 70, 10
"""Age from which the centiles count, years, and people drawn for each year; all of them together
weigh as much as one real person of that age would."""

SHARED_AGES = (45.0, 80.0)
"""Ages of the people who bring the centiles to their scale, years."""

PENALTIES = np.logspace(-2, 3, 21)
FOLDS = 10
OTHER_NAMES = {
    'PosteriorLimbInternalCapsuleIncCerebralPeduncle_R': 93,
    'PosteriorLimbInternalCapsuleIncCerebralPeduncle_L': 94,
    'CorpusCallosum': 95,
    'Superior_parietalLobule_R': 198,
    'Superior_parietalLobule_L': 199,
}
"""Regions that the centiles spell otherwise than the list of regions, with their codes."""

BRAIN, FLUID = 701, 1


@dataclass(frozen=True)
class Centiles:
    """Medians of healthy people: `age` (A,) years, `features` (A, F)."""

    age: np.ndarray
    features: np.ndarray

    def at(self, age: np.ndarray) -> np.ndarray:
        """Return the medians at some ages, (N, F)."""
        return np.stack([np.interp(age, self.age, column) for column in self.features.T], axis=1)


def read_centiles(folder: Path, names: list[str]) -> Centiles:
    """Read the features of that name from the tables of DLMUSE's centiles in a folder."""
    codes = pd.read_csv(folder / 'muse_roi_names.csv').set_index('Name')['Index'].to_dict()
    codes |= OTHER_NAMES
    table = pd.read_csv(folder / 'dlmuse_centiles_CN_all.csv.gz')
    table['code'] = table['VarName'].map(codes)
    table = table.dropna(subset='code').drop_duplicates(['code', 'Age'])
    medians = table.pivot(index='Age', columns='code', values='centile_50')
    skull = pd.read_csv(folder / 'dlmuse_centiles_CN_icv_normalised.csv.gz')
    skull = skull[skull['VarName'] == 'ICV'].drop_duplicates('Age').set_index('Age')['centile_50']
    medians[FLUID] = skull - medians[BRAIN]
    volumes = {r.name: medians[list(r.muse)].sum(axis='columns') / 1000 for r in load_regions()}
    rows = pd.DataFrame(volumes).to_dict('records')
    age = medians.index.to_numpy(float)
    return Centiles(age, np.array([log_ratios(row, names) for row in rows]))


class Steady:
    """The regression; see the module.

    Parameters
    ----------
    noise : (M, F) array
        Differences of two measures of the same people.
    centiles : Centiles or None
        Of the old; only the people at hand without them.
    person : (N,) array of str, optional
        Who each row is that `fit` is given: rows of one person share the weight of one, and are
        in one fold.  Each another person without it.
    """

    def __init__(
        self, noise: np.ndarray, centiles: Centiles | None, person: np.ndarray | None = None
    ) -> None:
        self.noise = noise[np.isfinite(noise).all(axis=1)]
        self.centiles, self.person = centiles, person

    def fit(self, features: np.ndarray, age: np.ndarray) -> Steady:
        """Learn."""
        person = persons_of(self.person, len(age))
        if self.centiles is not None:
            features, age, person = self._with_the_old(self.centiles, features, age, person)
        weights = balanced_weights(age, person.tolist())
        share = weights / weights.sum()
        mean = share @ features
        spread = np.sqrt(share @ (features - mean) ** 2)
        noise = self.noise / spread
        penalty = np.eye(len(mean)) + NOISE * noise.T @ noise / len(noise)
        values, vectors = np.linalg.eigh(penalty)
        turned = (vectors * values**-0.5) @ vectors.T
        turned_features = (features - mean) / spread @ turned
        self.penalty = best_penalty(turned_features, age, weights, person)
        ridge = Ridge(self.penalty).fit(turned_features, age, sample_weight=weights)
        self.slopes, self.mean = turned @ ridge.coef_ / spread, mean
        self.intercept = float(ridge.intercept_)
        self.range = features.min(axis=0), features.max(axis=0)
        return self

    def _with_the_old(
        self, centiles: Centiles, features: np.ndarray, age: np.ndarray, person: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, ages and who everybody is with those of the centiles."""
        low, high = SHARED_AGES
        shared = (age >= low) & (age <= high)
        offset = np.median(features[shared] - centiles.at(age[shared]), axis=0)
        curve = np.vander((age - 50) / 20, 3)
        differ = features - curve @ np.linalg.lstsq(curve, features, rcond=None)[0]
        years = np.arange(OLD, centiles.age[-1] + 1)
        old = np.repeat(years, DRAWS)
        drawn = differ[np.random.default_rng(0).integers(len(differ), size=len(old))]
        return (
            np.concatenate([features, centiles.at(old) + offset + drawn]),
            np.concatenate([age, old]),
            np.concatenate([person, np.char.add('centiles ', old.astype(str))]),
        )

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years."""
        return self.intercept + (features - self.mean) @ self.slopes

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what `bids_brainage.models.volumes.VolumesRegressor` loads: straight lines."""
        knots = np.stack(self.range, axis=1)
        return {
            'intercept': np.array([self.intercept]),
            'knots': knots,
            'values': (knots - self.mean[:, None]) * self.slopes[:, None],
            'offset': np.zeros(len(self.mean)),
        }


def persons_of(named: np.ndarray | None, rows: int) -> np.ndarray:
    """Return who each row is: each another person, unless they are named."""
    return np.arange(rows).astype(str) if named is None else named


def best_penalty(
    features: np.ndarray, age: np.ndarray, weights: np.ndarray, person: np.ndarray
) -> float:
    """Return the one of `PENALTIES` with the smallest squared error of people left out."""
    error = np.zeros(len(PENALTIES))
    for known, new in GroupKFold(FOLDS).split(features, age, person):
        for k, penalty in enumerate(PENALTIES):
            ridge = Ridge(penalty).fit(features[known], age[known], sample_weight=weights[known])
            error[k] += weights[new] @ (ridge.predict(features[new]) - age[new]) ** 2
    return float(PENALTIES[error.argmin()])
