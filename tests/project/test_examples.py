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


def test_slurm_array_runs_the_participant_of_its_task(tmp_path):
    program = tmp_path / 'bin' / 'bids_brainage'
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', 'utf-8')
    program.chmod(0o755)
    (tmp_path / 'labels.txt').write_text('01\n02\n03\n', 'utf-8')
    answer = subprocess.run(
        ['bash', EXAMPLES / 'slurm_array.sh', '/data', '/out', tmp_path / 'labels.txt', '-v'],
        env={
            'PATH': f'{program.parent}:{os.environ["PATH"]}',
            'SLURM_ARRAY_TASK_ID': '2',
            'SLURM_CPUS_PER_TASK': '3',
        },
        capture_output=True,
        text=True,
        check=True,
    )
    read = build_parser().parse_args(answer.stdout.splitlines())
    assert (read.bids_dir, read.output_dir, read.analysis_level) == (
        '/data',
        '/out',
        'participant',
    )
    assert read.participant_label == ['02']
    assert read.nprocs == '3'
    assert read.verbosity == 1
    assert read.work_dir == '/out/.work/sub-02'
