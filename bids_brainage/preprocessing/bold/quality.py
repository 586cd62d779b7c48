"""Quality of a BOLD series: numbers, and flags from thresholds with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bids_brainage.preprocessing.bold.confounds import ConfoundModel
from bids_brainage.preprocessing.quality import flag_table


def bold_quality(
    table: Mapping[str, np.ndarray],
    model: ConfoundModel,
    coverage: np.ndarray,
    *,
    tr: float,
    tr_mismatch: bool = False,
    asked: str | None = None,
    scores: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect the quality measures of one series.

    Parameters
    ----------
    table : mapping
        Confound table (fMRIPrep's names).
    model : ConfoundModel
        What was regressed out.
    coverage : ndarray, shape (R,)
        Share of every region with signal.
    tr : float
        Repetition time, seconds.
    tr_mismatch : bool
        Header and metadata give different repetition times.
    asked : str, optional
        Description of the confound model asked for, if a smaller one was used.
    scores : mapping, optional
        Scores of the coregistration.

    Returns
    -------
    dict
        Plain JSON types; lengths in mm, times in s, shares 0 to 1; None where unknown.
    """
    from bids_brainage.preprocessing.bold.connectome import MIN_REGION_COVERAGE

    n_volumes, n_kept = model.keep.size, int(model.keep.sum())
    displacement = table.get('framewise_displacement')
    quality: dict[str, Any] = {
        'n_volumes': n_volumes,
        'n_kept': n_kept,
        'repetition_time': float(tr),
        'repetition_time_mismatch': bool(tr_mismatch),
        'minutes_kept': n_kept * float(tr) / 60.0,
        'mean_fd': _stat(np.nanmean, displacement),
        'max_fd': _stat(np.nanmax, displacement),
        'mean_std_dvars': _stat(np.nanmean, table.get('std_dvars')),
        'share_scrubbed': 1.0 - n_kept / n_volumes,
        'degrees_of_freedom': model.freedom,
        'confound_model': model.denoising.text(),
        'confound_model_asked': asked or model.denoising.text(),
        'n_regions': len(coverage),
        'n_regions_covered': int((coverage >= MIN_REGION_COVERAGE).sum()),
        'share_regions_covered': float((coverage >= MIN_REGION_COVERAGE).mean()),
    }
    if scores:
        quality.update({f'coregistration_{name}': value for name, value in scores.items()})
    return quality


def thresholds() -> dict[str, dict[str, Any]]:
    """Return the flags of functional series with measure, limit, direction and reason."""
    return {name: flag for name, flag in flag_table().items() if 'measure' in flag}


def severe_flags() -> list[str]:
    """Return the flags that speak against using a series."""
    return [flag for flag, rule in thresholds().items() if rule['severity'] == 'stop']


def bold_flags(quality: Mapping[str, Any]) -> list[str]:
    """Return the flags of a series, in the order of ``data/qc_flags.json``.

    Parameters
    ----------
    quality : mapping
        From `bold_quality`; a measure that is absent or None raises no flag.
    """
    flags = []
    for flag, rule in thresholds().items():
        value = quality.get(rule['measure'])
        if value is None:
            continue
        limit = rule['threshold']
        wrong = value > limit if rule['flag_when'] == 'above' else value < limit
        if wrong:
            flags.append(flag)
    return flags


def _stat(function: Any, values: np.ndarray | None) -> float | None:
    if values is None or not np.isfinite(values).any():
        return None
    return float(function(values))
