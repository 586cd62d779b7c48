"""The line that takes the dependence on age out: through everybody, or through the tails."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainage.statistics.bias import LEAST, CalibrationRefusedError, fit_bias, fit_line
from bids_brainage.statistics.bias import calibration_rows as tails

SLOPE, ERROR = 0.9, 5.5


def cohort(n, rng):
    age = rng.uniform(20, 80, n)
    return age, SLOPE * age + 6 + rng.normal(0, ERROR, n)


def share_worse(n, method, draws=2000):
    """Share of cohorts after whose correction the gap depends more on age than before."""
    rng = np.random.default_rng(5)
    worse = 0
    for _ in range(draws):
        age, predicted = cohort(n, rng)
        if method == 'tails':
            line = fit_bias(age, predicted, tails(age, np.ones(n, bool)))
        else:
            line, _ = fit_line(age, predicted, np.ones(n, bool))
        worse += abs(SLOPE - line.slope) > abs(SLOPE - 1)
    return worse / draws


@pytest.mark.parametrize(('n', 'wrong'), [(30, 0.32), (40, 0.29), (60, 0.19), (100, 0.11)])
def test_the_line_through_everybody_does_what_the_tails_do_not(n, wrong):
    """Lines through the oldest and youngest 5 % made it worse in 32, 29, 19 and 11 %."""
    assert share_worse(n, 'tails') == pytest.approx(wrong, abs=0.04)
    assert share_worse(n, 'linear') < min(wrong / 2, 0.12)


def test_small_groups_are_refused_where_chance_makes_it_worse():
    assert LEAST == {'linear': 30, 'tails': 100}
    rng = np.random.default_rng(0)
    for method, least in LEAST.items():
        assert share_worse(least, method) < 0.13
        age, predicted = cohort(least, rng)
        fit_line(age, predicted, np.ones(least, bool), method)
        with pytest.raises(CalibrationRefusedError, match=f'"{method}" needs {least}'):
            fit_line(age[1:], predicted[1:], np.ones(least - 1, bool), method)
    with pytest.raises(CalibrationRefusedError, match='years apart'):
        fit_line(np.linspace(50, 50.9, 40), np.arange(40.0), np.ones(40, bool))


def test_line_and_band_equal_scipy():
    age, predicted = cohort(50, np.random.default_rng(1))
    reference = np.arange(50) % 5 > 0
    line, rows = fit_line(np.append(age, np.nan), np.append(predicted, 3.0), [*reference, True])
    assert rows.tolist() == np.flatnonzero(reference).tolist()
    found = stats.linregress(age[reference], predicted[reference])
    assert (line.slope, line.intercept) == pytest.approx((found.slope, found.intercept))
    facts = line.as_dict()
    half = stats.t.ppf(0.975, 38) * found.stderr
    assert facts['slope_high'] - facts['slope'] == pytest.approx(half)
    low, high = line.band([0.0])
    half = stats.t.ppf(0.975, 38) * found.intercept_stderr
    assert (low[0], high[0]) == pytest.approx((found.intercept - half, found.intercept + half))


def test_the_band_covers_the_true_line_as_often_as_it_says():
    rng = np.random.default_rng(2)
    at = np.array([25.0, 50.0, 75.0])
    inside = []
    for _ in range(800):
        line, _ = fit_line(*cohort(40, rng), np.ones(40, bool))
        low, high = line.band(at)
        inside.append((low < SLOPE * at + 6) & (SLOPE * at + 6 < high))
    assert np.mean(inside, axis=0) == pytest.approx([0.95] * 3, abs=0.025)


def test_the_corrected_gap_of_the_reference_does_not_depend_on_age():
    age, predicted = cohort(40, np.random.default_rng(3))
    line, rows = fit_line(age, predicted, np.ones(40, bool))
    gap = line.apply(age, predicted) - age
    assert np.polyfit(age[rows], gap[rows], 1) == pytest.approx([0, 0], abs=1e-9)
