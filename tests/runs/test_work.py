"""Which folders of the work folder go, and when."""

import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bids_brainage.cli.request import parse
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import TemporaryError
from bids_brainage.runs import work
from bids_brainage.runs.plan import Plan
from bids_brainage.runs.work import Sweeper, remove_half_written, remove_idle
from bids_brainage.workflows.naming import scan_workflow_name

NODES = [
    'sub_01_T1w_wf.anat_wf.check',
    'sub_01_T1w_wf.anat_wf.inputnode',
    'sub_01_T1w_wf.save',
    'sub_02_T1w_wf.anat_wf.check',
    'sub_01_bold_wf.measure',
]


@pytest.fixture
def folders(tmp_path):
    """Folders of three parts, one of them also of another version."""
    for version, part in (
        *(('1', part) for part in ('sub_01_T1w_wf', 'sub_02_T1w_wf', 'sub_01_bold_wf')),
        ('0', 'sub_01_T1w_wf'),
    ):
        (tmp_path / f'bids_brainage_{version}_wf' / part / 'check').mkdir(parents=True)
    return tmp_path


def there(folder):
    return {path.name for path in folder.glob('bids_brainage_*_wf/*')}


def sweeper(folder, names, needed_by=()):
    workflow = SimpleNamespace(list_node_names=lambda: NODES)
    return Sweeper(folder, workflow, names, needed_by)


def test_folder_goes_with_the_last_step_of_its_scan(folders):
    sweep = sweeper(folders, ['sub_01_T1w_wf', 'sub_02_T1w_wf'])
    sweep.ended('whole_wf.sub_01_T1w_wf.anat_wf.check')
    assert there(folders) == {'sub_01_T1w_wf', 'sub_02_T1w_wf', 'sub_01_bold_wf'}
    sweep.ended('whole_wf.sub_01_T1w_wf.save')
    assert there(folders) == {'sub_02_T1w_wf', 'sub_01_bold_wf'}  # of every version


def test_folder_waits_for_the_functional_run_that_reads_it(folders):
    sweep = sweeper(
        folders, ['sub_01_T1w_wf', 'sub_01_bold_wf'], [('sub_01_T1w_wf', 'sub_01_bold_wf')]
    )
    for step in ('anat_wf.check', 'save'):
        sweep.ended(f'whole_wf.sub_01_T1w_wf.{step}')
    assert 'sub_01_T1w_wf' in there(folders)
    sweep.ended('whole_wf.sub_01_bold_wf.measure')
    assert there(folders) == {'sub_02_T1w_wf'}


def test_folder_that_is_needed_later_stays(folders):
    sweep = sweeper(folders, ['sub_02_T1w_wf'])
    for step in ('anat_wf.check', 'save'):
        sweep.ended(f'whole_wf.sub_01_T1w_wf.{step}')
    assert 'sub_01_T1w_wf' in there(folders)


def scan_of(subject):
    relative = f'sub-{subject}/anat/sub-{subject}_T1w.nii.gz'
    path = SimpleNamespace(name=relative.rpartition('/')[2])
    return Scan(path, relative, subject, None, None, {'sub': subject}, 'T1w', 'anat')


def test_leftovers_of_finished_scans_go_and_those_to_do_stay(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / 'bids').mkdir()
    config = parse(['bids', 'out', 'participant', '-w', str(folders)], {})
    done, todo = scan_of('01'), scan_of('02')
    assert scan_workflow_name(done) == 'sub_01_T1w_wf'
    remove_idle(config, Plan((done, todo), (), ((todo, ()),)))
    assert there(folders) == {'sub_02_T1w_wf', 'sub_01_bold_wf'}


def test_leftovers_that_another_run_works_on_stay(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / 'bids').mkdir()
    config = parse(['bids', 'out', 'participant', '-w', str(folders)], {})

    def taken(*_):
        raise TemporaryError('another run works on it')

    monkeypatch.setattr(work, 'claimed', taken)
    remove_idle(config, Plan((scan_of('01'),), (), ()))
    assert 'sub_01_T1w_wf' in there(folders)


KILLED = """
import os, signal, sys
from pathlib import Path
from bids_brainage.outputs.files import write_text
def replace(self, target):
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
write_text(sys.argv[1], 'half')
"""


def test_half_written_files_of_killed_runs_go_and_those_of_others_stay(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / 'bids').mkdir()
    config = parse(['bids', 'out', 'participant', '-w', str(folders)], {})
    anat = folders / 'out' / 'sub-02' / 'anat'
    for path in (folders / 'out' / 'index.html', anat / 'sub-02_brainage.tsv'):
        done = subprocess.run([sys.executable, '-c', KILLED, str(path)], check=False)
        assert done.returncode == -signal.SIGKILL
    assert len(list((folders / 'out').rglob('.*-*-*'))) == 2
    host = socket.gethostname()
    living = anat / f'.sub-02_volumes.tsv.{host}-{os.getpid()}-0123abcd'
    elsewhere = anat / '.sub-02_volumes.tsv.another.host-7-0123abcd'
    old = anat / '.sub-02_volumes.tsv.another.host-8-0123abcd'
    others = [living, elsewhere, anat / '.bidsignore', anat / '.nfs0001']
    for path in (*others, old):
        path.write_text('half')
    os.utime(old, (0, 0))
    remove_half_written(config, Plan((scan_of('02'),), (), ((scan_of('02'), ()),)))
    assert {path for path in (folders / 'out').rglob('.*') if path.is_file()} == set(others)
