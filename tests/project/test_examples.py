"""The examples for clusters: what they run is what the program takes."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from bids_brainage import __version__
from bids_brainage.cli.parser import build_parser
from bids_brainage.cli.request import parse
from bids_brainage.dataset import find_scans

EXAMPLES = Path(__file__).parents[2] / 'examples'


@pytest.fixture
def sparse_checkout(tmp_path):
    """A dataset as one job sees it: one participant's data, the others as dangling links."""
    root = tmp_path / 'inputs' / 'data' / 'BIDS'
    for label in ('01', '02'):
        folder = root / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        image = folder / f'sub-{label}_T1w.nii.gz'
        if label == '01':
            nib.save(
                nib.Nifti1Image(np.ones((64, 64, 64), np.uint8), np.diag([3, 3, 3, 1])), image
            )
        else:
            image.symlink_to('../../.git/annex/objects/absent')
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


@pytest.fixture
def babs():
    return yaml.safe_load((EXAMPLES / 'babs.yaml').read_text('utf-8'))


def babs_command(config, root, output_dir, work_dir):
    """The arguments that BABS composes from a configuration, for participant sub-01."""
    arguments = [str(root), str(output_dir), 'participant']
    for option, value in config['bids_app_args'].items():
        if option == '$SUBJECT_SELECTION_FLAG':
            arguments += [value, 'sub-01']
        else:
            arguments += [
                option,
                *([value.replace('$BABS_TMPDIR', str(work_dir))] if value else []),
            ]
    return arguments


def test_babs_command_selects_the_one_participant_that_is_there(babs, sparse_checkout, tmp_path):
    arguments = babs_command(babs, sparse_checkout, tmp_path / 'outputs', tmp_path / 'work')
    config = parse(arguments, environ={})
    scans = find_scans(sparse_checkout, participant_labels=config.execution.participant_label)
    assert [(scan.subject, scan.problem) for scan in scans] == [('01', None)]
    assert config.execution.work_dir == tmp_path / 'work'
    assert (config.nipype.nprocs, config.nipype.memory_gb) == (2, 4.0)


def test_babs_command_runs_from_its_first_word_to_the_plan(babs, sparse_checkout, tmp_path):
    arguments = babs_command(babs, sparse_checkout, tmp_path / 'outputs', tmp_path / 'work')
    answer = subprocess.run(
        [sys.executable, '-m', 'bids_brainage', *arguments, '--dry-run'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert '1 T1w images, 1 to do' in answer.stdout
    assert 'sub-01/anat/sub-01_T1w.nii.gz' in answer.stdout


def test_babs_names_this_version(babs):
    assert list(babs['zip_foldernames'].values()) == [__version__.replace('.', '-')]


FAKE = '#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n'


@pytest.fixture
def array(tmp_path):
    """Place a program that tells its arguments, and run one task of the array script."""
    (tmp_path / 'labels.txt').write_text('01\nsub-02\n03\n', 'utf-8')
    script = tmp_path / 'spool' / 'slurm_script'  # Slurm runs a copy
    script.parent.mkdir()
    script.write_text((EXAMPLES / 'slurm_array.sh').read_text('utf-8'), 'utf-8')

    def place(name):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(FAKE, 'utf-8')
        program.chmod(0o755)
        return program

    def submit(*options, task='2', **variables):
        return subprocess.run(
            ['bash', script, tmp_path / 'data', tmp_path / 'out', 'labels.txt', *options],
            cwd=tmp_path,
            env={
                'PATH': f'{tmp_path / "bin"}:/usr/bin:/bin',
                'SLURM_SUBMIT_DIR': str(tmp_path),
                'SLURM_ARRAY_TASK_ID': task,
                'SLURM_CPUS_PER_TASK': '3',
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return place, submit


def test_slurm_array_runs_the_participant_of_its_task(array, tmp_path):
    place, submit = array
    program = place('bin/bids_brainage')
    place('.venv/bin/bids_brainage')
    answer = submit('-v')
    assert answer.returncode == 0, answer.stderr
    found, *arguments = answer.stdout.splitlines()
    assert found == str(program)
    read = build_parser().parse_args(arguments)
    assert (read.bids_dir, read.output_dir, read.analysis_level) == (
        str(tmp_path / 'data'),
        str(tmp_path / 'out'),
        'participant',
    )
    assert read.participant_label == ['02']
    assert read.nprocs == '3'
    assert read.verbosity == 1
    assert read.work_dir == str(tmp_path / 'out' / '.work' / 'sub-02')


def test_slurm_array_finds_the_program_of_the_folder_of_submission(array):
    place, submit = array
    program = place('.venv/bin/bids_brainage')
    assert submit().stdout.splitlines()[0] == str(program)


def test_slurm_array_takes_the_program_that_is_named(array, tmp_path):
    place, submit = array
    place('bin/bids_brainage')
    program = place('opt/bids_brainage')
    assert submit(BRAINAGE=str(program)).stdout.splitlines()[0] == str(program)


def test_slurm_array_runs_a_container_image(array, tmp_path):
    place, submit = array
    place('bin/apptainer')
    image = place('brainage.sif')
    answer = submit('--offline', BRAINAGE=str(image), WORK_DIR=str(tmp_path / 'scratch'))
    assert answer.returncode == 0, answer.stderr
    words = answer.stdout.splitlines()[1:]
    own, arguments = words[: words.index(str(image))], words[words.index(str(image)) + 1 :]
    assert own[0] == 'run'
    assert [word for word in own if ':' in word] == [
        f'{tmp_path / "data"}:/data:ro',
        f'{tmp_path / "out"}:/out',
        f'{tmp_path / "scratch" / "sub-02"}:/work',
    ]
    assert (tmp_path / 'scratch' / 'sub-02').is_dir()  # else it cannot be bound
    read = build_parser().parse_args(arguments)
    assert (read.bids_dir, read.output_dir, read.work_dir) == ('/data', '/out', '/work')
    assert read.participant_label == ['02'] and read.offline


@pytest.mark.parametrize(('task', 'status', 'words'), [('2', 127, 'BRAINAGE'), ('4', 2, 'line 4')])
def test_slurm_array_says_what_is_not_there(array, task, status, words):
    _, submit = array
    answer = submit(task=task)
    assert answer.returncode == status
    assert words in answer.stderr


def test_pod_of_the_kubernetes_job_takes_the_line_of_its_number(tmp_path):
    job = yaml.safe_load((EXAMPLES / 'kubernetes.yaml').read_text('utf-8'))
    assert job['spec']['completionMode'] == 'Indexed'
    (pod,) = job['spec']['template']['spec']['containers']
    (tmp_path / 'participants.txt').write_text('01\n02\n03\n', 'utf-8')
    fake = tmp_path / 'entrypoint.sh'
    fake.write_text(FAKE, 'utf-8')
    fake.chmod(0o755)
    (line,) = pod['args']
    line = line.replace('/opt/brainage/entrypoint.sh', str(fake))
    line = line.replace('/data /out ', f'{tmp_path} /out ')
    line = line.replace('/out/participants.txt', str(tmp_path / 'participants.txt'))
    answer = subprocess.run(
        [*pod['command'], line], env={**os.environ, 'JOB_COMPLETION_INDEX': '1'},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    config = parse(answer.stdout.splitlines()[1:], environ={})
    assert config.execution.participant_label == ('02',)
    assert (config.nipype.nprocs, config.nipype.memory_gb) == (2, 4.0)
    mounts = {mount['mountPath'] for mount in pod['volumeMounts']}
    claims = {volume['name'] for volume in job['spec']['template']['spec']['volumes']}
    assert mounts == {'/data', '/out'}
    assert claims == {mount['name'] for mount in pod['volumeMounts']}
