"""The most likely age of region shares, mixed with straight lines, for `volumes.adults`.

The usual shares of every age follow DLMUSE's centiles of thousands of healthy people, less what
the people at hand say: an offset, which is free, and a slope and a bend, which are held small.  So
few people are enough, and the ends of life are told like its middle.  How people differ from
the usual is their covariance within a source, to which comes what two networks that measure the
same person differ by, and an equal part for all, for what scanners do that nobody has seen.  All
ages are alike before anything was measured.
"""

from __future__ import annotations

import numpy as np
from posterior import likely_tensors, within_sources
from steady import Centiles, Steady, persons_of

from bids_brainage.models.posterior import volumes_model
from bids_brainage.training.additive import balanced_weights

AGES = np.arange(16.0, 97.0, 0.5)
STIFFNESS = 100.0
"""Of slope and bend against the centiles: people of standardised residuals that settle half."""

RIDGE, LINES_SHARE, TAIL = 2.0, 0.5, 4.0
"""Variance added to every standardised share; the straight lines' part of the age; where
standardised shares are cut off."""


class Likely:
    """The regression; see the module.

    Parameters
    ----------
    noise : (M, F) array
        Differences of two measures of the same people.
    centiles : Centiles
    source : (N,) array of str
        Of the people that `fit` is given.
    person : (N,) array of str, optional
        Who they are: rows of one person count as one.  Each another person without it.
    stiffness : float
        See `STIFFNESS`.
    """

    def __init__(
        self,
        noise: np.ndarray,
        centiles: Centiles,
        source: np.ndarray,
        person: np.ndarray | None = None,
        stiffness: float = STIFFNESS,
    ) -> None:
        self.person = persons_of(person, len(source))
        self.lines = Steady(noise, centiles, self.person)
        self.noise, self.centiles = self.lines.noise, centiles
        self.source, self.stiffness = source, stiffness

    def fit(self, features: np.ndarray, age: np.ndarray) -> Likely:
        """Learn."""
        weights = balanced_weights(age, self.person.tolist())
        weights *= len(np.unique(self.person)) / len(age)
        share = weights / weights.sum()
        centre = share @ features
        scale = np.sqrt(share @ (features - centre) ** 2)
        z = np.clip((features - centre) / scale, -TAIL, TAIL)

        def expected(years: np.ndarray) -> np.ndarray:
            return (self.centiles.at(years) - centre) / scale

        bend = bend_of(age)
        held = np.diag([0.0, self.stiffness, self.stiffness])
        found = np.linalg.solve(
            (bend.T * weights) @ bend + held, (bend.T * weights) @ (z - expected(age))
        )
        rest = z - expected(age) - bend @ found
        noise = self.noise / scale
        spread = within_sources(rest, self.source) + noise.T @ noise / len(noise)
        spread += RIDGE * np.eye(len(spread))
        usual = expected(AGES) + bend_of(AGES) @ found
        lines = self.lines.fit(features, age)
        self.tensors = {
            'centre': centre, 'scale': scale, 'tail': np.array([TAIL]),
            **likely_tensors(AGES, usual, spread, np.zeros(len(AGES))),
            'additive_share': np.array([LINES_SHARE]),
            **{f'additive_{name}': value for name, value in lines.tensors().items()},
        }  # fmt: skip
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return ages in years."""
        model = volumes_model([str(k) for k in range(features.shape[1])], 'posterior')
        model.load_tensors(self.tensors)
        return model(features)


def bend_of(age: np.ndarray) -> np.ndarray:
    """Return an offset, a slope and a bend, (N, 3)."""
    return np.vander((np.asarray(age, float) - 50) / 20, 3, increasing=True)
