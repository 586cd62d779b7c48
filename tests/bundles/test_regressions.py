"""Linear fusion of System B against statsmodels, and its fallbacks."""

import json

import numpy as np
import pytest
import statsmodels.api as sm

from bids_brainage.bundles.regressions import TERMS, LinearFusion, fit_fusion
from bids_brainage.errors import ProcessingError

FIT_TOLERANCE = 1e-8


@pytest.fixture(scope='module')
def people():
    rng = np.random.default_rng(0)
    age = rng.uniform(18, 90, 120)
    values = {
        't1w': age + rng.normal(0, 5, 120),
        'aicbv': 0.9 * age + 4 + rng.normal(0, 6, 120),
        'sex': rng.integers(0, 2, 120).astype(float),
    }
    return age, values


@pytest.fixture(scope='module')
def fusions(people):
    return {formula: fit_fusion(formula, *people) for formula in TERMS}


@pytest.mark.parametrize('formula', list(TERMS))
def test_fit_equals_statsmodels(people, fusions, formula):
    age, values = people
    design = sm.add_constant(np.column_stack([values[term] for term in TERMS[formula]]))
    reference = sm.OLS(age, design).fit()
    fit = fusions[formula]
    np.testing.assert_allclose(fit.coefficients, reference.params, rtol=FIT_TOLERANCE)
    np.testing.assert_allclose(fit.covariance, reference.cov_params(), rtol=FIT_TOLERANCE)
    assert fit.r_squared == pytest.approx(reference.rsquared, rel=FIT_TOLERANCE)
    age_hat, spread = fit.predict(values)
    frame = reference.get_prediction(design)
    np.testing.assert_allclose(age_hat, frame.predicted_mean, rtol=FIT_TOLERANCE)
    np.testing.assert_allclose(spread, frame.se_obs, rtol=FIT_TOLERANCE)


def test_json_round_trip(fusions):
    for fit in fusions.values():
        assert LinearFusion.from_dict(json.loads(json.dumps(fit.to_dict()))) == fit


def test_damaged_storage_is_refused(fusions):
    stored = fusions['TAS'].to_dict()
    with pytest.raises(ProcessingError, match='expected 4 coefficients'):
        LinearFusion.from_dict(stored | {'coefficients': [1.0, 2.0]})
    with pytest.raises(ProcessingError, match='TAX'):
        LinearFusion.from_dict(stored | {'formula': 'TAX'})
    del stored['covariance']
    with pytest.raises(ProcessingError, match='covariance'):
        LinearFusion.from_dict(stored)


def test_undetermined_fits_are_refused():
    ages = np.array([20.0, 30.0, 40.0, 50.0])
    with pytest.raises(ProcessingError, match='combination of the others'):
        fit_fusion('TA', ages, {'t1w': ages, 'aicbv': 2 * ages})
    with pytest.raises(ProcessingError, match='too few'):
        fit_fusion('T', ages[:2], {'t1w': ages[:2]})
    with pytest.raises(ProcessingError, match='zero variance'):
        fit_fusion('T', [30.0] * 4, {'t1w': ages})
    with pytest.raises(ProcessingError, match='missing values'):
        fit_fusion('T', ages, {'t1w': np.array([1, 2, np.nan, 4])})
