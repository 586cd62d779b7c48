"""Rows of a carpet plot: voxels over time, grouped by tissue (Power 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bids_brainage.preprocessing.atlas import StructureAtlas

GROUPS = {
    'Cortex': ('cortex',),
    'Deep grey matter': (
        *('thalamus', 'caudate', 'putamen', 'pallidum', 'hippocampus', 'amygdala', 'brainstem'),
    ),
    'Cerebellum': ('cerebellum_cortex', 'cerebellum_white_matter'),
    'White matter': ('cerebral_white_matter',),
    'Fluid': ('csf', 'lateral_ventricle', 'third_ventricle', 'fourth_ventricle'),
}
"""Bands from top to bottom, each with its structures."""

DEEP_WHITE = 0.95
DEEP_FLUID = 0.80
"""Prior probability from which a voxel counts as deep white matter or ventricle: far enough from
grey matter that its signal holds none."""


@dataclass(frozen=True)
class Carpet:
    """A carpet, ready to be drawn.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, T)
        Signal of voxels, standard deviations from their own mean; a linear trend is taken out.
    groups : tuple of (str, int)
        Bands from top to bottom with their number of rows.
    """

    values: npt.NDArray[np.float32]
    groups: tuple[tuple[str, int], ...]


def make_carpet(
    values: npt.NDArray[np.floating], group: npt.NDArray[np.integer], *, n_rows: int = 360
) -> Carpet:
    """Choose and scale the rows of a carpet.

    Parameters
    ----------
    values : ndarray, shape (N, T)
        Brain voxels over time.
    group : ndarray of int, shape (N,)
        Index into `GROUPS`, from `voxel_groups`.
    n_rows : int
        Rows in all; each band gets a share by its size, at least 12.

    Returns
    -------
    Carpet
        Evenly spread voxels of each band, in the order of the grid.

    References
    ----------
    Power (2017), doi:10.1016/j.neuroimage.2016.08.009.
    """
    rows, groups = [], []
    for index, name in enumerate(GROUPS):
        voxels = np.flatnonzero(group == index)
        if not len(voxels):
            continue
        wanted = min(len(voxels), max(12, round(n_rows * len(voxels) / len(group))))
        rows.append(voxels[np.linspace(0, len(voxels) - 1, wanted).astype(int)])
        groups.append((name, wanted))
    chosen = values[np.concatenate(rows)].astype(np.float64)
    trend = np.linspace(-1, 1, chosen.shape[1])
    chosen -= chosen.mean(axis=1, keepdims=True)
    chosen -= np.outer(chosen @ trend / (trend @ trend), trend)
    spread = chosen.std(axis=1, keepdims=True)
    scaled = chosen / np.where(spread > 0, spread, 1)
    return Carpet(scaled.astype(np.float32), tuple(groups))


def voxel_groups(atlas: StructureAtlas, points: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the band of `GROUPS` most probable at template points (N, 3), shape (N,)."""
    priors = _by_name(atlas, points)
    return np.stack([sum(priors[s] for s in names) for names in GROUPS.values()]).argmax(axis=0)


def deep_tissue(
    atlas: StructureAtlas, points: npt.NDArray[np.floating]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which template points (N, 3; RAS+ mm) lie deep in white matter or the ventricles.

    Returns
    -------
    dict
        ``white_matter`` and ``csf``, each of shape (N,), for `build_confounds`.
    """
    priors = _by_name(atlas, points)
    return {
        'white_matter': priors['cerebral_white_matter'] > DEEP_WHITE,
        'csf': priors['lateral_ventricle'] > DEEP_FLUID,
    }


def _by_name(atlas: StructureAtlas, points: npt.NDArray[np.floating]) -> dict[str, np.ndarray]:
    names = [structure.name for structure in atlas.structures]
    return dict(zip(names, atlas.sample(points), strict=True))
