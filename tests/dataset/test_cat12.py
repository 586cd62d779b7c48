"""Which map and rating of CAT12 belongs to which T1w image."""

import pytest

from bids_brainage.dataset.cat12 import quality_percent, use_cat12
from bids_brainage.dataset.scan import Scan

REPORT = '<S><software/><qualityratings><NCR>2.0</NCR><IQR>{}</IQR></qualityratings></S>'


def scan(root, stem):
    entities = dict(part.split('-') for part in stem.split('_'))
    path = write(root / 'raw' / f'{stem}_T1w.nii.gz')
    return Scan(path, path.name, entities['sub'], entities.get('ses'), None, entities, 'T1w',
                'anat')  # fmt: skip


def write(path, text='x'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize('place', ['', 'sub-01/ses-a/anat', 'sub-01'])
def test_map_and_report_are_found_at_any_depth_and_change_what_is_read(tmp_path, place):
    one = scan(tmp_path, 'sub-01_ses-a')
    root = tmp_path / 'cat'
    image = write(root / place / 'mri/mwp1sub-01_ses-a_T1w.nii')
    report = write(root / place / 'report/cat_sub-01_ses-a_T1w.xml', REPORT.format(2.0))
    write(root / place / 'mri/mwp1rsub-01_ses-a_T1w.nii')  # of the longitudinal stream
    write(root / place / 'mri/mwp2sub-01_ses-a_T1w.nii')
    (found,), notes = use_cat12([one], 'cat12', root)
    assert not notes
    assert found.files == (one.path, image, report)
    inside = f'{place}/' if place else ''
    assert found.sources[1:] == (
        f'bids:cat12:{inside}mri/mwp1sub-01_ses-a_T1w.nii',
        f'bids:cat12:{inside}report/cat_sub-01_ses-a_T1w.xml',
    )


def test_what_is_missing_is_said_and_our_own_map_taken(tmp_path):
    root = tmp_path / 'cat'
    scans = [scan(tmp_path, f'sub-0{k}') for k in range(1, 5)]
    write(root / 'mri/mwp1sub-02_T1w.nii', '')
    for folder in 'ab':
        write(root / folder / 'mri/mwp1sub-03_T1w.nii')
    write(root / 'mri/mwp1sub-04_T1w.nii.gz')
    found, notes = use_cat12(scans, 'cat12', root)
    assert [s.grey_matter is not None for s in found] == [False, False, False, True]
    for note, words in zip(
        notes,
        (
            'expected one mri/mwp1sub-01_T1w.nii',
            'empty or a link',
            'found a/mri/mwp1sub-03_T1w.nii, b/mri/mwp1sub-03_T1w.nii; our own map is taken',
            'the rating of the image is unknown',
        ),
        strict=True,
    ):
        assert words in note


@pytest.mark.parametrize(
    ('text', 'percent'),
    [
        (REPORT.format('0.5'), 100.0),
        (REPORT.format('3.0'), 75.0),
        (REPORT.format('10.9'), 0.0),
        (REPORT.format('NaN'), None),
        (REPORT.format(''), None),
        ('<S></S>', None),
        ('<S>', None),
    ],
)
def test_a_mark_becomes_percent(tmp_path, text, percent):
    assert quality_percent(write(tmp_path / 'cat_x.xml', text)) == percent
