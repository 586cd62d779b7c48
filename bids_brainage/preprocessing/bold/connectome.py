"""Regional time series and their correlations, through nilearn's maskers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import UnusableImageError
from bids_brainage.preprocessing.bold.atlases import Atlas
from bids_brainage.preprocessing.bold.confounds import BAND_HZ, ConfoundModel
from bids_brainage.tsv import is_missing, read_tsv

Array = npt.NDArray[np.float64]

MIN_REGION_COVERAGE = 0.5
"""Share of a region's voxels with BOLD signal below which its series is n/a."""


SLAB_VOLUMES = 75
"""Volumes of which regions are averaged at a time."""


@dataclass(frozen=True)
class Connectome:
    """Connectivity of one series.

    Attributes
    ----------
    series : ndarray, shape (T_kept, R)
        Cleaned mean signal of each region at the kept volumes; NaN for regions without coverage.
    correlation : ndarray, shape (R, R)
        Pearson r, diagonal 1; NaN for regions without coverage or variance.
    fisher_z : ndarray, shape (R, R)
        Inverse hyperbolic tangent of the correlation; diagonal NaN.
    coverage : ndarray, shape (R,)
        Share of each region with BOLD signal, 0 to 1.
    """

    series: Array
    correlation: Array
    fisher_z: Array
    coverage: Array


def compute_connectome(
    bold: Any, mask: Any, atlas: Atlas, model: ConfoundModel, tr: float
) -> Connectome:
    """Extract, clean and correlate regional time series.

    Parameters
    ----------
    bold : nibabel image, shape (X, Y, Z, T)
        Series in template space.
    mask : nibabel image, shape (X, Y, Z)
        1 where there is BOLD signal.
    atlas : Atlas
        Regions in the same space.
    model : ConfoundModel
        Regressors and kept volumes.
    tr : float
        Repetition time, seconds.

    Returns
    -------
    Connectome

    Raises
    ------
    UnusableImageError
        The series has another length than the confounds, or covers fewer than two regions.
    """
    if bold.shape[3] != len(model.keep):
        raise UnusableImageError(
            f'The series has {bold.shape[3]} volumes and the confounds {len(model.keep)} rows. '
            'They are not of the same run: check the derivatives.'
        )
    coverage = region_coverage(mask, atlas)
    covered = coverage >= MIN_REGION_COVERAGE
    if covered.sum() < 2:
        raise UnusableImageError(
            f'The series covers {int(covered.sum())} of {len(covered)} regions of atlas '
            f'{atlas.label}; expected at least 2. Check that series and atlas are in MNI space.'
        )
    raw = _extract(bold, _masker(atlas, covered, mask))
    cleaned = clean_series(raw, model, tr)
    series = np.full((len(cleaned), len(covered)), np.nan)
    series[:, covered] = cleaned
    correlation = correlate(series)
    with np.errstate(divide='ignore'):
        fisher = np.arctanh(np.clip(correlation, -1, 1))
    np.fill_diagonal(fisher, np.nan)
    return Connectome(series, correlation, fisher, coverage)


def region_coverage(mask: Any, atlas: Atlas) -> Array:
    """Return the share of every region that lies in a mask (nibabel image), shape (R,)."""
    inside = np.asarray(mask.dataobj) > 0.5
    if atlas.image is None:
        return np.array([_sphere_coverage(inside, mask.affine, r) for r in atlas.regions])
    labels = _labels_on(mask, atlas)
    top = max(region.index for region in atlas.regions)
    total = np.bincount(labels.ravel(), minlength=top + 1)
    kept = np.bincount(labels[inside], minlength=top + 1)
    index = np.array([region.index for region in atlas.regions])
    return kept[index] / np.maximum(total[index], 1)


def clean_series(series: npt.ArrayLike, model: ConfoundModel, tr: float) -> Array:
    """Regress confounds out and filter, without the censored volumes.

    Parameters
    ----------
    series : array_like, shape (T, R)
    model : ConfoundModel
    tr : float
        Repetition time, seconds.

    Returns
    -------
    ndarray, shape (T_kept, R)
        Same unit, mean 0.  A band-pass interpolates censored volumes before it filters and drops
        them afterwards (`nilearn.signal.clean`).
    """
    from nilearn.signal import clean

    bandpass = model.denoising.temporal == 'bandpass'
    nyquist = 0.5 / tr
    low_pass = BAND_HZ[1] if bandpass and BAND_HZ[1] < nyquist else None
    keep = np.flatnonzero(model.keep)
    cleaned = clean(
        np.asarray(series, dtype=np.float64),
        confounds=model.regressors,
        sample_mask=None if len(keep) == len(model.keep) else keep,
        filter='butterworth' if bandpass else 'cosine',
        low_pass=low_pass,
        high_pass=BAND_HZ[0],
        t_r=tr,
        detrend=True,
        standardize=None,
        extrapolate=False,
    )
    return np.asarray(cleaned, dtype=np.float64)


def correlate(series: Array) -> Array:
    """Return the Pearson correlation of columns (T, R); NaN where a column is NaN or constant."""
    from nilearn.connectome import ConnectivityMeasure
    from sklearn.covariance import EmpiricalCovariance

    spread = np.std(series, axis=0)
    usable = np.isfinite(spread) & (spread > 1e-10 * np.nanmax(np.abs(series), initial=1e-30))
    correlation = np.full((series.shape[1],) * 2, np.nan)
    if usable.any():
        measure = ConnectivityMeasure(
            cov_estimator=EmpiricalCovariance(), kind='correlation', standardize='zscore_sample'
        )
        found = measure.fit_transform([series[:, usable]])[0]
        correlation[np.ix_(usable, usable)] = np.clip(found, -1, 1)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def read_matrix(path: Path) -> Array:
    """Read a matrix with a header and a first column ``name``; ``n/a`` is NaN."""
    rows = [list(row.values())[1:] for row in read_tsv(path)]
    return np.array([[np.nan if is_missing(c) else float(c) for c in row] for row in rows])


def _extract(bold: Any, masker: Any) -> Array:
    """Average regions, some volumes at a time, so that memory does not grow with the series."""
    import nibabel as nib

    masker.fit()
    parts = []
    for start in range(0, bold.shape[3], SLAB_VOLUMES):
        stop = min(start + SLAB_VOLUMES, bold.shape[3])
        slab = np.empty((*bold.shape[:3], stop - start), np.float32)
        for t in range(start, stop):
            slab[..., t - start] = bold.dataobj[..., t]
        parts.append(masker.transform(nib.Nifti1Image(slab, bold.affine)))
    return np.concatenate(parts).astype(np.float64)


def _masker(atlas: Atlas, covered: npt.NDArray[np.bool_], mask: Any) -> Any:
    import nibabel as nib
    from nilearn.maskers import NiftiLabelsMasker, NiftiSpheresMasker

    regions = [r for r, use in zip(atlas.regions, covered, strict=True) if use]
    if atlas.image is None:
        radius = float(regions[0].radius_mm or 0.0)
        seeds = [r.xyz for r in regions]
        return NiftiSpheresMasker(
            seeds,
            radius=radius,
            mask_img=mask,
            allow_overlap=True,
            standardize=None,
            reports=False,
        )
    # renumbered in the order of the regions, so that columns keep that order
    table = np.zeros(max(r.index for r in atlas.regions) + 1, np.int32)
    table[[r.index for r in regions]] = np.arange(1, len(regions) + 1)
    labels = nib.Nifti1Image(table[_labels_on(mask, atlas)], mask.affine)
    return NiftiLabelsMasker(labels, mask_img=mask, standardize=None, reports=False)


def _labels_on(mask: Any, atlas: Atlas) -> npt.NDArray[np.intp]:
    """Return the label image on the grid of the mask (nearest neighbour)."""
    import nibabel as nib
    from nilearn.image import resample_img

    image = nib.load(str(atlas.image))
    moved = resample_img(
        image,
        target_affine=mask.affine,
        target_shape=mask.shape[:3],
        interpolation='nearest',
        copy_header=True,
        force_resample=False,
    )
    return np.rint(np.asarray(moved.dataobj)).astype(np.intp)


def _sphere_coverage(inside: npt.NDArray[np.bool_], affine: np.ndarray, region: Any) -> float:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    centre = np.linalg.inv(affine) @ np.array([*region.xyz, 1.0])
    low = np.floor(centre[:3] - region.radius_mm / sizes).astype(int)
    high = np.ceil(centre[:3] + region.radius_mm / sizes).astype(int)
    box = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    index = np.stack(np.meshgrid(*box, indexing='ij'), axis=-1).reshape(-1, 3)
    away = (index - centre[:3]) * sizes
    index = index[(away**2).sum(axis=1) <= region.radius_mm**2]
    if not len(index):
        return 0.0
    in_grid = ((index >= 0) & (index < inside.shape)).all(axis=1)
    return float(inside[tuple(index[in_grid].T)].sum() / len(index))
