"""Reading all prediction tables and writing the group tables with their dictionaries."""

from __future__ import annotations

import json

import golden as g
import numpy as np
import pandas as pd
import pytest
from group_people import write_people

from bids_brainage.errors import MissingInputError, WorkflowError
from bids_brainage.outputs.collect import read_predictions
from bids_brainage.outputs.group_tables import (
    TABLES,
    group_dictionary,
    table_text,
    write_group_tables,
)
from bids_brainage.outputs.tables import brainage_row, collect_brainage, write_brainage
from bids_brainage.statistics.tables.analysis import analyse
from bids_brainage.statistics.tables.options import GroupOptions
from bids_brainage.tsv import read_tsv


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp('out')
    write_people(root)
    return root


def test_bulk_reading_equals_the_careful_reader(people):
    found = read_predictions(people)
    assert len(found.table) == 360
    careful = pd.DataFrame(collect_brainage(people))
    both = found.table.merge(careful, on=['source', 'model'], suffixes=('', '_careful'))
    assert len(both) == 360
    assert (both['predicted_age'].astype(float) == both['predicted_age_careful']).all()
    assert both['run'].isna().all()
    assert {name: facts['Version'] for name, facts in found.models.items()} == {
        'net.a': '1',
        'net.b': '1',
    }
    assert not found.problems


def test_tables_without_session_folder_and_damaged_tables(tmp_path):
    write_people(tmp_path, n=2)
    plain = tmp_path / 'sub-9' / 'func'
    plain.mkdir(parents=True)
    row = brainage_row(
        source='bids:raw:x', model='net.a', participant_id='sub-9', predicted_age=4.0
    )
    write_brainage(plain / 'sub-9_task-rest_brainage.tsv', [row])
    (tmp_path / 'sub-000/ses-1/anat/sub-000_ses-1_brainage.tsv').write_bytes(b'\xff\xfe\n')
    (tmp_path / 'sub-000/ses-2/anat/sub-000_ses-2_brainage.tsv').write_text('source\tmodel\nx\n')
    (tmp_path / 'sub-000/figures').mkdir()
    found = read_predictions(tmp_path)
    assert len(found.table) == 4 * 2 + 1
    assert [name for name, _ in found.problems] == [
        'sub-000/ses-1/anat/sub-000_ses-1_brainage.tsv',
        'sub-000/ses-2/anat/sub-000_ses-2_brainage.tsv',
    ]
    assert 'no column participant_id' in found.problems[1][1]


def test_nothing_to_read_says_what_to_do(tmp_path):
    with pytest.raises(MissingInputError, match='Run the participant level first'):
        read_predictions(tmp_path)


def test_golden_values_survive_the_disk(people, tmp_path):
    found = read_predictions(people)
    options = GroupOptions(
        retest_sessions=(('ses-1', 'ses-2'),), draws=100, networks=(('net.a', 'net.b'),)
    )
    result = analyse(found.table, options)
    names = write_group_tables(tmp_path, result.tables, result.facts, found.models)
    there = [name for name in TABLES if name in result.tables]
    assert names == [f'group_{name}.tsv' for name in there]
    rows = read_tsv(tmp_path / 'group_accuracy.tsv')
    row = next(
        r for r in rows if (r['model'], r['subset'], r['level']) == ('net.a', 'session', 'ses-1')
    )
    assert float(row['mae']) == pytest.approx(2.861399, abs=g.DIGITS)
    assert float(row['mmae']) == pytest.approx(4.234580, abs=g.DIGITS)
    assert (row['n'], row['corrected'], row['interval_coverage']) == ('60', 'false', 'n/a')
    rows = read_tsv(tmp_path / 'group_longitudinal.tsv')
    summary = next(r for r in rows if (r['row'], r['model']) == ('summary', 'net.a'))
    assert float(summary['made']) == pytest.approx(1.334366, abs=g.DIGITS)
    assert summary['participant_id'] == 'n/a'
    retest = next(r for r in read_tsv(tmp_path / 'group_reliability.tsv') if r['model'] == 'net.a')
    assert float(retest['icc_3_1']) == pytest.approx(0.999750053, abs=6e-10)
    fusion = [r for r in read_tsv(tmp_path / 'group_differences.tsv') if r['test'] == 'nested_f']
    assert float(fusion[0]['statistic']) == pytest.approx(25.023410, abs=g.DIGITS)
    union = read_tsv(tmp_path / 'group_brainage.tsv')
    assert len(union) == 360
    for name in there:
        side = json.loads((tmp_path / f'group_{name}.json').read_text())
        header = (tmp_path / f'group_{name}.tsv').read_text().split('\n', 1)[0].split('\t')
        assert set(header) <= set(side), name
        assert all(side[column]['Description'] for column in header)
        assert 'bootstrap' in side['Analysis']['limits']
    side = json.loads((tmp_path / 'group_brainage.json').read_text())
    assert side['Models']['net.a'] == {'Version': '1'}


def test_a_second_run_changes_no_file(people, tmp_path):
    result = analyse(read_predictions(people).table, GroupOptions(draws=50))
    write_group_tables(tmp_path, result.tables, result.facts)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    result = analyse(read_predictions(people).table, GroupOptions(draws=50))
    write_group_tables(tmp_path, result.tables, result.facts)
    assert before == {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}


def test_cells():
    table = pd.DataFrame(
        {
            'x': [0.1, np.nan],
            'n': [3.0, np.nan],
            'flag': pd.Series([True, None], dtype=object),
            'mixed': pd.Series([1, True], dtype=object),
            'text': ['a\tb', None],
        }
    )
    assert table_text(table).split('\n')[1:] == [
        '0.1\t3\ttrue\t1\ta b',
        'n/a\tn/a\tn/a\ttrue\tn/a',
    ]


def test_every_column_must_be_described():
    limits = group_dictionary('accuracy', ['mae_low'])['mae_low']
    assert limits['Units'] == 'year' and 'Lower 95 %' in limits['Description']
    with pytest.raises(WorkflowError, match='no description'):
        group_dictionary('accuracy', ['unknown'])
