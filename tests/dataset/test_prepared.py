"""T1w images of fMRIPrep: which belongs to which raw one, and which are averages."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.prepared import use_prepared
from bids_brainage.dataset.scan import Age, Scan


def scan(name, age=40.0):
    entities = dict(part.split('-', 1) for part in name.split('_'))
    folder = f'sub-{entities["sub"]}/' + (f'ses-{entities["ses"]}/' if 'ses' in entities else '')
    file = f'{name}_T1w.nii.gz'
    return Scan(
        path=Path('/raw', folder, 'anat', file),
        relative=f'{folder}anat/{file}',
        subject=entities['sub'],
        session=entities.get('ses'),
        run=entities.get('run'),
        entities=entities,
        suffix='T1w',
        datatype='anat',
        age=Age(age, source='participants.tsv'),
    )


def prepare(root, folder, stem, *, listed='', kinds=('preproc_T1w', 'brain_mask')):
    place = root / folder / 'anat'
    place.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        image = nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4))
        nib.save(image, place / f'{stem}_desc-{kind}.nii.gz')
    if listed:
        (place / f'{stem}_desc-preproc_T1w.json').write_text(f'{{"Sources": [{listed}]}}')


def chosen(root, *scans):
    found, notes = use_prepared(scans, 'fmriprep', root)
    return [(item.uri, item.stem, item.path.name) for item in found], notes


def test_run_numbers_match_and_the_longest_name_wins(tmp_path):
    prepare(tmp_path, 'sub-1', 'sub-1')
    prepare(tmp_path, 'sub-1', 'sub-1_run-01')
    raw = scan('sub-1_run-1')
    found, notes = chosen(tmp_path, raw)
    assert found == [(raw.uri, 'sub-1_run-1', 'sub-1_run-01_desc-preproc_T1w.nii.gz')]
    assert notes == ()


def test_session_in_no_name_is_an_average_over_sessions(tmp_path):
    prepare(tmp_path, 'sub-1', 'sub-1')
    own = 'bids:fmriprep:sub-1/anat/sub-1_desc-preproc_T1w.nii.gz'
    one = scan('sub-1_ses-a', 40.0)
    assert chosen(tmp_path, one)[0] == [(own, 'sub-1', 'sub-1_desc-preproc_T1w.nii.gz')]
    (mean,), _ = use_prepared([one, scan('sub-1_ses-b', 40.5)], 'fmriprep', tmp_path)
    assert (mean.age.years, mean.session, len(mean.averaged)) == (40.25, None, 2)
    assert mean.named.name == 'sub-1_T1w.nii.gz'
    found, notes = chosen(tmp_path, one, scan('sub-1_ses-b', 43.0))
    assert [stem for _, stem, _ in found] == ['sub-1_ses-a', 'sub-1_ses-b']
    assert len(notes) == 1 and 'average over 3.0 years, expected at most 1' in notes[0]


@pytest.mark.parametrize('listed', ['"bids:raw:sub-1/anat/sub-1_acq-x_T1w.nii.gz"', ''])
def test_side_files_say_which_images_it_was_made_from(tmp_path, listed):
    prepare(tmp_path, 'sub-1', 'sub-1', listed=listed)
    found, notes = chosen(tmp_path, scan('sub-1_acq-x'), scan('sub-1_acq-y'))
    if listed:
        assert [stem for _, stem, _ in found] == ['sub-1_acq-x', 'sub-1_acq-y']
        assert 'sub-1_acq-y_T1w.nii.gz; found none' in notes[0]
    else:
        assert [stem for _, stem, _ in found] == ['sub-1']


def test_template_space_and_missing_mask_are_not_taken(tmp_path):
    prepare(tmp_path, 'sub-1', 'sub-1_space-MNI152NLin6Asym_res-2')
    raw = scan('sub-1')
    found, (note,) = chosen(tmp_path, raw)
    assert found == [(raw.uri, 'sub-1', raw.path.name)] and 'found none' in note
    prepare(tmp_path, 'sub-1', 'sub-1', kinds=('preproc_T1w',))
    assert 'no brain mask beside it' in chosen(tmp_path, raw)[1][0]


def test_unknown_ages_stay_unknown(tmp_path):
    prepare(tmp_path, 'sub-1', 'sub-1')
    runs = [replace(scan(f'sub-1_run-{n}'), age=Age()) for n in (1, 2)]
    (mean,), _ = use_prepared(runs, 'fmriprep', tmp_path)
    assert mean.age.years is None and mean.sources[-2:] == tuple(r.uri for r in runs)
