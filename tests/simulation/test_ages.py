"""What the default model says of simulated people: about what it says of real ones."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainage.cli.main import main
from bids_brainage.outputs import read_brainage
from bids_brainage.simulation.dataset import Plan, write_dataset

pytestmark = pytest.mark.slow

PEOPLE, AGES = 24, (20.0, 85.0)


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp('ages')
    write_dataset(root / 'bids', Plan(PEOPLE, seed=7, ages=AGES))
    level = ('participant', '--level', 'minimal', '-w', str(root / 'work'))
    assert main([str(root / 'bids'), str(root / 'out'), *level, '--nprocs', '1']) == 0
    found = [read_brainage(path)[0] for path in sorted(root.glob('out/sub-*/anat/*_brainage.tsv'))]
    assert len(found) == PEOPLE
    return found


def test_intervals_hold_most_ages(rows):
    inside = [row['interval_low'] <= row['age'] <= row['interval_high'] for row in rows]
    assert sum(inside) >= PEOPLE * 5 / 6


def test_ages_are_found(rows):
    age, said = (np.array([row[key] for row in rows]) for key in ('age', 'predicted_age'))
    assert np.abs(said - age).mean() < 7
    assert np.corrcoef(age, said)[0, 1] > 0.9
