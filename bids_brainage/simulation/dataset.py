"""A BIDS dataset of simulated people."""

from __future__ import annotations

import datetime
import gzip
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage import __version__
from bids_brainage.errors import OptionError, ProcessingError
from bids_brainage.simulation.lifespan.population import load_population
from bids_brainage.simulation.person import AgedBrain, Person, make_person
from bids_brainage.simulation.render import draw_acquisition
from bids_brainage.simulation.scan import (
    Resolution,
    SimulatedScan,
    simulate_scan,
    template_spacing,
    voxel_size,
)
from bids_brainage.simulation.template import REGIONS

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

log = logging.getLogger(__name__)

#: Years after the first session: a retest five weeks later, then every two years.
RETEST_YEARS, FOLLOW_UP_YEARS = 0.1, 2.0
DAYS_A_YEAR = 365.25
GOLDEN = 0.6180339887498949
#: Draws of a person until the program gives up.
MAX_DRAWS = 5


@dataclass(frozen=True)
class Plan:
    """What to simulate.

    Attributes
    ----------
    participants : int
    schedules : tuple of tuples of float
        Years of each session after the first one; each starts with 0.  Participants take turns:
        the first follows the first schedule, the second the second, and so on, round and round.
    seed : int
    resolution : float or three floats
        Voxel size, mm.
    ages : tuple of float
        Youngest and oldest age at the first session, years.
    skull_strip : bool
        Zero outside the brain.
    truth : bool
        Also write masks, labels and volumes under ``derivatives/simulation``.
    """

    participants: int
    schedules: tuple[tuple[float, ...], ...] = ((0.0,),)
    seed: int = 0
    resolution: Resolution = 1.0
    ages: tuple[float, float] = (20.0, 85.0)
    skull_strip: bool = False
    truth: bool = False

    @property
    def has_sessions(self) -> bool:
        """Whether anybody comes back, so that files have a session label."""
        return max(map(len, self.schedules), default=0) > 1


def session_intervals(sessions: int) -> tuple[float, ...]:
    """Years after the first session: 0, a retest, then one follow-up every two years."""
    later = (RETEST_YEARS + FOLLOW_UP_YEARS * k for k in range(sessions - 1))
    return (0.0, *later)


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be simulated.

    Raises
    ------
    OptionError
        With every problem in one message.
    """
    problems = []
    if plan.participants < 1:
        problems.append(f'{plan.participants} participants: expected at least 1.')
    for intervals in plan.schedules or ((),):
        if not intervals or intervals[0] != 0 or np.any(np.diff(intervals) <= 0):
            problems.append(f'Session intervals {intervals}: expected 0 first, then increasing.')
    low, high = plan.ages
    oldest = high + max((years for times in plan.schedules for years in times), default=0)
    youngest_known, oldest_known = load_population('regions').age[[0, -1]]
    if not youngest_known <= low <= high or oldest > oldest_known:
        problems.append(
            f'Ages {low:g} to {oldest:g} (last session): expected within '
            f'{youngest_known:g} to {oldest_known:g} years.'
        )
    if problems:
        raise OptionError(' '.join(problems))
    voxel_size(plan.resolution)


def participant(plan: Plan, number: int) -> tuple[float, str]:
    """Age at the first session (years, 2 digits) and sex of participant `number` (from 0).

    Ages follow the golden-ratio sequence: they spread over the range for any number of
    participants, and adding participants leaves the earlier ones as they were.
    """
    start = np.random.default_rng([plan.seed, 0xA6E]).uniform()
    share = (start + number * GOLDEN) % 1
    low, high = plan.ages
    return round(low + share * (high - low), 2), 'FM'[(number + plan.seed) % 2]


def write_dataset(out: Path, plan: Plan) -> None:
    """Write a BIDS dataset; the same plan gives the same bytes.

    Parameters
    ----------
    out : Path
        New or empty folder.
    plan : Plan

    Raises
    ------
    OptionError
        If the plan cannot be simulated or `out` already holds files.
    ProcessingError
        If no draw of a person can be warped to the ages.
    """
    check_plan(plan)
    if out.exists() and any(out.iterdir()):
        raise OptionError(f'{out} is not empty: give a new folder, or delete this one first.')
    out.mkdir(parents=True, exist_ok=True)
    _write_description(out, plan)
    spacing = template_spacing(voxel_size(plan.resolution))
    rows = []
    for number in range(plan.participants):
        age, sex = participant(plan, number)
        name = f'sub-{number + 1:02d}'
        log.info('%s: %.1f years, %s', name, age, sex)
        intervals = plan.schedules[number % len(plan.schedules)]
        ages = [round(age + interval, 4) for interval in intervals]
        person, brains = draw_person((plan.seed, number), sex, spacing, ages)
        _write_person(out, plan, name, person, intervals, list(zip(ages, brains, strict=True)))
        rows.append((name, age, sex))
    _write_tsv(out / 'participants.tsv', ('participant_id', 'age', 'sex'), rows)


def draw_person(
    key: tuple[int, ...], sex: str, spacing: int, ages: Sequence[float], *, exact: bool = True
) -> tuple[Person, list[AgedBrain]]:
    """Draw a person whose brain can be warped to all ages; some draws are out of reach."""
    last = ProcessingError(f'Nobody was drawn from {key}.')
    for attempt in range(MAX_DRAWS):
        person = make_person(key if attempt == 0 else (*key, attempt), sex, spacing)
        try:
            return person, [person.at_age(age, exact=exact) for age in ages]
        except ProcessingError as error:
            log.info('Drawn again, attempt %d: %s', attempt + 1, error)
            last = error
    raise last


def _write_person(
    out: Path,
    plan: Plan,
    name: str,
    person: Person,
    intervals: tuple[float, ...],
    states: Sequence[tuple[float, AgedBrain]],
) -> None:
    """Write all sessions of one participant, `intervals` years after the first."""
    rng = np.random.default_rng([*person.seed, 0xDA7E])
    start = datetime.datetime(1910, 1, 1, 8) + datetime.timedelta(
        days=int(rng.integers(3650)), minutes=int(rng.integers(600))
    )
    sessions: list[Sequence[object]] = []
    for number, (interval, (age, brain)) in enumerate(zip(intervals, states, strict=True)):
        label = f'ses-{number + 1}' if plan.has_sessions else ''
        _write_session(out, plan, person, (name, label), (age, brain), number)
        time = start + datetime.timedelta(days=round(interval * DAYS_A_YEAR))
        sessions.append((label, time.isoformat(), age))
    if plan.has_sessions:
        _write_tsv(
            out / name / f'{name}_sessions.tsv', ('session_id', 'acq_time', 'age'), sessions
        )


def _write_session(
    out: Path,
    plan: Plan,
    person: Person,
    names: tuple[str, str],
    state: tuple[float, AgedBrain],
    number: int,
) -> None:
    """Simulate and write session `number` (from 0); `names` is subject and session folder."""
    age, brain = state
    scan = simulate_scan(
        person,
        age,
        draw_acquisition((*person.seed, 1000 + number), protocol=(plan.seed,)),
        voxel_size(plan.resolution),
        skull_strip=plan.skull_strip,
        brain=brain,
    )
    stem = '_'.join(filter(None, names))
    folder = Path(*names, 'anat')
    _write_scan(out / folder / f'{stem}_T1w.nii.gz', scan)
    if plan.truth:
        _write_truth(out / 'derivatives/simulation' / folder, stem, scan)


def _write_scan(path: Path, scan: SimulatedScan) -> None:
    """Image and sidecar of one T1w."""
    _write_image(path, scan.image)
    sidecar = {
        'Modality': 'MR',
        'Manufacturer': 'none (simulated)',
        'Simulated': True,
        'Simulation': scan.parameters,
    }
    _write_json(path.with_name(path.name.replace('.nii.gz', '.json')), sidecar)


def _write_truth(folder: Path, stem: str, scan: SimulatedScan) -> None:
    """Brain mask and region labels of one scan, on its own grid."""
    _write_image(folder / f'{stem}_desc-brain_mask.nii.gz', scan.brain_mask)
    _write_json(folder / f'{stem}_desc-brain_mask.json', {'Type': 'Brain', 'Simulated': True})
    _write_image(folder / f'{stem}_dseg.nii.gz', scan.labels)
    sidecar = {'Simulated': True, 'RegionVolumesMl': scan.volumes}
    _write_json(folder / f'{stem}_dseg.json', sidecar)


def _write_description(out: Path, plan: Plan) -> None:
    """Files at the root that do not depend on the people."""
    generator = {
        'Name': 'bids_brainage.simulation',
        'Version': __version__,
        'Description': f'Simulated people, seed {plan.seed}',
    }
    common: dict[str, Any] = {
        'BIDSVersion': '1.11.1',
        'License': LICENSE,
        'Authors': ['bids_brainage simulation'],
        'GeneratedBy': [generator],
    }
    name = 'Simulated T1w images of simulated people (no real person was scanned)'
    _write_json(out / 'dataset_description.json', {'Name': name, 'DatasetType': 'raw', **common})
    (out / 'README.md').write_text(README, 'utf-8')
    _write_json(out / 'participants.json', PARTICIPANT_COLUMNS)
    if plan.has_sessions:
        _write_json(out / 'sessions.json', SESSION_COLUMNS)
    if plan.truth:
        truth = out / 'derivatives/simulation'
        title = 'Truth of the simulation: brain masks, region labels, region volumes'
        description = {'Name': title, 'DatasetType': 'derivative', **common}
        _write_json(truth / 'dataset_description.json', description)
        rows = [(number + 1, region) for number, region in enumerate(REGIONS)]
        _write_tsv(truth / 'dseg.tsv', ('index', 'name'), rows)


def _write_image(path: Path, image: Nifti1Image) -> None:
    """Compressed NIfTI without time stamp, so that equal images are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _write_json(path: Path, content: dict) -> None:
    """Indented JSON with a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n', 'utf-8')


def _write_tsv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Tab-separated table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ['\t'.join(columns), *('\t'.join(str(v) for v in row) for row in rows)]
    path.write_text('\n'.join(lines) + '\n', 'utf-8')


LICENSE = (
    'Images are warped from the ICBM 152 template, copyright McConnell Brain Imaging Centre, '
    'Montreal Neurological Institute, McGill University, which may be used, copied, modified '
    'and distributed with this notice; all else CC0'
)
PARTICIPANT_COLUMNS = {
    'age': {'Description': 'Simulated age at the first session', 'Units': 'year'},
    'sex': {'Description': 'Simulated sex', 'Levels': {'F': 'female', 'M': 'male'}},
}
SESSION_COLUMNS = {
    'acq_time': {'Description': 'Invented date and time that keeps the interval of sessions'},
    'age': {'Description': 'Simulated age at the session', 'Units': 'year'},
}
README = """# Simulated T1w images

Nobody was scanned. Every image was made by `python -m bids_brainage.simulation`: the ICBM 152
template with an individual shape and region volumes drawn from what the program measures in real
adults of that age, rendered in one contrast, with random pose, bias field and noise. The JSON
file beside each image records the settings.

Use it to test software, never to learn something about people.
"""
