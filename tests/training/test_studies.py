"""Which datasets train together, from the table of cohorts."""

import pytest

from bids_brainage.errors import OptionError
from bids_brainage.training.splits import Item
from bids_brainage.training.studies import COLUMNS, find_studies, study_of

SCAN = Item('bids:raw:sub-01/anat/sub-01_T1w.nii.gz', '01', None, 40.0, cohort='site3')


@pytest.fixture
def folders(tmp_path):
    for name in ('own', 'own-out', 'ixi', 'ixi-out'):
        (tmp_path / name).mkdir()
    return tmp_path


def write(folder, *rows, columns=COLUMNS):
    path = folder / 'cohorts.tsv'
    path.write_text('\n'.join('\t'.join(row) for row in (columns, *rows)) + '\n')
    return path


def studies(folder, *rows, **options):
    return find_studies(write(folder, *rows, **options), folder / 'own', folder / 'own-out')


def test_without_a_table_the_dataset_of_the_command_line_trains_alone(folders):
    (only,) = find_studies(None, folders / 'own', folders / 'own-out')
    assert only.own and only.named(SCAN) == SCAN


def test_people_of_other_datasets_are_told_apart_and_have_the_role_of_their_cohort(folders):
    own, ixi = studies(folders, ('IXI', 'unseen', 'ixi', 'ixi-out'))
    assert own.named(SCAN) == SCAN
    other = ixi.named(SCAN)
    assert other.source == 'bids:IXI:sub-01/anat/sub-01_T1w.nii.gz'
    assert (other.cohort, other.role) == ('IXI', 'unseen')
    assert study_of(other.participant) == ('IXI', '01')


def test_a_row_gives_the_own_dataset_a_name_and_a_role(folders):
    own, ixi = studies(
        folders,
        ('mine', 'retest', str(folders / 'own'), 'own-out'),
        ('IXI', 'train', 'ixi', 'ixi-out'),
    )
    assert own.own and own.named(SCAN).cohort == 'mine' and own.named(SCAN).role == 'retest'
    assert own.named(SCAN).participant == '01'
    assert not ixi.own and ixi.named(SCAN).role == ''


def test_all_that_is_wrong_with_the_table_is_told_at_once(folders):
    with pytest.raises(OptionError) as caught:
        studies(
            folders,
            ('I X', 'train', 'ixi', 'ixi-out'),
            ('two', 'teach', 'nowhere', 'ixi-out'),
            ('own', 'train', 'own', 'ixi-out'),
        )
    text = str(caught.value)
    for words in (
        "found 'I X'",
        "role of two: expected train, unseen, retest, longitudinal, found 'teach'",
        "bids_dir of two: 'nowhere' is not a folder",
        'ixi-out stands in several rows',
        'output_dir of own: expected',
    ):
        assert words in text


@pytest.mark.parametrize('rows', [(), [('IXI', 'train')]])
def test_columns_that_are_not_there_are_named(folders, rows):
    with pytest.raises(OptionError, match=r'found no .*output_dir'):
        studies(folders, *rows, columns=COLUMNS[:2])
