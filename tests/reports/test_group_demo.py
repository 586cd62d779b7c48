"""The group level on a simulated study: it finds what was put in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import group_demo
import pytest

from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def out(request):
    """Output of the demo; its derivatives are kept between runs while their source is the same."""
    source = Path(group_demo.__file__).read_bytes()
    root = request.config.cache.mkdir(f'group-demo-{hashlib.sha256(source).hexdigest()[:12]}')
    if not (root / 'written').exists():
        group_demo.write_demo(root)
        (root / 'written').touch()
    assert group_demo.run_demo(root) == 0
    return root / 'out'


def rows(out, table, **cells):
    found = read_tsv(out / f'group_{table}.tsv')
    return [row for row in found if all(row[k] == v for k, v in cells.items())]


@pytest.mark.parametrize('model', group_demo.MODELS)
def test_what_was_put_in_is_found(out, model):
    _, spread = group_demo.MODELS[model]
    (row,) = rows(out, 'accuracy', model=model, subset='all', unit='subject', corrected='false')
    assert row['n'] == str(group_demo.PEOPLE)
    assert 0.9 < float(row['r']) < 1
    (row,) = rows(out, 'reliability', model=model, session_set='sessions')
    assert row['n'] == str(group_demo.PEOPLE // 2)
    assert 0.5 * spread < float(row['sem']) < 1.7 * spread
    (row,) = rows(out, 'longitudinal', model=model, row='summary')
    assert row['n_pairs'] == str(group_demo.PEOPLE // 2)
    (row,) = rows(out, 'differences', model=model, test='ancova_pair', corrected='false')
    assert {row['level_a'], row['level_b']} == {'patient', 'control'}
    assert float(row['ci_low']) < 5 * (1 if row['level_a'] == 'patient' else -1)
    assert float(row['p']) < 0.05
    (row,) = rows(out, 'differences', model=model, column='mmse', level_a='all', corrected='false')
    assert float(row['estimate']) < 0


def test_maps_point_where_they_were_made(out):
    table = rows(out, 'saliency', age_bin='70-80')
    assert table[0]['structure'] == 'lateral_ventricle'
    assert float(table[0]['mean_signed']) > 0
    young = rows(out, 'saliency', age_bin='20-30', structure='lateral_ventricle')
    assert float(young[0]['mean_signed']) < 0
    page = (out / 'group.html').read_text()
    assert page.count('Explanation map, ') == len({r['age_bin'] for r in rows(out, 'saliency')})
