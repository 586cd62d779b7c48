"""Compare what a model says of whole generated heads and of the inputs computed for training.

    python tools/lifespan_heads.py write LABEL_MAP_DIR COHORT HEADS
    bids_brainage HEADS OUT participant --models vgg8.lifespan-reduced
    python tools/lifespan_heads.py compare COHORT/t1w_brain-4mm BUNDLE OUT

``write`` takes the first test people of some ages of a cohort of ``tools/lifespan_cohort.py`` and
writes a BIDS dataset of their heads at 1 mm, in the contrast of their first scan.  ``compare``
prints the age that a bundle says of each after the program's own preprocessing, beside the age
it says of the input that the cohort holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from lifespan_cohort import AGES, acquire, make_world, role_of, source_of

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.simulation.lifespan.cohort import draw_age, draw_traits, individual_at
from bids_brainage.simulation.lifespan.render import take_scan
from bids_brainage.training.cache import open_cache
from bids_brainage.training.splits import TEST

#: Ages, and how many people of these.
BANDS = ((20.0, 32.0, 4), (48.0, 58.0, 3), (74.0, 90.0, 5))
VOXEL_MM = (1.0, 1.0, 1.0)


def chosen(seed: int) -> list[int]:
    """Return the numbers of the first test people of each band."""
    found = []
    for low, high, wanted in BANDS:
        number, band = 0, []
        while len(band) < wanted:
            if role_of(number) == TEST and low < draw_age(seed, number, AGES) < high:
                band.append(number)
            number += 1
        found += band
    return sorted(found)


def write_heads(label_maps: Path, cohort: Path, heads: Path, seed: int) -> None:
    """Write the dataset."""
    world = make_world(label_maps, cohort / 'anatomies')
    people = []
    for number in chosen(seed):
        traits, age = draw_traits(world.population, seed, number), draw_age(seed, number, AGES)
        person = individual_at(traits, age, world.population, world.carvers, exact=False)
        protocol, _ = acquire(seed, number, 1)
        scan = take_scan(person, replace(protocol, voxel_mm=VOXEL_MM), 1)
        label = f'sub-{number:05d}'
        folder = heads / label / 'anat'
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(scan.image, folder / f'{label}_T1w.nii.gz')
        people.append({'participant_id': label, 'age': round(age, 2), 'sex': traits.sex})
    (heads / 'T1w.json').write_text(json.dumps({'Simulated': True}) + '\n')
    description = {'Name': 'Generated heads', 'BIDSVersion': '1.9.0'}
    (heads / 'dataset_description.json').write_text(json.dumps(description) + '\n')
    pd.DataFrame(people).to_csv(heads / 'participants.tsv', sep='\t', index=False)


def compare(grid: Path, bundle_path: Path, output: Path) -> pd.DataFrame:
    """Return both ages of each head, years."""
    bundle, cache = load_bundle(bundle_path), open_cache(grid)
    model = bundle.instantiate().eval()
    rows = []
    for path in sorted(output.glob('sub-*/anat/*_brainage.tsv')):
        table = pd.read_csv(path, sep='\t', na_values='n/a')
        own = table[table['model'] == bundle.name].iloc[0]
        label = own['participant_id']
        (row,) = cache.rows_of([source_of(label, 1)])
        image = np.array(cache.arrays[0][row], 'f4')
        with torch.inference_mode():
            short = float(model(torch.from_numpy(image)[None]))
        rows.append({
            'participant_id': label, 'age': own['age'], 'program': own['predicted_age'],
            'computed_input': short, 'difference': own['predicted_age'] - short,
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values('age')


def main() -> None:
    """Write heads, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest='step', required=True)
    write = steps.add_parser('write')
    write.add_argument('label_map_dir', type=Path)
    write.add_argument('cohort', type=Path)
    write.add_argument('heads', type=Path)
    write.add_argument('--seed', type=int, default=1)
    both = steps.add_parser('compare')
    both.add_argument('grid', type=Path)
    both.add_argument('bundle', type=Path)
    both.add_argument('output', type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.step == 'write':
        write_heads(options.label_map_dir, options.cohort, options.heads, options.seed)
        return
    table = compare(options.grid, options.bundle, options.output)
    sys.stdout.write(table.round(1).to_string(index=False))
    off = table['difference'].abs()
    sys.stdout.write(f'\nn = {off.count()}, mean absolute difference {off.mean():.1f} years\n')


if __name__ == '__main__':
    main()
