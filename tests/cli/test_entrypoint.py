"""The container's entry point: where it lets the program write, and what it passes on."""

import os
import subprocess
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parents[2] / 'container' / 'entrypoint.sh'
PROGRAM = """#!/bin/sh
echo "$HOME"; echo "$TMPDIR"; echo "$MPLCONFIGDIR"; printf '%s|' "$@"
exit 65
"""


@pytest.fixture
def start(tmp_path):
    """Run the entry point with a program that tells its environment."""
    program = tmp_path / 'bin' / 'bids_brainage'
    program.parent.mkdir()
    program.write_text(PROGRAM, 'utf-8')
    program.chmod(0o755)

    def run(*arguments, **variables):
        path = f'{program.parent}:{os.environ["PATH"]}'
        return subprocess.run(
            ['sh', str(ENTRYPOINT), *arguments],
            env={'PATH': path, 'HOME': '/', **variables},
            capture_output=True,
            text=True,
            timeout=20,
        )

    return run


def test_arguments_and_exit_status_pass_through(start, tmp_path):
    result = start('/data', 'two words', '*', TMPDIR=str(tmp_path))
    assert result.returncode == 65
    assert result.stdout.splitlines()[-1] == '/data|two words|*|'


def test_caches_and_home_are_in_the_folder_for_temporary_files(start, tmp_path):
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    home, temporary, matplotlib, _ = start('-h', TMPDIR=str(scratch)).stdout.splitlines()
    assert Path(home).parent == scratch
    assert Path(home).is_dir()
    assert temporary == str(scratch)
    assert Path(matplotlib).parent == Path(home)


def test_two_runs_do_not_share_a_home(start, tmp_path):
    homes = {start('-h', TMPDIR=str(tmp_path)).stdout.splitlines()[0] for _ in range(2)}
    assert len(homes) == 2


def test_another_folder_is_taken_when_the_first_is_not_there(start, tmp_path):
    absent = tmp_path / 'absent'
    home, temporary, *_ = start('-h', TMPDIR=str(absent)).stdout.splitlines()
    assert temporary in ('/tmp', '/dev/shm')
    Path(home).rmdir()


@pytest.mark.skipif(os.getuid() != 0, reason='the hint is for root')
def test_root_gets_a_hint_and_goes_on(start, tmp_path):
    result = start('-h', TMPDIR=str(tmp_path))
    assert 'running as root' in result.stderr
    assert result.returncode == 65
