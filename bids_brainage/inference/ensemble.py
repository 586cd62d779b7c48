"""Prediction of an ensemble: mean over its members, and their spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import BrainAgeError


@dataclass(frozen=True)
class EnsembleAge:
    """Ages that an ensemble predicts.

    Attributes
    ----------
    mean : ndarray, shape (n_scans,)
        Mean over the members, years.
    sd : ndarray, shape (n_scans,)
        Sample standard deviation over the members, years; NaN for a single member.
    n_members : int
        Number of members.
    """

    mean: npt.NDArray[np.float64]
    sd: npt.NDArray[np.float64]
    n_members: int


def ensemble_age(predictions: npt.ArrayLike) -> EnsembleAge:
    """Combine the predictions of several models.

    The prediction of System C is the mean of its five fold models (Kim et al., npj Aging
    2025, doi:10.1038/s41514-025-00260-x).

    Parameters
    ----------
    predictions : array_like, shape (n_members, n_scans) or (n_members,)
        Ages in years, one row a model.

    Returns
    -------
    EnsembleAge
        With one entry a scan.

    Raises
    ------
    BrainAgeError
        There is no member, or a prediction is not a finite number.
    """
    ages = np.asarray(predictions, dtype=np.float64)
    if ages.ndim == 1:
        ages = ages[:, np.newaxis]
    if ages.ndim != 2 or ages.size == 0:
        raise BrainAgeError(
            f'Ensemble: expected predictions of shape (models, scans), found {ages.shape}. '
            'Give at least one model and one scan.'
        )
    if not np.isfinite(ages).all():
        member = int(np.flatnonzero(~np.isfinite(ages).all(axis=1))[0])
        raise BrainAgeError(
            f'Ensemble: member {member + 1} of {len(ages)} predicts an age that is not a finite '
            'number. Check its weights.'
        )
    n_members = len(ages)
    sd = ages.std(axis=0, ddof=1) if n_members > 1 else np.full(ages.shape[1], np.nan)
    return EnsembleAge(mean=ages.mean(axis=0), sd=sd, n_members=n_members)
