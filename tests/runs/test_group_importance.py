"""Ranking of regions over people: who counts, how often, and what the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bids_brainage.cli.request import parse
from bids_brainage.flags import stop_flags
from bids_brainage.outputs.files import read_json, write_tsv
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.runs.group import run_group
from bids_brainage.tsv import read_tsv

NODES = ('frontal', 'parietal', 'insula')
WEIGHTS = {  # of frontal and parietal; the insula has the rest
    '1': [(0.5, 0.3)],
    '2': [(0.6, 0.1), (0.2, 0.5)],
    '3': [(0.1, 0.7)],
    '4': [(0.3, 0.6)],
}


def add_scan(root, name, number, weights, sex, **cells):
    home = root / f'sub-{name}' / f'ses-{number}' / 'anat'
    home.mkdir(parents=True)
    stem = f'sub-{name}_ses-{number}'
    row = brainage_row(
        participant_id=f'sub-{name}',
        session_id=f'ses-{number}',
        source=f'bids:raw:sub-{name}/ses-{number}/anat/{stem}_T1w.nii.gz',
        modality='T1w',
        model='amagenet.a',
        age=50.0 + number,
        sex=sex,
        predicted_age=52.0,
        **{'status': 'ok', **cells},
    )
    write_brainage(home / f'{stem}_brainage.tsv', [row])
    values = [*weights, 1 - sum(weights)]
    write_tsv(
        home / f'{stem}_atlas-mine_model-amageneta_desc-nodes_saliency.tsv',
        [
            {'index': k, 'name': node, 'network': 'N', 'importance': value}
            for k, (node, value) in enumerate(zip(NODES, values, strict=True), 1)
        ],
        ('index', 'name', 'network', 'importance'),
    )
    return home


def run(root):
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    return run_group(parse([*places, '--group-column', 'group'], {}))


@pytest.fixture
def root(tmp_path):
    """Four people, one with two scans; besides, three who must not count."""
    out = tmp_path / 'out'
    for name, scans in WEIGHTS.items():
        for number, weights in enumerate(scans, 1):
            add_scan(out, name, number, weights, 'F' if name in '12' else 'M')
    add_scan(out, 'learnt', 1, (0.0, 0.0), 'F', in_training='true')
    add_scan(out, 'flagged', 1, (0.0, 0.0), 'F', qc_flag=min(stop_flags()))
    add_scan(out, 'failed', 1, (0.0, 0.0), 'M', status='failed')
    (tmp_path / 'bids').mkdir()
    lines = [f'sub-{name}\t{"AD" if name == "4" else "CN"}' for name in WEIGHTS]
    (tmp_path / 'bids' / 'participants.tsv').write_text(
        '\n'.join(['participant_id\tgroup', *lines, ''])
    )
    return tmp_path


def part(root, subset, level):
    rows = read_tsv(root / 'out' / 'group_importance.tsv')
    return [row for row in rows if (row['subset'], row['level']) == (subset, level)]


def test_everybody_counts_once_and_regions_are_ranked(root):
    assert run(root) == 0
    mine = part(root, 'all', 'all')
    people = np.array([np.mean(scans, axis=0) for scans in WEIGHTS.values()])
    assert [row['name'] for row in mine] == ['parietal', 'frontal', 'insula']
    assert [row['rank'] for row in mine] == ['1', '2', '3']
    assert {(row['n'], row['kind'], row['atlas'], row['network']) for row in mine} == {
        ('4', 'nodes', 'mine', 'N')
    }
    parietal = people[:, 1]
    assert float(mine[0]['importance']) == pytest.approx(parietal.mean())
    assert float(mine[0]['importance_sd']) == pytest.approx(parietal.std(ddof=1))
    limits = stats.t.interval(0.95, 3, parietal.mean(), stats.sem(parietal))
    found = [float(mine[0][f'importance_{end}']) for end in ('low', 'high')]
    assert found == pytest.approx(limits)


def test_by_sex_and_by_group(root):
    run(root)
    assert [row['name'] for row in part(root, 'sex', 'F')] == ['frontal', 'parietal', 'insula']
    assert [row['name'] for row in part(root, 'sex', 'M')] == ['parietal', 'frontal', 'insula']
    assert {row['n'] for row in part(root, 'group', 'CN')} == {'3'}
    (alone,) = [row for row in part(root, 'group', 'AD') if row['name'] == 'parietal']
    assert (alone['n'], alone['importance_sd'], alone['importance_low']) == ('1', 'n/a', 'n/a')
    described = read_json(root / 'out' / 'group_importance.json')
    assert set(alone) <= set(described)
    page = (root / 'out' / 'group.html').read_text()
    assert 'Importance of regions' in page and 'parietal' in page


def test_a_table_that_cannot_be_read_costs_only_itself(root, caplog):
    (broken,) = (root / 'out').glob('sub-3/ses-1/anat/*_desc-nodes_saliency.tsv')
    broken.write_text('index\tname\n1\tfrontal\n')
    assert run(root) == 1
    assert {row['n'] for row in part(root, 'all', 'all')} == {'3'}
    assert broken.name in caplog.text
    reasons = [row['reason'] for row in read_tsv(root / 'out' / 'group_exclusions.tsv')]
    assert any('table of importance cannot be read' in reason for reason in reasons)


def test_without_such_models_no_table_is_left(root):
    run(root)
    for table in (root / 'out').rglob('*_desc-nodes_saliency.tsv'):
        table.unlink()
    assert run(root) == 0
    assert not list((root / 'out').glob('group_importance.*'))
