"""Nuisance signals of a BOLD series, under the column names of fMRIPrep.

Because names agree, the model of `select_confounds` works on the tables of this package and of
fMRIPrep alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError
from bids_brainage.preprocessing.bold.motion import (
    PARAMETERS,
    Params,
    framewise_displacement,
)
from bids_brainage.tsv import is_missing, read_tsv

Array = npt.NDArray[np.float64]
Table = dict[str, Array]

FD_THRESHOLD_MM = 0.5
"""Volumes with more framewise displacement are left out (Power et al. 2012)."""

BAND_HZ = (0.01, 0.1)
"""Band of low-frequency fluctuations kept by the band-pass filter."""

MIN_FREEDOM = 15.0
"""Temporal degrees of freedom that a confound model must leave, else a smaller one is taken:
below, the 95 % limits of a correlation of 0 pass 0.5."""

EXPANSIONS = ('', '_derivative1', '_power2', '_derivative1_power2')


@dataclass(frozen=True)
class Denoising:
    """What is regressed out of regional time series.

    Attributes
    ----------
    motion : int
        24 (parameters, backward differences, and squares of both; Friston et al. 1996,
        doi:10.1002/mrm.1910350312) or 6.
    tissue : bool
        Mean signals of white matter and fluid.
    temporal : str
        ``'bandpass'`` (Butterworth, 0.01–0.1 Hz) or ``'cosine'`` (high-pass of 0.01 Hz by cosine
        functions).
    fd_threshold : float
        Millimetres; volumes above are censored.
    """

    motion: int = 24
    tissue: bool = True
    temporal: str = 'bandpass'
    fd_threshold: float = FD_THRESHOLD_MM

    def smaller(self) -> tuple[Denoising, ...]:
        """Return this model and then ever smaller ones, for short series."""
        steps = [
            self,
            Denoising(self.motion, self.tissue, 'cosine', self.fd_threshold),
            Denoising(6, self.tissue, 'cosine', self.fd_threshold),
            Denoising(6, False, 'cosine', self.fd_threshold),
        ]
        return tuple(dict.fromkeys(s for s in steps if s.motion <= self.motion))

    def text(self) -> str:
        """Describe the model in words."""
        tissue = ', white-matter and fluid signal' if self.tissue else ''
        band = (
            f'band-pass {BAND_HZ[0]:g}–{BAND_HZ[1]:g} Hz'
            if self.temporal == 'bandpass'
            else f'cosine high-pass {BAND_HZ[0]:g} Hz'
        )
        return (
            f'{self.motion} motion parameters{tissue}, {band}, FD > {self.fd_threshold:g} mm out'
        )


@dataclass(frozen=True)
class ConfoundModel:
    """Regressors and kept volumes of one series.

    Attributes
    ----------
    columns : tuple of str
        Names of the regressors.
    regressors : ndarray, shape (T, n_columns)
        The first value of differences is 0 instead of NaN.
    keep : ndarray of bool, shape (T,)
        Volumes that are not censored.
    denoising : Denoising
        Model that was used, possibly smaller than the one asked for.
    freedom : float
        Temporal degrees of freedom left in the cleaned series.
    """

    columns: tuple[str, ...]
    regressors: Array
    keep: npt.NDArray[np.bool_]
    denoising: Denoising
    freedom: float


def motion_columns(parameters: Params) -> Table:
    """Expand six motion parameters (T, 6; mm, radians) to the 24 of Friston et al. (1996).

    Derivatives are backward differences; their first value is NaN.
    """
    table: Table = {}
    for name, values in zip(PARAMETERS, parameters.T, strict=True):
        change = np.concatenate([[np.nan], np.diff(values)])
        expanded = (values, change, values**2, change**2)
        table.update({name + end: v for end, v in zip(EXPANSIONS, expanded, strict=True)})
    return table


def dvars(values: npt.NDArray[np.floating]) -> tuple[Array, Array]:
    """Return DVARS and its standardised form.

    Parameters
    ----------
    values : ndarray, shape (N, T)
        Brain voxels over time, any unit.

    Returns
    -------
    dvars : ndarray, shape (T,)
        Root mean square over voxels of the change from the volume before, in percent of the mean
        brain signal; NaN for the first volume.
    std_dvars : ndarray, shape (T,)
        The same divided by what independent noise with the series' robust standard deviation and
        autocorrelation gives: about 1 in a quiet series.

    References
    ----------
    Power et al. (2012), doi:10.1016/j.neuroimage.2011.10.018; Nichols (2017), arXiv:1704.01469.
    """
    change = np.diff(values, axis=1)
    rms = np.sqrt(np.mean(change.astype(np.float64) ** 2, axis=0))
    spread = (np.subtract(*np.percentile(values, [75, 25], axis=1)) / 1.349).astype(np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    power = np.maximum((centred**2).sum(axis=1, dtype=np.float64), 1e-12)
    lagged = (centred[:, 1:] * centred[:, :-1]).sum(axis=1, dtype=np.float64) / power
    expected = float(np.mean(np.sqrt(np.maximum(2 * (1 - lagged), 0)) * spread))
    percent = 100.0 * rms / max(float(values.mean()), 1e-12)
    first = [np.nan]
    return (
        np.concatenate([first, percent]),
        np.concatenate([first, rms / max(expected, 1e-12)]),
    )


def build_confounds(
    values: npt.NDArray[np.floating],
    tissue: Mapping[str, npt.NDArray[np.bool_]],
    parameters: Params,
    *,
    n_non_steady: int = 0,
) -> Table:
    """Compute the confound table of a series.

    Parameters
    ----------
    values : ndarray, shape (N, T)
        Brain voxels over time, motion corrected.
    tissue : mapping
        ``white_matter`` and ``csf``: where the voxels are deep in that tissue, shape (N,).
    parameters : ndarray, shape (T, 6)
        Head motion (mm, radians).
    n_non_steady : int
        Leading volumes that are not in steady state.

    Returns
    -------
    dict of str to ndarray, shape (T,)
        Names as in fMRIPrep; unknown first values are NaN.  A tissue without voxels is NaN.
    """
    n_volumes = values.shape[1]
    table: Table = {'global_signal': values.mean(axis=0, dtype=np.float64)}
    for name, chosen in tissue.items():
        missing = np.full(n_volumes, np.nan)
        table[name] = values[chosen].mean(axis=0, dtype=np.float64) if chosen.any() else missing
    table['dvars'], table['std_dvars'] = dvars(values)
    table['framewise_displacement'] = framewise_displacement(parameters)
    table.update(motion_columns(parameters))
    for index in range(n_non_steady):
        table[f'non_steady_state_outlier{index:02d}'] = np.eye(1, n_volumes, index)[0]
    return table


def read_confounds(path: Path) -> Table:
    """Read a confound table.

    Parameters
    ----------
    path : Path
        TSV of this package or of fMRIPrep.

    Returns
    -------
    dict of str to ndarray, shape (T,)
        Columns of numbers; ``n/a`` is NaN.

    Raises
    ------
    UnusableImageError
        The file has no rows of numbers.
    """
    rows = read_tsv(path)
    table: Table = {}
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows]
        with suppress(ValueError):
            table[name] = np.array([np.nan if is_missing(c) else float(c) for c in cells])
    if not table:
        raise UnusableImageError(
            f'{path}: no column of numbers found; expected a confound table with one row a '
            'volume. Copy it again from the derivatives.'
        )
    return table


def select_confounds(
    table: Mapping[str, Array], tr: float, denoising: Denoising, *, source: str = 'confounds'
) -> ConfoundModel:
    """Choose regressors and volumes; take a smaller model if the series is too short for it.

    Parameters
    ----------
    table : mapping of str to ndarray, shape (T,)
        Confounds under fMRIPrep's names.
    tr : float
        Repetition time, seconds.
    denoising : Denoising
        Model wanted.
    source : str
        Name of the table for messages.

    Returns
    -------
    ConfoundModel
        With the first of ``denoising.smaller()`` that leaves 15 degrees of freedom, or the last.

    Raises
    ------
    UnusableImageError
        A column that the model needs is absent, or motion leaves fewer than three volumes.
    """
    keep = kept_volumes(table, denoising.fd_threshold)
    if keep.sum() < 3:
        raise UnusableImageError(
            f'{source}: motion leaves {int(keep.sum())} of {keep.size} volumes at a framewise '
            f'displacement of at most {denoising.fd_threshold:g} mm; expected at least 3. The '
            'series cannot be used.'
        )
    model = None
    for step in denoising.smaller():
        model = _model(table, keep, tr, step, source)
        if model.freedom >= MIN_FREEDOM:
            break
    assert model is not None
    return model


def kept_volumes(table: Mapping[str, Array], fd_threshold: float) -> npt.NDArray[np.bool_]:
    """Return the volumes in steady state and below the motion threshold (mm), shape (T,)."""
    n_volumes = len(next(iter(table.values())))
    moving = np.nan_to_num(table.get('framewise_displacement', np.zeros(n_volumes))) > fd_threshold
    early = [v > 0.5 for name, v in table.items() if name.startswith('non_steady_state_outlier')]
    return ~np.any([moving, *early], axis=0)


def high_pass_cosines(n_volumes: int, tr: float) -> Array:
    """Return the cosine functions below 0.01 Hz, shape (T, n), as nilearn makes them."""
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    return create_cosine_drift(BAND_HZ[0], np.arange(n_volumes) * tr)[:, :-1]


def _model(
    table: Mapping[str, Array],
    keep: npt.NDArray[np.bool_],
    tr: float,
    denoising: Denoising,
    source: str,
) -> ConfoundModel:
    ends: Iterable[str] = EXPANSIONS if denoising.motion == 24 else ('',)
    columns = [name + end for name in PARAMETERS for end in ends]
    columns += ['white_matter', 'csf'] if denoising.tissue else []
    if absent := [name for name in columns if name not in table]:
        raise UnusableImageError(
            f'{source}: the columns {", ".join(absent)} are missing; expected the names of '
            'fMRIPrep. Run fMRIPrep again, or leave its derivatives out so that the series is '
            'processed here.'
        )
    columns = [name for name in columns if np.isfinite(table[name]).any()]
    regressors = np.nan_to_num(np.stack([table[name] for name in columns], axis=1))
    freedom = _freedom(regressors, keep, tr, denoising.temporal)
    return ConfoundModel(tuple(columns), regressors, keep, denoising, freedom)


def _freedom(regressors: Array, keep: np.ndarray, tr: float, temporal: str) -> float:
    """Return the degrees of freedom after regression and filter.

    A band-pass keeps the share of the spectrum up to the Nyquist frequency that lies in its band.
    """
    n_kept = int(keep.sum())
    trend = np.linspace(-1, 1, keep.size)[:, None]
    parts = [np.ones_like(trend), trend, regressors]
    if temporal == 'cosine':
        parts.append(high_pass_cosines(keep.size, tr))
        used = np.hstack(parts)[keep]
        scale = np.maximum(np.linalg.norm(used, axis=0), 1e-12)
        return float(n_kept - np.linalg.matrix_rank(used / scale))
    nyquist = 0.5 / tr
    share = (min(BAND_HZ[1], nyquist) - BAND_HZ[0]) / nyquist
    return float(n_kept * share - regressors.shape[1])
