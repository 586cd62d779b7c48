"""Rows follow what the dataset says of a person."""

from pathlib import Path

import pytest

from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.outputs import brainage_row, read_brainage, write_brainage
from bids_brainage.runs.rows import refresh_rows
from bids_brainage.workflows.images import table_path

RANGE = [18.0, 80.0]
BIAS = {'slope': 0.8, 'intercept': 10.0}
MODELS = {
    'volumes.a': {'TrainingAgeRange': RANGE, 'BiasCorrection': BIAS, 'ReferenceAge': 60.0},
    'sfcn.b': {'TrainingAgeRange': [None, None], 'BiasCorrection': None},
    'consensus': {
        'TrainingAgeRange': RANGE,
        'Members': {'volumes.a': {'Weight': 0.5}, 'volumes.c': {'Weight': 0.5}},
    },
    'volumes.c': {'TrainingAgeRange': RANGE, 'BiasCorrection': {'slope': 1, 'intercept': 2}},
}


def scan_of(age, sex='F'):
    path = Path('sub-01/anat/sub-01_T1w.nii.gz')
    return Scan(path, str(path), '01', None, None, {'sub': '01'}, 'T1w', 'anat', Age(age), sex)


@pytest.fixture
def out(tmp_path):
    """Rows of a woman who was thought to be 60."""
    rows = [
        brainage_row(
            source='bids:raw:sub-01/anat/sub-01_T1w.nii.gz', participant_id='sub-01',
            modality='T1w', age_censored=False, model=name, age=60.0, sex='F',
            predicted_age=62.0, qc_flag='sloppy;simulated', status='ok',
        )
        for name in MODELS
    ]  # fmt: skip
    rows[1] |= {'predicted_age': None, 'brain_age_gap': None, 'status': 'failed'}
    write_brainage(table_path(tmp_path, scan_of(60.0)), rows, models=MODELS)
    refresh_rows(tmp_path, scan_of(60.0))
    return tmp_path


def rows(out):
    return {row['model']: row for row in read_brainage(table_path(out, scan_of(1.0)))}


def test_all_that_follows_from_the_age_is_that_of_the_formulas(out):
    assert refresh_rows(out, scan_of(85.0)) == ['volumes.a']  # its explanation compares
    found = rows(out)
    assert {row['age'] for row in found.values()} == {85.0}
    first = found['volumes.a']
    assert first['brain_age_gap'] == 62.0 - 85.0
    assert first['predicted_age_corrected'] == pytest.approx(62 + 85 - (0.8 * 85 + 10))
    assert first['in_training_range'] is False
    assert first['qc_flag'] == 'sloppy;age_outside_training;simulated'
    members = (found[name]['predicted_age_corrected'] for name in ('volumes.a', 'volumes.c'))
    assert found['consensus']['predicted_age_corrected'] == pytest.approx(sum(members) / 2)
    assert found['sfcn.b']['brain_age_gap'] is None
    refresh_rows(out, scan_of(60.0))
    assert rows(out)['volumes.a']['qc_flag'] == 'sloppy;simulated'


def test_unknown_age_leaves_no_gap(out):
    refresh_rows(out, scan_of(None))
    for row in rows(out).values():
        empty = ('age', 'brain_age_gap', 'predicted_age_corrected', 'in_training_range')
        assert [row[name] for name in empty] == [None] * 4


def test_sex_alone_changes_nothing_else_and_the_same_facts_write_nothing(out):
    before, table = rows(out), table_path(out, scan_of(60.0))
    time = table.stat().st_mtime_ns
    assert refresh_rows(out, scan_of(60.0)) == []
    assert table.stat().st_mtime_ns == time
    refresh_rows(out, scan_of(60.0, 'M'))
    assert rows(out) == {name: {**row, 'sex': 'M'} for name, row in before.items()}


def test_person_without_a_table_has_nothing_to_bring_up_to_date(tmp_path):
    assert refresh_rows(tmp_path, scan_of(60.0)) == []
