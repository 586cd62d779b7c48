"""Test–retest and change statistics against golden values, properties and pingouin."""

from __future__ import annotations

import golden as g
import numpy as np
import pytest

from bids_brainage.statistics.bootstrap import Bootstrap
from bids_brainage.statistics.longitudinal import (
    change_accuracy,
    change_limits,
    person_slopes,
    reliable_change,
)
from bids_brainage.statistics.reliability import (
    icc_2_1,
    icc_3_1,
    mean_squares,
    measurement_error,
    median_interval,
    reliability,
    reliability_word,
    sigma_seed,
)
from bids_brainage.statistics.result import Stat

SCORES = np.column_stack([g.p, g.p_retest])
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
ROUNDING = 1e-9
ICC_DIGITS = 6e-10


def test_golden_reliability():
    stats = reliability(SCORES, np.full(60, 14.0))
    between, _, rest = mean_squares(SCORES)
    assert (between, rest) == pytest.approx((1303.724304, 0.162951), abs=g.DIGITS)
    assert stats['icc_3_1'].get() == pytest.approx(0.999750053, abs=ICC_DIGITS)
    assert stats['icc_2_1'].get() == pytest.approx(0.999743741, abs=ICC_DIGITS)
    golden = {
        'sigma_scan': 0.364956,
        'sigma_scan_pop': 0.258063,
        'mu_d': -0.116893,
        'sigma_d': 0.570879,
    }
    for key, value in golden.items():
        assert stats[key].get() == pytest.approx(value, abs=g.DIGITS), key
    assert stats['sem'].get() == pytest.approx(stats['sigma_d'].get() / np.sqrt(2), abs=ROUNDING)
    assert stats['sdc95'].get() == pytest.approx(1.959964 * stats['sigma_d'].get(), abs=1e-6)
    assert stats['loa_low'].get() < stats['mu_d'].get() < stats['loa_high'].get()
    assert stats['median_interval_days'].get() == 14


def test_published_example():
    """Shrout & Fleiss (1979), Table 4: ICC(2,1) 0.29, ICC(3,1) 0.71."""
    assert icc_2_1(SHROUT_FLEISS).get() == pytest.approx(0.29, abs=0.005)
    assert icc_3_1(SHROUT_FLEISS).get() == pytest.approx(0.71, abs=0.005)


@pytest.mark.parametrize('k', [2, 3, 5])
def test_limits_agree_with_pingouin(k):
    pingouin = pytest.importorskip('pingouin', reason='pingouin is a test-only reference')
    import pandas as pd

    rng = np.random.default_rng(k)
    x = rng.normal(50, 10, (25, 1)) + rng.normal(0, 3, (25, k)) + np.arange(k)
    long = pd.DataFrame(
        {'who': np.repeat(np.arange(25), k), 'scan': np.tile(np.arange(k), 25), 'age': x.ravel()}
    )
    table = pingouin.intraclass_corr(long, targets='who', raters='scan', ratings='age')
    table = table.reset_index()
    for position, stat in ((1, icc_2_1(x)), (2, icc_3_1(x))):
        row = table.iloc[position]
        limits = next(row[c] for c in table.columns if str(c).startswith('CI'))
        assert stat.get() == pytest.approx(row['ICC'], abs=ROUNDING)
        # pingouin 0.6 rounds its limits to two decimals
        assert (stat.low, stat.high) == pytest.approx(tuple(limits), abs=0.00501)


@pytest.mark.parametrize('seed', range(5))
def test_constant_shift_spares_consistency_only(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(50, 10, (30, 1)) + rng.normal(0, 2, (30, 2))
    shifted = x + np.array([0.0, 3.0])
    assert icc_3_1(shifted).get() == pytest.approx(icc_3_1(x).get(), abs=ROUNDING)
    assert icc_2_1(shifted).get() < icc_2_1(x).get() - 0.001


def test_limits_cover_the_truth():
    """ICC(3,1) of a known variance ratio, 400 simulated studies."""
    rng = np.random.default_rng(0)
    truth, hits = 16 / (16 + 4), 0
    for _ in range(400):
        x = rng.normal(0, 4, (20, 1)) + rng.normal(0, 2, (20, 2))
        stat = icc_3_1(x)
        hits += stat.low <= truth <= stat.high
    assert 0.92 <= hits / 400 <= 0.98


def test_missing_scans_are_dropped():
    x = SCORES.copy()
    x[3, 1] = np.nan
    assert icc_3_1(x).get() == icc_3_1(np.delete(x, 3, axis=0)).get()


@pytest.mark.parametrize('n', [0, 1])
def test_too_few_people(n):
    stats = reliability(SCORES[:n], np.full(n, np.nan))
    for key in ('icc_3_1', 'icc_2_1', 'sigma_d', 'sem', 'loa_low', 'median_interval_days'):
        assert stats[key].value is None and stats[key].reason
    assert bool(stats['mu_d']) is (n == 1)


def test_identical_and_constant_scans():
    same = np.column_stack([g.p, g.p])
    assert icc_3_1(same).get() == 1
    assert 'without residual' in icc_3_1(same).reason
    assert icc_2_1(same).get() == 1
    assert 'equal' in icc_3_1(np.full((10, 2), 40.0)).reason


def test_words():
    words = [reliability_word(x) for x in (0.2, 0.5, 0.75, 0.9, 0.95)]
    assert words == ['poor', 'moderate', 'good', 'good', 'excellent']


def test_seed_spread_and_interval():
    assert sigma_seed([[1, 3], [5, 5]]).get() == pytest.approx(np.sqrt(2) / 2)
    assert median_interval([np.nan, 3, 5]).get() == 4


def test_golden_change():
    stats = change_accuracy(g.y, g.y_follow - g.y, g.p_follow - g.p)
    golden = {'mde': -0.250344, 'made': 1.334366, 'mmade': 1.546720, 'mmade_all': 1.548306}
    for key, value in golden.items():
        assert stats[key].get() == pytest.approx(value, abs=g.DIGITS), key


def test_change_limits_hold_the_estimate():
    stats = change_limits(g.y, g.y_follow - g.y, g.p_follow - g.p, g.i, Bootstrap(draws=500))
    for key in ('mde', 'made', 'mmade_all'):
        assert stats[key].low < stats[key].get()
    assert stats['made'].high > stats['made'].get()


def test_pairs_without_time_are_left_out():
    stats = change_accuracy([20, 30, 40], [0, 1, -1], [5, 3, 5])
    assert stats['mde'].get() == 2
    assert 'positive interval' in change_accuracy([20], [0], [1])['made'].reason


def test_slopes_equal_polyfit():
    rng = np.random.default_rng(4)
    person = np.repeat(np.arange(8), 5)
    years = rng.uniform(40, 60, 40)
    predicted = 1.3 * years + rng.normal(0, 1, 40)
    slopes = person_slopes(person, years, predicted, 9)
    for k in range(8):
        rows = person == k
        fit, cov = np.polyfit(years[rows], (predicted - years)[rows], 1, cov='unscaled')
        rest = (predicted - years)[rows] - np.polyval(fit, years[rows])
        se = np.sqrt(cov[0, 0] * np.sum(rest**2) / 3)
        assert slopes.gap_slope[k] == pytest.approx(fit[0], abs=1e-8)
        assert slopes.gap_slope_se[k] == pytest.approx(se, abs=1e-8)
    assert slopes.n_sessions[8] == 0
    assert np.isnan(slopes.annual_rate[8])


def test_two_visits_have_a_slope_without_error():
    slopes = person_slopes([0, 0, 1, 1], [50, 52, 60, 60], [51, 54, 1, 2], 2)
    assert slopes.annual_rate[0] == 1.5
    assert np.isnan(slopes.gap_slope_se[0])
    assert np.isnan(slopes.annual_rate[1])


def test_reliable_change():
    index, exceeds = reliable_change([0.5, 4.0, np.nan], Stat(1.0))
    assert index[:2] == pytest.approx([0.5 / np.sqrt(2), 4 / np.sqrt(2)])
    assert exceeds[:2].tolist() == [0, 1] and np.isnan(exceeds[2])
    assert np.isnan(reliable_change([1.0], Stat(None, 'no retest'))[0]).all()


@pytest.mark.parametrize('n', [10, 40])
def test_limits_of_the_measurement_error_cover_it(n):
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(600):
        scores = rng.normal(60, 10, (n, 1)) + rng.normal(0, 2, (n, 2))
        stats = measurement_error(scores)
        inside.append(stats['sem'].low < 2 < stats['sem'].high)
        assert stats['sdc95'].low == pytest.approx(1.959964 * np.sqrt(2) * stats['sem'].low)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.025)


def test_two_pairs_tell_next_to_nothing():
    stat = measurement_error([[50.0, 50.6], [60.0, 60.9]])['sem']
    assert stat.high > 20 * stat.get()
    assert 'without residual' in measurement_error([[50, 50], [60, 60.0]])['sem'].reason
