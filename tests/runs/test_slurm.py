"""A Slurm of one node: what its jobs write is what this machine's processes write.

Opt-in: ``pytest -m slurm tests/runs/test_slurm.py``, with Debian's slurm-wlm and munge installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import missing_programs, one_node_cluster

ROOT = Path(__file__).parents[2]
ARRAY = ROOT / 'examples' / 'slurm_array.sh'
SECONDS = 1800
PLUGIN = 'plugin: SLURM\nplugin_args: {sbatch_args: --cpus-per-task=1 --requeue}\n'
OPTIONS = ('--sloppy',)  # two simulated people on 3 mm: the steps matter here, not the ages

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing_programs()), reason=f'not installed: {missing_programs()}'),
]


ABOUT = re.compile(rb'<h2>About this run</h2>.*?</section>', re.DOTALL)


def content(folder):
    """File → hash, without the logs and what pages say of the run (times, command)."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            ABOUT.sub(b'', path.read_bytes())
        ).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and not {'log', 'logs', '.work'} & {*path.relative_to(folder).parts}
    }


def program(*arguments, cwd, environment=None):
    return subprocess.run(
        [sys.executable, '-m', 'bids_brainage', *arguments, *OPTIONS],
        cwd=cwd,
        env=environment or {**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with the dataset `bids` and `local`, the output of a run without a cluster."""
    folder = tmp_path_factory.mktemp('slurm')
    command = [
        sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '2',
        '--seed', '3', '--resolution', '3', '--skull-strip', '--age-range', '50', '70',
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    answer = program('bids', 'local', 'participant', '-w', 'work_local', cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return folder


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """Environment of a running cluster, without a name of the user as in a container."""
    folder = tmp_path_factory.mktemp('cluster')
    commands = folder / 'bin'
    commands.mkdir()
    start = commands / 'bids_brainage'
    start.write_text(f'#!/bin/sh\nexec {sys.executable} -m bids_brainage "$@"\n', 'utf-8')
    start.chmod(0o755)
    with one_node_cluster(folder) as environment:
        environment.pop('LOGNAME', None)
        environment['PATH'] = f'{commands}{os.pathsep}{environment["PATH"]}'
        environment['PYTHONPATH'] = str(ROOT)
        yield environment


def slurm(cluster, *command):
    """Standard output of a Slurm command."""
    answer = subprocess.run(command, env=cluster, capture_output=True, text=True, check=True)
    return answer.stdout


def jobs(cluster):
    """Fields of every job that the controller still knows."""
    lines = slurm(cluster, 'scontrol', 'show', 'job', '--oneliner').splitlines()
    return [dict(re.findall(r'(\w+)=(\S+)', line)) for line in lines if line.startswith('JobId')]


def wait_for(condition, what):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f'no {what} after {SECONDS} s')


def submit_array(cluster, place, tasks):
    """Submit the example for all participants of a list; return the number of the job."""
    (place / 'labels.txt').write_text('01\n02\n', 'utf-8')
    text = slurm(
        cluster, 'sbatch', f'--array={tasks}', '--cpus-per-task=1', '--mem=1G',
        '--open-mode=append', f'--output={place}/array-%a.txt', '--parsable', str(ARRAY),
        str(place / 'bids'), str(place / 'array'), str(place / 'labels.txt'), *OPTIONS,
    )  # fmt: skip
    return text.strip()


def tasks_of(cluster, job):
    return {task['ArrayTaskId']: task for task in jobs(cluster) if task.get('ArrayJobId') == job}


def ended(cluster, job):
    found = tasks_of(cluster, job)
    over = ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT', 'NODE_FAIL')
    return found if all(task['JobState'] in over for task in found.values()) else None


def test_a_job_per_participant_survives_a_requeue_and_a_kill(cluster, place):
    job = submit_array(cluster, place, '1-2')
    for label in ('01', '02'):
        wait_for(lambda who=label: masks(place / 'array' / '.work' / f'sub-{who}'), 'mask')
    slurm(cluster, 'scontrol', 'requeue', f'{job}_1')
    slurm(cluster, 'scancel', '--full', '--signal=KILL', f'{job}_2')
    tasks = wait_for(lambda: ended(cluster, job), 'end of the array')
    assert (tasks['1']['JobState'], tasks['1']['Restarts']) == ('COMPLETED', '1')
    assert tasks['2']['JobState'] in ('FAILED', 'CANCELLED')
    assert not list((place / 'array').rglob('sub-02*_brainage.tsv'))
    stopped = (place / 'array-1.txt').read_text()
    assert 'finished scans are kept' in stopped
    assert not [word for word in ('Traceback', 'could not be written') if word in stopped]

    again = submit_array(cluster, place, '2')
    tasks = wait_for(lambda: ended(cluster, again), 'end of the job')
    assert tasks['2']['JobState'] == 'COMPLETED'
    assert content(place / 'array') == content(place / 'local')
    # what was done before the jobs ended was not done again
    for number in '12':
        assert (place / f'array-{number}.txt').read_text().count('brain mask (kept)') == 1


def masks(folder):
    """Results of the step that finds the brain, in a work folder."""
    return list(folder.rglob('extract_brain/result_extract_brain.pklz'))


def test_plugin_submits_each_step_and_gives_the_same_bytes(cluster, place):
    before = {job['JobId'] for job in jobs(cluster)}
    (place / 'slurm.yml').write_text(PLUGIN, 'utf-8')
    answer = program(
        'bids', 'plugin', 'participant', '--use-plugin', 'slurm.yml', '-w', 'work_plugin',
        cwd=place, environment=cluster,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    own = [job for job in jobs(cluster) if job['JobId'] not in before]
    assert {job['JobState'] for job in own} == {'COMPLETED'}
    names = ' '.join(job['JobName'] for job in own)
    for step in ('extract_brain', 'register', 'predict'):
        assert names.count(f'{step}.') == 2
    assert content(place / 'plugin') == content(place / 'local')


def test_cancelled_step_costs_one_scan_and_the_next_run_completes_it(cluster, place):
    shutil.rmtree(place / 'plugin')
    shutil.rmtree(place / 'work_plugin')
    (place / 'slurm.yml').write_text(PLUGIN, 'utf-8')
    arguments = (
        'bids', 'plugin', 'participant', '--use-plugin', 'slurm.yml', '-w', 'work_plugin',
    )  # fmt: skip
    seen = {job['JobId'] for job in jobs(cluster)}
    process = subprocess.Popen(
        [sys.executable, '-m', 'bids_brainage', *arguments, *OPTIONS],
        cwd=place, env=cluster, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def registration():
        return [
            job['JobId']
            for job in jobs(cluster)
            if job['JobName'].startswith('register.')
            and job['JobState'] == 'RUNNING'
            and job['JobId'] not in seen
        ]

    slurm(cluster, 'scancel', wait_for(registration, 'registration')[0])
    output, messages = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, messages
    assert 'Traceback' not in messages
    assert '1 ages, 1 failed' in output + messages
    told = ''.join(path.read_text() for path in (place / 'plugin').glob('logs/*/status.tsv'))
    assert 'results file does not exist' in told
    answer = program(*arguments, cwd=place, environment=cluster)
    assert answer.returncode == 0, answer.stderr
    assert content(place / 'plugin') == content(place / 'local')


def test_stopped_run_cancels_its_jobs(cluster, place):
    (place / 'slurm.yml').write_text(PLUGIN, 'utf-8')
    seen = {job['JobId'] for job in jobs(cluster)}
    process = subprocess.Popen(
        [
            sys.executable, '-m', 'bids_brainage', 'bids', 'stopped', 'participant',
            '--use-plugin', 'slurm.yml', '-w', 'work_stopped', *OPTIONS,
        ],
        cwd=place, env=cluster, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def own():
        return [job for job in jobs(cluster) if job['JobId'] not in seen]

    wait_for(lambda: [job for job in own() if job['JobState'] == 'RUNNING'], 'job')
    process.terminate()
    _, messages = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, messages
    left = ('PENDING', 'RUNNING', 'CONFIGURING')
    wait_for(lambda: not [job for job in own() if job['JobState'] in left], 'empty queue')
