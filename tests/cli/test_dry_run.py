"""What ``--dry-run`` says of a dataset, and that it writes nothing."""

import nibabel as nib
import numpy as np
import pytest
from program import run


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Two people with a T1w image each, of which one has no content; BOLD without content."""
    root = tmp_path_factory.mktemp('dry')
    bids = root / 'bids'
    for person in ('01', '02'):
        for folder in ('anat', 'func'):
            (bids / f'sub-{person}' / folder).mkdir(parents=True)
    data = np.random.default_rng(0).uniform(1, 100, (30, 36, 28)).astype('f4')
    image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]))
    nib.save(image, bids / 'sub-01/anat/sub-01_T1w.nii.gz')
    nib.save(image, bids / 'sub-01/anat/sub-01_loc-spine_T1w.nii.gz')
    (bids / 'sub-02/anat/sub-02_T1w.nii.gz').symlink_to('../.git/annex/nowhere')
    (bids / 'sub-01/func/sub-01_task-rest_bold.nii.gz').symlink_to('../.git/annex/nowhere')
    (bids / 'participants.tsv').write_text('participant_id\tage\n1\t30\n2\t40\n')
    (bids / 'dataset_description.json').write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')
    (root / 'empty').mkdir()
    return root


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*'))


def dry(place, *options, **environment):
    before = files(place)
    done = run('bids', 'out', 'participant', '--dry-run', *options, cwd=place, **environment)
    assert files(place) == before
    assert 'Traceback' not in done.stderr
    return done


def test_everything_is_told_and_nothing_is_written(place):
    done = dry(place, '--bids-database-dir', 'db')
    assert done.returncode == 0
    assert 'sub-01/anat/sub-01_T1w.nii.gz  (age unknown)' in done.stdout
    assert 'datalad get' in done.stdout
    assert 'rename it to sub-01_acq-locspine_T1w.nii.gz' in done.stderr
    assert done.stderr.count('writes ids otherwise than the folders') == 1
    assert '1 BOLD series are left out' in done.stderr
    assert 'bold.nii.gz' not in done.stdout


def test_functional_images_are_taken_when_asked_for(place):
    assert 'task-rest_bold.nii.gz' in dry(place, '--connectivity').stdout


def test_reports_only_writes_nothing_either(place):
    done = dry(place, '--reports-only')
    assert done.returncode == 0
    assert 'sub-01.html' in done.stdout
    assert 'Nothing was written.' in done.stdout


def test_device_that_is_not_here_is_refused_as_the_run_would(place):
    done = dry(place, '--device', 'cuda', CUDA_VISIBLE_DEVICES='')
    assert done.returncode == 2
    assert '--device cuda: no such GPU can be used here' in done.stderr


def test_terminal_that_knows_fewer_characters(place):
    done = dry(place, PYTHONIOENCODING='ascii', PYTHONUTF8='0')
    assert done.returncode == 0
    assert 'volumes.adults' in done.stdout


def test_folder_that_is_no_dataset_is_told_before_anything_is_written(place):
    before = files(place)
    done = run('empty', 'out', 'participant', cwd=place)
    assert done.returncode == 16
    assert done.stderr.strip().startswith('bids_brainage: ')
    assert 'dataset_description.json is missing or unreadable' in done.stderr
    assert files(place) == before
