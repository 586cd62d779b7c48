"""All group tables of one data frame: golden data, gaps, simulated effects."""

from __future__ import annotations

import golden as g
import numpy as np
import pandas as pd
import pytest

from bids_brainage.statistics.reliability import LEAST_PAIRS
from bids_brainage.statistics.tables.analysis import analyse
from bids_brainage.statistics.tables.differences import covariate_columns
from bids_brainage.statistics.tables.options import GroupOptions
from bids_brainage.statistics.tables.rows import prepare, series_name

FAST = {'draws': 100}


def table(predicted, age=g.y, session=None, model='t1.a', run=None, **columns):
    """Build `_brainage` rows, one per prediction, of participants 0, 1, 2..."""
    n = len(predicted)
    names = [f'sub-{k:03d}' for k in range(n)]
    ses = f'_{session}' if session else ''
    runs = f'_run-{run}' if run else ''
    rows = {
        'participant_id': names,
        'session_id': session,
        'run': run,
        'source': [f'bids:raw:{x}/anat/{x}{ses}{runs}_T1w.nii.gz' for x in names],
        'model': model,
        'age': age,
        'predicted_age': predicted,
        'sex': np.where(g.sex == 1, 'M', 'F')[:n],
        'status': 'ok',
        **columns,
    }
    return pd.DataFrame(rows)


def stack(*tables):
    return pd.concat(tables, ignore_index=True)


def pick(frame, **cells):
    for name, value in cells.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, (cells, len(frame))
    return frame.iloc[0]


@pytest.fixture(scope='module')
def golden():
    data = stack(
        table(g.p, session='ses-1'),
        table(g.p_retest, session='ses-2'),
        table(g.p_follow, g.y_follow, session='ses-3'),
        table(g.second, session='ses-1', model='t2.a'),
    )
    data['dx'] = np.where(np.arange(len(data)) % 60 % 2, 'AD', 'CU')
    data['mmse'] = np.tile(g.mmse, 4).astype(str)
    options = GroupOptions(
        retest_sessions=(('ses-1', 'ses-2'),),
        group_column='dx',
        correlate=('mmse',),
        networks=(('t1.a', 't2.a'),),
        **FAST,
    )
    return analyse(data, options)


def test_golden_accuracy(golden):
    row = pick(golden.tables['accuracy'], model='t1.a', subset='session', level='ses-1')
    assert row['mae'] == pytest.approx(2.861399, abs=g.DIGITS)
    assert row['mmae'] == pytest.approx(4.234580, abs=g.DIGITS)
    assert (row['mmae_bin'], row['mmae_excluded_bins'], row['n']) == ('10-20', '90+', 60)
    everyone = golden.tables['accuracy'].query('model == "t1.a" and subset == "all"')
    assert everyone[['unit', 'n', 'n_subjects']].to_numpy().tolist() == [
        ['scan', 180, 60],
        ['subject', 60, 60],
    ]


def test_golden_subsets(golden):
    accuracy = golden.tables['accuracy']
    accuracy = accuracy[accuracy['model'] == 't2.a']
    assert set(accuracy['subset']) == {
        'all', 'sex', 'dx', 'age_group', '10_year_bin', '5_year_bin'
    }  # fmt: skip
    groups = accuracy[accuracy['subset'] == 'dx']
    everyone = accuracy[(accuracy['subset'] == 'all') & (accuracy['unit'] == 'scan')]
    assert groups['n'].sum() == everyone['n'].item()
    assert np.average(groups['me'], weights=groups['n']) == pytest.approx(everyone['me'].item())
    assert (groups['me_low'] < groups['me']).all() and (groups['me'] < groups['me_high']).all()
    bins = accuracy[accuracy['subset'] == '10_year_bin']
    assert bins['n'].tolist() == [7, 7, 6, 6, 6, 6, 6, 6, 6, 4]
    assert 'fewer than 5 subjects' in bins['reason'].iloc[-1]


def test_golden_change_and_reliability(golden):
    row = pick(golden.tables['longitudinal'], row='summary', model='t1.a')
    for key, value in {
        'mde': -0.250344,
        'made': 1.334366,
        'mmade': 1.546720,
        'mmade_all': 1.548306,
    }.items():
        assert row[key] == pytest.approx(value, abs=g.DIGITS), key
    assert (row['n_pairs'], row['n_sessions']) == (60, 120)
    row = pick(golden.tables['reliability'], session_set='sessions', model='t1.a')
    assert row['icc_3_1'] == pytest.approx(0.999750053, abs=6e-10)
    assert row['mu_d'] == pytest.approx(-0.116893, abs=g.DIGITS)
    assert row['agreement'] == 'excellent'
    assert np.isnan(row['median_interval_days'])
    assert 'interval unknown' in row['reason']


def test_golden_persons(golden):
    persons = golden.tables['longitudinal'].query('row == "participant" and model == "t1.a"')
    assert len(persons) == 60
    one = pick(persons, participant_id='sub-005')
    delta = g.p_follow[5] - g.p[5]
    years = g.y_follow[5] - g.y[5]
    assert one['annual_rate'] == pytest.approx(delta / years)
    assert one['gap_slope'] == pytest.approx(delta / years - 1)
    sigma_d = 0.570879
    assert one['reliable_change_index'] == pytest.approx((delta - years) / sigma_d, abs=1e-5)
    assert 'two sessions' in one['reason']


def test_golden_differences(golden):
    rows = golden.tables['differences']
    row = pick(rows, model='t1.a', column='mmse', level_a='all')
    assert row['estimate'] == pytest.approx(-0.492834, abs=g.DIGITS)
    assert row['p'] == pytest.approx(6.325e-05, abs=6e-9)
    fusion = rows[rows['test'] == 'nested_f']
    assert fusion['statistic'].tolist() == pytest.approx(
        [25.023410, 132.351433, 2.277591], abs=g.DIGITS
    )
    sex = pick(rows, model='t1.a', column='sex')
    assert sex['estimate'] == pytest.approx(-0.894769 + 0.261297, abs=2 * g.DIGITS)
    assert (pick(rows, model='t1.a', test='ancova')['covariates']) == 'age, sex'
    assert (rows['p_fdr'].dropna() >= rows['p'][rows['p_fdr'].notna()] - 1e-12).all()


def test_golden_bias_correction():
    data = table(g.p).assign(
        dx='CU', interval_low=g.p - 3, interval_high=g.p + 3, interval_level=0.8
    )
    result = analyse(data, GroupOptions(reference_group=('dx', 'CU'), **FAST))
    accuracy = result.tables['accuracy']
    slope, intercept = np.polyfit(g.y, g.p, 1)
    after = pick(accuracy, subset='all', corrected=True)
    assert after['mae'] == pytest.approx(np.abs(g.p - slope * g.y - intercept).mean())
    assert after['me'] == pytest.approx(0, abs=1e-9)
    before = pick(accuracy, subset='all', corrected=False)
    assert before['mae'] == pytest.approx(2.861399, abs=g.DIGITS)
    assert before['interval_coverage'] == pytest.approx(np.mean(np.abs(g.p - g.y) <= 3))
    assert 0.75 <= before['group_interval_coverage'] <= 0.9
    facts = result.facts['calibration']['t1.a']
    assert facts['bias_correction']['slope'] == pytest.approx(slope)
    assert facts['conformal']['level'] == 0.8
    union = result.tables['brainage']
    assert union['calibration'].all()
    assert (union['predicted_age'] == g.p).all()
    assert union['predicted_age_group_corrected'].notna().all()


def test_tails_of_two_hundred_and_none():
    age = np.linspace(20, 80, 200)
    data = pd.DataFrame(
        {
            'participant_id': [f'sub-{k:03d}' for k in range(200)],
            'source': [f'bids:raw:{k}' for k in range(200)],
            'model': 't1.a',
            'age': age,
            'predicted_age': 0.9 * age + 6 + np.resize(g.second, 200) / 50,
            'dx': 'CU',
        }
    ).assign(run=None, session_id=None)
    options = {'reference_group': ('dx', 'CU'), **FAST}
    result = analyse(data, GroupOptions(bias_correction='tails', **options))
    facts = result.facts['calibration']['t1.a']['bias_correction']
    assert facts['n_per_side'] == 10
    assert result.tables['brainage']['calibration'].sum() == 20
    accuracy = result.tables['accuracy']
    assert pick(accuracy, subset='excl_calibration', unit='scan')['n'] == 180
    result = analyse(data, GroupOptions(bias_correction='none', **options))
    assert result.facts['calibration']['t1.a']['bias_correction'] is None
    assert not result.tables['accuracy']['corrected'].any()
    assert result.facts['calibration']['t1.a']['conformal']['half_width_years'] > 0


def test_a_small_reference_group_is_refused_with_a_reason():
    data = table(g.p).assign(dx=np.where(g.i < 8, 'CU', 'AD'))
    result = analyse(data, GroupOptions(reference_group=('dx', 'CU'), **FAST))
    assert not result.tables['accuracy']['corrected'].any()
    assert any('no bias correction' in note for note in result.warnings)
    assert any('too few for 90%' in note for note in result.warnings)


def test_every_dropped_row_has_a_reason():
    data = table(g.p)
    data.loc[0, 'status'] = 'failed'
    data.loc[1, 'predicted_age'] = np.nan
    data.loc[2, 'age'] = np.nan
    data['age_censored'] = np.where(g.i == 3, 'true', 'false')
    data = stack(data, data.iloc[[7]])
    result = analyse(data, GroupOptions(**FAST))
    reasons = dict(result.tables['exclusions'][['participant_id', 'reason']].to_numpy().tolist())
    assert list(reasons) == ['sub-000', 'sub-001', 'sub-007', 'sub-003', 'sub-002']
    assert 'status failed' in reasons['sub-000']
    assert 'top-coded' in reasons['sub-003']
    row = pick(result.tables['accuracy'], subset='all')
    assert (row['n'], row['n_excluded']) == (56, 2)


@pytest.mark.parametrize('n', [0, 1, 2])
def test_tiny_groups(n):
    data = table(g.p[:n], g.y[:n]).assign(dx='CU', mmse=1.0)
    options = GroupOptions(
        group_column='dx', correlate=('mmse',), reference_group=('dx', 'CU'), **FAST
    )
    result = analyse(data, options)
    if n:
        assert pick(result.tables['accuracy'], subset='all')['n'] == n
        assert result.tables['reliability']['reason'].tolist() == ['no test-retest pairs']
        assert result.tables['longitudinal']['n_pairs'].tolist() == [0]
        assert 'levels' in pick(result.tables['differences'], test='welch_anova')['reason']
    numbers = result.tables['accuracy'].select_dtypes('number')
    assert np.isfinite(numbers.to_numpy(float)[~numbers.isna().to_numpy(bool)]).all()


def test_no_ages_still_gives_reliability():
    data = stack(table(g.p, np.nan, session='ses-1'), table(g.p_retest, np.nan, session='ses-2'))
    blind = analyse(data, GroupOptions(**FAST))
    assert blind.tables['accuracy'].query('subset == "all"')['mae'].isna().all()
    assert blind.tables['exclusions']['reason'].str.contains('--retest-sessions').sum() == 60
    named = analyse(data, GroupOptions(retest_sessions=(('ses-1', 'ses-2'),), **FAST))
    assert named.tables['reliability']['sigma_scan'][0] == pytest.approx(0.364956, abs=g.DIGITS)


def test_few_pairs_name_no_agreement_and_judge_no_change():
    n = LEAST_PAIRS - 1
    first = [table(g.p[:n], g.y[:n], 'ses-1'), table(g.p_retest[:n], g.y[:n], 'ses-2')]
    data = stack(*first, table(g.p_follow, g.y_follow, 'ses-3'), table(g.p, session='ses-1'))
    data = data.drop_duplicates('source')
    options = GroupOptions(retest_sessions=(('ses-1', 'ses-2'),), **FAST)
    result = analyse(data, options)
    row = pick(result.tables['reliability'], session_set='sessions')
    assert row['sem_low'] < row['sem'] < row['sem_high']
    assert row['sdc95_low'] < row['sdc95'] < row['sdc95_high']
    assert row['agreement'] is None
    people = result.tables['longitudinal'].query('row == "participant"')
    assert len(people) == 60 and people['reliable_change'].isna().all()
    assert people['reason'].str.contains('9 test-retest pairs; 10 are needed').all()


def test_fusion_is_for_the_networks_of_system_b_only():
    data = stack(table(g.p, model='net.a'), table(g.second, model='net.b'))
    assert 'fusion' not in analyse(data, GroupOptions(**FAST)).tables
    options = GroupOptions(networks=(('net.a', 'net.b'), ('net.a', 'net.c')), **FAST)
    fused = analyse(data, options).tables['fusion']
    assert set(fused['model']) == {'net.a + net.b'}


def test_runs_are_test_retest():
    data = stack(table(g.p, run='1'), table(g.p_retest, run='2'))
    result = analyse(data, GroupOptions(**FAST))
    row = pick(result.tables['reliability'], session_set='runs')
    assert row['sigma_d'] == pytest.approx(0.570879, abs=g.DIGITS)


def test_constant_predictions():
    result = analyse(table(np.full(60, 40.0)), GroupOptions(**FAST))
    row = pick(result.tables['accuracy'], subset='all')
    assert pd.isna(row['r']) and 'zero variance' in row['reason']
    assert row['slope'] == pytest.approx(-1)


def test_several_trainings_give_sigma_seed():
    data = stack(table(g.p, model='net.one'), table(g.p + 2, model='net.two'))
    rows = analyse(data, GroupOptions(**FAST)).tables['reliability']
    row = pick(rows, model='net')
    assert row['sigma_seed'] == pytest.approx(np.sqrt(2))
    assert np.isnan(row['sigma_scan'])


def test_a_cohort_effect_is_found_and_ageing_is_not_mistaken_for_it():
    rng = np.random.default_rng(0)
    n, old = 300, np.arange(300) % 2 == 1
    age = np.where(old, 75, 45) + rng.normal(0, 8, n)
    predicted = age + 0.1 * (60 - age) + rng.normal(0, 2, n)
    data = pd.DataFrame(
        {
            'participant_id': [f'sub-{k}' for k in range(n)],
            'session_id': None,
            'run': None,
            'source': [f'bids:raw:sub-{k}/anat/sub-{k}_T1w.nii.gz' for k in range(n)],
            'model': 'm.a',
            'age': age,
            'predicted_age': predicted,
            'dx': np.where(old, 'old', 'young'),
            'site': np.where(np.arange(n) % 3, 'a', 'b'),
        }
    )
    rows = analyse(data, GroupOptions(group_column='dx', **FAST)).tables['differences']
    assert pick(rows, test='z')['p'] < 1e-6
    adjusted = pick(rows, test='ancova_pair')
    assert adjusted['ci_low'] < 0 < adjusted['ci_high']
    data['predicted_age'] = predicted + 4 * old
    rows = analyse(data, GroupOptions(group_column='dx', covariates=('site',), **FAST))
    effect = pick(rows.tables['differences'], test='ancova_pair')
    assert effect['covariates'] == 'age, site'
    assert abs(effect['estimate']) == pytest.approx(4, abs=1.5)
    assert {'site'} <= set(rows.tables['accuracy']['subset'])


def test_order_of_rows_changes_nothing():
    data = stack(table(g.p, session='ses-1'), table(g.p_follow, g.y_follow, session='ses-2'))
    mixed = data.sample(frac=1, random_state=1).reset_index(drop=True)
    a, b = (analyse(x, GroupOptions(**FAST)).tables for x in (data, mixed))
    for name in ('longitudinal', 'reliability', 'differences'):
        one, two = (
            x[name].sort_values(list(x[name].columns[:4]), ignore_index=True) for x in (a, b)
        )
        pd.testing.assert_frame_equal(one, two, check_dtype=False)
    key = ['subset', 'level', 'unit']
    columns = [*key, 'n', 'mae', 'r', 'mmae']
    pd.testing.assert_frame_equal(
        a['accuracy'][columns].sort_values(key, ignore_index=True),
        b['accuracy'][columns].sort_values(key, ignore_index=True),
    )


def test_covariates():
    people = pd.DataFrame(
        {'site': ['a', 'b', None, 'c'], 'iq': ['1', '2', 'n/a', '4'], 'none': None}
    )
    columns = covariate_columns(people, ('site', 'iq', 'none', 'absent'))
    assert list(columns) == ['site=b', 'site=c', 'iq']
    assert np.isnan(columns['site=b'][2]) and np.isnan(columns['iq'][2])


def test_series_ignore_participant_session_and_run():
    a = series_name('bids:raw:sub-1/ses-2/anat/sub-1_ses-2_acq-x_run-1_T1w.nii.gz')
    assert a == series_name('bids:raw:sub-1/anat/sub-1_acq-x_T1w.nii.gz') == 'acq-x_T1w.nii.gz'


def test_input_is_not_changed():
    data = table(g.p)
    before = data.copy()
    prepare(data)
    analyse(data, GroupOptions(**FAST))
    pd.testing.assert_frame_equal(data, before)
