"""Datasets changed at random: no single file stops a run, and the others are read as before."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bids_brainage.dataset import find_scans
from bids_brainage.errors import BrainAgeError
from bids_brainage.preprocessing.image import load_canonical

DOCUMENTED = {1, 2, 16, 18, 65, 66, 70, 73, 75, 127}
TOUCHED = 'sub-01'
NAMES = st.text(
    st.characters(codec='utf-8', exclude_characters='/\0', exclude_categories=['Cs']), max_size=20
)
MEANT = {'age', 'sex', 'gender', 'participant_id', 'session_id', 'session', 'ses'}
COLUMNS = NAMES.filter(lambda name: not MEANT & {*re.split('[^a-z_]+', name.casefold())})
"""Names of further columns (a tab makes two), which say nothing of the untouched person."""

NIFTI = [
    ('dim', st.integers(0, 9), st.integers(-2, 300)),
    ('pixdim', st.integers(0, 9), st.floats(width=32)),
    ('srow_x', st.integers(0, 3), st.floats(width=32)),
    ('quatern_b', st.just(0), st.floats(width=32)),
    ('scl_slope', st.just(0), st.floats(width=32)),
    ('vox_offset', st.just(0), st.floats(0, 1e6, width=32)),
    ('datatype', st.just(0), st.integers(0, 2048)),
    ('xyzt_units', st.just(0), st.integers(0, 63)),
    ('sform_code', st.just(0), st.integers(-1, 5)),
    ('qform_code', st.just(0), st.integers(-1, 5)),
]


def dataset(root):
    """Write two people: the first will be changed, the second not."""
    data = np.random.default_rng(0).uniform(1, 100, (20, 20, 20)).astype('f4')
    for person in (TOUCHED, 'sub-02'):
        (root / person / 'anat').mkdir(parents=True)
        image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]))
        nib.save(image, root / person / 'anat' / f'{person}_T1w.nii')
        (root / person / 'anat' / f'{person}_T1w.json').write_text('{"EchoTime": 0.003}')
    (root / 'participants.tsv').write_text('participant_id\tage\nsub-01\t30\nsub-02\t40\n')
    (root / 'dataset_description.json').write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')


@st.composite
def header_change(draw):
    """Change one field of a header."""
    name, places, values = draw(st.sampled_from(NIFTI))
    place, value = draw(places), draw(values)

    def change(root):
        path = root / TOUCHED / 'anat' / f'{TOUCHED}_T1w.nii'
        content = bytearray(path.read_bytes())
        kind, start = nib.Nifti1Header.template_dtype.fields[name][:2]
        size = kind.base.itemsize
        at = start + min(place, kind.itemsize // size - 1) * size
        with np.errstate(over='ignore', invalid='ignore'):
            content[at : at + size] = np.array(value).astype(kind.base).tobytes()
        path.write_bytes(content)

    return change


@st.composite
def bytes_change(draw):
    """Cut or overwrite a file of the dataset, or replace it by a compressed one."""
    relative = draw(st.sampled_from([
        f'{TOUCHED}/anat/{TOUCHED}_T1w.nii', f'{TOUCHED}/anat/{TOUCHED}_T1w.json',
        f'{TOUCHED}/{TOUCHED}_scans.tsv', f'{TOUCHED}/{TOUCHED}_scans.json',
    ]))  # fmt: skip
    content, place = draw(st.binary(max_size=60)), draw(st.integers(0, 400))
    packed = draw(st.booleans())

    def change(root):
        path = root / relative
        old = path.read_bytes() if path.exists() else b'filename\tage\n'
        new = old[:place] + content
        path.write_bytes(gzip.compress(new) if packed else new)

    return change


@st.composite
def name_change(draw):
    """Add or rename an image, or put a link in its place."""
    chunk, link = (
        draw(NAMES),
        draw(st.sampled_from(['', 'nowhere', '.', '..', f'{TOUCHED}_T1w.nii'])),
    )
    entity = draw(st.sampled_from(['acq-', 'run-', 'inv-', 'ce-', 'part-', 'X-', '']))
    suffix = draw(st.sampled_from(['T1w.nii', 'UNIT1.nii', 'T1w.nii.gz', 'bold.nii', 'T1w.NII']))

    def change(root):
        path = root / TOUCHED / 'anat' / f'{TOUCHED}_{entity}{chunk}_{suffix}'
        try:
            if path.exists() or path.is_symlink():
                return
            path.symlink_to(link) if link else path.write_bytes(b'x' * 400)
        except OSError:  # no such name on this file system
            return

    return change


@st.composite
def table_change(draw):
    """Change the table of the participants, but not the row of the untouched one."""
    row, column = draw(NAMES), draw(COLUMNS)
    units = draw(st.one_of(st.none(), st.text(max_size=8), st.integers(), st.lists(st.text())))

    def change(root):
        lines = [f'participant_id\tage\t{column}', f'{TOUCHED}\t{row}', 'sub-02\t40\tx']
        (root / 'participants.tsv').write_text('\n'.join(lines), 'utf-8', newline='')
        if units is not None:
            side = {'age': {'Units': 'year'}, column or 'y': {'Units': units}}
            (root / f'{TOUCHED}/{TOUCHED}_scans.json').write_text(json.dumps(side))

    return change


CHANGES = st.lists(
    st.one_of(header_change(), bytes_change(), name_change(), table_change()),
    min_size=1, max_size=4,
)  # fmt: skip


def read(root):
    """Return what a run would see of each image: its record, and the voxels or the refusal."""
    seen = {}
    for scan in find_scans(root):
        outcome = scan.problem
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
        before = read(root)['sub-02/anat/sub-02_T1w.nii']
        for change in changes:
            change(root)
        assert read(root)['sub-02/anat/sub-02_T1w.nii'] == before


FREE = {'deadline': None, 'database': None, 'derandomize': True,
        'suppress_health_check': list(HealthCheck)}  # fmt: skip


@settings(max_examples=30, **FREE)
@given(CHANGES)
def test_30_changed_datasets(changes):
    changed_dataset_is_read_as_before_but_for_what_was_changed(changes)


@pytest.mark.slow
@settings(max_examples=200, **FREE)
@given(CHANGES)
def test_200_changed_datasets(changes):
    changed_dataset_is_read_as_before_but_for_what_was_changed(changes)
