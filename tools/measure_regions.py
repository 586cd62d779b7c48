"""Measure the regions of people of known age, by each network and by all together.

    python tools/measure_regions.py SHARED_DATA WORK OUT_TSV [--part I/N] [--corrected]

One row for each scan and each member of the ensemble, and one ``all`` for the mean of their
probabilities, which is what users get: volumes in millilitres, found as the participant level
finds them.  ``--corrected`` measures each image after its bias field was taken out, as scanners
and other programs may have done before an image comes here.  ``learnt`` is the member that has
learnt from the person (``WORK/halves.json`` of ``train_segmentation.py``), or ``none``.

A mask only says where the network is to look.  Where there is a label image, its brain is taken;
the other masks are found as the program finds them and kept in ``WORK/masks``.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainage.preprocessing.bias import correct_bias
from bids_brainage.preprocessing.brainmask import find_brain
from bids_brainage.preprocessing.image import load_canonical
from bids_brainage.segmentation.measure import (
    network_grid,
    network_input,
    probabilities,
    region_volumes,
)
from bids_brainage.segmentation.refine import refine
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import load_networks

LOG = logging.getLogger('measure_regions')
SOURCES = ('ixi-hh', 'more-adults', 'real-bids')
ADULT = 18.0


def scans(shared: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """Yield dataset, image and row of ``participants.tsv`` of every scan of an adult."""
    for source in SOURCES:
        with (shared / source / 'participants.tsv').open(encoding='utf-8') as stream:
            rows = {r['participant_id']: r for r in csv.DictReader(stream, delimiter='\t')}
        for path in sorted((shared / source).glob('sub-*/**/anat/*_T1w.nii.gz')):
            row = rows[path.name.split('_')[0]]
            if row['age'] not in ('', 'n/a') and float(row['age']) >= ADULT:
                yield source, path, row


def place(name: str, row: dict[str, str]) -> str:
    """Return the scanner or study that a person comes from."""
    text = f'{row.get("source_id", "")} {row.get("ixi_id", "")}'
    if name.startswith('sub-ixihh') or 'HH' in text:
        return 'IXI Hammersmith'
    if name.startswith('sub-ixiguys') or 'Guys' in text:
        return 'IXI Guys'
    for start, source in (
        ('sub-nichart', 'NiChart'), ('sub-on2748', 'ds002748'), ('sub-on0011', 'ds000011'),
        ('sub-mslj', '3D-MR-MS'), ('sub-pumi', 'ds002608'),
    ):  # fmt: skip
        if name.startswith(start):
            return source
    return 'other'


def same_person(name: str, row: dict[str, str]) -> str:
    """Return who it is, so that one person of two datasets counts once."""
    known = row.get('ixi_id') or row.get('source_id', '')
    return known.split('-')[0] if known.startswith('IXI') else name


def brain_of(path: Path, work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return intensities, affine and brain mask of a scan, and whether it came without skull."""
    data, affine, facts = load_canonical(path)
    kept = work / 'masks' / path.name.replace('.nii.gz', '.npy')
    name = path.name.split('_')[0]
    labels = [*path.parents[3].glob(f'*/derivatives/dlmuse/{name}/anat/*dseg.nii.gz')]
    if labels:
        mask = load_canonical(labels[0])[0] > 0
    elif kept.is_file():
        mask = np.unpackbits(np.load(kept), count=data.size).reshape(data.shape) > 0
    else:
        mask, _ = find_brain(data, affine, skull_stripped=facts.skull_stripped)
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, np.packbits(mask))
    return data, affine, mask, facts.skull_stripped


def main() -> None:
    """Measure and write."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    for name in ('shared', 'work', 'out'):
        parser.add_argument(name, type=Path)
    parser.add_argument('--part', default='1/1', help='which part of the scans, as 1/2')
    parser.add_argument('--corrected', action='store_true', help='take the bias field out before')
    options = parser.parse_args()
    halves = json.loads((options.work / 'halves.json').read_text('utf-8'))
    learnt = {name: number for number, key in enumerate(sorted(halves)) for name in halves[key]}
    aliases = {
        name.replace('sub-ixihh', 'IXI'): number
        for name, number in learnt.items() if name.startswith('sub-ixihh')
    }  # fmt: skip
    networks = load_networks()
    part, parts = map(int, options.part.split('/'))
    rows = []
    for source, path, row in list(scans(options.shared))[part - 1 :: parts]:
        name = row['participant_id']
        person = same_person(name, row)
        seen = learnt.get(name, aliases.get(person))
        data, affine, mask, without_skull = brain_of(path, options.work)
        if options.corrected:
            data = correct_bias(data, affine, mask)[0]
        shape, target = network_grid(mask, affine)
        box = network_input(data, affine, shape, target)
        found = {str(i): probabilities([n], box) for i, n in enumerate(networks)}
        found['all'] = np.mean(list(found.values()), axis=0)
        for member, shares in found.items():
            volumes = region_volumes(refine(shares, box))
            rows.append({
                'participant_id': name, 'person': person,
                'scan': path.name.removesuffix('_T1w.nii.gz'),
                'dataset': source, 'source': place(name, row), 'age': float(row['age']),
                'sex': row['sex'], 'group': row.get('group', 'n/a'),
                'skull_stripped': without_skull, 'member': member,
                'learnt': 'none' if seen is None else str(seen),
                **{r.name: volumes[r.name] for r in load_regions()},
            })  # fmt: skip
        LOG.info('%s', name)
        pd.DataFrame(rows).to_csv(options.out, sep='\t', index=False, float_format='%.4f')


if __name__ == '__main__':
    main()
