"""System B's post-processing: age by least squares on network outputs and sex.

Jomsky et al., arXiv:2412.01865v3.  Four regressions, each with an intercept: T (age on the
T1w network's output), A (on the CBV network's), TA (both), TAS (both and sex).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.errors import ProcessingError
from bids_brainage.statistics.nested import fit_ols

#: Regressors of each formula, after the intercept.
TERMS: dict[str, tuple[str, ...]] = {
    'T': ('t1w',),
    'A': ('aicbv',),
    'TA': ('t1w', 'aicbv'),
    'TAS': ('t1w', 'aicbv', 'sex'),
}
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearFusion:
    """One fitted regression.

    Attributes
    ----------
    formula : str
        ``'T'``, ``'A'``, ``'TA'`` or ``'TAS'``.
    coefficients : tuple of float
        Intercept (years), then one per term: years per year for network outputs, years for
        sex (male against female).
    covariance : tuple of tuple of float
        Covariance matrix of the coefficients.
    n : int
        Rows of the fit.
    residual_variance : float
        years^2, with n - p degrees of freedom.
    r_squared : float
        Of the fit.
    fitted_on : str
        Which predictions were used: ``train+val`` (the paper's), ``val`` or ``oof``.
    """

    formula: str
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    n: int
    residual_variance: float
    r_squared: float
    fitted_on: str

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients, the intercept first."""
        return ('intercept', *TERMS[self.formula])

    def predict(self, values: Mapping[str, npt.ArrayLike]) -> tuple[Vector, Vector]:
        """Apply the regression.

        Parameters
        ----------
        values : mapping
            One array (n,) per term of the formula: ``t1w`` and ``aicbv`` in years, ``sex`` as
            0 (female) or 1 (male).

        Returns
        -------
        age, standard_deviation : ndarray, shape (n,)
            Predicted age and the SD of a new person's age around it, years.
        """
        design = _design(self.formula, values)
        age = design @ np.asarray(self.coefficients)
        spread = np.einsum('ij,jk,ik->i', design, np.asarray(self.covariance), design)
        return age, np.sqrt(self.residual_variance + spread)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and texts only, for JSON."""
        return {
            'formula': self.formula,
            'terms': list(self.terms),
            'coefficients': list(self.coefficients),
            'covariance': [list(row) for row in self.covariance],
            'n': self.n,
            'residual_variance': self.residual_variance,
            'r_squared': self.r_squared,
            'fitted_on': self.fitted_on,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LinearFusion:
        """Rebuild a regression from :meth:`to_dict`.

        Raises
        ------
        ProcessingError
            When a field is missing or the sizes do not fit the formula.
        """
        try:
            fusion = cls(
                formula=stored['formula'],
                coefficients=tuple(map(float, stored['coefficients'])),
                covariance=tuple(tuple(map(float, row)) for row in stored['covariance']),
                n=int(stored['n']),
                residual_variance=float(stored['residual_variance']),
                r_squared=float(stored['r_squared']),
                fitted_on=str(stored['fitted_on']),
            )
            size = len(fusion.terms)
        except KeyError as error:
            raise ProcessingError(f'Stored fusion lacks or does not know {error}.') from error
        if np.shape(fusion.covariance) != (size, size) or len(fusion.coefficients) != size:
            raise ProcessingError(
                f'Stored fusion {fusion.formula}: expected {size} coefficients and their '
                f'covariance, found {len(fusion.coefficients)} and '
                f'{np.shape(fusion.covariance)}.'
            )
        return fusion


def _design(formula: str, values: Mapping[str, npt.ArrayLike]) -> Vector:
    columns = [np.atleast_1d(np.asarray(values[term], float)) for term in TERMS[formula]]
    return np.column_stack([np.ones(len(columns[0])), *columns])


def fit_fusion(
    formula: str,
    age: npt.ArrayLike,
    values: Mapping[str, npt.ArrayLike],
    *,
    fitted_on: str = 'train+val',
) -> LinearFusion:
    """Regress chronological age on network outputs by ordinary least squares.

    Parameters
    ----------
    formula : str
        ``'T'``, ``'A'``, ``'TA'`` or ``'TAS'``.
    age : array_like, shape (n,)
        Chronological age, years.
    values : mapping
        One array (n,) per term: ``t1w``, ``aicbv`` (years), ``sex`` (0 female, 1 male).
    fitted_on : str
        Recorded origin of the rows.

    Returns
    -------
    LinearFusion

    Raises
    ------
    ProcessingError
        When values are not finite, rows are too few, ages are all equal, or regressors are
        collinear.
    """
    try:
        fit = fit_ols(age, {term: values[term] for term in TERMS[formula]})
        r_squared = fit.r2.get()
    except ValueError as error:
        raise ProcessingError(
            f'Fusion {formula}: {error}. Use more people, or a formula with fewer terms.'
        ) from error
    return LinearFusion(
        formula=formula,
        coefficients=tuple(fit.coefficients.tolist()),
        covariance=tuple(map(tuple, fit.covariance.tolist())),
        n=fit.outcome.size,
        residual_variance=fit.rss / fit.df,
        r_squared=r_squared,
        fitted_on=fitted_on,
    )
