"""Trainings that cannot come to anything stop with a sentence that says why."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch')

from training_phantom import phantom_job  # noqa: E402

from bids_brainage.errors import OptionError, WorkflowError  # noqa: E402
from bids_brainage.training.fit import fit_job  # noqa: E402


def test_a_training_that_diverges_says_so(tmp_path):
    changes = {
        'optimiser': {'name': 'sgd', 'learning_rate': 10.0, 'momentum': 0.9},
        'run': {'epochs': 5, 'batch_size': 4},
        'fusion': {'fit': 'none'},
    }
    with pytest.raises(WorkflowError, match=r'not a number after epoch [1-5] .* has diverged'):
        fit_job(phantom_job(tmp_path, 'vgg8', changes, n=20))


def test_half_precision_is_refused_on_the_cpu(tmp_path):
    changes = {'run': {'precision': 'bf16'}}
    with pytest.raises(OptionError, match='precision = "32"'):
        fit_job(phantom_job(tmp_path, 'vgg8', changes, n=20))
