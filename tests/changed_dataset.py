"""Changes of a dataset at random: headers, bytes, names and tables of one person."""

from __future__ import annotations

import gzip
import json
import re

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st

UNTOUCHED = 'sub-untouched'
FREE = {'deadline': None, 'database': None, 'derandomize': True,
        'suppress_health_check': list(HealthCheck)}  # fmt: skip
"""Settings of a property test: the same examples each time, as long as it takes."""

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


@st.composite
def header_change(draw):
    """Change one field of a header."""
    name, places, values = draw(st.sampled_from(NIFTI))
    place, value = draw(places), draw(values)

    def change(root, person):
        path = root / person / 'anat' / f'{person}_T1w.nii'
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
        'anat/{}_T1w.nii', 'anat/{}_T1w.json', '{}_scans.tsv', '{}_scans.json',
    ]))  # fmt: skip
    content, place = draw(st.binary(max_size=60)), draw(st.integers(0, 400))
    packed = draw(st.booleans())

    def change(root, person):
        path = root / person / relative.format(person)
        old = path.read_bytes() if path.exists() else b'filename\tage\n'
        new = old[:place] + content
        path.write_bytes(gzip.compress(new) if packed else new)

    return change


@st.composite
def name_change(draw):
    """Add or rename an image, or put a link in its place."""
    chunk = draw(NAMES)
    link = draw(st.sampled_from(['', 'nowhere', '.', '..', '{}_T1w.nii']))
    entity = draw(st.sampled_from(['acq-', 'run-', 'inv-', 'ce-', 'part-', 'X-', '']))
    suffix = draw(st.sampled_from(['T1w.nii', 'UNIT1.nii', 'T1w.nii.gz', 'bold.nii', 'T1w.NII']))

    def change(root, person):
        path = root / person / 'anat' / f'{person}_{entity}{chunk}_{suffix}'
        try:
            if path.exists() or path.is_symlink():
                return
            path.symlink_to(link.format(person)) if link else path.write_bytes(b'x' * 400)
        except OSError:  # no such name on this file system
            return

    return change


@st.composite
def table_change(draw):
    """Change the table of the participants, but not the row of the untouched one."""
    row, column = draw(NAMES), draw(COLUMNS)
    units = draw(st.one_of(st.none(), st.text(max_size=8), st.integers(), st.lists(st.text())))

    def change(root, person):
        lines = [f'participant_id\tage\t{column}', f'{person}\t{row}', f'{UNTOUCHED}\t40\tx']
        (root / 'participants.tsv').write_text('\n'.join(lines), 'utf-8', newline='')
        if units is not None:
            side = {'age': {'Units': 'year'}, column or 'y': {'Units': units}}
            (root / f'{person}/{person}_scans.json').write_text(json.dumps(side))

    return change


def image_change():
    """Change header, bytes or names of the files of a person."""
    return st.one_of(header_change(), bytes_change(), name_change())
