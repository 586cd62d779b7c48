"""Files of the output dataset: atomic, repeatable, and explained."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_brainage.errors import OptionError, OutputError, ReadWriteError, WorkflowError
from bids_brainage.outputs import citation, dataset, files, provenance, tables
from bids_brainage.outputs.status import StatusLog
from bids_brainage.tsv import format_cell, read_tsv


def _tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def _stamps(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (None, 'n/a'),
        (math.nan, 'n/a'),
        (math.inf, 'n/a'),
        (pd.NA, 'n/a'),
        ('', 'n/a'),
        (True, 'true'),
        (np.bool_(False), 'false'),
        (3, '3'),
        (np.int64(3), '3'),
        (0.1 + 0.2, '0.30000000000000004'),
        (np.float64(71.5), '71.5'),
        ('a\tb\nc', 'a b c'),
    ],
)
def test_cells(value, text):
    assert format_cell(value) == text


def test_tables_keep_doubles_and_order(tmp_path):
    values = np.random.default_rng(1).normal(size=50) * 1e3
    frame = pd.DataFrame({'z': values, 'a': [None] * 50, 'ok': True})
    path = tmp_path / 'x' / 'table.tsv'
    assert files.write_tsv(path, frame)
    rows = read_tsv(path)
    assert list(rows[0]) == ['z', 'a', 'ok']
    assert [float(row['z']) for row in rows] == values.tolist()
    assert {row['a'] for row in rows} == {'n/a'}
    assert {row['ok'] for row in rows} == {'true'}
    assert not files.write_tsv(path, frame)
    assert files.write_tsv(path, [{'b': 1}], ['a', 'b'])
    assert path.read_text() == 'a\tb\nn/a\t1\n'


def test_equal_content_is_not_touched_and_nothing_is_left_behind(tmp_path):
    path = tmp_path / 'a.json'
    assert files.write_json(path, {'b': np.float32(1), 'a': (1, math.nan), 'p': tmp_path})
    assert list(json.loads(path.read_text())) == ['b', 'a', 'p']
    assert json.loads(path.read_text())['a'] == [1, None]
    before = _stamps(tmp_path)
    assert not files.write_json(path, {'b': 1.0, 'a': (1, math.nan), 'p': tmp_path})
    assert _stamps(tmp_path) == before
    assert files.write_text(path, 'other')
    assert [item.name for item in tmp_path.iterdir()] == ['a.json']


def test_umask_is_respected(tmp_path):
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / 'a', 'x')
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o640


def test_write_errors_say_where(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(OutputError, match='file') as caught:
        files.write_text(tmp_path / 'file' / 'below', 'x')
    assert caught.value.exit_code == 73

    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(ReadWriteError, match='No space') as caught:
        files.write_text(tmp_path / 'b', 'x')
    assert caught.value.exit_code == 74


def test_damaged_json_is_named(tmp_path):
    assert files.read_json(tmp_path / 'absent.json') == {}
    for text in ('{', '[]'):
        (tmp_path / 'a.json').write_text(text)
        with pytest.raises(ReadWriteError, match=r'a\.json'):
            files.read_json(tmp_path / 'a.json')


def _row(session: str = 'ses-1', model: str = 'sfcn.demo', run: str | None = None, **more):
    name = f'sub-01_{session}' + (f'_run-{run}' if run else '')
    return tables.brainage_row(
        participant_id='sub-01',
        session_id=session,
        run=run,
        source=f'bids:raw:sub-01/{session}/anat/{name}_T1w.nii.gz',
        modality='T1w',
        model=model,
        **{'status': 'ok', **more},
    )


def _table(root: Path, session: str = '1', run: str | None = None) -> Path:
    middle = f'_run-{run}' if run else ''
    return root / f'sub-01/ses-{session}/anat/sub-01_ses-{session}{middle}_brainage.tsv'


def test_schema_is_that_of_the_conventions():
    wanted = (
        'participant_id session_id run source modality model model_version age age_source '
        'age_censored sex predicted_age predicted_age_sd interval_low interval_high '
        'interval_level brain_age_gap predicted_age_corrected in_training_range in_training '
        'qc_flag status'
    )
    assert tables.column_names('brainage') == tuple(wanted.split())
    for table in ('brainage', 'volumes', 'sessions', 'sessions_model'):
        for column, text in tables.data_dictionary(table).items():
            assert text['Description'].endswith('.'), column
            assert text['Derivative'] is True


def test_rows_are_checked_and_gap_is_predicted_minus_age():
    row = _row(age=70.0, predicted_age=66.5)
    assert row['brain_age_gap'] == -3.5
    assert _row(predicted_age=66.5)['brain_age_gap'] is None
    with pytest.raises(WorkflowError, match='colour'):
        _row(colour=1)
    with pytest.raises(WorkflowError, match='model'):
        tables.brainage_row(source='x')


def test_rows_merge_by_source_and_model_in_any_order(tmp_path):
    rows = [_row(model=name, predicted_age=50.0 + place) for place, name in enumerate('cab')]
    facts = {row['model']: {'WeightsSHA256': row['model'] * 4} for row in rows}
    for order, name in ((rows, 'one'), (rows[::-1], 'two')):
        for row in order:
            tables.write_brainage(
                _table(tmp_path / name),
                [row],
                models={row['model']: facts[row['model']]},
                metadata={'Sources': ['bids:raw:x'], 'Device': 'cpu'},
            )
    assert _tree(tmp_path / 'one') == _tree(tmp_path / 'two')
    path = _table(tmp_path / 'one')
    before = _stamps(tmp_path / 'one')
    tables.write_brainage(path, rows, models=facts, metadata={'Device': 'cpu'})
    assert _stamps(tmp_path / 'one') == before
    side = json.loads(path.with_suffix('.json').read_text())
    assert list(side['Models']) == ['a', 'b', 'c']
    assert side['Device'] == 'cpu'
    assert side['Sources'] == ['bids:raw:x']
    assert set(tables.column_names('brainage')) <= set(side)
    tables.write_brainage(path, [_row(model='a', predicted_age=99.0, age_censored=True)])
    found = {row['model']: row for row in tables.read_brainage(path)}
    assert found['a']['predicted_age'] == 99.0
    assert found['a']['age_censored'] is True
    assert found['a']['age'] is None
    assert found['c'] == rows[0]


def _write_one(arguments: tuple[str, str]) -> None:
    root, model = arguments
    tables.write_brainage(_table(Path(root)), [_row(model=model)], models={model: {'v': 1}})


def test_concurrent_writers_lose_no_row(tmp_path):
    names = [f'm{number:02d}' for number in range(12)]
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_write_one, [(str(tmp_path), name) for name in names]))
    path = _table(tmp_path)
    assert [row['model'] for row in tables.read_brainage(path)] == names
    assert sorted(json.loads(path.with_suffix('.json').read_text())['Models']) == names


def test_foreign_table_is_refused(tmp_path):
    path = tmp_path / 'sub-01_brainage.tsv'
    path.write_text('a\tb\n1\t2\n')
    with pytest.raises(ReadWriteError, match='Move it away'):
        tables.read_brainage(path)
    path.write_bytes(b'\xff\xfe')
    with pytest.raises(ReadWriteError, match='Move it away'):
        tables.read_brainage(path)


def test_session_summary(tmp_path):
    for session, run, age, predicted in (
        ('1', '1', 60.0, 62.0),
        ('1', '2', 60.0, 64.0),
        ('2', None, 62.0, 66.0),
    ):
        tables.write_brainage(
            _table(tmp_path, session, run),
            [
                _row(f'ses-{session}', run=run, age=age, predicted_age=predicted),
                _row(f'ses-{session}', 'other.x', run=run, status='failed'),
            ],
        )
    relative = tables.write_sessions_summary(tmp_path, '01')
    assert str(relative) == 'sub-01/sub-01_sessions.tsv'
    first, second = read_tsv(tmp_path / relative)
    assert first == {
        'session_id': 'ses-1',
        'n_images': '2',
        'sfcndemo_predicted_age': '63.0',
        'sfcndemo_within_sd': repr(math.sqrt(2)),
        'sfcndemo_brain_age_gap': '3.0',
        'sfcndemo_change': '0.0',
    }
    assert second['sfcndemo_change'] == '3.0'
    assert second['sfcndemo_within_sd'] == 'n/a'
    dictionary = json.loads((tmp_path / relative).with_suffix('.json').read_text())
    assert list(dictionary) == list(first)
    assert 'sfcn.demo' in dictionary['sfcndemo_change']['Description']
    before = _stamps(tmp_path)
    tables.write_sessions_summary(tmp_path, '01')
    assert _stamps(tmp_path) == before


def test_sessions_are_in_order_of_age_where_known():
    rows = [
        _row('ses-b', age=60.0, predicted_age=50.0),
        _row('ses-a', age=61.0, predicted_age=52.0),
    ]
    summary, _ = tables.sessions_summary(rows)
    assert [line['session_id'] for line in summary] == ['ses-b', 'ses-a']
    assert summary[1]['sfcndemo_change'] == 2.0
    for row in rows:
        row['age'] = None
    assert [line['session_id'] for line in tables.sessions_summary(rows)[0]] == ['ses-a', 'ses-b']


def test_no_sessions_no_summary(tmp_path):
    path = tmp_path / 'sub-01/anat/sub-01_brainage.tsv'
    tables.write_brainage(path, [_row() | {'session_id': None, 'predicted_age': 3.0}])
    assert tables.write_sessions_summary(tmp_path, '01') is None
    assert not list(tmp_path.glob('sub-01/*.tsv'))
    assert len(tables.collect_brainage(tmp_path)) == 1
    assert tables.collect_brainage(tmp_path, '02') == []


def test_status(tmp_path):
    log = StatusLog(tmp_path, 'run')
    log.add('bids:raw:a', 'mask', 'ok', seconds=1.5)
    log.add('bids:raw:b', 'predict', 'failed', model='m.x', message='bad\nimage')
    with pytest.raises(WorkflowError, match='maybe'):
        log.add('bids:raw:b', 'predict', 'maybe')
    assert log.counts() == {'ok': 1, 'failed': 1, 'skipped': 0}
    rows = read_tsv(tmp_path / 'logs/run/status.tsv')
    assert list(rows[0]) == ['source', 'model', 'step', 'status', 'seconds', 'message']
    assert rows[0]['seconds'] == '1.5'
    assert rows[1]['message'] == 'bad image'


def test_provenance(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    known = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert provenance.sha256_file(tmp_path / 'a') == known
    base = provenance.config_hash({'a': 1, 'b': (1, 2)})
    assert base == provenance.config_hash({'b': [1, 2], 'a': 1, 'c': None})
    assert base != provenance.config_hash({'a': 1, 'b': (2, 1)})
    assert re.fullmatch('[0-9a-f]{16}', base)
    run = provenance.new_run_id(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
    assert re.fullmatch(r'20260304-050607_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', run)
    assert run != provenance.new_run_id(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
    versions = provenance.software_versions(['numpy', 'absent-package-of-nobody'])
    assert versions == {'numpy': np.__version__}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / 'raw'
    folder.mkdir()
    description = {
        'Name': 'r',
        'BIDSVersion': '1',
        'DatasetDOI': 'doi:10.18112/x.v1',
        'License': 'CC0',
    }
    (folder / 'dataset_description.json').write_text(json.dumps(description))
    return folder


def test_dataset_description(raw, tmp_path):
    nested = raw / 'derivatives' / 'bids_brainage'
    content = dataset.describe_dataset(
        nested,
        raw,
        'abc',
        derivatives={'fmriprep': raw / 'derivatives' / 'fmriprep'},
        container=dataset.Container('docker', 'bids/brainage:0.1.0'),
    )
    assert content['DatasetType'] == 'derivative'
    assert content['GeneratedBy'][0]['Name'] == 'bids_brainage'
    assert content['GeneratedBy'][0]['ConfigurationHash'] == 'abc'
    assert content['GeneratedBy'][0]['Container'] == {
        'Type': 'docker',
        'Tag': 'bids/brainage:0.1.0',
    }
    assert content['GeneratedBy'][1]['Name'] == 'fmriprep'
    assert content['SourceDatasets'] == [
        {'DOI': 'doi:10.18112/x.v1', 'URL': 'https://doi.org/10.18112/x.v1'}
    ]
    assert content['DatasetLinks']['raw'] == '../..'
    assert content['License'] == 'CC0'
    outside = dataset.describe_dataset(tmp_path / 'out put', raw, 'abc')
    assert outside['DatasetLinks']['raw'] == raw.as_uri()
    assert 'Container' not in outside['GeneratedBy'][0]


@pytest.mark.parametrize('doi', ['', 'n/a', 'doi:', 'https://openneuro.org/x', None, 7])
def test_no_source_dataset_without_a_doi(raw, tmp_path, doi):
    (raw / 'dataset_description.json').write_text(json.dumps({'DatasetDOI': doi}))
    assert 'SourceDatasets' not in dataset.describe_dataset(tmp_path / 'o', raw, 'abc')


def test_root_files_repeat_exactly_and_other_options_are_refused(raw, tmp_path):
    out = tmp_path / 'out'
    for _ in range(2):
        dataset.write_dataset_files(out, raw, 'abc')
        citation.write_citations(out, 'First paragraph.\n\nSecond.')
        before = _stamps(out)
    first = _tree(out)
    dataset.write_dataset_files(out, raw, 'abc')
    citation.write_citations(out, 'First paragraph.\n\nSecond.')
    assert _stamps(out) == before
    assert _tree(out) == first
    assert first['.bidsignore'].decode().split('\n') == [
        *('*.html', 'figures', 'log', 'group_*', '*_xfm.*', '*_brainage.*'),
        *('*_volumes.*', '*_measures.*', '*_saliency.*', '*_timeseries.*'),
        *('*_relmat.*', ''),
    ]
    assert {row['desc_id'] for row in read_tsv(out / 'descriptions.tsv')} >= {
        *('desc-preproc', 'desc-brain', 'desc-modulated', 'desc-gradcam')
    }
    with pytest.raises(OptionError, match='abc') as caught:
        dataset.write_dataset_files(out, raw, 'def')
    assert str(out.parent / 'out-def') in str(caught.value)
    assert caught.value.exit_code == 2
    (out / 'dataset_description.json').write_text('{"GeneratedBy": [{"Name": "fMRIPrep"}]}')
    with pytest.raises(OptionError, match='fMRIPrep'):
        dataset.check_output(out, 'abc')


def test_references_are_those_of_the_steps_that_the_methods_name(tmp_path):
    text = 'The brain was extracted with deepbet.\n\nBrain age was predicted with vgg8.demo.'
    found = citation.write_citations(tmp_path, text).read_text('utf-8')
    entries = citation.citations()
    for name in ('deepbet', 'vgg8', 'nipype', 'bids'):
        assert entries[name]['title'] in found
    for name in ('n4', 'greedy', 'amagenet', 'mni2009'):
        assert entries[name]['title'] not in found
    bib = (tmp_path / 'logs' / 'CITATION.bib').read_text('utf-8')
    assert '{deepbet,' in bib
    assert '{n4,' not in bib


def test_citations(tmp_path):
    entries = citation.citations()
    needed = 'n4 deepbet greedy nibabel nipype pybids templateflow bids bids_apps mni2009 mni2011 '
    needed += 'resnet_crossvit vgg8 densenet169_clinical amagenet'
    assert set(needed.split()) <= set(entries)
    assert all(re.fullmatch(r'10\.\d{4,}/\S+', entry['doi']) for entry in entries.values())
    assert len({entry['doi'] for entry in entries.values()}) == len(entries)
    path = citation.write_citations(tmp_path, 'Images < were & processed.', ['n4', 'bids'])
    bib = path.with_suffix('.bib').read_text()
    assert bib.count('@article{') == 2
    assert bib.count('{') == bib.count('}')
    page = path.with_suffix('.html').read_text()
    assert 'Images &lt; were &amp; processed.' in page
    assert page.count('<li>') == page.count('</li>') == 2
    assert path.read_text().count('https://doi.org/') == 2
    with pytest.raises(WorkflowError, match='nobody'):
        citation.write_citations(tmp_path, keys=['nobody'])
    citation.write_citations(tmp_path)
    assert r'Alzheimer' in path.with_suffix('.bib').read_text()
