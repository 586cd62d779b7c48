"""Mean and spread of an ensemble."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainage.errors import BrainAgeError
from bids_brainage.inference.ensemble import ensemble_age


def test_mean_and_sample_sd_over_members():
    result = ensemble_age([[50.0, 20.0], [54.0, 20.0], [52.0, 26.0]])
    np.testing.assert_allclose(result.mean, [52.0, 22.0])
    np.testing.assert_allclose(result.sd, [2.0, np.sqrt(12.0)])
    assert result.n_members == 3


def test_one_scan_may_be_given_as_a_list():
    result = ensemble_age([40.0, 41.0, 42.0, 43.0, 44.0])
    assert result.mean.tolist() == [42.0]
    assert result.n_members == 5


def test_single_member_has_no_spread():
    assert np.isnan(ensemble_age([[40.0, 41.0]]).sd).all()


def test_bad_members_are_named():
    with pytest.raises(BrainAgeError, match='member 2 of 3'):
        ensemble_age([40.0, np.nan, 41.0])
    with pytest.raises(BrainAgeError, match='at least one'):
        ensemble_age([])
