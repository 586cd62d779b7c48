"""Plugins for schedulers, with commands that only look like Slurm's (the real one: test_slurm)."""

import os

import pytest
from nipype.interfaces.utility import Rename
from nipype.pipeline import engine as pe

from bids_brainage.workflows.scheduling import make_cluster_plugin, suit_cluster


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder of commands on the path; jobs that they take vanish at once."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, line in (
        ('sbatch', 'echo Submitted batch job 7'),
        ('squeue', 'echo JOBID PARTITION'),
        ('scancel', f'echo "$@" > {tmp_path}/cancelled'),
    ):
        (folder / name).write_text(f'#!/bin/sh\n{line}\n', 'utf-8')
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.delenv('LOGNAME', raising=False)
    return folder


def test_job_without_a_result_fails_its_node_and_not_the_run(commands, tmp_path):
    (tmp_path / 'a').write_text('a', 'utf-8')
    workflow = pe.Workflow('lost', base_dir=str(tmp_path))
    node = pe.Node(Rename(in_file=str(tmp_path / 'a'), format_string='b'), name='rename')
    workflow.add_nodes([node])
    workflow.config['execution'] = {
        'crashdump_dir': str(tmp_path / 'crash'),
        'crashfile_format': 'txt',
    }
    suit_cluster(workflow)
    workflow.config['execution'] |= {'job_finished_timeout': 0, 'poll_sleep_duration': 0.01}
    with pytest.raises(RuntimeError, match='results file does not exist'):
        workflow.run(plugin=make_cluster_plugin('SLURM', {}, cancel='scancel'))
    (crash,) = (tmp_path / 'crash').glob('crash-*-rename-*.txt')
    assert 'Job id (7) finished or terminated' in crash.read_text('utf-8')


def test_stop_cancels_the_jobs_that_were_not_finished(commands, tmp_path):
    plugin = make_cluster_plugin('SLURM', {}, cancel='scancel')
    plugin.stop()
    assert not (tmp_path / 'cancelled').exists()
    plugin._pending = {7: 'folder', 9: 'folder'}
    plugin.stop()
    assert (tmp_path / 'cancelled').read_text('utf-8') == '7 9\n'


def test_patience_is_meant_for_network_file_systems(monkeypatch):
    monkeypatch.delenv('LOGNAME', raising=False)
    workflow = pe.Workflow('patient')
    workflow.config['execution'] = {'poll_sleep_duration': 0.1}
    suit_cluster(workflow)
    assert workflow.config['execution']['poll_sleep_duration'] >= 1
    assert workflow.config['execution']['job_finished_timeout'] >= 30
    assert os.environ['LOGNAME']
