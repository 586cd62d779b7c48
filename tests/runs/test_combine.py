"""Rows computed from rows: System B's regressions and the consensus, against the formulas."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bids_brainage.bundles.bundle import Bundle, load_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.bundles.untrained import untrained_metadata
from bids_brainage.dataset.measured import MeasuredScan
from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.errors import MissingInputError, OptionError
from bids_brainage.inference.consensus import consensus_weights
from bids_brainage.outputs import brainage_row, read_brainage, write_brainage
from bids_brainage.runs.combine import Combiner, consensus_of, consensus_row, fused_rows
from bids_brainage.runs.fusions import fusions_of
from bids_brainage.workflows.images import table_path

COEFFICIENTS = {
    'T': (2.0, 0.9),
    'A': (5.0, 0.8),
    'TA': (1.0, 0.6, 0.35),
    'TAS': (1.5, 0.55, 0.4, -0.168),
}
T1W, CBV = 61.0, 64.0


def bundle(name, *, mae=5.0, n=40, simulated=False, half=None, ages=(20.0, 80.0), **more):
    arch, tag = name.split('.')
    metadata = untrained_metadata(arch, tag, {})
    metadata |= {'status': 'trained', 'weights_sha256': name, 'config_hash': ''}
    metadata['training'] |= {'n': 200, 'age_min': ages[0], 'age_max': ages[1]}
    if mae is not None:
        check = {'dataset': 'held-out', 'n': n, 'mae': mae, 'simulated': simulated}
        metadata['validation'] = [check | {'method': 'split'}]
    if half is not None:
        metadata['conformal'] = {'level': 0.9, 'half_width_years': half, 'n': n, 'source': 's'}
    return Bundle(Path('models') / name, metadata | more)


def regression(formula):
    values = COEFFICIENTS[formula]
    return {
        'formula': formula,
        'coefficients': list(values),
        'covariance': np.eye(len(values)).tolist(),
        'n': 300,
        'residual_variance': 16.0,
        'r_squared': 0.9,
        'fitted_on': 'train+val',
    }


def fused(formulas=tuple(COEFFICIENTS), **more):
    block = {
        'modality': 'aicbv',
        'regressions': {formula: regression(formula) for formula in formulas},
        'nested_tests': {},
        'test': {f: {'n': 50, 'mae': 3.0 + k, 'mse': 9.0} for k, f in enumerate(formulas)},
        'conformal': {'TAS': {'level': 0.9, 'half_width_years': 7.0, 'n': 50, 'source': 's'}},
        'partner': {'name': 'vgg8.t1w', 'weights_sha256': 'vgg8.t1w'},
    }
    return bundle('vgg8.cbv', fusion=block | more)


@pytest.fixture
def scan():
    path = Path('sub-01/anat/sub-01_T1w.nii.gz')
    age = Age(60.0)
    return Scan(path, str(path), '01', None, None, {'sub': '01'}, 'T1w', 'anat', age, 'M')


def row(scan, model, predicted, **more):
    status = 'skipped' if predicted is None else 'ok'
    return brainage_row(
        source=scan.uri, model=model, predicted_age=predicted, status=status, **more
    )


def by_model(*rows):
    return {item['model']: item for item in rows}


@pytest.fixture
def networks(scan):
    return by_model(
        row(scan, 'vgg8.t1w', T1W, qc_flag='sloppy;predicted_at_limit'),
        row(scan, 'vgg8.cbv', CBV),
    )


def test_regressions_give_the_ages_of_their_formulas(scan, networks):
    (fusion,) = fusions_of([bundle('vgg8.t1w'), fused()])
    made = fused_rows(fusion, scan, networks)
    by_hand = {
        'T': 2.0 + 0.9 * 61,
        'A': 5.0 + 0.8 * 64,
        'TA': 1.0 + 0.6 * 61 + 0.35 * 64,
        'TAS': 1.5 + 0.55 * 61 + 0.4 * 64 - 0.168,
    }
    assert list(made) == [f'vgg8.cbv-{formula}' for formula in by_hand]
    for formula, expected in by_hand.items():
        found, facts = made[f'vgg8.cbv-{formula}']
        assert found['predicted_age'] == pytest.approx(expected)
        assert found['brain_age_gap'] == pytest.approx(expected - 60)
        assert found['status'] == 'ok'
        assert list(facts['Coefficients'].values()) == list(COEFFICIENTS[formula])
    tas = made['vgg8.cbv-TAS'][0]
    assert (tas['interval_low'], tas['interval_high']) == pytest.approx(
        (by_hand['TAS'] - 7, by_hand['TAS'] + 7)
    )
    assert tas['interval_level'] == 0.9
    assert made['vgg8.cbv-TA'][0]['interval_low'] is None  # it has no calibration
    assert tas['qc_flag'] == 'sloppy'  # of the scan; that of the network's own age does not count
    assert made['vgg8.cbv-A'][0]['qc_flag'] is None


def test_sex_is_female_0_and_male_1(scan, networks):
    (fusion,) = fusions_of([fused()])
    male, female = (
        fused_rows(fusion, replace(scan, sex=sex), networks)['vgg8.cbv-TAS'][0]['predicted_age']
        for sex in ('M', 'F')
    )
    assert male - female == pytest.approx(-0.168)


@pytest.mark.parametrize('sex', [None, 'O'])
def test_without_sex_the_richest_row_is_that_without_it_and_says_so(scan, networks, sex):
    (fusion,) = fusions_of([fused()])
    made = fused_rows(fusion, replace(scan, sex=sex), networks)
    tas, facts = made['vgg8.cbv-TAS']
    assert tas['predicted_age'] == made['vgg8.cbv-TA'][0]['predicted_age']
    assert 'sex_missing' in tas['qc_flag'].split(';')
    assert facts['Note'] == 'sex is not known: TA in place of TAS'
    assert facts['Formula'] == 'TA'


def test_without_a_map_only_the_t_row_has_an_age(scan):
    (fusion,) = fusions_of([fused()])
    networks = by_model(
        row(scan, 'vgg8.t1w', T1W), row(scan, 'vgg8.cbv', None, qc_flag='no_cbv_map')
    )
    made = {name: item for name, (item, _) in fused_rows(fusion, scan, networks).items()}
    assert made.pop('vgg8.cbv-T')['predicted_age'] == pytest.approx(2 + 0.9 * T1W)
    for found in made.values():
        assert (found['status'], found['qc_flag']) == ('skipped', 'no_cbv_map')
        assert found['predicted_age'] is None


def test_failed_network_fails_what_needs_it(scan, networks):
    (fusion,) = fusions_of([fused()])
    networks['vgg8.t1w'] = brainage_row(source=scan.uri, model='vgg8.t1w', status='failed')
    made = {n[9:]: item['status'] for n, (item, _) in fused_rows(fusion, scan, networks).items()}
    assert made == {'T': 'failed', 'A': 'ok', 'TA': 'failed', 'TAS': 'failed'}


def test_partner_gives_no_rows_of_its_own(scan):
    own = bundle('vgg8.t1w', fusion={
        'modality': 't1w', 'regressions': {'T': regression('T')}, 'test': {}, 'conformal': {},
    })  # fmt: skip
    assert [f.bundle.name for f in fusions_of([own, fused()])] == ['vgg8.cbv']
    (alone,) = fusions_of([own])
    assert list(fused_rows(alone, scan, by_model(row(scan, 'vgg8.t1w', T1W)))) == ['vgg8.t1w-T']


def test_damaged_regression_is_refused_before_anything_runs():
    broken = fused(regressions={'T': regression('T') | {'coefficients': [1.0]}})
    with pytest.raises(MissingInputError, match='expected 2 coefficients'):
        fusions_of([broken])


def test_consensus_is_the_weighted_mean_by_hand(scan):
    models = [bundle('volumes.a', mae=4.0, half=8.0, ages=(18.0, 90.0)),
              bundle('sfcn.b', mae=2.0, half=5.0, ages=(30.0, 59.0))]  # fmt: skip
    limits = {'interval_level': 0.9}
    rows = by_model(
        row(scan, 'volumes.a', 50.0, interval_low=42.0, interval_high=58.0, **limits),
        row(scan, 'sfcn.b', 60.0, interval_low=55.0, interval_high=65.0, **limits),
    )
    found, facts = consensus_row(scan, rows, consensus_of(models))
    # 1/16 and 1/4: shares 0.2 and 0.8
    assert found['predicted_age'] == pytest.approx(58.0)
    assert found['predicted_age_sd'] == pytest.approx(np.std([50, 60], ddof=1))
    assert (found['interval_low'], found['interval_high']) == pytest.approx((52.4, 63.6))
    assert found['interval_level'] == 0.9
    assert found['model'] == 'consensus'
    assert found['in_training_range'] is False  # 60 lies outside one of them
    assert found['brain_age_gap'] == pytest.approx(-2.0)
    assert {n: m['Weight'] for n, m in facts['Members'].items()} == pytest.approx(
        {'volumes.a': 0.2, 'sfcn.b': 0.8}
    )
    assert facts['Members']['sfcn.b']['ValidatedMAE'] == 2.0


def test_consensus_without_all_members_has_no_age(scan):
    members = consensus_of([bundle('volumes.a'), bundle('sfcn.b')])
    found, _ = consensus_row(scan, by_model(row(scan, 'volumes.a', 50.0)), members)
    assert (found['status'], found['predicted_age']) == ('skipped', None)
    assert found['qc_flag'] == 'member_missing'
    one = by_model(row(scan, 'volumes.a', 50.0), row(scan, 'sfcn.b', 50.0))
    found, _ = consensus_row(scan, one, members)
    assert found['interval_low'] is None  # one of them has none


def test_consensus_refuses_what_it_cannot_weigh():
    known = bundle('volumes.a')
    for others, told in (
        ([bundle('sfcn.b', mae=None)], 'sfcn.b states no error'),
        ([], 'no consensus with itself'),
        ([bundle('sfcn.b', simulated=True)], 'sfcn.b was validated on simulated scans'),
    ):
        with pytest.raises(OptionError, match=told):
            consensus_of([known, *others])


def test_system_b_enters_the_consensus_once():
    models = [bundle('volumes.a'), bundle('vgg8.t1w'), fused()]
    assert [m.name for m, _ in consensus_of(models)] == ['volumes.a', 'vgg8.cbv-TAS']
    assert [m.validation.mae for m, _ in consensus_of(models)] == [5.0, 6.0]
    untested = fused(test={})
    assert [m.name for m, _ in consensus_of([models[0], models[1], untested])] == [
        'volumes.a', 'vgg8.cbv',
    ]  # fmt: skip


def test_largest_validation_on_real_scans_counts():
    many = bundle('volumes.a')
    small = {'dataset': 'few', 'n': 3, 'mae': 0.5, 'method': 'x'}
    simulated = {'dataset': 'many', 'n': 900, 'mae': 0.1, 'method': 'x', 'simulated': True}
    many.metadata['validation'][:0] = [simulated, small]
    (member, _), _ = consensus_of([many, bundle('sfcn.b')])
    found = member.validation
    assert (found.mae, found.n, found.simulated) == (5.0, 40, False)


def test_models_are_weighed_as_strangers_find_them_if_all_say_so():
    away = {'dataset': 'held-out', 'n': 40, 'mae': 10.0, 'method': 'source left out'}
    one, two = bundle('volumes.a', mae=5.0), bundle('sfcn.b', mae=5.0)
    two.metadata['validation'].append(away)
    # one of them does not say it
    assert [m.validation.mae for m, _ in consensus_of([one, two])] == [5.0, 5.0]
    one.metadata['validation'].insert(0, away | {'mae': 5.0, 'n': 30})
    members = [member for member, _ in consensus_of([one, two])]
    assert [m.validation.method for m in members] == ['source left out'] * 2
    assert consensus_weights(members) == pytest.approx({'volumes.a': 0.8, 'sfcn.b': 0.2})


def test_packaged_models_have_a_consensus_weighed_on_the_same_real_scans():
    packaged = model_dirs(None)[-1]
    names = ('volumes.lifespan', 'vgg8.lifespan-reduced')
    members = [member for member, _ in consensus_of([load_bundle(packaged / n) for n in names])]
    assert {(m.validation.dataset, m.validation.simulated) for m in members} == {
        ('real scans, all adults', False)
    }


def test_group_level_combines_the_networks_of_system_b_and_nothing_else():
    import pandas as pd

    from bids_brainage.statistics.tables.fusion import fuse_models

    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 40)
    table = {'person': range(40), 'session': '1', 'baseline': True, 'age': age, 'sex': 'F'}
    frame = pd.DataFrame(table)
    names = ('vgg8.cbv', 'vgg8.cbv-TAS', 'consensus', 'volumes.a', 'vgg8.cbv-T')
    models = {n: frame.assign(predicted_age=age + rng.normal(0, 5, 40)) for n in names}
    fused = fuse_models(models, [('volumes.a', 'vgg8.cbv'), ('absent', 'vgg8.cbv')])
    assert len(fused) == 1
    assert {'volumes.a', 'vgg8.cbv'} == set(fused[0].names['TA'].split(' + '))
    assert fuse_models(models, []) == []


def test_consensus_of_an_image_takes_the_age_of_its_sessions_tables(tmp_path, scan):
    config = SimpleNamespace(
        execution=SimpleNamespace(output_dir=tmp_path),
        workflow=SimpleNamespace(consensus=True),
    )
    tables, alone = (
        MeasuredScan(
            Path('aseg.stats'), f'sub-{label}/stats/aseg.stats', label, None, None,
            {'sub': label, 'rec': 'freesurfer'}, 'table', 'anat', dataset='freesurfer',
        )
        for label in ('01', '02')
    )  # fmt: skip
    models = [bundle('sfcn.image', mae=4.0), bundle('vgg8.tables', mae=4.0)]
    for one, name, age in (
        (scan, 'sfcn.image', 50.0), (tables, 'vgg8.tables', 60.0), (alone, 'vgg8.tables', 70.0),
    ):  # fmt: skip
        write_brainage(table_path(tmp_path, one), [row(one, name, age)])
    Combiner(config, models, [tables, alone]).write_all([scan, tables, alone])
    found = {r['model']: r for r in read_brainage(table_path(tmp_path, scan))}
    assert found['consensus']['predicted_age'] == pytest.approx(55.0)
    assert set(found) == {'sfcn.image', 'consensus'}
    assert [r['model'] for r in read_brainage(table_path(tmp_path, tables))] == ['vgg8.tables']
    found = {r['model']: r for r in read_brainage(table_path(tmp_path, alone))}
    assert (found['consensus']['status'], found['consensus']['qc_flag']) == (
        'skipped', 'member_missing',
    )  # fmt: skip
