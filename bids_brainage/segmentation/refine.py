"""Probabilities of regions, made to agree with the intensities of the image at hand.

A network expects sulci and ventricles as wide as those of the people it learnt from, even where
the image shows clearly that they are wider.  Expectation maximisation with the network's
probabilities as prior (Van Leemput et al. 1999, doi:10.1109/42.811270; Ashburner and Friston 2005,
doi:10.1016/j.neuroimage.2005.02.018) lets the image have its say: each class of intensities has
its own median and spread in this image, relative to the white matter nearby, so that no scanner
or contrast is assumed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from bids_brainage.segmentation.regions import load_regions

APART = {
    'hippocampus': 'medial temporal', 'amygdala': 'medial temporal',
    'caudate': 'striatum', 'putamen': 'striatum', 'accumbens': 'striatum',
    'thalamus': 'thalamus', 'pallidum': 'pallidum', 'basal_forebrain': 'basal forebrain',
    'brainstem': 'stem', 'ventral_dc': 'stem',
    'cerebellum_cortex': 'cerebellar grey', 'vermis': 'cerebellar grey',
    'cerebellum_white_matter': 'cerebellar white',
}  # fmt: skip
"""Regions whose intensities differ from those of the rest of their tissue → their class."""

ROUNDS = 4
BACKGROUND = 0.98
"""Probability of background from which a voxel is left as it is."""

SURE_WHITE, SURE = 0.7, 0.5
"""Probabilities from which a voxel tells the intensity of white matter, or of its class."""

FIELD_VOXELS, FIELD_STEP = 12.0, 4
"""Standard deviation of the smoothing of the field of white matter, and the blocks it is done on,
voxels."""

LEAST_SPREAD = 0.05
"""Of a class, relative to white matter: noise and partial volume are never less."""

ELSE = 0.01
"""Likelihood of any intensity beside the Gaussian of a class, relative to its peak."""

FEWEST = 20
"""Voxels from which a class has an intensity."""

BINS = 1024


@cache
def _classes() -> np.ndarray:
    """Return the class of intensities of each label; -1 for background."""
    names = [APART.get(r.name, r.tissue) for r in load_regions()]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([-1, *(numbers[name] for name in names)])


@cache
def _white() -> np.ndarray:
    """Return 1 for each label of white matter, 0 for others."""
    return np.array([0, *(r.tissue == 'WM' for r in load_regions())], np.float32)


def refine(found: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Return probabilities that agree with the intensities, too.

    Parameters
    ----------
    found : ndarray of float32, shape (X, Y, Z, classes)
        Probabilities of a network; label 0 is background.
    data : ndarray, shape (X, Y, Z)
        T1w intensities of the same voxels, on any scale; edges are multiples of `FIELD_STEP`.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z, classes)
        They sum to 1.  Background keeps its share where no brain is near.
    """
    inside = found[..., 0] < BACKGROUND
    classes, prior = _classes(), found[inside]
    members = (classes[:, None] == np.arange(classes.max() + 1)).astype(np.float32)
    level = data.astype(np.float32) - data.min()
    posterior = prior
    for _ in range(ROUNDS):
        sure = np.zeros(data.shape, np.float32)
        white = posterior @ _white()
        sure[inside] = white * (white > SURE_WHITE)
        if sure.sum() < FEWEST:
            return found
        relative = (level / _field(level, sure))[inside]
        shares = posterior @ members
        likelihood = np.ones((len(prior), members.shape[1] + 1), np.float32)
        for number, weight in enumerate((shares * (shares > SURE)).T):
            if weight.sum() >= FEWEST:
                likelihood[:, number] = _likelihood(relative, weight)
        joint = shares * likelihood[:, :-1]
        tissue = joint[:, 1:].sum(1) / np.maximum(shares[:, 1:].sum(1), 1e-3)
        likelihood[:, 1:-1] = tissue[:, None]  # which tissue, the network knows best
        likelihood[:, -1] = joint.sum(1) / np.maximum(shares.sum(1), 1e-3)
        posterior = prior * likelihood[:, classes]
        posterior /= posterior.sum(1, keepdims=True)
    refined = np.zeros_like(found)
    refined[..., 0] = 1
    refined[inside] = posterior
    return refined


def _field(level: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Return the intensity of the white matter nearby, as smooth as a bias field."""
    blocks = [n for size in level.shape for n in (size // FIELD_STEP, FIELD_STEP)]
    sums = [image.reshape(blocks).sum((1, 3, 5)) for image in (level * sure, sure)]
    smooth = [ndimage.gaussian_filter(image, FIELD_VOXELS / FIELD_STEP) for image in sums]
    near = smooth[1] > 1e-4
    usual = float(sums[0].sum() / sums[1].sum())
    coarse = np.where(near, smooth[0] / np.maximum(smooth[1], 1e-4), usual)
    middle = (np.arange(n) - (FIELD_STEP - 1) / 2 for n in level.shape)
    points = np.meshgrid(*(m / FIELD_STEP for m in middle), indexing='ij')
    field = ndimage.map_coordinates(coarse, points, order=1, mode='nearest')
    return np.maximum(field, 1e-3 * usual)


def _likelihood(relative: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the density of each intensity in a class with a robust middle and spread."""
    middle = _median(relative, weight)
    spread = max(1.4826 * _median(np.abs(relative - middle), weight), LEAST_SPREAD)
    return (np.exp(-0.5 * ((relative - middle) / spread) ** 2) + ELSE) / spread


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted median, to a thousandth of the range from 0 to 2."""
    counts, edges = np.histogram(np.clip(values, 0, 2), BINS, (0, 2), weights=weight)
    below = np.cumsum(counts)
    return float(edges[np.searchsorted(below, below[-1] / 2)] + 1 / BINS)
