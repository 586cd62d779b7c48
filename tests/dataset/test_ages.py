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
        ('0', None, 0.0, False),
        ('0', 'weeks', 0.0, False),
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
        ('-3', None, 'must not be negative'),
        ('-0.1', 'months', 'must not be negative'),
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


def test_column_name_in_any_case_and_by_option(tmp_path):
    _write(tmp_path / 'participants.tsv', '\ufeffparticipant_id Age scan_age\nsub-01 30 31\n')
    assert _age(tmp_path).years == 30.0
    assert _age(tmp_path, column='scan_age').years == 31.0
    assert 'nothing_like_it' in _age(tmp_path, column='nothing_like_it').problem


def _told(root, people=('01', '02'), session=None, column='age'):
    """Return ages and messages of a dataset; cells of tables are written with blanks."""
    demographics = Demographics(root, column)
    ages = [demographics.age(p, session, f'anat/sub-{p}_T1w.nii.gz').years for p in people]
    return ages, demographics.messages()


TABLES = [
    (
        'participant_id age\n1 30\n2 31\n',
        'writes ids otherwise',
        'as the folders',
        '01 (1), sub-02 (2)',
    ),
    (
        'participant_id age\nSUB-01 30\nSUB-02 31\n',
        'writes ids otherwise',
        'as the',
        'sub-02 (SUB-02)',
    ),
    (
        'participant_id age\nsubject_1 3\nS02 3\n',
        'writes ids otherwise',
        'as the',
        '(subject_1), sub-02 (S02)',
    ),
    ('participant_id age\nsub-07 30\n', 'has no row', 'ids found: sub-07', 'sub-01, sub-02'),
    (
        'participant_id age\nsub-01 3\nsub-01 4\nsub-02 5\nsub-02 6\n',
        'different ages for one id',
        'Leave one row',
        'sub-01 (3 and 4), sub-02 (5 and 6)',
    ),
    (
        'participant_id age Age\nsub-01 30 31\nsub-02 n/a 31\n',
        'columns age and Age',
        '--age-column Age',
        'sub-01, sub-02',
    ),
    (
        'participant_id age age\nsub-01 30 31\nsub-02 1 1\n',
        'several columns age',
        'Leave one',
        '02',
    ),
    (
        'participant_id sex age_at_scan\nsub-01 F 3\n',
        'no column age',
        '--age-column age_at_scan',
        'sub-01, sub-02',
    ),
    ('participant_id AgeYears\nsub-01 3\n', 'no column age', '--age-column AgeYears', 'sub-02'),
    ('participant_id age_years\nsub-01 3\n', 'no column age', 'participant_id, age_years', '02'),
    ('participant_id sex language\nsub-01 F x\n', 'no column age', 'with --age-column if', '02'),
    (
        'participant_id sex age\nsub-01 30\nsub-02\n',
        'fewer cells',
        'n/a for what',
        'sub-01, sub-02',
    ),
    (
        'participant_id age\nsub-01 30 31\nsub-02 1 2\n',
        'more cells',
        'tabs that',
        'sub-01, sub-02',
    ),
    ('', 'is empty', 'begins with participant_id', 'sub-01, sub-02'),
    ('participant_id age\n', 'a header and no rows', 'Add a row', 'sub-01, sub-02'),
    (
        'id age\nsub-01 30\n',
        'no column participant_id',
        'Columns found: id, age',
        'sub-01, sub-02',
    ),
    ('participant_id,age\nsub-01,30\n', 'separated by commas', 'with tabs', 'sub-01, sub-02'),
    ('participant_id;age\nsub-01;30\n', 'separated by semicolons', 'with tabs', 'sub-01, sub-02'),
    ('participant_id~age\nsub-01~30\n', 'separated by blanks', 'with tabs', 'sub-01, sub-02'),
    ('participant_id age\nsub-01 -1\nsub-02 x\n', 'not be negative', 'Units', "sub-01 ('-1')"),
    ('participant_id age\nsub-01 300\nsub-02 301\n', '300 years', 'Units', "sub-01 ('300')"),
]


@pytest.mark.parametrize(('text', 'problem', 'remedy', 'people'), TABLES, ids=lambda v: v[:20])
def test_an_age_that_could_not_be_used_is_told_with_the_remedy(
    tmp_path, text, problem, remedy, people
):
    _write(tmp_path / 'participants.tsv', text)
    path = tmp_path / 'participants.tsv'
    path.write_text(path.read_text().replace('~', ' '))
    ages, told = _told(tmp_path)
    assert ages == [None, None]
    (message,) = [m for m in told if problem in m]
    assert message.startswith('participants.tsv')
    assert remedy in message
    assert people in message.partition('Age unknown: ')[2]
    if "'-1'" not in people and "'300'" not in people:  # two values, two reasons
        assert len(told) == 1


@pytest.mark.parametrize(
    ('content', 'problem', 'remedy'),
    [
        ('participant_id\tage\nsub-01\t30\n'.encode('utf-16'), 'UTF-16', 'iconv -f UTF-16'),
        ('participant_id\tage\nsub-01\t30\n'.encode('utf-16-le'), 'UTF-16', 'as UTF-8'),
        ('participant_id\tage\nJos\xe9\t30\n'.encode('latin-1'), 'line 2; perhaps Lat', 'LATIN1'),
        (b'/annex/objects/MD5E-s9--d41d8cd9.tsv\n', 'pointer', 'datalad get participants.tsv'),
        (b'version https://git-lfs.github.com/spec/v1\noid x\n', 'pointer', 'Fetch it'),
        (b'participant_id\tage\n' + b'x' * 200_000, 'is no table', 'Save it as UTF-8'),
    ],
    ids=['utf-16', 'utf-16 without mark', 'latin-1', 'annex', 'lfs', 'huge cell'],
)
def test_tables_that_are_no_text_are_told(tmp_path, content, problem, remedy):
    (tmp_path / 'participants.tsv').write_bytes(content)
    ages, (message,) = _told(tmp_path)
    assert ages == [None, None]
    assert problem in message
    assert remedy in message
    assert 'sub-01, sub-02' in message


def test_table_that_is_a_dangling_link_or_of_another_format_is_told(tmp_path):
    (tmp_path / 'participants.csv').write_text('participant_id,age\nsub-01,30\n')
    assert 'is not there, but participants.csv is' in _told(tmp_path)[1][0]
    (tmp_path / 'participants.tsv').symlink_to('.git/annex/objects/nowhere')
    (message,) = _told(tmp_path)[1]
    assert 'link to content that is not here' in message
    assert 'datalad get participants.tsv' in message


@pytest.mark.parametrize('content', ['{"age": {"Units": "months"},', '[]', None])
def test_ages_are_not_taken_for_years_when_their_unit_cannot_be_read(tmp_path, content):
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01 24\nsub-02 30\n')
    path = tmp_path / 'participants.json'
    path.symlink_to('nowhere') if content is None else path.write_text(content)
    ages, (message,) = _told(tmp_path)
    assert ages == [None, None]
    assert 'participants.json' in message
    assert 'not taken for years' in message


def test_unit_that_is_no_text_is_refused(tmp_path):
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01 24\n')
    _write(tmp_path / 'participants.json', json.dumps({'age': {'Units': ['months']}}))
    ages, (message,) = _told(tmp_path, people=['01'])
    assert ages == [None]
    assert 'none of year, month' in message


def test_one_row_per_session_is_read_by_session(tmp_path):
    text = 'participant_id session_id age\nsub-01 ses-1 30\nsub-01 2 32\nsub-02 1 40\n'
    _write(tmp_path / 'participants.tsv', text)
    assert _told(tmp_path, session='1') == ([30.0, 40.0], [])
    ages, _ = _told(tmp_path, session='2')
    assert ages == [32.0, 40.0]  # one row for a person is for all sessions
    ages, (message,) = _told(tmp_path, session='3')
    assert ages == [None, 40.0]
    assert 'has no row for ses-3' in message


def test_rows_that_say_the_same_are_one(tmp_path):
    _write(tmp_path / 'participants.tsv', 'participant_id age sex\nsub-01 3 F\nsub-01 3 M\n')
    assert _told(tmp_path, people=['01']) == ([3.0], [])
    assert Demographics(tmp_path).sex('01', None, 'x') is None


def test_characters_without_width_do_not_count(tmp_path):
    text = 'participant_id\u200b\tage\u200b\nsub-01\u200b\t30\u2060\n\ufeffsub-02\xa0\t31\xa0\n'
    (tmp_path / 'participants.tsv').write_text(text)
    assert _told(tmp_path) == ([30.0, 31.0], [])


def test_what_is_not_known_needs_no_word(tmp_path):
    assert _told(tmp_path) == ([None, None], [])
    _write(tmp_path / 'participants.tsv', 'participant_id age\nsub-01 n/a\nsub-02 30\n')
    assert _told(tmp_path) == ([None, 30.0], [])
    for person in ('01', '02'):
        scans = f'filename acq_time\nanat/sub-{person}_T1w.nii.gz n/a\n'
        _write(tmp_path / f'sub-{person}/sub-{person}_scans.tsv', scans)
    assert _told(tmp_path) == ([None, 30.0], [])


def test_tables_of_many_people_are_told_in_one_message(tmp_path):
    people = [f'{n:03d}' for n in range(100)]
    rows = ''.join(f'sub-{p} 30\n' for p in people)
    _write(tmp_path / 'participants.tsv', f'participant_id age\n{rows}')
    for person in people:
        table = 'session_id age_at_session\nses-1 31\n'
        _write(tmp_path / f'sub-{person}/sub-{person}_sessions.tsv', table)
    ages, (message,) = _told(tmp_path, people, session='1')
    assert ages == [30.0] * 100
    assert message.startswith('sub-*/sub-*_sessions.tsv has no column age. ')
    assert '--age-column age_at_session' in message
    assert 'Age taken from elsewhere: sub-000, sub-001' in message
    assert message.endswith('and 80 more.')
    assert _told(tmp_path, people, session='1', column='age_at_session') == ([31.0] * 100, [])


def test_people_without_a_folder_are_listed(tmp_path):
    _write(
        tmp_path / 'participants.tsv', 'participant_id age\n1 30\nsub-02 31\nsub-09 32\nn/a 1\n'
    )
    assert Demographics(tmp_path).without_folder(['01', '02']) == ['sub-09']


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


def test_column_without_a_name_says_nothing(tmp_path):
    (tmp_path / 'participants.tsv').write_text('participant_id\tage\t\nsub-01\t40\tF\n')
    demographics = Demographics(tmp_path)
    (tmp_path / 'participants.json').write_text('{"": {"Units": "months"}}')
    assert demographics.age('01', None, 'x').years == 40.0
    assert demographics.sex('01', None, 'x') is None
