"""Tissue and structure posteriors: a Gaussian mixture with spatial priors (EM).

The mixture follows the unified tradition of Van Leemput et al. (1999,
doi:10.1109/42.811270) and Ashburner & Friston (2005, doi:10.1016/j.neuroimage.2005.02.018):
every structure has a prior at every voxel, taken from the atlas through the registration, and
an intensity class that it may share with others.  Partial volume at the rims of fluid is a
class of its own, so that a mixture of white matter and ventricle is not called grey matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_SAMPLES = 150_000
"""Voxels used to fit the intensities; posteriors are computed for all of them."""

N_ITERATIONS = 30
PRIOR_FLOOR = 0.004
"""Prior given to cortex, white matter and outer CSF everywhere in the mask, for anatomy that
the atlas did not foresee."""

MIN_SD_FRACTION = 0.02
"""Smallest standard deviation of a class as a fraction of the intensity range."""


@dataclass(frozen=True)
class Structure:
    """One structure of the atlas.

    Attributes
    ----------
    index : int
        Label in segmentations.
    name : str
        Identifier, e.g. ``'lateral_ventricle'``.
    tissue : str
        ``'CSF'``, ``'GM'`` or ``'WM'``: where its volume counts.
    intensity : str
        Intensity class; structures of one class share a Gaussian.
    """

    index: int
    name: str
    tissue: str
    intensity: str


@dataclass(frozen=True)
class Segmentation:
    """Posteriors at the voxels of a mask.

    Attributes
    ----------
    structures : tuple of Structure
    posterior : ndarray of float32, shape (S, N)
        Probability of each structure at each mask voxel; columns sum to 1.
    means, sds : dict
        Intensity class → mean and standard deviation of the fitted Gaussian.
    """

    structures: tuple[Structure, ...]
    posterior: np.ndarray
    means: dict[str, float]
    sds: dict[str, float]

    def volumes_ml(self, voxel_ml: float) -> dict[str, float]:
        """Return the volume of every structure in millilitres."""
        sums = self.posterior.sum(axis=1, dtype=np.float64)
        return {s.name: float(v * voxel_ml) for s, v in zip(self.structures, sums, strict=True)}

    def tissue(self, name: str) -> np.ndarray:
        """Return the posterior of one tissue (``'CSF'``, ``'GM'``, ``'WM'``), shape (N,)."""
        return self.posterior[[s.tissue == name for s in self.structures]].sum(axis=0)

    def labels(self) -> np.ndarray:
        """Return the most probable structure's label at every mask voxel, shape (N,)."""
        index = np.array([s.index for s in self.structures], dtype=np.uint8)
        return index[self.posterior.argmax(axis=0)]


def segment(
    intensity: np.ndarray, priors: np.ndarray, structures: tuple[Structure, ...]
) -> Segmentation:
    """Fit the mixture and return the posteriors.

    Parameters
    ----------
    intensity : ndarray, shape (N,)
        Bias-corrected T1w intensities inside the brain mask.
    priors : ndarray, shape (S, N)
        Prior of every structure at every voxel, in the order of ``structures``; columns need
        not sum to 1.
    structures : tuple of Structure

    Returns
    -------
    Segmentation
    """
    classes = tuple(dict.fromkeys(s.intensity for s in structures))
    member = np.array([[s.intensity == c for s in structures] for c in classes])
    priors = _floored(priors, structures)
    step = max(1, intensity.size // N_SAMPLES)
    seen, expected = intensity[::step], member @ priors[:, ::step]
    mixture = _Mixture.start(seen, expected, classes)
    for _ in range(N_ITERATIONS):
        mixture = mixture.updated(seen, expected)
    posterior = np.empty(priors.shape, np.float32)
    for begin in range(0, intensity.size, 200_000):
        part = slice(begin, begin + 200_000)
        posterior[:, part] = _structure_posterior(
            mixture, intensity[part], priors[:, part], member
        )
    names = dict(enumerate(classes))
    return Segmentation(
        structures=structures,
        posterior=posterior,
        means={names[i]: float(v) for i, v in enumerate(mixture.mean)},
        sds={names[i]: float(v) for i, v in enumerate(np.sqrt(mixture.variance))},
    )


def _floored(priors: np.ndarray, structures: tuple[Structure, ...]) -> np.ndarray:
    everywhere = [s.name in ('csf', 'cortex', 'cerebral_white_matter') for s in structures]
    floored = priors + PRIOR_FLOOR * np.array(everywhere, priors.dtype)[:, None]
    floored /= floored.sum(axis=0)
    return floored


@dataclass(frozen=True)
class _Mixture:
    """Gaussians of the pure classes; partial-volume classes derive from pairs of them."""

    classes: tuple[str, ...]
    mean: np.ndarray
    variance: np.ndarray
    floor: float

    PAIRS = (('csf', 'gm'), ('csf', 'wm'), ('gm', 'wm'))
    PAIR_WEIGHT = 0.5

    @classmethod
    def start(cls, intensity: np.ndarray, priors: np.ndarray, classes: tuple) -> _Mixture:
        low, high = np.quantile(intensity, [0.01, 0.99])
        floor = (MIN_SD_FRACTION * (high - low)) ** 2
        weight = priors**2
        mean = weight @ intensity / weight.sum(axis=1)
        spread = (high - low) / 6
        return cls(classes, mean, np.full(len(classes), spread**2), floor)

    def pairs(self) -> list[tuple[int, int]]:
        return [
            (self.classes.index(a), self.classes.index(b))
            for a, b in self.PAIRS
            if a in self.classes and b in self.classes
        ]

    def joint(self, intensity: np.ndarray, priors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return prior × likelihood of pure (C, N) and partial-volume (P, N) classes."""
        pure = priors * _gauss(intensity, self.mean, self.variance)
        pairs = self.pairs()
        mean = np.array([(self.mean[a] + self.mean[b]) / 2 for a, b in pairs])
        # half of each on average, any mixture possible: within-class noise + mixing spread
        variance = np.array(
            [
                (self.variance[a] + self.variance[b]) / 4 + (self.mean[a] - self.mean[b]) ** 2 / 24
                for a, b in pairs
            ]
        )
        weight = np.stack([np.sqrt(priors[a] * priors[b]) for a, b in pairs])
        return pure, self.PAIR_WEIGHT * weight * _gauss(intensity, mean, variance)

    def updated(self, intensity: np.ndarray, priors: np.ndarray) -> _Mixture:
        pure, mixed = self.joint(intensity, priors)
        pure = pure / (pure.sum(axis=0) + mixed.sum(axis=0) + 1e-30)
        total = pure.sum(axis=1) + 1e-6
        mean = pure @ intensity / total
        variance = np.array(
            [p @ (intensity - m) ** 2 / t for p, m, t in zip(pure, mean, total, strict=True)]
        )
        return _Mixture(self.classes, mean, np.maximum(variance, self.floor), self.floor)


def _structure_posterior(
    mixture: _Mixture, intensity: np.ndarray, priors: np.ndarray, member: np.ndarray
) -> np.ndarray:
    """Return the posterior of every structure, partial volume shared by intensity."""
    class_prior = member @ priors
    pure, mixed = mixture.joint(intensity, class_prior)
    for (a, b), joint in zip(mixture.pairs(), mixed, strict=True):
        share = (intensity - mixture.mean[a]) / (mixture.mean[b] - mixture.mean[a])
        share = np.clip(share, 0.0, 1.0)
        pure[a] += (1 - share) * joint
        pure[b] += share * joint
    pure /= pure.sum(axis=0) + 1e-30
    within = priors / (member.T @ class_prior + 1e-30)
    return within * (member.T @ pure)


def _gauss(intensity: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    z = (intensity[None, :] - mean[:, None]) ** 2 / variance[:, None]
    return np.exp(-0.5 * z) / np.sqrt(variance)[:, None]
