"""Training as processes see it: two at once, and one that is killed, from the command line."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_phantom import write_study

from bids_brainage.bundles.check import check_bundle
from bids_brainage.outputs.files import read_json
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.slow

WAIT_SECONDS = 600
FIRST, SECOND = 'resnet_only', 'vit_only'


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path)
    return tmp_path


def start(study, *options, arches=(FIRST,)):
    """Start a training as a user does."""
    common = '--bundle-name mine --recipe recipe.toml --model-dir models -w work --device cpu'
    alien = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'NODE_RANK', 'SLURM_NTASKS', 'SLURM_PROCID')
    environment = {name: value for name, value in os.environ.items() if name not in alien}
    return subprocess.Popen(
        [
            sys.executable, '-m', 'bids_brainage', 'bids', 'out', 'train', '--nprocs', '1',
            '--arch', *arches, *common.split(), *options,
        ],
        cwd=study,
        env={**environment, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    """Wait for the end, which must be a good one, and return what was printed."""
    out, messages = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, messages
    return out, messages


def history(study, arch):
    path = study / 'work' / 'train' / f'{arch}.mine' / 'fold-1' / 'history.tsv'
    return read_tsv(path) if path.is_file() else []


def content(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_two_processes_train_one_model(study):
    finish(start(study, '--devices', '2', '--epochs', '2'))
    assert len(history(study, FIRST)) == 2
    assert read_json(study / 'work/train/resnet_only.mine/job.json')['devices'] == 2
    report = check_bundle(study / 'models/resnet_only.mine')
    assert report.passed, str(report)


def test_batch_that_two_processes_cannot_share_is_refused(study):
    text = (study / 'recipe.toml').read_text().replace('batch_size = 4', 'batch_size = 5')
    (study / 'recipe.toml').write_text(text)
    process = start(study, '--devices', '2')
    _, messages = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 2 and 'batch_size 5' in messages


def test_killed_at_any_moment_loses_one_epoch_at_most(study, record_property):
    """Two architectures; killed while the second trains, then resumed."""
    epochs = 6
    options = ['--epochs', str(epochs)]
    process = start(study, *options, arches=(FIRST, SECOND))
    for _ in range(10 * WAIT_SECONDS):
        if history(study, SECOND) or process.poll() is not None:
            break
        time.sleep(0.1)
    epoch_seconds = float(history(study, SECOND)[0]['seconds'])
    delay = random.uniform(0, 3 * epoch_seconds)
    record_property('delay', delay)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept, exported = history(study, SECOND), content(study / 'models/resnet_only.mine')
    assert process.returncode == -signal.SIGKILL and 1 <= len(kept) < epochs
    assert not (study / 'models/vit_only.mine').exists()
    out, messages = finish(start(study, *options, '--resume', arches=(FIRST, SECOND)))
    assert 'resnet_only.mine is trained and exported already' in messages
    assert f'goes on after epoch {len(kept)}' in messages
    assert history(study, SECOND)[: len(kept)] == kept
    assert len(history(study, SECOND)) == epochs
    assert content(study / 'models/resnet_only.mine') == exported
    assert check_bundle(study / 'models/vit_only.mine').passed
    assert 'resnet_only.mine' in out and 'vit_only.mine' in out


def test_killed_before_its_report_is_finished_without_training(study):
    finish(start(study, '--epochs', '1'))
    report = study / 'out/logs/training/resnet_only.mine/report.html'
    before, exported = report.read_bytes(), content(study / 'models/resnet_only.mine')
    report.unlink()
    finish(start(study, '--epochs', '1', '--resume'))
    assert report.read_bytes() == before
    assert content(study / 'models/resnet_only.mine') == exported
