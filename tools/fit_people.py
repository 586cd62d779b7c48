"""Make what simulated people are drawn from, on the scale of the program's own measurements.

    python tools/fit_people.py MEASURED_TSV    (ten minutes of one core)

``MEASURED_TSV`` comes from ``tools/measure_regions.py``.  Two files are written: the regions of
the template head that people are warps of, as the segmentation network finds them, and how
the regions' shares change with age and differ between people (``data/population/regions.json``).

The typical share is the curve of ``tools/normative_curves.py``; below its first knot and above its
last it is a straight line.  People differ by the covariance between what one network and what the
other found in the same person: what only one of them says is noise of the measurement.

Then people are made, measured as the program measures, and compared with what they were made of:
at some ages a region is read too large or small, since the template's folds are blurred and
the warp moves its borders; what is read beyond that differs from person to person.  The typical
shares are corrected by the one, and how much people differ is lessened by the other, so that what
is read is what was measured in real people.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from fit_regions import REGIONS
from likely import bend_of
from normative_curves import basis, fit, read_people

from bids_brainage.errors import ProcessingError
from bids_brainage.segmentation.measure import (
    network_grid,
    network_input,
    probabilities,
    region_volumes,
)
from bids_brainage.segmentation.norms import load_structures
from bids_brainage.segmentation.refine import refine
from bids_brainage.segmentation.weights import load_networks
from bids_brainage.simulation.dataset import Plan, participant
from bids_brainage.simulation.grid import Grid, sample
from bids_brainage.simulation.lifespan.anatomy import BRAIN
from bids_brainage.simulation.render import CONTRAST, TEXTURE, draw_acquisition
from bids_brainage.simulation.scan import painted_head, simulate_person
from bids_brainage.simulation.template import REGION_MAPS, grid_box, load_template

PEOPLE, SEED = 32, 1000
"""People that are made and measured, and where their seeds begin."""

STEADY = 0.3
"""Of slope and bend of what is read wrongly: that variance of age they are held against."""

LEAST_SHARE = 0.25
"""Of the variance of each region, at least, is kept."""

PACKAGE = Path(__file__).parents[1] / 'bids_brainage'
AGES = np.array([18, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95], float)
STRUCTURES = [s.name for s in load_structures()][1:]


def regions_of(
    image: np.ndarray, affine: np.ndarray, brain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the network finds, (X, Y, Z, 1 + S), and where: voxels to mm."""
    shape, target = network_grid(brain, affine)
    box = network_input(image, affine, shape, target)
    return refine(probabilities(load_networks(), box), box), target


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
    found, target = regions_of(head, template.head_grid.affine, brain)
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


def read_back() -> tuple[np.ndarray, np.ndarray]:
    """Make people and measure them.

    Returns
    -------
    age : ndarray, shape (N,)
        Years.
    away : ndarray, shape (N, S)
        Log share of each region but the first that is read less the one that was made.
    """
    plan, ages, away = Plan(PEOPLE, seed=SEED, ages=(AGES[0] + 1, AGES[-1] - 3)), [], []
    for number in range(PEOPLE):
        age, sex = participant(plan, number)
        try:
            scan = simulate_person((SEED, number), age, sex, orientation='RAS')
        except ProcessingError:
            continue
        image = np.asarray(scan.image.dataobj, np.float32)
        brain = np.asarray(scan.brain_mask.dataobj) > 0
        volumes = region_volumes(regions_of(image, scan.affine, brain)[0])
        made, read = (
            np.log([max(found[name], 1e-3) for name in REGIONS[1:]]) - np.log(sum(found.values()))
            for found in (scan.volumes, {name: volumes[name] for name in REGIONS})
        )
        ages.append(age)
        away.append(read - made)
    return np.array(ages), np.array(away)


def corrected(content: dict[str, Any], age: np.ndarray, away: np.ndarray) -> dict[str, Any]:
    """Return the population of which that is read which was measured in people."""
    bend = bend_of(age)
    held = STEADY * len(age) * np.diag([0.0, *bend[:, 1:].var(axis=0)])
    wrong = np.linalg.solve(bend.T @ bend + held, bend.T @ away)
    rest = (away - bend @ wrong).var(axis=0)
    spread = np.array(content['covariance'])
    kept = np.sqrt(np.maximum(1 - rest / np.diag(spread), LEAST_SHARE))
    share = np.array(content['log_share']) - bend_of(AGES) @ wrong
    return content | {
        'log_share': np.round(share, 4).tolist(),
        'covariance': np.round(spread * np.outer(kept, kept), 6).tolist(),
    }


def write(content: dict[str, Any]) -> None:
    """Write the population that is packaged."""
    text = json.dumps(content, separators=(',', ':')) + '\n'
    (PACKAGE / 'data' / 'population' / 'regions.json').write_text(text, 'utf-8')


def main() -> None:
    """Measure, fit, write, and correct by what is read of people made from it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('measured', type=Path)
    path = parser.parse_args().measured
    maps = nib.Nifti1Image(measure_template(), BRAIN.affine)
    nib.save(maps, PACKAGE / REGION_MAPS)
    content = {
        'description': 'Log share of each region in the intracranial volume over adult life, so '
        'that the segmentation network reads of simulated people what it measures in real ones; '
        'covariance of people of one age, lessened by what differs in the reading; intracranial '
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
    write(content)
    write(corrected(content, *read_back()))


if __name__ == '__main__':
    main()
