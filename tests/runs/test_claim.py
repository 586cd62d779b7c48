"""Two runs in one work folder: the second is told, whatever it would have destroyed."""

import errno
import subprocess
import sys
from contextlib import contextmanager

import pytest
from training_phantom import write_study

from bids_brainage.cli.main import main
from bids_brainage.cli.request import parse
from bids_brainage.errors import OutputError, TemporaryError
from bids_brainage.runs import claim
from bids_brainage.runs.claim import claimed
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.plan import make_plan, resolve_models, select_images
from bids_brainage.runs.work import clean_work

HOLD = """
import sys
from pathlib import Path
from bids_brainage.runs.claim import claimed
with claimed(Path(sys.argv[1]), sys.argv[2:]):
    print('claimed', flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(folder, *names):
    """Let another process claim names, until the context ends."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(folder), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'claimed\n'
    try:
        yield process
    finally:
        process.communicate()


def test_what_another_run_holds_is_refused_and_the_rest_is_free(tmp_path):
    with another_run(tmp_path / 'work', 'sub_01_T1w_wf', 'sub_02_T1w_wf'):
        with (
            pytest.raises(TemporaryError, match=r'sub_02_T1w_wf in .*work.*--work-dir') as caught,
            claimed(tmp_path / 'work', ['sub_03_T1w_wf', 'sub_02_T1w_wf']),
        ):
            pass
        assert caught.value.exit_code == 75
        with claimed(tmp_path / 'work', ['sub_03_T1w_wf']):
            pass
        with claimed(tmp_path / 'elsewhere', ['sub_01_T1w_wf']):
            pass
    with claimed(tmp_path / 'work', ['sub_01_T1w_wf', 'sub_02_T1w_wf']):
        pass


def test_a_claim_ends_with_its_process_however_it_dies(tmp_path):
    with another_run(tmp_path, 'sub_01_T1w_wf') as process:
        process.kill()
        process.wait()
        with claimed(tmp_path, ['sub_01_T1w_wf']):
            pass


def test_ten_thousand_names_take_one_open_file(tmp_path):
    names = [f'sub_{k:05d}_T1w_wf' for k in range(10_000)]
    with another_run(tmp_path, names[-1]), pytest.raises(TemporaryError, match='sub_09999'):
        with claimed(tmp_path, names[:-1]):
            pass
        with claimed(tmp_path, names):
            pass


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(claim.fcntl, 'lockf', refuse)
    with claimed(tmp_path, ['sub_01_T1w_wf']):
        pass


def test_work_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='--work-dir'), claimed(tmp_path / 'file', ['a']):
        pass


@pytest.fixture
def dataset(tmp_path):
    """Two simulated people, quickly made."""
    subprocess.run(
        [sys.executable, '-m', 'bids_brainage.simulation', str(tmp_path / 'bids'),
         '--participants', '2', '--sessions', '1', '--seed', '3', '--resolution', '8'],
        check=True,
    )  # fmt: skip
    return tmp_path


def test_second_participant_run_ends_with_75_and_touches_nothing(dataset, capsys):
    work = dataset / 'work'
    left = work / 'bids_brainage_0_0_1_wf' / 'sub_02_T1w_wf' / 'result'
    left.parent.mkdir(parents=True)
    left.touch()
    options = ['participant', '-w', str(work), '--nprocs', '1', '--clean-workdir']
    with another_run(work, 'sub-02_T1w.nii.gz'):
        assert main([str(dataset / 'bids'), str(dataset / 'out'), *options]) == 75
    assert 'another run works on sub-02_T1w.nii.gz' in capsys.readouterr().err
    assert not list((dataset / 'out').glob('sub-*'))
    assert left.exists()


def test_a_clean_work_folder_keeps_what_others_left(dataset):
    config = parse(
        [str(dataset / 'bids'), str(dataset / 'out'), 'participant', '-w', str(dataset / 'work'),
         '--participant-label', '01'], {},
    )  # fmt: skip
    flow = dataset / 'work' / 'bids_brainage_0_0_1_wf'
    for name in ('sub_01_T1w_wf', 'sub_02_T1w_wf'):
        (flow / name / 'check').mkdir(parents=True)
    scans, series = select_images(config)
    clean_work(
        dataset / 'work', make_plan(config, scans, series, resolve_models(config), Ledger(config))
    )
    assert [p.name for p in flow.iterdir()] == ['sub_02_T1w_wf']


def test_second_training_on_the_same_inputs_ends_with_75(tmp_path, monkeypatch, capsys):
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = (
        '--model-dir models --work-dir work --recipe recipe.toml --device cpu --arch vit_only'
    )
    command = ['bids', 'out', 'train', *options.split(), '--bundle-name', 'mine']
    with another_run(tmp_path / 'work' / 'train', 'vit_only.mine'):
        assert main(command) == 75
    assert 'another run works on vit_only.mine' in capsys.readouterr().err
    assert not (tmp_path / 'out/logs/training').exists()
