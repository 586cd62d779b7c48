"""Discovery on trees made here and on published example trees."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from program import unprivileged

from bids_brainage.dataset import find_scans, read_filters
from bids_brainage.dataset.discovery import MOST_NAMES
from bids_brainage.dataset.inventory import name_problem
from bids_brainage.errors import (
    InvalidDatasetError,
    MissingInputError,
    NothingSelectedError,
    OptionError,
)
from bids_brainage.names import derivative_path

SHARED_TREES = Path(__file__).parents[3] / 'shared' / 'data' / 'bids-trees'
LIMIT_SECONDS = 1.0  # CPU time to find one participant among a thousand


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / 'raw data'
    _touch(
        root,
        'sub-01/ses-a/anat/sub-01_ses-a_acq-hi_run-1_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz',
        'sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz',
        'sub-01/ses-a/func/sub-01_ses-a_task-rest_sbref.nii.gz',
        'sub-01/ses-b/anat/sub-01_ses-b_T1w.nii',
        'sub-01/ses-b/dwi/sub-01_ses-b_dwi.nii.gz',
        'sub-010/anat/sub-010_T1w.nii.gz',
        'sub-02/anat/sub-02_part-mag_T1w.nii.gz',
        'sub-02/anat/sub-02_part-phase_T1w.nii.gz',
        'sub-02/func/sub-02_task-nback_run-01_bold.nii.gz',
        'sub-02/func/sub-02_task-nback_run-02_bold.nii.gz',
        'derivatives/x/sub-01/anat/sub-01_T1w.nii.gz',
        'sourcedata/sub-01/anat/sub-01_T1w.nii.gz',
    )
    (root / 'dataset_description.json').write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')
    return root


def _stems(scans):
    return [f'{scan.stem}_{scan.suffix}' for scan in scans]


def test_everything_once_in_order(tree):
    scans = find_scans(tree)
    assert _stems(scans) == [
        'sub-01_ses-a_acq-hi_run-1_T1w',
        'sub-01_ses-a_run-2_T1w',
        'sub-01_ses-a_task-rest_bold',
        'sub-01_ses-b_T1w',
        'sub-010_T1w',
        'sub-02_part-mag_T1w',
        'sub-02_task-nback_run-01_bold',
        'sub-02_task-nback_run-02_bold',
    ]
    first, bold = scans[0], scans[-1]
    assert first.entities == {'sub': '01', 'ses': 'a', 'acq': 'hi', 'run': '1'}
    assert (first.subject, first.session, first.run, first.datatype) == ('01', 'a', '1', 'anat')
    assert first.uri == 'bids:raw:sub-01/ses-a/anat/sub-01_ses-a_acq-hi_run-1_T1w.nii.gz'
    assert (bold.session, bold.run, bold.datatype) == (None, '02', 'func')
    assert first.path.is_file()
    assert first.problem is None


@pytest.mark.parametrize('labels', [['01'], ['sub-01'], ['sub-01', '01']])
def test_participant_labels(tree, labels):
    scans = find_scans(tree, participant_labels=labels)
    assert {scan.subject for scan in scans} == {'01'}  # and not sub-010
    assert len(scans) == 4


def test_session_and_task_labels(tree):
    scans = find_scans(tree, participant_labels=['01'], session_labels=['ses-b'])
    assert _stems(scans) == ['sub-01_ses-b_T1w']
    scans = find_scans(tree, participant_labels=['02'], task_ids=['other'])
    assert _stems(scans) == ['sub-02_part-mag_T1w']


@pytest.mark.parametrize(
    ('selection', 'message'),
    [
        ({'participant_labels': ['01', '99']}, r'No participant sub-99 .*sub-01, sub-010, sub-02'),
        ({'session_labels': ['c']}, r'No image of session ses-c .*ses-a, ses-b'),
        ({'participant_labels': ['02'], 'session_labels': ['a']}, r'ses-a of sub-02'),
        ({'filters': {'t1w': {'run': '9'}, 'bold': {'run': '9'}}}, 'select no T1w or BOLD'),
    ],
)
def test_nothing_selected(tree, selection, message):
    with pytest.raises(NothingSelectedError, match=message) as caught:
        find_scans(tree, **selection)
    assert caught.value.exit_code == 18


def test_filters(tree, tmp_path):
    none = {'bold': {'suffix': 'nothing'}}
    cases = [
        ({'t1w': {'acquisition': None}}, 4),
        ({'T1w': {'acquisition': '*'}}, 1),
        ({'t1w': {'acquisition': ['hi', None]}}, 5),
        ({'t1w': {'acquisition': 'hi'}}, 1),
        ({'t1w': {'session': ['a']}}, 2),
        ({'t1w': {'run': '02'}}, 1),
        ({'t1w': {'part': 'phase'}}, 1),
    ]
    for content, count in cases:
        path = tmp_path / 'filter.json'
        path.write_text(json.dumps(content | none))
        scans = find_scans(tree, filters=read_filters(path))
        assert len(scans) == count, content
    # a filter and a label both apply
    scans = find_scans(tree, session_labels=['b'], filters={'t1w': {'acquisition': None}} | none)
    assert _stems(scans) == ['sub-01_ses-b_T1w']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"flair": {}}', 'unknown query flair.*t1w or bold'),
        ('["t1w"]', 'expected a JSON object'),
        ('{"t1w": "x"}', 'must be an object'),
        ('{"t1w"', 'not valid JSON'),
    ],
)
def test_bad_filter_files(tmp_path, text, message):
    path = tmp_path / 'filter.json'
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        read_filters(path)
    with pytest.raises(OptionError, match='No such file'):
        read_filters(tmp_path / 'absent.json')


def test_filter_files_of_other_programs_are_understood(tree, tmp_path, caplog):
    path = tmp_path / 'filter.json'
    names = ('fmap', 'sbref', 'flair', 't2w', 'roi')
    content = {name: {'datatype': 'x'} for name in names} | {
        't1w': {'datatype': 'anat', 'suffix': 'T1w', 'acq': 'hi', 'ce': None},
        'bold': {'datatype': 'func', 'suffix': 'bold', 'task': 'none'},
    }
    path.write_text(json.dumps(content))
    filters = read_filters(path)
    assert 'fmap, sbref, flair, t2w, roi are passed over' in caplog.text
    assert filters['t1w']['ceagent'] == [None]
    assert _stems(find_scans(tree, filters=filters)) == ['sub-01_ses-a_acq-hi_run-1_T1w']


def test_unknown_entity_in_filter(tree):
    with pytest.raises(OptionError, match='colour'):
        find_scans(tree, filters={'t1w': {'colour': 'red'}})


def test_dangling_links_and_empty_files_are_listed_as_unusable(tree):
    link = tree / 'sub-02/anat/sub-02_run-1_T1w.nii.gz'
    link.symlink_to('../../.git/annex/objects/nowhere')
    side = tree / 'sub-02/anat/sub-02_run-1_T1w.json'
    side.symlink_to('../../.git/annex/objects/nowhere.json')
    (tree / 'sub-02/anat/sub-02_run-2_T1w.nii.gz').touch()
    problems = {scan.run: scan.problem for scan in find_scans(tree, participant_labels=['02'])}
    assert 'datalad get' in problems['1']
    assert '0 bytes' in problems['2']
    assert problems['02'] is None


def test_foreign_names_are_passed_over_with_a_word(tree, caplog):
    _touch(
        tree,
        'sub-02/anat/sub-02_desc-preproc_T1w.nii.gz',
        'sub-02/anat/sub-03_T1w.nii.gz',
        'sub-02/anat/copy_of_sub-02_T1w.nii.gz',
        'sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz',
    )
    with caplog.at_level(logging.WARNING):
        scans = find_scans(tree)
    assert len(scans) == 8
    assert [scan.path.name for scan in scans if scan.session == 'b'] == ['sub-01_ses-b_T1w.nii.gz']
    told = [r.message for r in caplog.records if 'passed over' in r.message]
    assert len(told) == 4  # and one for the phase image


ODD_NAMES = [
    ('sub-02_acq-mid-2pt0_T1w.nii.gz', "'mid-2pt0' of acq-", 'sub-02_acq-mid2pt0_T1w.nii.gz'),
    ('sub-02_acq-0.8mm_T1w.nii.gz', "'0.8mm' of acq-", 'sub-02_acq-0p8mm_T1w.nii.gz'),
    ('sub-02_loc-spine_T1w.nii', 'loc- is no entity', 'sub-02_acq-locspine_T1w.nii'),
    ('sub-02_ACQ-x_T1w.nii.gz', 'ACQ- is not in small', 'sub-02_acq-x_T1w.nii.gz'),
    ('sub-02_T1w.NII.GZ', 'extension .NII.GZ', 'sub-02_T1w.nii.gz'),
    ('sub-02_run-3_T1.nii.gz', 'suffix T1 is not', 'sub-02_run-3_T1w.nii.gz'),
    ('sub-02_t1w.nii.gz', 'suffix t1w is not', 'sub-02_T1w.nii.gz'),
    ('sub-02_suffix_T1w.nii.gz', "'suffix' is not made", 'sub-02_acq-suffix_T1w.nii.gz'),
    ('sub-02_acq-_T1w.nii.gz', "'acq-' is not made", 'sub-02_acq-acq_T1w.nii.gz'),
    ('sub-02_acq-é_T1w.nii.gz', "'acq-é' is not made", 'sub-02_acq-acq_T1w.nii.gz'),
    ('sub-02_acq-a_acq-b_T1w.nii.gz', 'acq- stands in it twice', 'sub-02_acq-b_T1w.nii.gz'),
    ('T1w.nii.gz', 'not a BIDS name', None),
]


@pytest.mark.parametrize(('name', 'reason', 'better'), ODD_NAMES)
def test_one_odd_name_costs_only_itself_and_a_good_one_is_told(tree, caplog, name, reason, better):
    before = _stems(find_scans(tree))
    _touch(tree, f'sub-02/anat/{name}')
    caplog.clear()
    assert _stems(find_scans(tree)) == before
    (told,) = [r.message for r in caplog.records if f'anat/{name} is passed over' in r.message]
    assert reason in told
    if better is not None:
        assert f'rename it to {better}.' in told
        assert name_problem(f'sub-02/anat/{better}') is None


def test_odd_folders_and_tasks_cost_only_themselves(tree, caplog):
    before = _stems(find_scans(tree))
    _touch(
        tree,
        'sub-A-02/anat/sub-A-02_T1w.nii.gz',
        'sub-02/func/sub-02_task-rest-eyes_bold.nii.gz',
        'sub-02/sub-02_run-8_T1w.nii.gz',
        'sub-02/func/sub-02_run-9_T1w.nii.gz',
    )
    assert _stems(find_scans(tree)) == before
    told = caplog.text
    assert 'rename it to sub-A02_T1w.nii.gz, in a folder sub-A02' in told
    assert 'rename it to sub-02_task-resteyes_bold.nii.gz' in told
    assert told.count('it belongs into sub-02/anat') == 2


def test_every_name_that_is_taken_can_be_written(tree):
    _touch(tree, *(f'sub-02/anat/{better}' for *_, better in ODD_NAMES if better))
    for scan in find_scans(tree):
        derivative_path({**scan.entities, 'suffix': 'brainage'}, scan.datatype)


def test_many_odd_names_are_counted(tree, caplog):
    _touch(tree, *(f'sub-02/anat/sub-02_acq-x.{n}_T1w.nii.gz' for n in range(MOST_NAMES + 7)))
    find_scans(tree)
    assert '7 more images are passed over for their names' in caplog.text


@pytest.mark.parametrize(
    ('chunk', 'what', 'entity'),
    [
        ('ce-gad', 'with contrast agent', 'ceagent'),
        ('inv-1', 'one inversion time', 'inv'),
        ('flip-1', 'one flip angle', 'flip'),
        ('mt-on', 'magnetisation transfer', 'mt'),
        ('part-imag', 'phase, not magnitude', 'part'),
    ],
)
def test_images_of_another_kind_are_taken_only_when_asked_for(tree, caplog, chunk, what, entity):
    _touch(tree, f'sub-010/anat/sub-010_{chunk}_T1w.nii.gz')
    assert f'sub-010_{chunk}_T1w' not in _stems(find_scans(tree))
    (told,) = [r.message for r in caplog.records if what in r.message]
    assert f'sub-010_{chunk}_T1w.nii.gz' in told
    assert f'{{"t1w": {{"{entity}": "*"}}}}' in told
    asked = find_scans(tree, filters={'t1w': {entity: chunk[-1:] if entity == 'inv' else '*'}})
    (scan,) = [scan for scan in asked if scan.subject == '010']
    derivative_path({**scan.entities, 'suffix': 'brainage'}, scan.datatype)


def test_mp2rage_is_used_where_it_is_the_only_anatomy_or_asked_for(tree, caplog):
    _touch(tree, 'sub-03/anat/sub-03_UNIT1.nii.gz', 'sub-010/anat/sub-010_acq-mp_UNIT1.nii.gz')
    (scan,) = [scan for scan in find_scans(tree) if scan.subject == '03']
    assert (scan.stem, scan.suffix, scan.path.name) == ('sub-03', 'T1w', 'sub-03_UNIT1.nii.gz')
    assert 'as there is no T1w image: sub-03/anat/sub-03_UNIT1.nii.gz' in caplog.text
    assert 'sub-010_acq-mp' not in _stems(find_scans(tree))
    asked = find_scans(tree, filters={'t1w': {'suffix': 'UNIT1'}})
    assert [s.path.name for s in asked if s.suffix == 'T1w'] == [
        'sub-010_acq-mp_UNIT1.nii.gz', 'sub-03_UNIT1.nii.gz',
    ]  # fmt: skip


def test_mp2rage_beside_a_t1w_image_of_the_same_name_is_left(tree):
    _touch(tree, 'sub-010/anat/sub-010_UNIT1.nii.gz')
    both = find_scans(tree, filters={'t1w': {'suffix': ['T1w', 'UNIT1'], 'subject': '010'}})
    assert [s.path.name for s in both if s.suffix == 'T1w'] == ['sub-010_T1w.nii.gz']


def test_everyone_is_accounted_for(tree, caplog):
    _touch(
        tree,
        'sub-03/anat/sub-03_T2w.nii.gz',
        'sub-03/anat/sub-03_FLAIR.nii.gz',
        'sub-04/dwi/sub-04_dwi.nii.gz',
        'sub-05/anat/sub-05_T1w.NII.GZ',
        'sub-06/anat/sub-06_suffix_T1.nii.gz',
        'sub-07/func/sub-07_task-rest_bold.nii.gz',
    )
    (tree / 'sub-08').mkdir()
    find_scans(tree)
    (told,) = [r.message for r in caplog.records if 'have no T1w image' in r.message]
    assert told.splitlines() == [
        '6 of the participants have no T1w image to use:',
        '  sub-03: found 1 FLAIR, 1 T2w',
        '  sub-04: no image in anat or func',
        '  sub-05: found 1 T1w, passed over or not selected',
        '  sub-06: found 1 T1, passed over or not selected',
        '  sub-07: found 1 bold',
        '  sub-08: no image in anat or func',
    ]


def test_folder_links_are_followed_and_loops_are_not(tree, tmp_path, caplog):
    store = tmp_path / 'store'
    plain = _stems(find_scans(tree))
    (tree / 'sub-02').rename(store)
    (tree / 'sub-02').symlink_to(store)  # a person, as in a superdataset
    (tree / 'sub-010/anat').rename(tmp_path / 'anat')
    (tree / 'sub-010/anat').symlink_to('../../anat')  # one folder, as on scratch
    (store / 'func').rename(tmp_path / 'func')
    (store / 'func').symlink_to(tmp_path / 'func')  # a link below a link
    assert _stems(find_scans(tree)) == plain
    (tree / 'sub-02/anat/loop').symlink_to(tree / 'sub-02')
    for name in ('here', 'there'):  # each of the two contains the other: 2^40 paths
        (tree / 'sub-02/anat' / name).symlink_to('.')
        (tree / f'sub-02/anat/sub-02_acq-{name}_T1w.nii').symlink_to('..')
    (tree / 'sub-010/ses-z').symlink_to('..')
    (tree / 'sub-09').symlink_to(tree / 'sub-09')
    assert _stems(find_scans(tree)) == plain
    assert caplog.text.count('_T1w.nii is passed over: a folder, not an image.') == 2
    linked = tmp_path / 'link'
    linked.symlink_to(tree)
    assert _stems(find_scans(linked)) == plain


def test_what_must_not_be_read_costs_only_itself(tree):
    """In a process without root's right to read everything."""
    closed = [tree / 'sub-010/anat', tree / 'sub-01/ses-b']
    secret = tree / 'sub-02/anat/sub-02_part-mag_T1w.nii.gz'
    for path in (*closed, secret):
        path.chmod(0)
    code = (
        'import logging, sys; from bids_brainage.dataset import find_scans\n'
        'logging.basicConfig(level=logging.WARNING)\n'
        'for s in find_scans(sys.argv[1]): print(s.stem, s.suffix, s.problem, sep="|")\n'
    )
    done = subprocess.run(
        [*unprivileged(), sys.executable, '-c', code, tree], capture_output=True, text=True
    )
    for path in (*closed, secret):
        path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    rows = [line.split('|') for line in done.stdout.splitlines()]
    assert {row[0] for row in rows if row[1] == 'T1w'} == {
        'sub-01_ses-a_acq-hi_run-1', 'sub-01_ses-a_run-2', 'sub-02_part-mag',
    }  # fmt: skip
    problems = {row[0]: row[2] for row in rows}
    assert 'cannot be read (Permission denied)' in problems['sub-02_part-mag']
    assert 'chmod' in problems['sub-02_part-mag']
    assert 'sub-010: no permission to read sub-010/anat' in done.stderr
    assert 'sub-01/ses-b must not be read' in done.stderr


def test_metadata_inheritance(tree):
    home = tree / 'sub-01/ses-a/anat'
    (tree / 'T1w.json').write_text('{"A": 1, "B": 1, "C": 1}')
    (tree / 'acq-lo_T1w.json').write_text('{"A": "other acquisition"}')
    (tree / 'task-rest_bold.json').write_text('{"RepetitionTime": 2.0}')
    (tree / 'sub-01/sub-01_T1w.json').write_text('{"B": 2}')
    (home / 'sub-01_ses-a_acq-hi_run-1_T1w.json').write_text('{"C": 3}')
    (home / 'sub-01_ses-a_run-2_T1w.json').write_text('not json')
    by_stem = {scan.stem: scan.metadata for scan in find_scans(tree, participant_labels=['01'])}
    assert by_stem['sub-01_ses-a_acq-hi_run-1'] == {'A': 1, 'B': 2, 'C': 3}
    assert by_stem['sub-01_ses-a_run-2'] == {'A': 1, 'B': 2, 'C': 1}
    assert by_stem['sub-01_ses-a_task-rest'] == {'RepetitionTime': 2.0}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'missing or unreadable'),
        ('{', 'not valid JSON'),
        ('[]', 'JSON object'),
        ('{"Name": "x"}', 'lacks BIDSVersion'),
        ('{"Name": "x", "BIDSVersion": "1", "DatasetType": "derivative"}', 'derivative dataset'),
    ],
)
def test_invalid_dataset(tree, content, message):
    path = tree / 'dataset_description.json'
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InvalidDatasetError, match=message) as caught:
        find_scans(tree)
    assert caught.value.exit_code == 16
    assert len(find_scans(tree, validate=False)) == 8


def test_no_images_and_no_folder(tree, tmp_path):
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(MissingInputError, match='no T1w or BOLD'):
        find_scans(empty, validate=False)
    with pytest.raises(InvalidDatasetError, match='not a folder'):
        find_scans(tmp_path / 'absent')


def test_database_is_made_reused_and_checked(tree, tmp_path):
    database = tmp_path / 'cache' / 'db'
    plain = find_scans(tree, participant_labels=['02'])
    assert find_scans(tree, participant_labels=['02'], database_dir=database) == plain
    files = {path.name: path.stat().st_mtime_ns for path in database.iterdir()}
    assert 'layout_index.sqlite' in files
    assert find_scans(tree, database_dir=database) == find_scans(tree)  # whole dataset is in it
    assert files == {path.name: path.stat().st_mtime_ns for path in database.iterdir()}
    assert [path.name for path in database.parent.iterdir()] == ['db']
    other = tmp_path / 'other'
    _touch(other, 'sub-1/anat/sub-1_T1w.nii.gz')
    with pytest.raises(OptionError, match='is of'):
        find_scans(other, validate=False, database_dir=database)


def test_one_participant_of_a_thousand(tmp_path):
    (tmp_path / 'dataset_description.json').write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')
    rows = ['participant_id\tage\tsex']
    for number in range(1000):
        label = f'sub-{number:04d}'
        for session in ('ses-1', 'ses-2'):
            folder = tmp_path / label / session / 'anat'
            folder.mkdir(parents=True)
            (folder / f'{label}_{session}_T1w.nii.gz').touch()
            (folder / f'{label}_{session}_T1w.json').touch()
        rows.append(f'{label}\t{20 + number % 60}\tF')
    (tmp_path / 'participants.tsv').write_text('\n'.join(rows))
    find_scans(tmp_path, participant_labels=['0001'])  # imports do not count
    start = time.process_time()
    scans = find_scans(tmp_path, participant_labels=['0500'])
    assert time.process_time() - start < LIMIT_SECONDS
    assert [scan.age.years for scan in scans] == [40.0, 40.0]


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    if not SHARED_TREES.is_dir():
        pytest.skip('the published example trees are not beside the project')
    folder = tmp_path_factory.mktemp('trees')
    for name in ('ds114', 'ds001', 'ds000001-fmriprep', 'synthetic'):
        with tarfile.open(SHARED_TREES / f'{name}.tar.gz') as archive:
            archive.extractall(folder, filter='data')
    return folder


@pytest.mark.shared
@pytest.mark.parametrize(
    ('name', 'n_t1w', 'n_bold', 'with_age'), [('ds114', 20, 100, 0), ('ds001', 16, 48, 64)]
)
def test_published_trees(published, name, n_t1w, n_bold, with_age):
    scans = find_scans(published / name)
    assert sum(scan.suffix == 'T1w' for scan in scans) == n_t1w
    assert sum(scan.suffix == 'bold' for scan in scans) == n_bold
    assert sum(scan.age.years is not None for scan in scans) == with_age
    assert len({scan.relative for scan in scans}) == len(scans)
    assert sum(1 for _ in (published / name).glob('**/*_T1w.nii.gz')) == n_t1w


@pytest.mark.shared
def test_published_synthetic_and_derivatives(published):
    scans = find_scans(published / 'synthetic', session_labels=['01'])
    assert {scan.session for scan in scans} == {'01'}
    assert {scan.subject for scan in scans if scan.suffix == 'T1w'} == {
        f'0{n}' for n in range(1, 6)
    }
    assert all(scan.sex in ('M', 'F') and scan.age.years for scan in scans)
    with pytest.raises(InvalidDatasetError, match='derivative dataset'):
        find_scans(published / 'ds000001-fmriprep')
