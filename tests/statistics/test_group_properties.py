"""Properties that the group tables must have, from derivatives on disk to tables on disk."""

from __future__ import annotations

import golden as g
import numpy as np
import pytest

from bids_brainage.cli.main import main
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.tsv import read_tsv

SHIFT, LATER = 2.5, 4.0
AGES = np.where(g.i == 0, 10.0, np.where(g.i == 1, 96.0, np.where(g.i == 2, 0.0, g.y)))
"""Golden ages with the three that lie on the edges of bins."""

MODELS = {
    'base.a': (g.p, g.p_retest),
    'shift.a': (g.p + SHIFT, g.p_retest + SHIFT + LATER),
    'perfect.a': (AGES, AGES),
    'constant.a': (np.full(60, AGES.mean()),) * 2,
}


def write(root, order):
    """Write two sessions, the second a retest, of people named by their place in an order."""
    (root / 'bids').mkdir(parents=True)
    lines = ['participant_id\tdx']
    for name, k in enumerate(order):
        who = f'sub-{name:02d}'
        lines.append(f'{who}\t{"AD" if k % 2 else "CU"}')
        for s in (0, 1):
            stem = f'{who}_ses-{s + 1}'
            rows = [
                brainage_row(
                    participant_id=who,
                    session_id=f'ses-{s + 1}',
                    source=f'bids:raw:{who}/ses-{s + 1}/anat/{stem}_T1w.nii.gz',
                    modality='T1w',
                    model=model,
                    age=float(AGES[k]),
                    sex='MF'[g.sex[k]],
                    predicted_age=float(predicted[s][k]),
                    status='ok',
                )
                for model, predicted in MODELS.items()
            ]
            home = root / 'out' / who / f'ses-{s + 1}' / 'anat'
            write_brainage(home / f'{stem}_brainage.tsv', rows)
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    options = '--retest-sessions 1 2 --group-column dx --reference-group dx=CU'
    arguments = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    assert main([*arguments, *options.split()]) == 0
    names = ('accuracy', 'reliability', 'differences', 'brainage')
    return {name: read_tsv(root / 'out' / f'group_{name}.tsv') for name in names}


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    return write(tmp_path_factory.mktemp('a'), range(60))


def row(tables, table, **cells):
    found = [r for r in tables[table] if all(r[k] == v for k, v in cells.items())]
    assert len(found) == 1, (cells, len(found))
    return found[0]


def first_session(tables, model):
    cells = {'subset': 'session', 'level': 'ses-1', 'corrected': 'false'}
    return row(tables, 'accuracy', model=model, **cells)


def test_a_shift_moves_the_mean_error_only(tables):
    base, shifted = (first_session(tables, model) for model in ('base.a', 'shift.a'))
    assert float(shifted['me']) == pytest.approx(float(base['me']) + SHIFT)
    assert float(shifted['r']) == pytest.approx(float(base['r']), abs=1e-12)
    base, shifted = (
        row(tables, 'reliability', model=model, session_set='sessions')
        for model in ('base.a', 'shift.a')
    )
    assert float(shifted['icc_3_1']) == pytest.approx(float(base['icc_3_1']), abs=1e-12)
    assert float(shifted['icc_2_1']) < float(base['icc_2_1']) - 1e-3
    assert float(shifted['sigma_d']) == pytest.approx(float(base['sigma_d']))


def test_perfect_and_constant_predictions(tables):
    perfect = first_session(tables, 'perfect.a')
    assert [float(perfect[k]) for k in ('mae', 'me', 'r2')] == [0, 0, 1]
    constant = first_session(tables, 'constant.a')
    assert float(constant['r2']) == pytest.approx(0, abs=1e-12)
    assert constant['r'] == 'n/a'
    assert 'zero variance' in constant['reason']


def test_the_worst_bin_is_not_better_than_the_mean(tables):
    base = first_session(tables, 'base.a')
    assert float(base['mmae_all']) >= float(base['mmae']) >= float(base['mae'])


def test_edges_of_bins(tables):
    sizes = {
        r['level']: int(r['n'])
        for r in tables['accuracy']
        if (r['model'], r['subset'], r['corrected']) == ('base.a', '10_year_bin', 'false')
    }
    counts = np.bincount(np.minimum(AGES // 10, 9).astype(int), minlength=10)
    assert list(sizes.values()) == (2 * counts).tolist()
    assert list(sizes)[-1] == '90+'


def test_corrected_gaps_of_the_calibration_people(tables):
    rows = [
        r
        for r in tables['brainage']
        if (r['model'], r['session_id'], r['calibration']) == ('base.a', 'ses-1', 'true')
    ]
    age = np.array([float(r['age']) for r in rows])
    gap = np.array([float(r['predicted_age_group_corrected']) for r in rows]) - age
    assert len(rows) >= 4
    assert gap.mean() == pytest.approx(0, abs=1e-9)
    assert np.polyfit(age, gap, 1)[0] == pytest.approx(0, abs=1e-9)


def test_welch_of_two_groups_is_the_square_of_t(tables):
    cells = {'model': 'base.a', 'corrected': 'false', 'column': 'dx'}
    welch = row(tables, 'differences', test='welch_anova', **cells)
    pair = row(tables, 'differences', test='games_howell', **cells)
    assert float(welch['statistic']) == pytest.approx(float(pair['statistic']) ** 2)
    assert float(welch['df'].split(',')[1]) == pytest.approx(float(pair['df'].split(',')[-1]))
    assert float(welch['p']) == pytest.approx(float(pair['p']), rel=1e-6)


def test_the_order_of_people_changes_no_number(tables, tmp_path):
    other = write(tmp_path, list(reversed(range(60))))
    for model in MODELS:
        a, b = first_session(tables, model), first_session(other, model)
        for name in ('n', 'mae', 'me', 'r2', 'mmae', 'mmae_all', 'slope'):
            assert float(a[name]) == pytest.approx(float(b[name]), abs=1e-9), (model, name)
