"""Group tests, nested models, bias correction and conformal intervals."""

from __future__ import annotations

import golden as g
import numpy as np
import pytest
from scipy import stats as scipy_stats

from bids_brainage.statistics.bias import (
    CalibrationRefusedError,
    calibration_rows,
    correction_report,
    fit_bias,
)
from bids_brainage.statistics.cohorts import (
    ancova,
    correlation,
    games_howell,
    hedges_g,
    welch_anova,
    z_test,
)
from bids_brainage.statistics.conformal import (
    calibrate,
    calibrate_by_age,
    half_width,
    leave_one_out_half_widths,
    leave_one_out_half_widths_by_age,
)
from bids_brainage.statistics.fdr import fdr
from bids_brainage.statistics.nested import FitRefusedError, fit_ols, fusion_table, nested_f
from bids_brainage.statistics.result import Stat

GROUPS = {'CU': g.CU, 'MCI': g.MCI, 'AD': g.AD}
ROUNDING = 1e-9


def test_golden_welch():
    row = welch_anova(GROUPS)
    assert row.statistic.get() == pytest.approx(8.428374, abs=g.DIGITS)
    assert row.df == pytest.approx((2, 13.514214), abs=g.DIGITS)
    assert row.p.get() == pytest.approx(0.00420478, abs=6e-9)


def test_golden_games_howell():
    golden = {
        ('CU', 'MCI'): (-3.028151, 11.908722, 0.0265417),
        ('CU', 'AD'): (-3.717658, 12.640062, 0.00707404),
        ('MCI', 'AD'): (-1.196023, 13.623894, 0.475163),
    }
    rows = {(r.level_a, r.level_b): r for r in games_howell(GROUPS)}
    assert rows.keys() == golden.keys()
    for key, (t, df, p) in golden.items():
        assert rows[key].statistic.get() == pytest.approx(t, abs=g.DIGITS)
        assert rows[key].df[0] == pytest.approx(df, abs=g.DIGITS)
        assert rows[key].p.get() == pytest.approx(p, rel=2e-6)


def test_games_howell_limits_use_the_range_quantile():
    row = games_howell(GROUPS)[0]
    se = row.estimate.get() / row.statistic.get()
    q = scipy_stats.studentized_range.ppf(0.95, 3, row.df[0])
    assert row.estimate.high - row.estimate.get() == pytest.approx(q / np.sqrt(2) * se, rel=1e-6)


def test_a_group_of_one_person_counts_for_no_pair():
    pair = games_howell({'CU': g.CU, 'AD': g.AD})[0]
    with_one = games_howell({'CU': g.CU, 'one': [1.0], 'AD': g.AD})
    assert with_one[1] == pair
    assert 'fewer than 2' in with_one[0].p.reason


def test_golden_z():
    row = z_test(g.CU, g.AD)
    assert row.statistic.get() == pytest.approx(-3.717658, abs=g.DIGITS)
    assert row.p.get() == pytest.approx(0.000201078, abs=6e-10)
    assert 'fewer than 30' in row.warning


def test_agrees_with_pingouin():
    pingouin = pytest.importorskip('pingouin', reason='pingouin is a test-only reference')
    import pandas as pd

    long = pd.DataFrame(
        {
            'dx': np.repeat(list(GROUPS), [len(v) for v in GROUPS.values()]),
            'gap': g.CU + g.MCI + g.AD,
        }
    )
    ours = {frozenset((r.level_a, r.level_b)): r for r in games_howell(GROUPS)}
    for _, row in pingouin.pairwise_gameshowell(long, dv='gap', between='dx').iterrows():
        mine = ours[frozenset((row['A'], row['B']))]
        assert abs(mine.statistic.get()) == pytest.approx(abs(row['T']), abs=1e-6)
        assert abs(mine.hedges_g.get()) == pytest.approx(abs(row['hedges']), abs=1e-6)
    covariate = np.linspace(50, 80, len(long)) + 3 * np.sin(np.arange(len(long)))
    table = pingouin.ancova(long.assign(age=covariate), dv='gap', between='dx', covar='age')
    omnibus = ancova(long['gap'], long['dx'].tolist(), {'age': covariate}, list(GROUPS))[0]
    assert omnibus.statistic.get() == pytest.approx(table['F'].iloc[0], rel=1e-6)


@pytest.mark.parametrize('seed', range(5))
def test_welch_of_two_groups_is_welchs_t_squared(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, 9), rng.normal(1, 3, 14)
    row = welch_anova({'a': a, 'b': b})
    t = scipy_stats.ttest_ind(a, b, equal_var=False)
    assert row.statistic.get() == pytest.approx(t.statistic**2, rel=ROUNDING)
    assert row.df[1] == pytest.approx(t.df, rel=ROUNDING)
    assert row.p.get() == pytest.approx(t.pvalue, rel=1e-6)


def test_ancova_pairs_equal_statsmodels():
    rng = np.random.default_rng(2)
    dx = np.repeat(['CU', 'MCI', 'AD'], 20)
    age = rng.uniform(55, 90, 60)
    gap = 0.1 * age + (dx == 'AD') * 3 + rng.normal(0, 2, 60)
    rows = ancova(gap, dx.tolist(), {'age': age}, ['CU', 'MCI', 'AD'])
    import statsmodels.formula.api as smf

    data = {'gap': gap, 'dx': dx, 'age': age}
    fit = smf.ols('gap ~ C(dx, Treatment("CU")) + age', data).fit()
    pair = next(r for r in rows if (r.level_a, r.level_b) == ('AD', 'CU'))
    name = 'C(dx, Treatment("CU"))[T.AD]'
    assert pair.estimate.get() == pytest.approx(fit.params[name], rel=1e-8)
    assert (pair.estimate.low, pair.estimate.high) == pytest.approx(
        tuple(fit.conf_int().loc[name]), rel=1e-8
    )
    assert pair.p.get() == pytest.approx(fit.pvalues[name], rel=1e-6)


def test_age_as_covariate_removes_a_confounded_difference():
    rng = np.random.default_rng(3)
    dx = np.repeat(['young', 'old'], 100)
    age = np.where(dx == 'old', 75, 30) + rng.normal(0, 12, 200)
    gap = 0.2 * age + rng.normal(0, 1, 200)
    assert z_test(gap[dx == 'old'], gap[dx == 'young']).p.get() < 1e-6
    adjusted = ancova(gap, dx.tolist(), {'age': age}, ['young', 'old'])[1]
    assert adjusted.estimate.low < 0 < adjusted.estimate.high


def test_untestable_contrasts_are_explained():
    assert 'fewer than 2' in z_test([1.0], [1.0, 2.0]).p.reason
    assert 'zero variance' in z_test([1.0, 1.0], [1.0, 1.0]).p.reason
    assert 'b' in welch_anova({'a': [1, 2], 'b': [3]}).p.reason
    assert 'at least 2' in welch_anova({'a': [1, 2]}).p.reason
    assert 'fewer than 2' in games_howell({'a': [1, 2], 'b': [3]})[0].p.reason
    assert not ancova([1, 2, 3], ['a', 'a', 'b'], {'age': [1, 2, 3]}, ['a', 'b'])[0].p
    no_age = ancova([1.0] * 4, ['a', 'a', 'b', 'b'], {'age': [np.nan] * 4}, ['a', 'b'])
    assert no_age[0].n_a == 0 and not no_age[0].p


def test_hedges_g_limits_narrow_with_n():
    small, large = hedges_g(g.CU, g.AD), hedges_g(g.CU * 20, g.AD * 20)
    assert small.high - small.low > 3 * (large.high - large.low)
    assert not hedges_g([1], [2, 3])


def test_golden_correlation():
    r, p, n = correlation(g.p - g.y, g.mmse)
    assert (r.get(), n) == (pytest.approx(-0.492834, abs=g.DIGITS), 60)
    assert p.get() == pytest.approx(6.325e-05, abs=6e-9)
    assert r.low < r.get() < r.high
    assert not correlation([1, 2, 3], [1, 1, 1])[0]
    assert correlation([1, np.nan], [1, 2])[2] == 1


def test_fdr_ignores_undefined():
    out = fdr([Stat(0.01), Stat(None, 'none'), Stat(0.04), Stat(0.03)])
    assert [s.value for s in out] == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.04),
        pytest.approx(0.04),
    ]
    assert fdr([Stat(None, 'none')])[0].reason == 'none'


def test_golden_fusion():
    fits, tests = fusion_table(g.y, g.p, g.second, g.sex)
    assert fits['T'].coefficients == pytest.approx([-3.899281, 1.096970], abs=g.DIGITS)
    expected = [-6.305647, 0.778001, 0.377876, -0.805431]
    assert fits['TAS'].coefficients == pytest.approx(expected, abs=g.DIGITS)
    golden = {
        'T vs TA': (25.023410, 5.74995e-06, 323.398849, 224.737480),
        'A vs TA': (132.351433, 1.72596e-16, 746.567788, 224.737480),
        'TA vs TAS': (2.277591, 0.136877, 224.737480, 215.954342),
    }
    for key, (f, p, rss0, rss1) in golden.items():
        assert tests[key].f.get() == pytest.approx(f, abs=g.DIGITS)
        assert tests[key].p.get() == pytest.approx(p, rel=5e-6)
        reduced, full = (fits[name] for name in key.split(' vs '))
        assert (reduced.rss, full.rss) == pytest.approx((rss0, rss1), abs=g.DIGITS)
    assert fits['TAS'].as_dict()['n'] == 60
    assert 'TAS' not in fusion_table(g.y, g.p, g.second, None)[0]


@pytest.mark.parametrize('seed', range(5))
def test_f_of_one_regressor_is_t_squared(seed):
    rng = np.random.default_rng(seed)
    a, b, y = rng.normal(size=(3, 40))
    full = fit_ols(y, {'a': a, 'b': b})
    f = nested_f(fit_ols(y, {'a': a}), full).f.get()
    assert f == pytest.approx(full.test([0, 0, 1])[2] ** 2, rel=1e-8)


def test_refused_fits():
    with pytest.raises(FitRefusedError, match='constant'):
        fit_ols(g.y, {'a': np.ones(60)})
    with pytest.raises(FitRefusedError, match='too few'):
        fit_ols([1, 2], {'a': [1, 2]})
    with pytest.raises(FitRefusedError, match='missing'):
        fit_ols([1, 2, np.nan, 4], {'a': [1, 2, 3, 5]})
    one = fit_ols(g.y, {'a': g.p})
    with pytest.raises(FitRefusedError, match='not nested'):
        nested_f(one, fit_ols(g.y, {'b': g.p}))
    with pytest.raises(FitRefusedError, match='different rows'):
        nested_f(one, fit_ols(g.y[::-1], {'a': g.p, 'b': g.second}))


def test_golden_bias_correction():
    rows = calibration_rows(g.y, np.ones(60, bool))
    fit = fit_bias(g.y, g.p, rows)
    assert fit.n_per_side == 3
    assert (fit.slope, fit.intercept) == pytest.approx((0.915136, 2.236950), abs=g.DIGITS)
    report = correction_report(g.y, g.p, fit, rows)
    assert report['after']['mae'].get() == pytest.approx(2.081055, abs=g.DIGITS)
    assert report['after']['me'].get() == pytest.approx(1.152403, abs=g.DIGITS)
    assert report['excl_calibration']['mae'].get() == pytest.approx(2.163355, abs=g.DIGITS)
    assert report['before']['mae'].get() == pytest.approx(2.861399, abs=g.DIGITS)
    gap = (fit.apply(g.y, g.p) - g.y)[rows]
    assert gap.mean() == pytest.approx(0, abs=ROUNDING)
    assert np.polyfit(g.y[rows], gap, 1)[0] == pytest.approx(0, abs=ROUNDING)
    assert fit.as_dict()['n_per_side'] == 3


def test_average_then_correct_equals_correct_then_average():
    models = np.stack([g.p, g.second, g.p_retest])
    rows = calibration_rows(g.y, np.ones(60, bool))
    first = fit_bias(g.y, models.mean(axis=0), rows).apply(g.y, models.mean(axis=0))
    each = np.mean([fit_bias(g.y, m, rows).apply(g.y, m) for m in models], axis=0)
    assert first == pytest.approx(each, abs=ROUNDING)


def test_bias_correction_is_refused():
    with pytest.raises(CalibrationRefusedError, match='20 people'):
        calibration_rows(np.arange(20.0), np.ones(20, bool))
    assert calibration_rows(np.arange(21.0), np.ones(21, bool)).size == 4
    with pytest.raises(CalibrationRefusedError, match='years apart'):
        calibration_rows(np.linspace(50, 50.5, 30), np.ones(30, bool))
    only = calibration_rows(
        np.append(np.arange(40.0), np.nan), np.append(np.ones(30), [0] * 11) > 0
    )
    assert only.max() == 29


def test_conformal_rank():
    residuals = np.arange(1, 20) * np.where(np.arange(19) % 2, 1, -1)
    assert half_width(residuals, 0.9).get() == 18
    assert half_width(residuals, 0.95).get() == 19
    assert '39 are needed' in half_width(residuals, 0.975).reason
    with pytest.raises(ValueError, match='between 0 and 1'):
        half_width(residuals, 1.0)


@pytest.mark.parametrize('n', [9, 20, 101])
def test_conformal_covers_new_people(n):
    """Skewed residuals; mean coverage of 3,000 new people after each of 300 calibrations."""
    rng = np.random.default_rng(n)
    coverage = []
    for _ in range(300):
        width = calibrate(rng.gamma(2, 2, n) - 3, 0.9).half_width.get()
        coverage.append(np.mean(np.abs(rng.gamma(2, 2, 3000) - 3) <= width))
    assert 0.885 <= np.mean(coverage) <= 0.9 + 1 / (n + 1) + 0.015


def test_leave_one_out_equals_a_loop():
    residuals = np.append(np.random.default_rng(1).normal(0, 4, 30), np.nan)
    widths = leave_one_out_half_widths(residuals, 0.9)
    for k in range(30):
        others = np.delete(residuals[:30], k)
        assert widths[k] == half_width(others, 0.9).get()
    assert np.isnan(widths[30])
    assert np.isnan(leave_one_out_half_widths([1.0, 2.0], 0.9)).all()


AGE_GROUPS = ((18, 40), (40, 65), (65, 91))


def ageing_errors(n, rng):
    """People whose errors have a standard deviation of 2 years at 18 and 10 at 90."""
    age = rng.uniform(18, 90, n)
    return age, age + rng.normal(0, 2 + 8 * (age - 18) / 72)


def shares_inside(age, predicted, half):
    inside = np.abs(predicted - age) <= half
    return [inside[(age >= low) & (age < high)].mean() for low, high in AGE_GROUPS]


@pytest.mark.parametrize('n', [200, 2000])
def test_intervals_by_age_cover_every_age_group_where_the_plain_one_does_not(n):
    """Errors five times as large in the old; mean of 100 calibrations, 2,000 new people each."""
    rng = np.random.default_rng(n)
    by_age, plain = [], []
    for _ in range(100):
        age, predicted = ageing_errors(n, rng)
        fit = calibrate_by_age(predicted - age, predicted, 0.9)
        new, said = ageing_errors(2000, rng)
        by_age.append(shares_inside(new, said, np.interp(said, fit.age, fit.half_widths)))
        plain.append(shares_inside(new, said, calibrate(predicted - age, 0.9).half_width.get()))
    assert np.mean(by_age, axis=0).min() >= 0.85 and np.mean(by_age, axis=0).max() <= 0.95
    assert np.mean(plain, axis=0)[-1] < 0.82 and np.mean(plain, axis=0)[0] > 0.97


def test_intervals_by_age_do_not_depend_on_the_order_and_pass_over_missing_people():
    rng = np.random.default_rng(1)
    age, predicted = ageing_errors(120, rng)
    fit = calibrate_by_age(predicted - age, predicted, 0.9)
    order = rng.permutation(120)
    again = calibrate_by_age(
        np.append((predicted - age)[order], [np.nan, 1.0]),
        np.append(predicted[order], [50, np.nan]),
        0.9,
    )
    assert again.n == fit.n == 120 and (np.diff(fit.age) > 0).all()
    np.testing.assert_array_equal(again.age, fit.age)
    np.testing.assert_allclose(again.half_widths, fit.half_widths, rtol=1e-12)
    assert fit.half_widths.min() < fit.half_width.get() < fit.half_widths.max()


def test_intervals_by_age_equal_the_plain_one_where_errors_are_alike_at_all_ages():
    """2,000 people: the median within 5 %, every age with people within 20 %."""
    rng = np.random.default_rng(2)
    age = rng.uniform(18, 90, 2000)
    predicted = age + rng.normal(0, 5, 2000)
    fit, plain = (
        calibrate_by_age(predicted - age, predicted, 0.9),
        half_width(predicted - age, 0.9),
    )
    assert fit.half_width.get() == pytest.approx(plain.get(), rel=0.05)
    inner = (fit.age > 20) & (fit.age < 88)
    np.testing.assert_allclose(fit.half_widths[inner], plain.get(), rtol=0.2)


def test_too_few_people_give_no_interval_by_age():
    fit = calibrate_by_age(np.arange(49.0), np.arange(49.0), 0.9)
    assert '49 people' in fit.half_width.reason and '50 are needed' in fit.half_width.reason
    assert fit.age.size == fit.half_widths.size == 0
    assert calibrate_by_age([], [], 0.9).n == 0
    assert '99 are needed' in calibrate_by_age(np.ones(60), np.ones(60), 0.99).half_width.reason
    assert calibrate_by_age(np.zeros(60), np.arange(60.0), 0.9).half_width.get() < 1e-6


def test_people_left_out_alone_or_together_are_judged_by_all_others():
    """The same half width as a calibration without them, to the width of a stored cell."""
    rng = np.random.default_rng(3)
    age, predicted = ageing_errors(90, rng)
    errors = np.append(predicted - age, np.nan)
    said = np.append(predicted, 40.0)
    groups = [k // 3 for k in range(91)]
    alone = leave_one_out_half_widths_by_age(errors, said, 0.9)
    together = leave_one_out_half_widths_by_age(errors, said, 0.9, groups)
    assert np.isnan(alone[90]) and np.isnan(together[90]) and not np.isnan(alone[:90]).any()
    for k in (0, 41, 89):
        for widths, left_out in (
            (alone, [k]),
            (together, [j for j in range(90) if j // 3 == k // 3]),
        ):
            others = np.delete(np.arange(90), left_out)
            fit = calibrate_by_age(errors[others], said[others], 0.9)
            expected = np.interp(said[k], fit.age, fit.half_widths)
            assert widths[k] == pytest.approx(expected, rel=0.03)
    assert np.mean(np.abs(errors) <= alone) * 91 / 90 == pytest.approx(0.9, abs=0.03)
    assert np.isnan(leave_one_out_half_widths_by_age([1.0, 2.0], [1.0, 2.0], 0.9)).all()
