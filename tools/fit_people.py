"""Make what simulated people are drawn from, on the scale of the program's own measurements.

    python tools/fit_people.py MEASURED_TSV

``MEASURED_TSV`` comes from ``tools/measure_regions.py``.  Two files are written: the regions of
the template head that people are warps of, as the segmentation network finds them, and how
the regions' shares change with age and differ between people (``data/population/regions.json``).

The typical share is the curve of ``tools/normative_curves.py``; below its first knot and above its
last it is a straight line.  People differ by the covariance between what one network and what the
other found in the same person: what only one of them says is noise of the measurement.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from fit_regions import REGIONS
from normative_curves import basis, fit, read_people

from bids_brainage.segmentation.measure import network_grid, network_input, probabilities
from bids_brainage.segmentation.norms import load_structures
from bids_brainage.segmentation.refine import refine
from bids_brainage.segmentation.weights import load_networks
from bids_brainage.simulation.grid import Grid, sample
from bids_brainage.simulation.lifespan.anatomy import BRAIN
from bids_brainage.simulation.render import CONTRAST, TEXTURE, draw_acquisition
from bids_brainage.simulation.scan import painted_head
from bids_brainage.simulation.template import REGION_MAPS, grid_box, load_template

PACKAGE = Path(__file__).parents[1] / 'bids_brainage'
AGES = np.array([18, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95], float)
STRUCTURES = [s.name for s in load_structures()][1:]


def measure_template() -> np.ndarray:
    """Return the regions' fractions of the template head in its middle contrast on `BRAIN`."""
    template = load_template(1)
    middle = replace(
        draw_acquisition((0,), 'RAS'),
        contrast={name: (low + high) / 2 for name, (low, high) in CONTRAST.items()},
        texture=sum(TEXTURE) / 2,
    )
    head, brain = painted_head(template, middle), np.zeros(template.head.shape, bool)
    brain[grid_box(template.grid, template.head_grid)] = template.mask > 0.5
    affine = template.head_grid.affine
    shape, target = network_grid(brain, affine)
    box = network_input(head, affine, shape, target)
    found = refine(probabilities(load_networks(), box), box)
    x, y, z = found.shape[:3]
    grid = Grid((x, y, z), 2.0, (target[0, 3], target[1, 3], target[2, 3]))
    where = grid.index(BRAIN.points())
    regions = [np.ascontiguousarray(found[..., 1 + k]) for k in range(len(REGIONS))]
    return np.stack([np.rint(255 * sample(r, where)) for r in regions], axis=-1).astype('u1')


def typical(path: Path) -> np.ndarray:
    """Return the mean log share of each region but the first at `AGES`, shape (K, S)."""
    table, logs = read_people(path)
    age, sex = table['age'].to_numpy(float), np.zeros(len(table))
    columns = [
        fit(age, sex, logs[:, STRUCTURES.index(name)], with_sex=False).at(AGES, 0.0)[0]
        for name in REGIONS[1:]
    ]
    return np.stack(columns, axis=1)


def covariance(path: Path) -> np.ndarray:
    """Return how people of one age differ in what both networks agree on, shape (S, S)."""
    known = set(read_people(path)[0]['scan'])
    table = pd.read_csv(path, sep='\t', dtype={'member': str})
    table = table[table['scan'].isin(known)].sort_values('scan')
    rest = []
    for member in ('0', '1'):
        mine = table[table['member'] == member]
        volume = mine[REGIONS].clip(lower=1e-3).to_numpy(float)
        logs = np.log(volume[:, 1:] / volume.sum(axis=1, keepdims=True))
        sex = mine['sex'].map({'M': 0.5, 'F': -0.5}).fillna(0).to_numpy(float)
        design = np.column_stack([basis(mine['age'].to_numpy(float)), sex])
        rest.append(logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0])
    shared = rest[0].T @ rest[1] / (len(rest[0]) - design.shape[1])
    values, axes = np.linalg.eigh((shared + shared.T) / 2)
    return axes * np.maximum(values, 0) @ axes.T


def intracranial(path: Path) -> dict[str, list[float]]:
    """Return median and standard deviation of the intracranial volume by sex, ml."""
    table, _ = read_people(path)
    whole = table[REGIONS].sum(axis=1)
    return {
        sex: [round(float(rows.median()), 1), round(float(rows.std()), 1)]
        for sex, rows in whole.groupby(table['sex'])
        if sex in ('F', 'M')
    }


def main() -> None:
    """Measure, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('measured', type=Path)
    path = parser.parse_args().measured
    maps = nib.Nifti1Image(measure_template(), BRAIN.affine)
    nib.save(maps, PACKAGE / REGION_MAPS)
    content = {
        'description': 'Log share of each region in the intracranial volume over adult life (as '
        'the segmentation network measures it), covariance of people of one age, intracranial '
        'volumes in ml.',
        'method': 'tools/fit_people.py',
        'sources': ['what the program measured in the people of segmentation/muse/curves.json'],
        'license': 'CC BY-SA 4.0, since most were measured in images of IXI (CC BY-SA 3.0)',
        'n': len(read_people(path)[0]),
        'structures': REGIONS[1:],
        'age': AGES.tolist(),
        'log_share': np.round(typical(path), 4).tolist(),
        'covariance': np.round(covariance(path), 6).tolist(),
        'intracranial_ml': intracranial(path),
    }
    out = PACKAGE / 'data' / 'population' / 'regions.json'
    out.write_text(json.dumps(content, separators=(',', ':')) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
