"""Life of the program around a run: environment, log, models, exit status."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs
from bids_brainage.cli import main as program
from bids_brainage.cli.request import parse
from bids_brainage.errors import MissingInputError, OutputError
from bids_brainage.outputs.logs import IMPORTANT, VERBOSE, open_log
from bids_brainage.runs.environment import prepare_environment, template_root

LIST_LIMIT_SECONDS = 1.0  # CPU time, interpreter start included
LIST = """
import sys, time
from bids_brainage.cli.main import main
status = main(['--list-models'])
heavy = {'torch', 'nipype', 'niworkflows', 'nilearn', 'pandas', 'bids'} & set(sys.modules)
print(status, sorted(heavy), time.process_time(), file=sys.stderr)
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bids').mkdir()
    return parse(['bids', 'out', 'participant', '-w', 'work'], {})


@pytest.fixture
def environ(monkeypatch):
    """Undo what is set in the environment."""
    for name in list(os.environ):
        monkeypatch.setenv(name, os.environ[name])
    added = set()
    before = set(os.environ)
    yield os.environ
    added = set(os.environ) - before
    for name in added:
        del os.environ[name]


def test_list_models_is_quick_and_imports_nothing_heavy(tmp_path):
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, 'PYTHONPATH': package, 'XDG_DATA_HOME': str(tmp_path)}
    process = subprocess.run(
        [sys.executable, '-c', LIST], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    status, heavy, seconds = process.stderr.strip().rsplit('\n', 1)[-1].split(' ', 2)
    assert (status, heavy) == ('0', '[]')
    assert float(seconds) < LIST_LIMIT_SECONDS
    lines = process.stdout.splitlines()
    assert lines[0].split()[:3] == ['name', 'status', 'n_train']
    (default,) = [line for line in lines if line.startswith(DEFAULT_MODELS[0])]
    assert default.split()[1:6] == ['default', '184', '19', 'to', '96']
    assert any(line.startswith('resnet_only') and 'trainable only' in line for line in lines)


def test_own_models_come_before_the_packaged_ones(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    own, packaged = model_dirs(None)
    assert own == tmp_path / 'data' / 'bids_brainage' / 'models'
    assert (packaged / DEFAULT_MODELS[0] / 'metadata.json').is_file()
    assert model_dirs(tmp_path) == (tmp_path, packaged)


def test_environment_is_set_for_all_processes(config, environ):
    prepare_environment(config)
    threads = str(config.nipype.omp_nthreads)
    assert environ['OMP_NUM_THREADS'] == environ['MKL_NUM_THREADS'] == threads
    assert environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] == threads
    assert environ['NO_ET']
    settings = Path(environ['NIPYPE_CONFIG_DIR'])
    assert settings.is_relative_to(config.execution.work_dir)
    assert 'workflow_level = CRITICAL' in (settings / 'nipype.cfg').read_text()


@pytest.mark.parametrize('change', [{'dry_run': True}, {'analysis_level': 'group'}])
def test_environment_writes_nothing_when_nothing_is_processed(config, environ, change):
    prepare_environment(replace(config, execution=replace(config.execution, **change)))
    assert not config.execution.work_dir.exists()


def test_work_folder_that_cannot_be_made_is_told(config, environ):
    config.execution.work_dir.write_text('a file is in the way')
    with pytest.raises(OutputError, match=r'work.*--work-dir'):
        prepare_environment(config)


def test_template_home_of_the_user_is_kept(archive, tmp_path, environ):
    environ['TEMPLATEFLOW_HOME'] = str(archive)
    assert template_root(tmp_path / 'work') == archive
    assert not (tmp_path / 'work').exists()
    assert environ['TEMPLATEFLOW_AUTOUPDATE'] == 'off'


def test_template_is_laid_out_where_none_is(tmp_path, environ):
    environ['TEMPLATEFLOW_HOME'] = str(tmp_path / 'empty')
    root = template_root(tmp_path / 'work')
    assert root == tmp_path / 'work' / 'templateflow'
    assert environ['TEMPLATEFLOW_HOME'] == str(root)
    assert len(list(root.glob('tpl-*/*.nii.gz'))) == 6


def test_log_goes_to_the_terminal_and_to_a_file(config, capsys):
    before = list(logging.getLogger('bids_brainage').handlers)
    with open_log(config) as logger:
        logger.log(IMPORTANT, 'scan done')
        logger.info('detail')
        logger.log(VERBOSE, 'chatter')
    shown = capsys.readouterr().err
    assert 'scan done' in shown
    assert 'detail' not in shown
    (file,) = (config.execution.output_dir / 'logs').glob('*.log')
    text = file.read_text()
    assert config.execution.run_id in file.name
    assert 'IMPORTANT: scan done' in text
    assert 'INFO: detail' in text
    assert 'chatter' not in text
    assert logging.getLogger('bids_brainage').handlers == before


def test_dry_run_leaves_no_log(config):
    dry = replace(config, execution=replace(config.execution, dry_run=True))
    with open_log(dry) as logger:
        logger.log(IMPORTANT, 'nothing happens')
    assert not config.execution.output_dir.exists()


def test_output_folder_that_cannot_be_made_is_told(config):
    config.execution.output_dir.write_text('a file is in the way')
    with pytest.raises(OutputError, match='Choose an output folder'), open_log(config):
        pass


@pytest.mark.parametrize(
    ('error', 'status', 'message'),
    [
        (MissingInputError('no T1w here'), 66, 'bids_brainage: no T1w here'),
        (OutputError('disk full'), 73, 'bids_brainage: disk full'),
        (KeyboardInterrupt(), 130, 'finished scans are kept'),
    ],
)
def test_errors_end_with_their_status(config, monkeypatch, capsys, error, status, message):
    def fail(_):
        raise error

    monkeypatch.setattr(program, '_run', fail)
    monkeypatch.setattr(program.signal, 'signal', lambda *_: None)
    assert program.main(['bids', 'out', 'participant']) == status
    assert message in capsys.readouterr().err


def test_programming_errors_are_not_hidden(config, monkeypatch):
    def fail(_):
        raise RuntimeError('a bug')

    monkeypatch.setattr(program, '_run', fail)
    monkeypatch.setattr(program.signal, 'signal', lambda *_: None)
    with pytest.raises(RuntimeError, match='a bug'):
        program.main(['bids', 'out', 'participant'])


def test_models_that_are_named_are_told_in_full(capsys):
    assert program.main(['--list-models', DEFAULT_MODELS[0], 'volumes.lifespan']) == 0
    told = capsys.readouterr().out
    assert [line.split()[1] for line in told.splitlines() if line.startswith('model ')] == [
        f'{DEFAULT_MODELS[0]},',
        'volumes.lifespan,',
    ]
    assert told.count('\nlicence ') == 2


def test_debugging_tells_the_place_in_the_code(config, monkeypatch, capsys):
    def fail(_):
        raise OutputError('disk full')

    monkeypatch.setattr(program, '_run', fail)
    monkeypatch.setattr(program.signal, 'signal', lambda *_: None)
    assert program.main(['bids', 'out', 'participant', '--debug']) == 73
    told = capsys.readouterr().err
    assert 'Traceback' in told
    assert 'bids_brainage: disk full' in told
    assert program.main(['bids', 'out', 'participant']) == 73
    assert 'Traceback' not in capsys.readouterr().err


def test_debugging_writes_all_messages_to_the_file_and_asks_nipype_for_its(config, environ):
    wordy = replace(config, execution=replace(config.execution, debug=True))
    prepare_environment(wordy)
    settings = Path(environ['NIPYPE_CONFIG_DIR']) / 'nipype.cfg'
    assert 'workflow_level = DEBUG' in settings.read_text()
    with open_log(wordy) as logger:
        logger.debug('every detail')
    (file,) = (config.execution.output_dir / 'logs').glob('*.log')
    assert 'DEBUG: every detail' in file.read_text()
