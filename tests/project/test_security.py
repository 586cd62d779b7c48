"""What SECURITY.md promises: nothing that is read is run, and markup is shown as text."""

import ast
from pathlib import Path

import pytest

import bids_brainage
from bids_brainage.bundles.bundle import resolve_bundle
from bids_brainage.errors import BundleError
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.reports.index import write_index
from bids_brainage.reports.participant import build_participant_report

SOURCES = sorted(Path(bids_brainage.__file__).parent.rglob('*.py'))
MARKUP = '<script>alert(1)</script>'


def calls(path):
    """Return the calls of a module: dotted name and keyword arguments."""
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_nothing_that_is_read_is_run():
    for path in SOURCES:
        for name, keywords in calls(path):
            where = f'{path}: {name}'
            assert name not in ('eval', 'exec', 'pickle.load', 'pickle.loads', 'yaml.load'), where
            if name == 'torch.load':
                assert keywords['weights_only'] == 'True', where
            assert keywords.get('allow_pickle', 'False') == 'False', where
            assert keywords.get('shell', 'False') == 'False', where
            if name.endswith('Environment'):
                assert keywords.get('autoescape') == 'True' or 'jinja' not in name, where


@pytest.mark.parametrize('name', ['../evil.model', '/tmp/evil.model', 'a/../../evil.model', '..'])
def test_name_of_a_model_cannot_leave_the_model_folder(tmp_path, name):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'evil.model').mkdir()
    (tmp_path / 'evil.model' / 'metadata.json').write_text('{}')
    with pytest.raises(BundleError, match='No model'):
        resolve_bundle(name, [tmp_path / 'models'])


def test_markup_in_tables_and_side_files_is_shown_as_text(tmp_path):
    row = brainage_row(
        participant_id='sub-01', session_id=f'ses-{MARKUP}', run=MARKUP, source='bids:raw:sub-01/'
        'anat/sub-01_T1w.nii.gz', modality='T1w', model='net.x', model_version=MARKUP, sex=MARKUP,
        age=30.0, predicted_age=31.0, qc_flag=MARKUP, status='ok',
    )  # fmt: skip
    facts = {'ModelName': 'net.x', 'Limitations': [MARKUP], 'License': MARKUP, 'Note': MARKUP}
    table = tmp_path / 'sub-01/anat/sub-01_brainage.tsv'
    write_brainage(table, [row], models={'net.x': facts}, metadata={'Sources': [MARKUP]})
    build_participant_report(tmp_path, '01', aggregate_sessions=4)
    page = (tmp_path / 'sub-01.html').read_text('utf-8')
    assert MARKUP not in page
    assert '&lt;script&gt;' in page


def test_markup_in_ids_is_shown_as_text_on_the_page_of_all_scans(tmp_path):
    row = brainage_row(
        participant_id=f'sub-{MARKUP}', session_id=f'ses-{MARKUP}', run=MARKUP, status='ok',
        source=f'bids:raw:sub-01/anat/{MARKUP}_T1w.nii.gz', modality='T1w', model=MARKUP,
        model_version='1', age=30.0, predicted_age=31.0, qc_flag=MARKUP,
    )  # fmt: skip
    write_brainage(tmp_path / 'sub-01/anat/sub-01_brainage.tsv', [row])
    page = write_index(tmp_path).read_text('utf-8')
    assert MARKUP not in page
    assert page.count('&lt;script&gt;') >= 4
