"""Which visits of which people have tables, with their ages."""

import pytest
from stats_tree import usual_cortex, write_fastsurfer, write_subject

from bids_brainage.dataset.measured import entities_of, find_measured
from bids_brainage.errors import UnusableImageError


@pytest.fixture
def bids(tmp_path):
    folder = tmp_path / 'bids'
    folder.mkdir()
    (folder / 'participants.tsv').write_text(
        'participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t40\tM\nsub-bert\t50\tM\n'
    )
    return folder


@pytest.fixture
def freesurfer(tmp_path):
    return tmp_path / 'freesurfer'


def found(bids, freesurfer, **options):
    return find_measured(bids, {'freesurfer-7': str(freesurfer)}, **options)


def test_people_sessions_and_other_names(bids, freesurfer, caplog):
    for name in ('sub-01', 'sub-02_ses-a_run-1', 'bert', 'fsaverage', 'no good'):
        write_subject(freesurfer, name)
    write_subject(freesurfer / 'sub-03', 'ses-b')
    scans = {scan.stem: scan for scan in found(bids, freesurfer)}
    assert set(scans) == {
        'sub-01_rec-freesurfer', 'sub-02_ses-a_rec-freesurfer_run-1', 'sub-bert_rec-freesurfer',
        'sub-03_ses-b_rec-freesurfer',
    }  # fmt: skip
    one = scans['sub-02_ses-a_rec-freesurfer_run-1']
    assert (one.age.years, one.sex, one.run, one.suffix) == (40.0, 'M', '1', 'table')
    assert one.uri == 'bids:freesurfer-7:sub-02_ses-a_run-1/stats/aseg.stats'
    assert scans['sub-bert_rec-freesurfer'].age.years == 50.0
    assert scans['sub-03_ses-b_rec-freesurfer'].age.years is None
    assert 'no good' in caplog.text and 'fsaverage' not in caplog.text


def test_labels_select(bids, freesurfer, caplog):
    for name in ('sub-01_ses-a', 'sub-01_ses-b', 'sub-02_ses-a'):
        write_subject(freesurfer, name)
    chosen = found(bids, freesurfer, participants=['01'], sessions=['b'])
    assert [scan.stem for scan in chosen] == ['sub-01_ses-b_rec-freesurfer']
    assert found(bids, freesurfer, participants=['07']) == []
    assert 'no table to use among 3 visits' in caplog.text


def test_longitudinal_tables_of_all_visits_replace_the_others(bids, freesurfer):
    write_subject(freesurfer, 'sub-01')
    (freesurfer / 'sub-01' / 'base-tps').write_text('')
    for visit in ('sub-01_ses-a', 'sub-01_ses-b'):
        write_subject(freesurfer, visit)
        write_subject(freesurfer, f'{visit}.long.sub-01')
    scans = found(bids, freesurfer)
    assert [scan.stem for scan in scans] == [
        'sub-01_ses-a_rec-freesurferlong', 'sub-01_ses-b_rec-freesurferlong',
    ]  # fmt: skip
    assert all(scan.longitudinal for scan in scans)


def test_two_kinds_are_not_mixed_in_one_person(bids, freesurfer, caplog):
    for visit in ('sub-01_ses-a', 'sub-01_ses-b', 'sub-01_ses-a.long.base'):
        write_subject(freesurfer, visit)
    assert not any(scan.longitudinal for scan in found(bids, freesurfer))
    assert 'not every visit' in caplog.text


def test_files_that_a_visit_is_made_from(bids, freesurfer):
    folder = write_subject(freesurfer, 'sub-01', sides={'rh': usual_cortex()})
    (folder / 'mri').mkdir()
    (folder / 'mri' / 'aparc+aseg.mgz').write_bytes(b'x')
    (scan,) = found(bids, freesurfer)
    names = ['aseg.stats', 'rh.aparc.stats', 'aparc+aseg.mgz']
    assert [path.name for path in scan.files] == names
    measures = scan.measures()
    assert 'rh-insula-thickness' in measures and 'lh-insula-thickness' not in measures
    assert scan.problem is None
    (folder / 'stats' / 'rh.aparc.stats').unlink()
    assert 'content that is not here' in scan.problem


def test_cortex_alone_is_not_enough(bids, freesurfer):
    folder = write_subject(freesurfer, 'sub-01')
    (folder / 'stats' / 'aseg.stats').unlink()
    (scan,) = found(bids, freesurfer)
    with pytest.raises(UnusableImageError, match='there is no aseg'):
        scan.measures()


@pytest.mark.parametrize('surfaces', [True, False])
def test_fastsurfer(bids, tmp_path, surfaces):
    write_fastsurfer(tmp_path / 'fast', 'sub-01', surfaces=surfaces)
    (scan,) = find_measured(bids, {'fastsurfer': str(tmp_path / 'fast')})
    assert (scan.program, scan.stem) == ('fastsurfer', 'sub-01_rec-fastsurfer')
    measures = scan.measures()
    assert measures['Left-Hippocampus'] == 4200.0
    assert ('lh-insula-thickness' in measures) is surfaces


def test_rows_of_a_table_of_many(bids, tmp_path, caplog):
    table = tmp_path / 'dlmuse.csv'
    table.write_text('MRID,4,48\nsub-01_T1w.nii.gz,800,4000\nsub-02_ses-1_T1w,900,3900\nP 1,1,2\n')
    scans = find_measured(bids, {'dlmuse': str(table)})
    assert [(s.stem, s.age.years, s.measures()['MUSE-48']) for s in scans] == [
        ('sub-01_rec-dlmuse', 30.0, 4000.0), ('sub-02_ses-1_rec-dlmuse', 40.0, 3900.0),
    ]  # fmt: skip
    assert scans[0].uri == 'bids:dlmuse:dlmuse.csv#sub-01_T1w.nii.gz'
    assert 'P 1' in caplog.text


def test_other_derivatives_have_no_tables(bids, tmp_path):
    assert find_measured(bids, {'fmriprep': str(tmp_path)}) == []


@pytest.mark.parametrize('name', ['sub-', 'sub-0 1', 'x_y', 'ses-1', 'sub-01_ses-a.b c'])
def test_names_without_a_label(name):
    assert entities_of(name) in (None, {'sub': '01', 'ses': 'a'})
