"""The tool that fits the curves of volume by age."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import card

TOOL = Path(__file__).parents[2] / 'tools' / 'normative_curves.py'
NAMES = [region.name for region in load_regions()]


def measured(path, n=300):
    """Write people whose hippocampal share is known at every age; men's is a tenth smaller.

    Member 1 measures hippocampi a third too large.
    """
    rng, rows = np.random.default_rng(3), []
    for person in range(n):
        age, sex, learnt = 20 + 60 * (person + 0.5) / n, 'FM'[person % 2], str(person // 2 % 2)
        true = np.log(0.006) - 0.004 * (age - 50) - 0.1 * (sex == 'M') + 0.05 * rng.normal()
        for member, scale in (('0', 1.0), ('1', 4 / 3), ('all', 1.2)):
            volumes = dict.fromkeys(NAMES, 40.0) | {'hippocampus': 1.0}
            rest = sum(volumes.values()) - 1.0
            share = np.exp(true) * scale
            volumes['hippocampus'] = rest * share / (1 - share)
            rows.append({
                'participant_id': f'sub-{person}', 'person': person, 'scan': person,
                'source': 'IXI Hammersmith', 'age': age, 'sex': sex, 'group': 'healthy',
                'skull_stripped': person % 50 == 49, 'member': member, 'learnt': learnt, **volumes,
            })  # fmt: skip
    pd.DataFrame(rows).to_csv(path, sep='\t', index=False)
    return path


@pytest.fixture(scope='module')
def curves(tmp_path_factory):
    folder = tmp_path_factory.mktemp('curves')
    table, out = measured(folder / 'measured.tsv'), folder / 'curves.json'
    command = [sys.executable, TOOL, table, '--out', out]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text('utf-8'))


def test_curves_find_the_law_that_made_the_people(curves):
    age = np.array(curves['age'])
    lines = curves['structures']['hippocampus']
    scale = (1.0 + 4 / 3) / 2  # the mean of both members
    for sex, shift in (('F', 0.0), ('M', -0.1)):
        inside = (age > 22) & (age < 78)
        expected = np.log(0.006 * scale) - 0.004 * (age - 50) + shift
        assert np.abs(np.array(lines[sex]['mean']) - expected)[inside].max() < 0.035
        assert np.mean(lines[sex]['sd']) == pytest.approx(0.05, abs=0.01)
    assert np.mean(lines['all']['sd']) > 0.06  # women and men together vary more


def test_curves_say_whom_and_what_they_are_for(curves):
    assert curves['weights_sha256'] == card()['weights_sha256']
    assert curves['n'] == 294  # six came without skull
    assert curves['n_by_sex']['F'] + curves['n_by_sex']['M'] == 294
    assert (curves['age_min'], curves['age_max']) == (20.0, 80.0)
    assert curves['license'].startswith('CC BY-SA 4.0')
    assert curves['sources'] == {'IXI Hammersmith': 294}
    below = curves['people_left_out_below']['hippocampus']
    assert below == pytest.approx([5, 25, 50, 75, 95], abs=6)
