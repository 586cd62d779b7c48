"""Ages and sexes from the tables, in any unit, and what is refused."""

from __future__ import annotations

import json

import pytest

from bids_brainage.dataset.ages import Demographics, normalise_sex, parse_age

EXACT = 1e-12  # years; only the unit conversion rounds


@pytest.mark.parametrize(
    ('text', 'units', 'years', 'censored'),
    [
        ('34', None, 34.0, False),
        ('34.25', 'years', 34.25, False),
        (' 7 ', 'Year', 7.0, False),
        ('89+', 'year', 89.0, True),
        ('90+', None, 90.0, True),
        ('18', 'months', 1.5, False),
        ('18', 'month', 1.5, False),
        ('52', 'weeks', 52 * 7 / 365.25, False),
        ('1', 'week', 7 / 365.25, False),
        ('730.5', 'days', 2.0, False),
        ('365.25', 'day', 1.0, False),
        ('.5', 'y', 0.5, False),
    ],
)
def test_age_in_years(text, units, years, censored):
    age = parse_age(text, units, source='participants.tsv')
    assert age.years == pytest.approx(years, abs=EXACT)
    assert age.censored is censored
    assert age.source == 'participants.tsv'
    assert age.problem is None


@pytest.mark.parametrize(
    ('text', 'units', 'reason'),
    [
        ('0', None, 'above 0'),
        ('0.0', 'months', 'above 0'),
        ('-3', None, 'above 0'),
        ('young', None, 'not a number'),
        ('1e2', None, 'not a number'),
        ('34;35', None, 'not a number'),
        ('20-25', None, 'not a number'),
        ('inf', None, 'not a number'),
        ('999', None, 'other units'),
        ('400', 'weeks+', 'none of year'),
        ('40', 'decades', 'none of year'),
        ('89+', 'months', 'must be in years'),
    ],
)
def test_refused_with_reason(text, units, reason):
    age = parse_age(text, units, source='participants.tsv')
    assert age.years is None
    assert reason in (age.problem or '')
    assert 'participants.tsv' in (age.problem or '')


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(' ', '\t') if path.suffix == '.tsv' else text)


def _age(root, subject='01', session='1', column='age'):
    return Demographics(root, column).age(subject, session, f'anat/sub-{subject}_T1w.nii.gz')


def test_nearest_table_wins(tmp_path):
    assert _age(tmp_path).problem is None  # no table at all
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01 40\n02 50\n')
    assert (_age(tmp_path).years, _age(tmp_path).source) == (40.0, 'participants.tsv')
    assert _age(tmp_path, '02').years == 50.0  # identifier without its prefix
    assert _age(tmp_path, '03').years is None
    _write(tmp_path / 'sub-01/sub-01_sessions.tsv', 'session_id age\nses-1 41\nses-2 n/a\n')
    assert _age(tmp_path).source == 'sub-01/sub-01_sessions.tsv'
    assert _age(tmp_path, session='2').years == 40.0  # n/a falls through
    assert _age(tmp_path, session=None).years == 40.0
    scans = 'sub-01/ses-1/sub-01_ses-1_scans.tsv'
    _write(tmp_path / scans, 'filename age\nanat/sub-01_T1w.nii.gz 41.5\n')
    assert (_age(tmp_path).years, _age(tmp_path).source) == (41.5, scans)


def test_refused_value_is_not_replaced_by_a_farther_table(tmp_path):
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01 40\n')
    _write(tmp_path / 'sub-01/sub-01_sessions.tsv', 'session_id age\nses-1 -1\n')
    age = _age(tmp_path)
    assert age.years is None
    assert 'sub-01_sessions.tsv' in age.problem


def test_units_of_side_files_with_inheritance(tmp_path):
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01 24\n')
    _write(tmp_path / 'participants.json', json.dumps({'age': {'Units': 'months'}}))
    assert _age(tmp_path).years == pytest.approx(2.0, abs=EXACT)
    _write(tmp_path / 'sub-01/sub-01_sessions.tsv', 'session_id age\nses-1 104.357142857\n')
    _write(tmp_path / 'sessions.json', json.dumps({'age': {'Units': 'weeks'}}))
    assert _age(tmp_path).years == pytest.approx(2.0, abs=1e-6)
    _write(tmp_path / 'sub-01/sub-01_sessions.json', json.dumps({'age': {'Units': 'year'}}))
    assert _age(tmp_path).years == pytest.approx(104.357142857, abs=EXACT)


def test_column_name_and_odd_tables(tmp_path):
    _write(tmp_path / 'participants.tsv', '\ufeffparticipant_id Age scan_age\nsub-01 30 31\n')
    assert _age(tmp_path).years == 30.0
    assert _age(tmp_path, column='scan_age').years == 31.0
    assert 'nothing_like_it' in _age(tmp_path, column='nothing_like_it').problem
    (tmp_path / 'participants.tsv').write_bytes(b'\xff\xfe\x00broken')
    assert 'cannot be read' in _age(tmp_path).problem
    _write(tmp_path / 'participants.tsv', 'id age\nsub-01 30\n')
    assert 'no column participant_id' in _age(tmp_path).problem
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01\n')
    assert _age(tmp_path).years is None
    _write(tmp_path / 'participants.tsv', '')
    assert _age(tmp_path).years is None


@pytest.mark.parametrize(
    ('text', 'levels', 'expected'),
    [
        ('male', {}, 'M'),
        ('F', {}, 'F'),
        ('FEMALE', {}, 'F'),
        ('1', {}, '1'),
        ('1', {'1': 'male', '2': 'female'}, 'M'),
        ('2', {'1': 'male', '2': 'female'}, 'F'),
        ('O', {'O': 'other'}, 'O'),
        ('M', {'M': 'man', 'F': 'woman'}, 'M'),
    ],
)
def test_sex(text, levels, expected):
    assert normalise_sex(text, levels) == expected


def test_sex_from_tables(tmp_path):
    _write(tmp_path / 'participants.tsv', 'participant_id gender\nsub-01 2\n')
    demographics = Demographics(tmp_path)
    assert demographics.sex('01', None, 'x') == '2'
    levels = {'gender': {'Levels': {'2': {'Description': 'Female'}}}}
    _write(tmp_path / 'participants.json', json.dumps(levels))
    assert Demographics(tmp_path).sex('01', None, 'x') == 'F'
    assert Demographics(tmp_path).sex('02', None, 'x') is None
