"""The whole circle as a methods person types it: derivatives, training, a new dataset."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.inference.predict import predict
from bids_brainage.outputs import read_brainage

pytestmark = pytest.mark.slow

PEOPLE = 12
#: Years by which two runs of the same network on the same files may differ.
TOLERANCE_YEARS = 0.01
RECIPE = """
[data]
coarsen = 4
[run]
epochs = 3
batch_size = 4
[schedule]
warmup_epochs = 1
[optimiser]
learning_rate = 1e-3
[split]
reserve_repeated = false
"""


def run(*words, cwd):
    """Run Python as a user does; what it prints to stderr comes back."""
    process = subprocess.run(
        [sys.executable, '-m', *map(str, words)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2]), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stderr


def test_own_cohort_becomes_a_model_that_predicts_a_new_dataset(tmp_path):
    simulate = ('bids_brainage.simulation', '--resolution', '4', '--skull-strip')
    run(*simulate, 'bids', '--participants', PEOPLE, '--seed', '5', cwd=tmp_path)
    run(*simulate, 'new', '--participants', '1', '--seed', '6', cwd=tmp_path)
    (tmp_path / 'recipe.toml').write_text(RECIPE)
    level = ('--nprocs', '1', '--device', 'cpu', '-w', 'work')
    run('bids_brainage', 'bids', 'out', 'participant', '--sloppy', *level, cwd=tmp_path)
    told = run(
        'bids_brainage', 'bids', 'out', 'train', '--arch', 'resnet_only', '--bundle-name', 'mine',
        '--recipe', 'recipe.toml', '--model-dir', 'models', *level, cwd=tmp_path,
    )  # fmt: skip
    assert 'epoch 3 of at most 3' in told and 'resnet_only.mine' in told
    run(
        'bids_brainage', 'new', 'out2', 'participant', '--sloppy', '--models', 'resnet_only.mine',
        '--model-dir', 'models', *level, cwd=tmp_path,
    )  # fmt: skip
    (row,) = read_brainage(next((tmp_path / 'out2').rglob('*_brainage.tsv')))
    assert (row['model'], row['status']) == ('resnet_only.mine', 'ok')
    bundle = load_bundle(tmp_path / 'models' / 'resnet_only.mine')
    assert bundle.metadata['training']['simulated']
    gm = next((tmp_path / 'out2').rglob('*label-GM_desc-modulated_probseg.nii.gz'))
    again = predict(bundle, {'gm_modulated': gm}, device='cpu')
    assert row['predicted_age'] == pytest.approx(again.age, abs=TOLERANCE_YEARS)
    assert row['brain_age_gap'] == pytest.approx(row['predicted_age'] - row['age'])
