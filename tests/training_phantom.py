"""A cohort of arrays whose age can be seen: a cavity that grows by the year, and noise."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_brainage.names import derivative_path
from bids_brainage.outputs.files import write_json
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.training.cache import SCHEMA, _Writer
from bids_brainage.training.job import Job
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.split_table import write_split
from bids_brainage.training.splits import Item, make_split

GRID = (32, 32, 32)
N_NODES = 12
# Half as coarse as the trained grid (published grid coarsened by 4): 4 mm.
STUDY_GRID, STUDY_AFFINE = (
    (43, 51, 43),
    np.array([[4.0, 0, 0, -84], [0, 4, 0, -120], [0, 0, 4, -72], [0, 0, 0, 1]]),
)
RECIPE = """
[data]
coarsen = 4
[run]
batch_size = 4
[schedule]
warmup_epochs = 1
[optimiser]
learning_rate = 5e-4
"""


def ageing_head(age: float, rng: np.random.Generator, grid=GRID) -> np.ndarray:
    """A ball of 1 with a cavity of 0 whose radius grows by age, jitter and noise; (1, X, Y, Z)."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing='ij')
    centre = rng.uniform(-0.05, 0.05, 3)
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))
    edge = 12.0
    ball = 1 / (1 + np.exp(edge * (distance - 0.85)))
    cavity = 1 / (1 + np.exp(edge * (distance - (0.1 + 0.5 * age / 90))))
    return (ball - cavity + rng.normal(0, 0.03, grid))[None].astype(np.float32)


def connectivity(age: float, rng: np.random.Generator) -> np.ndarray:
    """Correlations that fade with age; (N, N)."""
    common = rng.standard_normal((200, 1)) * (1.5 - age / 90)
    series = common + rng.standard_normal((200, N_NODES))
    return np.corrcoef(series, rowvar=False).astype(np.float32)


def people(n: int, seed: int = 0) -> list[Item]:
    rng = np.random.default_rng(seed)
    ages = rng.uniform(15, 88, n)
    return [
        Item(f'bids:raw:sub-{k:03d}/anat/sub-{k:03d}_T1w.nii.gz', f'{k:03d}', None,
             float(ages[k]), 'FM'[k % 2], f'site{k % 3}')
        for k in range(n)
    ]  # fmt: skip


def phantom_job(
    folder: Path,
    arch: str,
    overrides: dict | None = None,
    *,
    n: int = 24,
    seed: int = 0,
    declared: dict | None = None,
    name: str = 'phantom',
    grid=GRID,
) -> Job:
    """Write cache and split of a phantom cohort and return the job that trains on them."""
    from bids_brainage.models import model_info

    folder.mkdir(parents=True, exist_ok=True)
    recipe = make_recipe(arch, overrides or {})
    items = people(n, seed)
    info = model_info(arch)
    block = {
        'space': None, 'orientation': 'RAS', 'skull_stripped': True,
        **info.input, 'shape': list(grid), 'affine': None, **(declared or {}),
    }  # fmt: skip
    if 'n_nodes' in block:
        block['n_nodes'] = N_NODES
    cache = folder / f'cache-{arch}'
    cache.mkdir(exist_ok=True)
    for old in cache.glob('input-*'):
        old.unlink()
    writer, rng = _Writer(cache), np.random.default_rng(seed + 1)
    for item in items:
        arrays = [ageing_head(item.age, rng, grid)]
        if 'n_nodes' in block:
            arrays.append(connectivity(item.age, rng))
        writer.add(tuple(arrays))
    write_json(
        cache / 'cache.json',
        {
            'schema': SCHEMA,
            'arrays': writer.close(),
            'sources': [item.source for item in items],
            'ages': [item.age for item in items],
            'unusable': [],
        },
    )
    split = folder / f'split-{arch}.tsv'
    write_split(split, make_split(items, recipe.split, seed))
    return Job(
        name=f'{arch}.{name}', arch=arch, declared=json.loads(json.dumps(block)), recipe=recipe,
        seed=seed, folder=str(folder / f'{arch}.{name}'), cache=str(cache), split=str(split),
    )  # fmt: skip


def add_scan(root, subject, session, age, rng):
    """Write a stand-in raw image and its modulated grey matter."""
    folder = root / 'bids' / f'sub-{subject}' / (f'ses-{session}' if session else '') / 'anat'
    folder.mkdir(parents=True)
    stem = f'sub-{subject}' + (f'_ses-{session}' if session else '')
    (folder / f'{stem}_T1w.nii.gz').write_bytes(b'not read by training')
    entities = {'sub': subject, 'ses': session, 'space': DEFAULT_SPACE, 'res': '1', 'label': 'GM',
                'desc': 'modulated', 'suffix': 'probseg'}  # fmt: skip
    path = root / 'out' / derivative_path(entities, 'anat')
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(ageing_head(age, rng, STUDY_GRID)[0], STUDY_AFFINE), path)
    return path


def write_study(root, people=40, seed=0, name='Phantoms', ages=(18, 85)):
    """Write a dataset of people with derivatives, and a recipe for tiny grids."""
    rng = np.random.default_rng(seed)
    lines = ['participant_id\tage\tsex\tsite\tgroup']
    for k in range(people):
        subject, age = f'{k:02d}', float(rng.uniform(*ages))
        add_scan(root, subject, '1' if k < 4 else None, age, rng)
        if k < 4:
            add_scan(root, subject, '2', age + 3, rng)
            rows = f'session_id\tage\nses-1\t{age}\nses-2\t{age + 3}\n'
            (root / f'bids/sub-{subject}/sub-{subject}_sessions.tsv').write_text(rows)
        lines.append(f'sub-{subject}\t{age}\t{"FM"[k % 2]}\ts{k % 2}\t{"AD" if k > 37 else "CN"}')
    (root / 'bids/participants.tsv').write_text('\n'.join(lines) + '\n')
    description = {'Name': name, 'BIDSVersion': '1.10.0', 'DatasetType': 'raw',
                   'GeneratedBy': [{'Name': 'bids_brainage.simulation'}]}  # fmt: skip
    (root / 'bids/dataset_description.json').write_text(json.dumps(description))
    (root / 'recipe.toml').write_text(RECIPE)
