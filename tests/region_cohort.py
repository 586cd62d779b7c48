"""A cohort whose region volumes follow age by a known law: side files without images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bids_brainage.names import derivative_path
from bids_brainage.outputs.files import write_json
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import card

GROWS = {'lateral_ventricle': 0.015, 'third_ventricle': 0.012, 'temporal_horn': 0.01}
"""Log volume per year; all other regions but white matter shrink by `SHRINKS`."""

SHRINKS, SPREAD = -0.003, 0.05


def region_volumes(age: float, rng: np.random.Generator) -> dict[str, float]:
    """Return millilitres by region."""
    volumes = {}
    for region in load_regions():
        rate = GROWS.get(region.name, 0.0 if region.tissue == 'WM' else SHRINKS)
        volumes[region.name] = 20 * float(np.exp(rate * (age - 50) + rng.normal(0, SPREAD)))
    return volumes


def side_file(root: Path, subject: str) -> Path:
    """Return where the volumes of a person are."""
    entities = {'sub': subject, 'space': 'T1w', 'res': '2', 'desc': 'regions', 'suffix': 'dseg',
                'extension': '.json'}  # fmt: skip
    return root / 'out' / derivative_path(entities, 'anat')


def write_regions(root: Path, subject: str, volumes: dict[str, float], **facts: str) -> None:
    """Write a side file as the participant level does."""
    measured_by = {
        'Name': card()['name'], 'Version': card()['version'],
        'WeightsSHA256': card()['weights_sha256'], **facts,
    }  # fmt: skip
    path = side_file(root, subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {'VolumesML': volumes, 'Segmentation': measured_by, 'SkullStripped': False}
    write_json(path, facts)


def write_region_study(root: Path, n: int = 60) -> None:
    """Write a dataset of people of 18 to 85 and their volumes."""
    rng = np.random.default_rng(0)
    lines = ['participant_id\tage\tsex\tgroup']
    for k in range(n):
        subject, age = f'{k:02d}', float(rng.uniform(18, 85))
        folder = root / 'bids' / f'sub-{subject}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{subject}_T1w.nii.gz').write_bytes(b'not read by training')
        write_regions(root, subject, region_volumes(age, rng))
        lines.append(f'sub-{subject}\t{age}\t{"FM"[k % 2]}\t{"AD" if k >= n - 5 else "CN"}')
    (root / 'bids/participants.tsv').write_text('\n'.join(lines) + '\n')
    description = {'Name': 'Region cohort', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw',
                   'GeneratedBy': [{'Name': 'bids_brainage.simulation'}]}  # fmt: skip
    (root / 'bids/dataset_description.json').write_text(json.dumps(description))
