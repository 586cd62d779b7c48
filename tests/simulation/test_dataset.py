import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_brainage.errors import OptionError
from bids_brainage.simulation.__main__ import main
from bids_brainage.simulation.dataset import (
    Plan,
    check_plan,
    participant,
    session_intervals,
    write_dataset,
)
from bids_brainage.simulation.template import REGIONS


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp('simulated') / 'ds'
    arguments = '--participants 1 --sessions 2 --seed 4 --resolution 4 --truth'
    assert main([str(out), *arguments.split()]) == 0
    return out


def validator() -> str | None:
    beside = Path(sys.executable).with_name('bids-validator-deno')
    return str(beside) if beside.exists() else shutil.which('bids-validator-deno')


def test_files_are_where_bids_wants_them(dataset):
    names = {p.relative_to(dataset).as_posix() for p in dataset.rglob('*.*') if p.is_file()}
    stem = 'sub-01/ses-2/anat/sub-01_ses-2'
    wanted = {
        'README.md',
        'dataset_description.json',
        'participants.tsv',
        'participants.json',
        'sessions.json',
        'sub-01/sub-01_sessions.tsv',
        f'{stem}_T1w.nii.gz',
        f'{stem}_T1w.json',
        f'derivatives/simulation/{stem}_desc-brain_mask.nii.gz',
        f'derivatives/simulation/{stem}_dseg.nii.gz',
    }
    assert wanted <= names


def test_dataset_passes_the_validator(dataset):
    program = validator()
    if program is None:
        pytest.skip('bids-validator-deno is not installed')
    run = subprocess.run(
        [program, str(dataset), '--json', '--ignoreWarnings', '-r'],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(run.stdout)
    errors = [i for i in report['issues']['issues'] if i.get('severity') == 'error']
    assert not errors
    assert run.returncode == 0


def test_everything_says_that_it_is_simulated(dataset):
    description = json.loads((dataset / 'dataset_description.json').read_text())
    assert 'Simulated' in description['Name']
    sidecars = list(dataset.glob('sub-*/ses-*/anat/*_T1w.json'))
    assert len(sidecars) == 2
    for path in sidecars:
        content = json.loads(path.read_text())
        assert content['Simulated'] is True
        assert content['Simulation']['voxel_mm'] == [4, 4, 4]


def test_session_table_keeps_age_and_time_together(dataset):
    people = pd.read_csv(dataset / 'participants.tsv', sep='\t')
    sessions = pd.read_csv(dataset / 'sub-01/sub-01_sessions.tsv', sep='\t')
    assert sessions['age'][0] == people['age'][0]
    years = pd.to_datetime(sessions['acq_time']).diff()[1].days / 365.25
    assert sessions['age'].diff()[1] == pytest.approx(years, abs=0.01)
    assert years < 90 / 365.25  # the second session is a retest


def test_truth_fits_its_image(dataset):
    for image in sorted(dataset.glob('sub-*/ses-*/anat/*_T1w.nii.gz')):
        stem = image.name.removesuffix('_T1w.nii.gz')
        folder = dataset / 'derivatives/simulation' / image.parent.relative_to(dataset)
        t1w, labels = nib.load(image), nib.load(folder / f'{stem}_dseg.nii.gz')
        mask = nib.load(folder / f'{stem}_desc-brain_mask.nii.gz')
        np.testing.assert_allclose(labels.affine, t1w.affine)
        assert labels.shape == t1w.shape == mask.shape
        assert set(np.unique(labels.dataobj)) <= set(range(len(REGIONS) + 1))
        volumes = json.loads((folder / f'{stem}_dseg.json').read_text())['RegionVolumesMl']
        cells = np.prod(t1w.header.get_zooms()) / 1000
        found = (np.asarray(labels.dataobj) == 1 + REGIONS.index('brainstem')).sum() * cells
        assert found == pytest.approx(volumes['brainstem'], rel=0.2)


def test_same_seed_gives_the_same_bytes_for_any_number_of_people(dataset, tmp_path):
    out = tmp_path / 'more'
    write_dataset(out, Plan(participants=2, seed=4, resolution=4.0))
    first = (out / 'sub-01/anat/sub-01_T1w.nii.gz').read_bytes()
    assert first == (dataset / 'sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz').read_bytes()
    assert first != (out / 'sub-02/anat/sub-02_T1w.nii.gz').read_bytes()
    assert not (out / 'sub-01/sub-01_sessions.tsv').exists()


def test_ages_spread_over_adulthood():
    ages = np.array([participant(Plan(20, seed=1), k)[0] for k in range(20)])
    counts, _ = np.histogram(ages, [20, 36, 52, 68, 85])
    assert (counts >= 4).all()
    sexes = [participant(Plan(20, seed=1), k)[1] for k in range(20)]
    assert sexes.count('F') == 10


def test_sessions_are_a_retest_then_follow_ups():
    assert session_intervals(1) == (0.0,)
    np.testing.assert_allclose(session_intervals(4), (0, 0.1, 2.1, 4.1))


def test_participants_take_turns_between_schedules(tmp_path, monkeypatch):
    monkeypatch.setattr('bids_brainage.simulation.dataset._write_session', lambda *_: None)
    arguments = '--participants 3 --resolution 4 --intervals 0.1 --intervals 2 4.5'
    assert main([str(tmp_path / 'ds'), *arguments.split()]) == 0
    for number, years in ((1, [0, 0.1]), (2, [0, 2, 4.5]), (3, [0, 0.1])):
        name = f'sub-{number:02d}'
        table = pd.read_csv(tmp_path / 'ds' / name / f'{name}_sessions.tsv', sep='\t')
        np.testing.assert_allclose(table['age'] - table['age'][0], years, atol=1e-9)


@pytest.mark.parametrize(
    ('plan', 'match'),
    [
        (Plan(0), 'at least 1'),
        (Plan(1, schedules=((0.0, 20.0),)), 'within 18 to 95'),
        (Plan(1, schedules=((0.0, 2.0), (0.0, 2.0, 1.0))), 'increasing'),
        (Plan(1, schedules=()), 'increasing'),
        (Plan(1, ages=(5.0, 30.0)), 'within 18 to 95'),
    ],
)
def test_impossible_plans_are_refused(plan, match):
    with pytest.raises(OptionError, match=match):
        check_plan(plan)


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / 'precious.txt').write_text('keep me')
    assert main([str(tmp_path), '--participants', '1']) == OptionError.exit_code
    assert [p.name for p in tmp_path.iterdir()] == ['precious.txt']
