"""A tree with every name of the output dataset passes the BIDS validator without errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from validator import errors_of

from bids_brainage import names as naming
from bids_brainage.outputs import citation, dataset, files, tables
from bids_brainage.outputs.status import StatusLog

S = 'MNI152NLin2009aSym'
GRID = {'space': S, 'res': '1'}
ANAT = [
    (GRID | {'desc': 'preproc', 'suffix': 'T1w'}, {'SkullStripped': True}),
    (GRID | {'desc': 'brain', 'suffix': 'mask'}, {'Type': 'Brain'}),
    (GRID | {'suffix': 'dseg'}, {}),
    (
        {'space': 'T1w', 'res': '2', 'desc': 'regions', 'suffix': 'dseg'},
        {'SpatialReference': 'bids:raw:sub-01/anat/x.nii.gz'},
    ),
    (GRID | {'label': 'GM', 'suffix': 'probseg'}, {}),
    (GRID | {'label': 'GM', 'desc': 'modulated', 'suffix': 'probseg'}, {}),
    (GRID | {'model': 'sfcndemo', 'desc': 'gradcam', 'suffix': 'saliency'}, {}),
    ({'space': 'T1w', 'model': 'sfcndemo', 'desc': 'gradcam', 'suffix': 'saliency'}, {}),
    ({'suffix': 'volumes'}, {'SkullStripped': False}),
    ({'from': 'T1w', 'to': S, 'suffix': 'xfm'}, {}),
    ({'from': S, 'to': 'T1w', 'suffix': 'xfm'}, {}),
]
ATLAS = {'space': S, 'atlas': 'Power2011', 'scale': '264'}
FUNC = [
    (
        {'space': S, 'res': '2', 'desc': 'preproc', 'suffix': 'bold'},
        {'SkullStripped': True, 'RepetitionTime': 2.0, 'TaskName': 'rest'},
    ),
    ({'desc': 'confounds', 'suffix': 'timeseries'}, {}),
    (ATLAS | {'stat': 'mean', 'suffix': 'timeseries'}, {}),
    (ATLAS | {'stat': 'pearsoncorrelation', 'suffix': 'relmat'}, {}),
]


def _add(root: Path, entities: dict[str, str], metadata: dict[str, object]) -> None:
    path = root / naming.derivative_path(entities)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith('.nii.gz'):
        four = entities['suffix'] == 'bold'
        image = nb.Nifti1Image(np.ones((3, 3, 3, 4) if four else (3, 3, 3), 'float32'), np.eye(4))
        image.header.set_xyzt_units('mm', 'sec')
        if four:
            image.header.set_zooms((1, 1, 1, 2))
        image.to_filename(path)
    elif path.suffix == '.tsv':
        files.write_tsv(path, [{'a': 1.0, 'b': 2.0}])
    else:
        path.write_bytes(b'\x89HDF\r\n\x1a\n')
    side = {'Sources': ['bids:raw:sub-01/x.nii.gz'], **metadata}
    if 'res' in entities:
        side['Resolution'] = '1 x 1 x 1 mm'
    files.write_json(path.with_name(path.name.split('.')[0] + '.json'), side)


def _subject(root: Path, subject: str, session: str | None) -> None:
    home = {'sub': subject} | ({'ses': session} if session else {})
    anat = home | {'acq': 'mprage', 'rec': 'norm', 'run': '1'}
    func = home | {'task': 'rest', 'dir': 'AP', 'run': '1'}
    for entities, metadata in ANAT:
        _add(root, anat | entities, metadata)
    for entities, metadata in FUNC:
        _add(root, func | entities, metadata)
    for source in (anat, func):
        row = tables.brainage_row(
            participant_id=f'sub-{subject}',
            session_id=f'ses-{session}' if session else None,
            source=f'bids:raw:{subject}-{session}-{len(source)}',
            model='sfcn.demo',
            predicted_age=50.25,
            age=51.0,
            status='ok',
        )
        path = root / naming.derivative_path(source | {'suffix': 'brainage'})
        tables.write_brainage(path, [row], models={'sfcn.demo': {'Version': '1'}})
    for entities in (anat | {'suffix': 'T1w'}, func | {'suffix': 'bold'}):
        figure = naming.derivative_path(entities | {'desc': 'mask', 'extension': 'svg'}, 'figures')
        files.write_text(root / figure, '<svg xmlns="http://www.w3.org/2000/svg"/>')
    log = root / naming.log_dir('20260101-000000_x', subject, session)
    files.write_text(log / 'bids_brainage.toml', '')
    files.write_text(log / 'crash-x.txt', 'x')
    tables.write_sessions_summary(root, subject)
    files.write_text(root / naming.report_path(subject), '<html></html>')
    files.write_text(root / naming.report_path(subject, session), '<html></html>')


@pytest.fixture(scope='module')
def output_tree(tmp_path_factory):
    base = tmp_path_factory.mktemp('valid')
    raw, root = base / 'raw', base / 'out'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "r", "License": "CC0"}')
    dataset.write_dataset_files(root, raw, 'abc')
    citation.write_citations(root)
    StatusLog(root, '20260101-000000_x').write()
    files.write_text(root / 'logs' / 'bids_brainage-20260101-000000_x.log', 'x')
    for subject, session in (('01', 'a'), ('01', 'b'), ('02', None)):
        _subject(root, subject, session)
    for table in ('brainage', 'accuracy', 'longitudinal', 'reliability'):
        files.write_tsv(root / f'group_{table}.tsv', [{'a': 1}])
        files.write_json(root / f'group_{table}.json', {'a': {'Description': 'x'}})
    files.write_text(root / 'group.html', '<html></html>')
    regions = [{'index': 1, 'name': 'one'}]
    files.write_tsv(root / naming.atlas_path('Power2011', scale='264'), regions)
    description = {'Name': 'Power 2011', 'License': 'CC0'}
    files.write_json(root / naming.atlas_path('Power2011', description=True), description)
    return root


def test_no_errors(output_tree):
    assert errors_of(output_tree) == []


def test_validator_notices_without_bidsignore(output_tree, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(output_tree, copy)
    (copy / '.bidsignore').unlink()
    assert {'NOT_INCLUDED'} <= {issue['code'] for issue in errors_of(copy)}
