"""A study of toy size for the pages that reproduce papers: two cohorts, and one that is unseen.

The people who train are balls with a cavity (`training_phantom`), with what the participant level
would have written of them.  The newcomers are simulated heads that go through it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from simulated_cohort import code_version
from training_phantom import STUDY_AFFINE, STUDY_GRID, ageing_head

from bids_brainage.inputs.kinds import kind_of
from bids_brainage.names import derivative_path
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe

ARCHITECTURES = ('resnet_crossvit', 'vgg8', 'densenet169_clinical', 'amagenet')
ATLAS, N_NODES = 'dosenbach2010', 160
DIAGNOSES = ('control', 'control', 'mci', 'mci', 'dementia', 'dementia')
NEWCOMERS = len(DIAGNOSES)
VOXEL_MM = 4
PATIENT = 3
"""Every so many of a cohort that trains is a patient."""


def write_cohort(root: Path, name: str, people: int, seed: int, ages: tuple[int, int]) -> None:
    """Write ``bids`` and ``out``; the first two people come twice, three years apart."""
    rng = np.random.default_rng(seed)
    lines = ['participant_id\tage\tsex\tdiagnosis']
    for k in range(people):
        label, age = f'{k + 1:02d}', float(rng.uniform(*ages))
        visits = {'1': age, '2': age + 3} if k < 2 else {None: age}
        for session, at in visits.items():
            _write_scan(root, {'sub': label, 'ses': session}, at, rng)
        if k < 2:
            rows = ''.join(f'ses-{session}\t{at}\n' for session, at in visits.items())
            (root / f'bids/sub-{label}/sub-{label}_sessions.tsv').write_text(
                f'session_id\tage\n{rows}'
            )
        diagnosis = 'dementia' if k % PATIENT == PATIENT - 1 and k > people // 2 else 'control'
        lines.append(f'sub-{label}\t{age}\t{"FM"[k % 2]}\t{diagnosis}')
    _describe(root / 'bids', name, lines)


def _write_scan(root: Path, person: dict[str, str | None], age: float, rng) -> None:
    head, other = (ageing_head(age, rng, STUDY_GRID)[0] for _ in range(2))
    image, cbv = (nib.Nifti1Image(data, STUDY_AFFINE) for data in (head, other))
    mask = nib.Nifti1Image((head > 0.5).astype(np.uint8), STUDY_AFFINE)
    entities = {**person, 'suffix': 'T1w'}
    folder = Path(f'sub-{person["sub"]}', *[f'ses-{s}' for s in [person['ses']] if s])
    raw = '_'.join([*folder.parts, 'T1w.nii.gz'])
    paths = {root / 'bids' / folder / 'anat' / raw}
    for arch in ARCHITECTURES:
        for modality in ('t1w', 'aicbv') if arch == 'vgg8' else ('t1w',):
            declared = input_block(arch, make_recipe(arch, {}))
            found = kind_of(declared).derivative_paths(entities, declared['space'], modality)
            paths |= {root / 'out' / path for path in found.values() if path is not None}
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.name.rpartition('_desc-')[2]
        nib.save({'brain_mask.nii.gz': mask, 'aicbv_T1w.nii.gz': cbv}.get(kind, image), path)
    graph = {**person, 'task': 'rest', 'atlas': ATLAS, 'stat': 'pearsoncorrelation',
             'suffix': 'relmat', 'extension': '.tsv'}  # fmt: skip
    path = root / 'out' / derivative_path(graph, 'func')
    path.parent.mkdir(parents=True, exist_ok=True)
    common = rng.standard_normal((150, 1)) * (1.5 - age / 90)
    matrix = np.corrcoef(common + rng.standard_normal((150, N_NODES)), rowvar=False)
    names = '\t'.join(f'r{k}' for k in range(N_NODES))
    np.savetxt(path, matrix, '%.5f', delimiter='\t', header=names, comments='')


def _describe(bids: Path, name: str, lines: list[str]) -> None:
    (bids / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    description = {'Name': name, 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (bids / 'dataset_description.json').write_text(json.dumps(description))


def newcomers(folder: Path) -> Path:
    """Return ``bids``, ``maps`` and ``out`` of people of three diagnoses, made once."""
    root = folder / f'newcomers-{NEWCOMERS}-{VOXEL_MM}mm-{code_version()}'
    if not (root / 'done').is_file():
        simulate = ['bids_brainage.simulation', str(root / 'bids'), '--seed', '5',
                    '--participants', str(NEWCOMERS), '--resolution', str(VOXEL_MM)]  # fmt: skip
        if not (root / 'bids').is_dir():
            subprocess.run([sys.executable, '-m', *simulate], check=True)
            table = root / 'bids/participants.tsv'
            head, *rows = table.read_text().splitlines()
            told = [f'{row}\t{said}' for row, said in zip(rows, DIAGNOSES, strict=True)]
            table.write_text('\n'.join([f'{head}\tdiagnosis', *told]) + '\n')
        _write_maps(root)
        level = ['bids_brainage', str(root / 'bids'), str(root / 'out'), 'participant', '-w',
                 str(root / 'work'), '--sloppy', '--device', 'cpu', '--derivatives',
                 f'aicbv={root / "maps"}']  # fmt: skip
        subprocess.run([sys.executable, '-m', *level], check=True)
        (root / 'done').touch()
    return root


def _write_maps(root: Path) -> None:
    """Write blood volume maps on the grid of each image: the image itself will do."""
    for path in (root / 'bids').glob('sub-*/anat/*_T1w.nii.gz'):
        name = path.name.replace('_T1w', '_desc-aicbv_T1w')
        target = root / 'maps' / path.parent.relative_to(root / 'bids') / name
        target.parent.mkdir(parents=True, exist_ok=True)
        image = nib.load(path)
        nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine), target)
    description = {'Name': 'Maps', 'BIDSVersion': '1.10.0', 'DatasetType': 'derivative',
                   'GeneratedBy': [{'Name': 'paper_study'}]}  # fmt: skip
    (root / 'maps/dataset_description.json').write_text(json.dumps(description))
