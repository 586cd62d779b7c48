"""Whole runs on datasets changed at random: a documented status, no traceback, others unharmed."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from bold_phantom import template
from changed_dataset import FREE, UNTOUCHED, image_change, table_change
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from program import run, unprivileged

from bids_brainage.bundles.untrained import make_untrained_bundle

SHAPE = (64, 80, 32)
PEOPLE = [f'sub-{number:02d}' for number in range(1, 11)]
ROW = f'{UNTOUCHED}/anat/{UNTOUCHED}_brainage.tsv'
MODEL = ('--model-dir', 'models', '--models', 'densenet169_clinical.tiny', '--saliency', 'none')


def write_person(root, person, image):
    (root / person / 'anat').mkdir(parents=True)
    nib.save(image, root / person / 'anat' / f'{person}_T1w.nii')
    (root / person / 'anat' / f'{person}_T1w.json').write_text('{"EchoTime": 0.003}')


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Eleven brains in slices of 4 mm, a model that takes them as they are, and one person's row.

    The brains are alike but for the last bits, so that they have different hashes.
    """
    root = tmp_path_factory.mktemp('changed')
    t1w, _, affine = template()
    thick = t1w[:, :, : t1w.shape[2] // 2 * 2].reshape(*t1w.shape[:2], -1, 2).mean(axis=3)
    for number, person in enumerate((UNTOUCHED, *PEOPLE)):
        data = np.float32(thick * (1 + number / 1000))
        image = nib.Nifti1Image(data, affine @ np.diag([1, 1, 2, 1]))
        write_person(root / 'bids', person, image)
    ages = [f'{person}\t{30 + number}' for number, person in enumerate(PEOPLE)]
    table = '\n'.join(['participant_id\tage', *ages, f'{UNTOUCHED}\t40', ''])
    (root / 'bids/participants.tsv').write_text(table)
    description = '{"Name": "n", "BIDSVersion": "1.10.0"}'
    (root / 'bids/dataset_description.json').write_text(description)
    make_untrained_bundle('densenet169_clinical', 'tiny', root / 'models', shape=SHAPE)
    label = UNTOUCHED.removeprefix('sub-')
    process = run('bids', 'out', 'participant', *MODEL, '--participant-label', label, cwd=root)
    assert process.returncode == 0, process.stderr
    return root, (root / 'out' / ROW).read_bytes()


@st.composite
def changed_people(draw):
    """Change each of ten people one to three times, and the table of the participants once."""
    changes = st.lists(image_change(), min_size=1, max_size=3)
    return [draw(changes) for _ in PEOPLE], draw(table_change())


def others_come_through(study, changes):
    root, row = study
    folder = root / 'changed'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / 'bids', folder / 'bids')
    (folder / 'models').symlink_to(root / 'models')
    for person, theirs in zip(PEOPLE, changes[0], strict=True):
        for change in theirs:
            change(folder / 'bids', person)
    changes[1](folder / 'bids', PEOPLE[0])
    process = run('bids', 'out', 'participant', *MODEL, '-w', 'work', cwd=folder)
    assert process.returncode in (0, 1), process.stderr
    told = process.stdout + process.stderr
    told += ''.join(path.read_text() for path in (folder / 'out/logs').rglob('*.log'))
    assert 'Traceback' not in told
    assert (folder / 'out' / ROW).read_bytes() == row
    assert (folder / f'out/{UNTOUCHED}.html').exists()


ONCE = {**FREE, 'phases': [Phase.generate]}


@settings(max_examples=3, **ONCE)
@given(changes=changed_people())
def test_30_changed_people(study, changes):
    others_come_through(study, changes)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(max_examples=20, **ONCE)
@given(changes=changed_people())
def test_200_changed_people(study, changes):
    others_come_through(study, changes)


def test_image_that_can_no_longer_be_read_keeps_its_result(study, tmp_path):
    root, row = study
    for name in ('bids', 'out', 'models'):
        shutil.copytree(root / name, tmp_path / name)
    closed = tmp_path / f'bids/{UNTOUCHED}/anat/{UNTOUCHED}_T1w.nii'
    closed.chmod(0)
    labels = [UNTOUCHED.removeprefix('sub-'), PEOPLE[0].removeprefix('sub-')]
    arguments = ('bids', 'out', 'participant', *MODEL, '--participant-label', *labels)
    process = run(*arguments, cwd=tmp_path, before=unprivileged())
    closed.chmod(0o644)
    assert process.returncode == 1, process.stderr
    told = process.stdout + process.stderr
    assert 'Traceback' not in told
    assert closed.name in told and 'Permission denied' in told and 'chmod' in told
    assert (tmp_path / 'out' / ROW).read_bytes() == row
    assert (tmp_path / f'out/{PEOPLE[0]}/anat/{PEOPLE[0]}_brainage.tsv').exists()
