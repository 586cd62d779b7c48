"""Accuracy, bins and bootstrap against golden values, properties and a plain loop."""

from __future__ import annotations

import golden as g
import numpy as np
import pytest
from scipy.stats import binomtest

from bids_brainage.statistics.accuracy import (
    accuracy,
    accuracy_limits,
    complete,
    interval_coverage,
    subject_means,
    wilson,
)
from bids_brainage.statistics.bins import (
    AGE_GROUPS,
    DECADES,
    FIVE_YEARS,
    bin_index,
    bin_labels,
    worst_bin,
)
from bids_brainage.statistics.bootstrap import Bootstrap
from bids_brainage.statistics.result import Stat, defined, flatten

GOLDEN = {
    'mae': 2.861399,
    'me': -0.578033,
    'mse': 11.748301,
    'rmse': 3.427579,
    'r': 0.996522,
    'r2': 0.984867,
    'mmae': 4.234580,
    'mmae_all': 6.195272,
}
DECADE_MAE = (
    '2.204638 4.234580 2.132502 1.576534 1.761329 2.241304 3.275732 3.083533 2.900449 6.195272'
)
ROUNDING = 1e-9


@pytest.mark.parametrize('key', GOLDEN)
def test_golden_accuracy(key):
    assert accuracy(g.y, g.p)[key].get() == pytest.approx(GOLDEN[key], abs=g.DIGITS)


def test_golden_bins():
    worst = worst_bin(g.y, np.abs(g.p - g.y))
    assert worst.counts == (7, 7, 6, 6, 6, 6, 6, 6, 6, 4)
    expected = [float(x) for x in DECADE_MAE.split()]
    assert [m.get() for m in worst.means] == pytest.approx(expected, abs=g.DIGITS)
    assert (worst.bin, worst.bin_all, worst.excluded) == ('10-20', '90+', ('90+',))


def test_golden_five_year_bins():
    worst = worst_bin(g.y, np.abs(g.p - g.y), FIVE_YEARS)
    cells = dict(
        zip(bin_labels(FIVE_YEARS), zip(worst.counts, worst.means, strict=True), strict=True)
    )
    for label, n, mae in (('15-20', 4, 3.983302), ('20-25', 3, 2.927807), ('25-30', 3, 1.337197)):
        assert cells[label][0] == n
        assert cells[label][1].get() == pytest.approx(mae, abs=g.DIGITS)


@pytest.mark.parametrize(
    ('sex', 'mae', 'me'), [(0, 2.690728, -0.261297), (1, 3.032069, -0.894769)]
)
def test_golden_by_sex(sex, mae, me):
    rows = g.sex == sex
    stats = accuracy(g.y[rows], g.p[rows])
    assert stats['mae'].get() == pytest.approx(mae, abs=g.DIGITS)
    assert stats['me'].get() == pytest.approx(me, abs=g.DIGITS)


@pytest.mark.parametrize(
    ('age', 'edges', 'expected'),
    [
        (10.0, DECADES, 1),
        (96.0, DECADES, 9),
        (0.0, DECADES, 0),
        (120.0, DECADES, 9),
        (18.0, AGE_GROUPS, 1),
        (17.99, AGE_GROUPS, 0),
        (60.0, AGE_GROUPS, 2),
        (17.0, (18, 25), -1),
        (np.nan, DECADES, -1),
    ],
)
def test_bins_are_left_closed_and_open_ended(age, edges, expected):
    assert bin_index([age], edges)[0] == expected


def test_labels():
    assert bin_labels(FIVE_YEARS)[3] == '15-20'
    assert bin_labels(AGE_GROUPS) == ('0-18', '18-60', '60+')


def test_no_bin_qualifies():
    worst = worst_bin([20.0, 30.0], [1.0, 4.0])
    assert not worst.value
    assert 'at least 5' in worst.value.reason
    assert worst.value_all.get() == 4.0


def _random(seed, n=200):
    rng = np.random.default_rng(seed)
    y = rng.uniform(0, 97, n)
    return y, y + rng.normal(1, 4, n), rng


@pytest.mark.parametrize('seed', range(5))
def test_shift_moves_only_the_bias(seed):
    y, p, rng = _random(seed)
    c = rng.normal(0, 5)
    before, after = accuracy(y, p), accuracy(y, p + c)
    assert after['me'].get() == pytest.approx(before['me'].get() + c, abs=ROUNDING)
    for key in ('r', 'sd_err', 'slope'):
        assert after[key].get() == pytest.approx(before[key].get(), abs=ROUNDING)


@pytest.mark.parametrize('seed', range(5))
def test_order_of_rows_is_irrelevant_and_worst_bin_exceeds_mean(seed):
    y, p, rng = _random(seed)
    order = rng.permutation(y.size)
    a, b = accuracy(y, p, min_bin_n=1), accuracy(y[order], p[order], min_bin_n=1)
    for key, stat in a.items():
        assert b[key].get() == pytest.approx(stat.get(), abs=ROUNDING)
    assert a['mmae'].get() >= a['mae'].get()


def test_perfect_and_constant_predictions():
    perfect = accuracy(g.y, g.y)
    assert (perfect['mae'].get(), perfect['me'].get(), perfect['r2'].get()) == (0, 0, 1)
    constant = accuracy(g.y, np.full(60, g.y.mean()))
    assert constant['r2'].get() == pytest.approx(0, abs=ROUNDING)
    assert constant['r'].value is None
    assert 'zero variance' in constant['r'].reason


@pytest.mark.parametrize('n', [0, 1])
def test_tiny_samples_are_explained(n):
    stats = accuracy(g.y[:n], g.p[:n])
    assert bool(stats['mae']) is (n == 1)
    for key in ('r', 'r2', 'sd_err', 'slope', 'mmae'):
        assert stats[key].value is None and stats[key].reason


def test_equal_ages():
    assert 'age has zero variance' in accuracy([50, 50, 50], [49, 50, 52])['r2'].reason


def test_missing_rows_are_left_out():
    data = complete([1, np.nan, 3, 4], [1, 2, np.nan, 5])
    assert data.y.tolist() == [1, 4]
    with pytest.raises(ValueError, match='equal 1-D'):
        complete([1, 2], [1, 2, 3])


def test_bootstrap_equals_a_plain_loop():
    """Recompute every statistic on the rows of each draw."""
    boot = Bootstrap(draws=200, seed=3)
    subjects = g.i // 2
    stats = accuracy_limits(g.y, g.p, subjects, boot, min_bin_n=1)
    counts = boot.counts(30).astype(int)
    assert (counts.sum(axis=1) == 30).all()
    drawn = {key: [] for key in stats}
    for row in counts:
        rows = np.concatenate(
            [np.repeat(np.flatnonzero(subjects == s), k) for s, k in enumerate(row)]
        )
        for key, stat in accuracy(g.y[rows], g.p[rows], min_bin_n=1).items():
            drawn[key].append(stat.get())
    for key, stat in stats.items():
        low, high = np.quantile(drawn[key], [0.025, 0.975])
        assert (stat.low, stat.high) == pytest.approx((low, high), abs=1e-7), key


def test_bootstrap_is_seeded():
    one, two = (accuracy_limits(g.y, g.p, g.i, Bootstrap(seed=5))['mae'] for _ in range(2))
    other = accuracy_limits(g.y, g.p, g.i, Bootstrap(seed=6))['mae']
    assert one == two
    assert one.low != other.low


def test_blocks_of_subjects_keep_the_width():
    y, p, _ = _random(1, 6000)
    exact = accuracy_limits(y, p, np.arange(6000), Bootstrap(draws=1000, max_units=6000))
    blocks = accuracy_limits(y, p, np.arange(6000), Bootstrap(draws=1000, max_units=1000))
    for key in ('mae', 'me', 'r', 'r2', 'slope'):
        width = exact[key].high - exact[key].low
        assert blocks[key].high - blocks[key].low == pytest.approx(width, rel=0.15), key


def test_clustered_scans_widen_the_limits():
    """Ten copies of a scan carry no more than one."""
    boot = Bootstrap(draws=500)
    one = accuracy_limits(g.y, g.p, g.i, boot)['mae']
    ten = accuracy_limits(np.repeat(g.y, 10), np.repeat(g.p, 10), np.repeat(g.i, 10), boot)['mae']
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high), abs=ROUNDING)


def test_limits_are_explained_when_missing():
    few = accuracy_limits(g.y[:3], g.p[:3], g.i[:3], Bootstrap(draws=50))
    assert few['mae'].low is None
    assert 'fewer than 5' in few['mae'].reason
    constant = accuracy_limits(g.y, np.full(60, 40.0), g.i, Bootstrap(draws=50))
    assert constant['mae'].low < constant['mae'].get() < constant['mae'].high
    assert constant['r'].value is None


def test_coverage_of_intervals():
    low, high = g.p - 3, g.p + 3
    share = np.mean(np.abs(g.p - g.y) <= 3)
    stat = interval_coverage(g.y, low, high, g.i)
    assert stat.get() == pytest.approx(share)
    assert stat.low < share < stat.high
    twice = interval_coverage(*(np.tile(x, 2) for x in (g.y, low, high, g.i)))
    assert (twice.low, twice.high) == (stat.low, stat.high)
    assert not interval_coverage(g.y, np.full(60, np.nan), high)


@pytest.mark.parametrize(('k', 'n'), [(60, 60), (0, 12), (54, 60), (1, 1), (7, 9)])
def test_limits_of_shares_equal_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method='wilson')
    found = wilson(k / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_sixty_of_sixty_is_not_certain():
    """A bootstrap gave 100.0 to 100.0 %."""
    stat = interval_coverage(g.y, g.y - 1, g.y + 1, g.i)
    assert stat.get() == 1
    assert (round(100 * stat.low), round(100 * stat.high)) == (94, 100)


def test_subject_means():
    y, p, codes = subject_means([10, 12, 20, np.nan], [11, 15, 21, 3], [4, 4, 7, 9])
    assert (y.tolist(), p.tolist(), codes.tolist()) == ([11, 20], [13, 21], [4, 7])


def test_a_statistic_is_a_number_or_a_reason():
    with pytest.raises(ValueError, match='reason'):
        Stat(None)
    with pytest.raises(ValueError, match='finite'):
        Stat(float('nan'))
    assert defined(float('inf'), 'too large').reason == 'too large'
    with pytest.raises(ValueError, match='too large'):
        defined(float('inf'), 'too large').get()
    row = flatten({'a': Stat(1.0), 'b': Stat(None, 'why'), 'c': Stat(None, 'why')}, limits=True)
    assert row == {
        'a': 1.0, 'a_low': None, 'a_high': None, 'b': None, 'b_low': None, 'b_high': None,
        'c': None, 'c_low': None, 'c_high': None, 'reason': 'b, c: why',
    }  # fmt: skip
