"""How much stays of a scan: what a run leaves at each level, and what a later run makes of it."""

import subprocess
import sys

import pytest
from program import run, tree

from bids_brainage.outputs import read_brainage
from bids_brainage.outputs.files import read_json

OPTIONS = ('--nprocs', '2', '--sloppy', '-w', 'work')
MOST_KB = 1000
"""Of tables, pages and pictures of one scan."""


def participant(root, *more):
    process = run('bids', 'out', 'participant', *OPTIONS, *more, cwd=root)
    assert process.returncode == 0, process.stderr
    return process


def images(root):
    return [p.name for p in (root / 'out').rglob('*') if p.name.endswith(('.nii.gz', '.h5'))]


def rows(root):
    (path,) = (root / 'out').rglob('*_brainage.tsv')
    return {row['model']: row for row in read_brainage(path)}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """One simulated person, of whom only tables and pages stay."""
    root = tmp_path_factory.mktemp('level')
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '1',
            '--seed', '3', '--resolution', '3',
        ],
        cwd=root, check=True,
    )  # fmt: skip
    first = participant(root, '--level', 'minimal', '--resource-monitor')
    assert 'registration' not in first.stderr  # regions are measured without
    return root


def test_minimal_leaves_kilobytes_and_no_work(study):
    assert images(study) == []
    size = sum(p.stat().st_size for p in (study / 'out').rglob('*') if p.is_file()) / 1024
    assert size < MOST_KB
    assert not list((study / 'work').glob('bids_brainage_*_wf/sub_*'))
    assert rows(study)['volumes.adults']['status'] == 'ok'
    (volumes,) = (study / 'out').rglob('*_volumes.tsv')
    assert read_json(volumes.with_suffix('.json'))['MadeFrom']['InputSHA256']
    figures = {p.name for p in (study / 'out' / 'sub-01').rglob('*.svg')}
    assert figures and all('desc-summary' in name for name in figures)
    assert '<svg' in (study / 'out' / 'sub-01.html').read_text()
    (used,) = (study / 'out' / 'logs').glob('*/resources.tsv')
    assert 'measure_regions' in used.read_text()
    assert 'register' not in used.read_text()
    assert 'registered' not in (study / 'out' / 'logs' / 'CITATION.md').read_text()


def test_levels_and_models_that_come_later(study):
    before = tree(study / 'out')
    again = participant(study, '--level', 'minimal')
    assert '0 to do' in again.stderr
    assert tree(study / 'out') == before

    dry = participant(study, '--level', 'minimal', '--models', 'volumes.lifespan', '--dry-run')
    assert '1 of them preprocessed before: their images were not kept (--level)' in dry.stdout
    age = rows(study)['volumes.adults']['predicted_age']
    full = participant(study, '--models', 'volumes.lifespan', '--keep-work')
    assert 'preprocessed before: their images were not kept' in full.stderr
    assert 'registration' in full.stderr
    assert set(rows(study)) == {'volumes.adults', 'volumes.lifespan'}
    assert any('desc-preproc_T1w' in name for name in images(study))
    assert list((study / 'work').glob('bids_brainage_*_wf/sub_01*'))
    drawn = {p.name for p in (study / 'out' / 'sub-01').rglob('*.svg')}
    assert any('desc-registration' in name for name in drawn)

    last = participant(study)  # the maps of the first model are asked for now
    assert 'registration' not in last.stderr
    assert rows(study)['volumes.adults']['predicted_age'] == age
    assert any('volumesadults' in name for name in images(study))
    assert not list((study / 'work').glob('bids_brainage_*_wf/sub_*'))
    idle = participant(study, '--level', 'minimal', '--models', 'volumes.adults')
    assert '0 to do' in idle.stderr
