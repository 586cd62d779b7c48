"""T1w images of fMRIPrep: which belongs to which raw one, and which are averages."""

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.prepared import use_prepared
from bids_brainage.dataset.scan import Scan

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def image(path, affine=AFFINE, shape=(4, 5, 6), orientation='RAS'):
    """Write an empty image with its axes stored in an order; all orders say the same grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = nib.Nifti1Image(np.ones(shape, np.uint8), affine)
    axes = nib.orientations.axcodes2ornt(orientation)
    nib.save(stored.as_reoriented(nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt('RAS'), axes)), path)  # fmt: skip


def scan(root, name, suffix='T1w', **grid):
    entities = dict(part.split('-', 1) for part in name.split('_'))
    folder = f'sub-{entities["sub"]}/' + (f'ses-{entities["ses"]}/' if 'ses' in entities else '')
    relative = f'{folder}anat/{name}_{suffix}.nii.gz'
    image(root / 'raw' / relative, **grid)
    return Scan(
        path=root / 'raw' / relative,
        relative=relative,
        subject=entities['sub'],
        session=entities.get('ses'),
        run=entities.get('run'),
        entities=entities,
        suffix='T1w',
        datatype='anat',
    )


def prepare(root, folder, stem, *, listed='', kinds=('preproc_T1w', 'brain_mask'), **grid):
    place = root / 'prep' / folder / 'anat'
    for kind in kinds:
        image(place / f'{stem}_desc-{kind}.nii.gz', **grid)
    if listed:
        (place / f'{stem}_desc-preproc_T1w.json').write_text(f'{{"Sources": [{listed}]}}')


def used(root, *scans):
    """Return the name of the prepared image of each scan, None without one, and the notes."""
    found, notes = use_prepared(scans, 'fmriprep', root / 'prep')
    assert [item.uri for item in found] == [item.uri for item in scans]
    return [item.prepared and item.prepared.t1w.name for item in found], notes


def test_files_and_sources_are_the_raw_image_and_both_prepared(tmp_path):
    prepare(tmp_path, 'sub-1/ses-a', 'sub-1_ses-a')
    (found,), notes = use_prepared([scan(tmp_path, 'sub-1_ses-a')], 'fp', tmp_path / 'prep')
    names = ['sub-1_ses-a_desc-preproc_T1w.nii.gz', 'sub-1_ses-a_desc-brain_mask.nii.gz']
    assert [path.name for path in found.files] == ['sub-1_ses-a_T1w.nii.gz', *names]
    uris = [f'bids:fp:sub-1/ses-a/anat/{name}' for name in names]
    assert found.sources == ('bids:raw:sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz', *uris)
    assert notes == ()


def test_run_numbers_match_and_a_shorter_name_is_an_average(tmp_path):
    raw = scan(tmp_path, 'sub-1_run-1')
    prepare(tmp_path, 'sub-1', 'sub-1')
    (none,), (note,) = used(tmp_path, raw)
    assert none is None and 'average of several images, expected one of sub-1_run-1_T1w' in note
    prepare(tmp_path, 'sub-1', 'sub-1_run-01')
    assert used(tmp_path, raw) == (['sub-1_run-01_desc-preproc_T1w.nii.gz'], ())


def test_session_in_no_name_is_an_average_over_sessions(tmp_path):
    prepare(tmp_path, 'sub-1', 'sub-1')
    found, notes = used(tmp_path, scan(tmp_path, 'sub-1_ses-a'), scan(tmp_path, 'sub-1_ses-b'))
    assert found == [None, None] and len(notes) == 2


def test_side_files_say_which_image_it_was_made_of(tmp_path):
    one, other = scan(tmp_path, 'sub-1_acq-x'), scan(tmp_path, 'sub-1_acq-y')
    x, y = (f'"bids:raw:sub-1/anat/sub-1_acq-{name}_T1w.nii.gz"' for name in 'xy')
    prepare(tmp_path, 'sub-1', 'sub-1', listed=x)
    found, (note,) = used(tmp_path, one, other)
    assert found == ['sub-1_desc-preproc_T1w.nii.gz', None]
    assert 'made of sub-1_acq-y_T1w.nii.gz; found none' in note
    prepare(tmp_path, 'sub-1', 'sub-1', listed=f'{x}, {y}')
    found, (note, _) = used(tmp_path, one, other)
    assert found == [None, None]
    assert '(sub-1_acq-x_T1w.nii.gz, sub-1_acq-y_T1w.nii.gz)' in note


def test_template_space_and_missing_mask_are_not_taken(tmp_path):
    raw = scan(tmp_path, 'sub-1')
    prepare(tmp_path, 'sub-1', 'sub-1_space-MNI152NLin6Asym_res-2')
    (none,), (note,) = used(tmp_path, raw)
    assert none is None and 'found none' in note
    prepare(tmp_path, 'sub-1', 'sub-1', kinds=('preproc_T1w',))
    assert 'no brain mask beside it' in used(tmp_path, raw)[1][0]


def test_another_image_of_the_same_entities_has_nothing(tmp_path):
    prepare(tmp_path, 'sub-1', 'sub-1')
    found, _ = used(tmp_path, scan(tmp_path, 'sub-1'), scan(tmp_path, 'sub-1', suffix='UNIT1'))
    assert found == ['sub-1_desc-preproc_T1w.nii.gz', None]


@pytest.mark.parametrize('orientation', ['RAS', 'LPI', 'PIR'])
def test_grid_must_be_that_of_the_raw_image_in_any_order_of_axes(tmp_path, orientation):
    raw = scan(tmp_path, 'sub-1', orientation=orientation)
    prepare(tmp_path, 'sub-1', 'sub-1')
    assert used(tmp_path, raw) == (['sub-1_desc-preproc_T1w.nii.gz'], ())
    moved = AFFINE.copy()
    moved[0, 3] = 0.5
    prepare(tmp_path, 'sub-1', 'sub-1', affine=moved)
    (none,), (note,) = used(tmp_path, raw)
    assert none is None and 'expected 4 x 5 x 6 voxels with the same affine' in note
    prepare(tmp_path, 'sub-1', 'sub-1', shape=(4, 5, 7), kinds=('brain_mask',))
    prepare(tmp_path, 'sub-1', 'sub-1', kinds=('preproc_T1w',))
    (note,) = used(tmp_path, raw)[1]
    assert 'brain_mask.nii.gz does not lie on the grid' in note and 'found 4 x 5 x 7' in note
