"""Derivatives of a simulated study, as the participant level leaves them, for the group level.

60 people with two sessions, half of them a month apart (test-retest) and half about two years,
two models, and explanation maps made from the packaged atlas.  Nothing in it was measured::

    python tests/group_demo.py FOLDER

writes ``FOLDER/bids`` (tables only) and ``FOLDER/out``, and runs the group level.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_brainage.outputs.files import write_json
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.preprocessing.atlas import load_atlas
from bids_brainage.preprocessing.template import DEFAULT_SPACE

PEOPLE = 60
MODELS = {'volumes.demo': (0.85, 1.4), 'wholebrain.demo': (0.93, 2.4)}
"""Slope of predicted on true age, and spread of single scans in years."""

OPTIONS = (
    *('--group-column', 'diagnosis', '--reference-group', 'diagnosis=control'),
    *('--correlate', 'mmse'),
)
INTENSITY = {'CSF': 0.25, 'GM': 0.7, 'WM': 1.0}


def person(k: int, rng: np.random.Generator) -> dict[str, object]:
    """Draw one person: age at both sessions, group, score, lasting deviation in years."""
    patient = k % 3 == 0
    age = rng.uniform(58, 82) if patient else rng.uniform(24, 82)
    later = 30 / 365.25 if k % 2 else rng.uniform(1.5, 2.6)
    lasting = rng.normal(5.0 if patient else 0.0, 2.0)
    return {
        'name': f'{k + 1:02d}',
        'sex': 'FM'[int(rng.random() < 0.5)],
        'diagnosis': 'patient' if patient else 'control',
        'ages': (age, age + later),
        'lasting': lasting,
        'mmse': int(np.clip(round(29.3 - 0.45 * lasting + rng.normal(0, 0.8)), 10, 30)),
    }


def write_demo(root: Path) -> None:
    """Write raw tables and derivatives."""
    rng = np.random.default_rng(7)
    people = [person(k, rng) for k in range(PEOPLE)]
    (root / 'bids').mkdir(parents=True)
    lines = ['participant_id\tdiagnosis\tmmse']
    lines += [f'sub-{p["name"]}\t{p["diagnosis"]}\t{p["mmse"]}' for p in people]
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    atlas = load_atlas()
    tissue = np.array([INTENSITY[s.tissue] for s in atlas.structures], np.float32)
    brain = atlas.priors[[s.name != 'csf' for s in atlas.structures]].sum(axis=0) > 0.3
    anatomy = np.tensordot(tissue, atlas.priors, 1) * brain
    for p in people:
        for number, age in enumerate(p['ages'], 1):
            stem = f'sub-{p["name"]}_ses-{number}'
            home = root / 'out' / f'sub-{p["name"]}' / f'ses-{number}' / 'anat'
            write_predictions(home, stem, p, float(age), rng)
            if number == 1:
                write_images(home, stem, float(age), anatomy, rng)


def write_predictions(
    home: Path, stem: str, p: dict[str, object], age: float, rng: np.random.Generator
) -> None:
    """Write the prediction table of one session."""
    who, ses = stem.split('_')
    rows = []
    for model, (slope, spread) in MODELS.items():
        predicted = slope * age + (1 - slope) * 55 + float(p['lasting']) + rng.normal(0, spread)
        rows.append(
            brainage_row(
                participant_id=who,
                session_id=ses,
                source=f'bids:raw:{who}/{ses}/anat/{stem}_T1w.nii.gz',
                modality='T1w',
                model=model,
                model_version='1',
                age=round(age, 2),
                age_source='sessions.tsv',
                age_censored=False,
                sex=p['sex'],
                predicted_age=predicted,
                interval_low=predicted - 7,
                interval_high=predicted + 7,
                interval_level=0.9,
                in_training_range=True,
                status='ok',
            )
        )
    write_brainage(home / f'{stem}_brainage.tsv', rows)


def write_images(
    home: Path, stem: str, age: float, anatomy: np.ndarray, rng: np.random.Generator
) -> None:
    """Write a map whose structures move the age further from 50 with age, and a T1w image."""
    atlas = load_atlas()
    weight = np.zeros(len(atlas.structures), np.float32)
    for k, s in enumerate(atlas.structures):
        strong = {'lateral_ventricle': 3.0, 'hippocampus': 2.0, 'thalamus': 1.5, 'cortex': 1.0}
        weight[k] = strong.get(s.name, 0.1) * (age - 50) / 10 + rng.normal(0, 0.3)
    values = np.where(anatomy > 0, np.tensordot(weight, atlas.priors, 1), 0).astype(np.float32)
    # the name of what the group level reads, for a coarser image
    name = f'{stem}_space-{DEFAULT_SPACE}_res-1_model-volumesdemo_desc-contribution_saliency'
    nib.save(nib.Nifti1Image(values, atlas.affine), home / f'{name}.nii.gz')
    facts = {'Method': 'contribution', 'Units': 'year', 'Resolution': '2 x 2 x 2 mm'}
    write_json(home / f'{name}.json', facts)
    t1w = (900 + 200 * rng.random()) * anatomy
    target = home / f'{stem}_space-{DEFAULT_SPACE}_res-1_desc-preproc_T1w.nii.gz'
    nib.save(nib.Nifti1Image(t1w.astype(np.float32), atlas.affine), target)


def run_demo(root: Path) -> int:
    """Run the group level on the demo; the exit status."""
    from bids_brainage.cli.main import main

    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    return main([*places, *OPTIONS])


if __name__ == '__main__':
    write_demo(Path(sys.argv[1]))
    raise SystemExit(run_demo(Path(sys.argv[1])))
