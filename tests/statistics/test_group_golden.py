"""Every golden value of the metric specification, from derivatives on disk to tables on disk."""

from __future__ import annotations

import json

import golden as g
import numpy as np
import pytest
from group_people import write_people

from bids_brainage.cli.main import main
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.tsv import read_tsv

P_DIGITS = 6e-6
"""Half a unit of the last printed digit of p values, relative."""

GROUPS = {'CU': g.CU, 'MCI': g.MCI, 'AD': g.AD}


def run(root, *options):
    arguments = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    assert main([*arguments, *options]) == 0


def rows_of(root, table, **cells):
    rows = read_tsv(root / 'out' / f'group_{table}.tsv')
    return [row for row in rows if all(row[k] == v for k, v in cells.items())]


def one(root, table, **cells):
    (row,) = rows_of(root, table, **cells)
    return row


def close(row, **golden):
    for name, value in golden.items():
        assert float(row[name]) == pytest.approx(value, abs=g.DIGITS), name


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    """Baseline, retest and follow-up of the golden people; all are healthy."""
    root = tmp_path_factory.mktemp('people')
    (root / 'bids').mkdir()
    write_people(root / 'out')
    lines = ['participant_id\tdx\tmmse']
    lines += [f'sub-{k:03d}\tCU\t{float(g.mmse[k])!r}' for k in range(60)]
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture(scope='module')
def baseline(people):
    run(people, *['--session-label', '1', '--reference-group', 'dx=CU', '--correlate', 'mmse'])
    names = ('accuracy', 'differences', 'fusion', 'brainage')
    return {name: read_tsv(people / 'out' / f'group_{name}.tsv') for name in names} | {
        'facts': json.loads((people / 'out' / 'group_accuracy.json').read_text())['Analysis']
    }


@pytest.fixture(scope='module')
def cohorts(tmp_path_factory):
    """Three groups whose gaps are the golden ones, at different ages."""
    root = tmp_path_factory.mktemp('cohorts')
    (root / 'bids').mkdir()
    lines = ['participant_id\tdx']
    for level, gaps in GROUPS.items():
        for k, gap in enumerate(gaps):
            name = f'sub-{level}{k}'
            lines.append(f'{name}\t{level}')
            age = 60.0 + k
            row = brainage_row(
                participant_id=name,
                source=f'bids:raw:{name}/anat/{name}_T1w.nii.gz',
                modality='T1w',
                model='net.a',
                age=age,
                predicted_age=age + gap,
                status='ok',
            )
            write_brainage(root / 'out' / name / 'anat' / f'{name}_brainage.tsv', [row])
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    run(root, '--group-column', 'dx')
    return root


def accuracy(baseline, subset, level='all', corrected='false'):
    (row,) = (
        r
        for r in baseline['accuracy']
        if (r['model'], r['subset'], r['level'], r['corrected'])
        == ('net.a', subset, level, corrected)
    )
    return row


def test_accuracy(baseline):
    row = accuracy(baseline, 'all')
    close(row, mae=2.861399, me=-0.578033, mse=11.748301, rmse=3.427579, r=0.996522, r2=0.984867)
    close(row, mmae=4.234580, mmae_all=6.195272)
    assert (row['n'], row['mmae_bin'], row['mmae_excluded_bins']) == ('60', '10-20', '90+')


def test_accuracy_in_bins_and_sexes(baseline):
    ages = [float(r['age']) for r in baseline['brainage']]
    assert (min(ages), max(ages)) == (0, 93.5)
    golden = '2.204638 4.234580 2.132502 1.576534 1.761329 2.241304 3.275732 3.083533 2.900449'
    for k, (value, n) in enumerate(zip(golden.split(), '776666666', strict=True)):
        row = accuracy(baseline, '10_year_bin', f'{10 * k}-{10 * k + 10}')
        close(row, mae=float(value))
        assert row['n'] == n
    row = accuracy(baseline, '10_year_bin', '90+')
    close(row, mae=6.195272)
    assert row['n'] == '4'
    for level, n, value in (
        ('15-20', 4, 3.983302),
        ('20-25', 3, 2.927807),
        ('25-30', 3, 1.337197),
    ):
        row = accuracy(baseline, '5_year_bin', level)
        close(row, mae=value)
        assert row['n'] == str(n)
    close(accuracy(baseline, 'sex', 'F'), mae=2.690728, me=-0.261297)
    close(accuracy(baseline, 'sex', 'M'), mae=3.032069, me=-0.894769)


def test_bias_correction(baseline):
    slope, intercept = np.polyfit(g.y, g.p, 1)
    facts = baseline['facts']['calibration']['net.a']['bias_correction']
    assert (facts['method'], facts['n']) == ('linear', 60)
    assert facts['slope'] == pytest.approx(slope)
    assert facts['intercept'] == pytest.approx(intercept)
    error = g.p - (slope * g.y + intercept)
    close(accuracy(baseline, 'all', corrected='true'), mae=np.abs(error).mean(), me=0)
    assert not [r for r in baseline['accuracy'] if r['subset'] == 'excl_calibration']


def test_correlation_with_a_phenotype(baseline):
    (row,) = (
        r
        for r in baseline['differences']
        if (r['model'], r['column'], r['level_a'], r['corrected'])
        == ('net.a', 'mmse', 'all', 'false')
    )
    close(row, estimate=-0.492834)
    assert float(row['p']) == pytest.approx(6.325e-05, abs=6e-9)


def test_fusion_of_two_models(baseline):
    rows = [r for r in baseline['differences'] if r['test'] == 'nested_f']
    found = {(r['level_a'], r['level_b']): r for r in rows}
    both, sexes = 'net.a + net.b', 'net.a + net.b + sex'
    for pair, f, p in (
        (('net.a', both), 25.023410, 5.74995e-06),
        (('net.b', both), 132.351433, 1.72596e-16),
        ((both, sexes), 2.277591, 0.136877),
    ):
        close(found[pair], statistic=f)
        assert float(found[pair]['p']) == pytest.approx(p, rel=P_DIGITS)


def fit_of(baseline, formula):
    """Terms of a fusion model by name, and what all its rows share."""
    rows = [r for r in baseline['fusion'] if r['formula'] == formula]
    assert {r['n'] for r in rows} == {'60'}
    return {r['term']: r for r in rows}, rows[0]


def test_coefficients_of_fusion_models(baseline):
    terms, _ = fit_of(baseline, 'T')
    close({k: r['estimate'] for k, r in terms.items()}, **{'intercept': -3.899281})
    assert float(terms['net.a']['estimate']) == pytest.approx(1.096970, abs=g.DIGITS)
    terms, _ = fit_of(baseline, 'TAS')
    golden = {'intercept': -6.305647, 'net.a': 0.778001, 'net.b': 0.377876, 'sex': -0.805431}
    assert list(terms) == list(golden)
    close({k: r['estimate'] for k, r in terms.items()}, **golden)


def test_residuals_of_fusion_models(baseline):
    for formula, rss, df in (
        ('T', 323.398849, 58),
        ('A', 746.567788, 58),
        ('TA', 224.737480, 57),
        ('TAS', 215.954342, 56),
    ):
        _, row = fit_of(baseline, formula)
        close(row, rss=rss)
        assert row['df_residual'] == str(df)


def test_f_of_one_added_term_is_the_square_of_its_t(baseline):
    found = {
        (r['level_a'], r['level_b']): float(r['statistic'])
        for r in baseline['differences']
        if r['test'] == 'nested_f'
    }
    both = 'net.a + net.b'
    for formula, term, pair in (
        ('TA', 'net.b', ('net.a', both)),
        ('TA', 'net.a', ('net.b', both)),
        ('TAS', 'sex', (both, both + ' + sex')),
    ):
        row = fit_of(baseline, formula)[0][term]
        assert float(row['statistic']) ** 2 == pytest.approx(found[pair], rel=1e-9)
        # the limits hold zero exactly when the term is not needed
        assert (float(row['ci_low']) < 0 < float(row['ci_high'])) == (float(row['p']) > 0.05)


def test_change_and_test_retest(people):
    run(people, '--retest-sessions', '1', '2')
    row = one(people, 'longitudinal', model='net.a', row='summary')
    close(row, mde=-0.250344, made=1.334366, mmade=1.546720, mmade_all=1.548306)
    assert (row['mmade_bin'], row['mmade_excluded_bins']) == ('80-90', '90+')
    row = one(people, 'reliability', model='net.a', session_set='sessions')
    close(row, sigma_scan=0.364956, sigma_scan_pop=0.258063, mu_d=-0.116893, sigma_d=0.570879)
    close(row, ms_between=1303.724304, ms_residual=0.162951)
    assert float(row['icc_3_1']) == pytest.approx(0.999750053, abs=6e-10)
    assert float(row['icc_2_1']) == pytest.approx(0.999743741, abs=6e-10)


def test_welch_anova(cohorts):
    row = one(cohorts, 'differences', test='welch_anova')
    close(row, statistic=8.428374)
    df = [float(x) for x in row['df'].split(',')]
    assert df == pytest.approx([2, 13.514214], abs=g.DIGITS)
    assert float(row['p']) == pytest.approx(0.00420478, rel=P_DIGITS)


def test_games_howell(cohorts):
    for pair, t, df, p in (
        ('CU MCI', -3.028151, 11.908722, 0.0265417),
        ('CU AD', -3.717658, 12.640062, 0.00707404),
        ('MCI AD', -1.196023, 13.623894, 0.475163),
    ):
        rows = rows_of(cohorts, 'differences', test='games_howell')
        (row,) = (r for r in rows if {r['level_a'], r['level_b']} == set(pair.split()))
        sign = 1 if row['level_a'] == pair.split()[0] else -1
        assert sign * float(row['statistic']) == pytest.approx(t, abs=g.DIGITS)
        assert float(row['df'].split(',')[-1]) == pytest.approx(df, abs=g.DIGITS)
        assert float(row['p']) == pytest.approx(p, rel=1e-5)


def test_z_test(cohorts):
    run(cohorts, '--group-column', 'dx', '--reference-group', 'dx=CU')
    row = one(cohorts, 'differences', test='z', column='dx', level_a='AD', corrected='false')
    assert row['level_b'] == 'CU'
    close(row, statistic=3.717658)
    assert float(row['p']) == pytest.approx(0.000201078, rel=P_DIGITS)
    assert '30' in row['reason']
