"""Datasets changed at random: no single file stops reading, and the others are read as before."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from changed_dataset import FREE, UNTOUCHED, image_change, table_change
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_brainage.dataset import find_scans
from bids_brainage.dataset.header import header_words, is_thick_axial
from bids_brainage.errors import BrainAgeError
from bids_brainage.preprocessing.image import load_canonical

DOCUMENTED = {1, 2, 16, 18, 65, 66, 70, 73, 75, 127}
TOUCHED = 'sub-01'


def dataset(root):
    """Write two people: the first will be changed, the second not."""
    data = np.random.default_rng(0).uniform(1, 100, (20, 20, 20)).astype('f4')
    for person in (TOUCHED, UNTOUCHED):
        (root / person / 'anat').mkdir(parents=True)
        image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]))
        nib.save(image, root / person / 'anat' / f'{person}_T1w.nii')
        (root / person / 'anat' / f'{person}_T1w.json').write_text('{"EchoTime": 0.003}')
    table = f'participant_id\tage\n{TOUCHED}\t30\n{UNTOUCHED}\t40\n'
    (root / 'participants.tsv').write_text(table)
    (root / 'dataset_description.json').write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')


def read(root):
    """Return what a run would see of each image: its record, and the voxels or the refusal."""
    seen = {}
    for scan in find_scans(root):
        outcome = scan.problem
        assert isinstance(is_thick_axial(scan.path), bool)
        header_words(scan.path)
        if outcome is None:
            try:
                data, affine, facts = load_canonical(scan.path)
            except BrainAgeError as error:
                assert error.exit_code in DOCUMENTED
                assert scan.path.name in str(error) and '\n' not in str(error)
                outcome = str(error)
            else:
                assert np.isfinite(data).all() and np.isfinite(affine).all()
                outcome = (data.tobytes(), affine.tobytes(), facts)
        seen[scan.relative] = (scan.age, scan.sex, scan.metadata, outcome)
    return seen


def changed_dataset_is_read_as_before_but_for_what_was_changed(changes):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset(root)
        image = f'{UNTOUCHED}/anat/{UNTOUCHED}_T1w.nii'
        before = read(root)[image]
        for change in changes:
            change(root, TOUCHED)
        assert read(root)[image] == before


CHANGES = st.lists(st.one_of(image_change(), table_change()), min_size=1, max_size=4)


@settings(max_examples=30, **FREE)
@given(CHANGES)
def test_30_changed_datasets(changes):
    changed_dataset_is_read_as_before_but_for_what_was_changed(changes)


@pytest.mark.slow
@settings(max_examples=200, **FREE)
@given(CHANGES)
def test_200_changed_datasets(changes):
    changed_dataset_is_read_as_before_but_for_what_was_changed(changes)
