"""Linear fusion of System B against statsmodels, and its fallbacks."""

import json

import numpy as np
import pytest
import statsmodels.api as sm

from bids_brainage.bundles.regressions import TERMS, LinearFusion, fit_fusion, fuse
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
    np.testing.assert_allclose(fit.standard_errors, reference.bse, rtol=FIT_TOLERANCE)
    np.testing.assert_allclose(fit.t_values, reference.tvalues, rtol=FIT_TOLERANCE)
    assert fit.r_squared == pytest.approx(reference.rsquared, rel=FIT_TOLERANCE)
    assert fit.degrees_of_freedom == reference.df_resid
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


def test_what_is_missing_decides_the_formula_and_is_said(fusions):
    full = fuse(fusions, 60.0, 57.0, 'M')
    b0, bt, ba, bs = fusions['TAS'].coefficients
    assert full.age == pytest.approx(b0 + 60 * bt + 57 * ba + bs)
    assert (full.formula, full.note) == ('TAS', '')
    female = fuse(fusions, 60.0, 57.0, 'female')
    assert full.age - female.age == pytest.approx(bs)
    no_sex = fuse(fusions, 60.0, 57.0)
    assert no_sex.formula == 'TA'
    assert 'sex missing' in no_sex.note
    assert fuse(fusions, 60.0, 57.0, 'other').formula == 'TA'
    no_map = fuse(fusions, 60.0, None, 'M')
    assert no_map.formula == 'T'
    assert 'no CBV map' in no_map.note
    assert full.standard_deviation > 0


def test_absent_regression_is_a_clear_error(fusions):
    with pytest.raises(ProcessingError, match='Fusion TAS is needed'):
        fuse({'T': fusions['T']}, 60.0, 57.0, 'F')


def test_undetermined_fits_are_refused():
    ages = np.array([20.0, 30.0, 40.0, 50.0])
    with pytest.raises(ProcessingError, match='do not determine'):
        fit_fusion('TA', ages, {'t1w': ages, 'aicbv': 2 * ages})
    with pytest.raises(ProcessingError, match='do not determine'):
        fit_fusion('T', ages[:2], {'t1w': ages[:2]})
    with pytest.raises(ProcessingError, match='finite'):
        fit_fusion('T', ages, {'t1w': np.array([1, 2, np.nan, 4])})
