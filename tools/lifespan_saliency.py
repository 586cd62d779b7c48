"""Compare where networks look with where the generator put the ageing.

    python tools/lifespan_saliency.py LABEL_MAP_DIR ANATOMY_CACHE BUNDLE [BUNDLE ...] --people 20

Each person is made young and old; the truth is the absolute log of what every place grew or
shrank between the two ages, and "changed most" means its upper fifth inside the brain.  A map's
AUC is the chance that a place of that fifth has the higher value (0.5: no relation); Dice
compares the fifth of the map with that of the truth (0.2: no relation).  Maps are those of the
older scan, one by one and averaged over people.  Networks on template grids only.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from lifespan_cohort import make_world, network_input
from sklearn.metrics import roc_auc_score

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.errors import ProcessingError
from bids_brainage.inference.importance import image_gradient
from bids_brainage.inference.saliency import explain
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.anatomy import BRAIN
from bids_brainage.simulation.lifespan.cohort import draw_traits, individual_at
from bids_brainage.simulation.lifespan.imperfection import Imperfection
from bids_brainage.simulation.lifespan.inputs import ageing_map, painted
from bids_brainage.simulation.lifespan.registration import align, filled, normalise
from bids_brainage.simulation.lifespan.render import draw_acquisition

LOG = logging.getLogger('lifespan_saliency')
YOUNG, OLD = 30.0, 75.0
TOP = 0.2
#: Of another seed than the people who train.
SEED = 900


def on_grid(volume: torch.Tensor, declared: dict) -> np.ndarray:
    """Sample a map on `BRAIN` at a model's voxels."""
    shape, affine = tuple(declared['shape']), np.array(declared['affine'])
    axes = [affine[k, 3] + affine[k, k] * np.arange(shape[k]) for k in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing='ij')).astype('f4')
    return field.sample(volume[None], BRAIN, torch.from_numpy(points))[0].numpy()


def agreement(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return AUC and Dice of two maps of the same voxels, shape (n,)."""
    changed = truth >= np.quantile(truth, 1 - TOP)
    seen = found >= np.quantile(found, 1 - TOP)
    seen &= found > 0
    dice = 2 * (changed & seen).sum() / (changed.sum() + seen.sum())
    return float(roc_auc_score(changed, found)), float(dice)


def main() -> None:
    """Make people, explain their ages, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('label_map_dir', type=Path)
    parser.add_argument('cache', type=Path)
    parser.add_argument('bundles', type=Path, nargs='+')
    parser.add_argument('--people', type=int, default=20)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    torch.set_num_threads(1)
    world = make_world(options.label_map_dir, options.cache)
    bundles = [load_bundle(path) for path in options.bundles]
    models = [bundle.instantiate().eval() for bundle in bundles]
    maps: dict[tuple[str, str], list] = defaultdict(list)
    made, number = 0, 0
    while made < options.people:
        traits = draw_traits(world.population, SEED, number)
        number += 1
        try:
            old = individual_at(traits, OLD, world.population, world.carvers, exact=False)
            young = individual_at(traits, YOUNG, world.population, [old.carver], exact=False)
        except ProcessingError:
            continue
        made += 1
        template = world.templates[old.carver.anatomy.name]
        rng = np.random.default_rng([SEED, number])
        image = painted(template, draw_acquisition(rng).contrast)
        taken = [register(old, template, 1, Imperfection()) for register in (normalise, align)]
        truths = [torch.from_numpy(np.abs(ageing_map(young, old, seen))) for seen in taken]
        brains = [
            filled(field.sample(template.classes[-1:], BRAIN, seen.source), seen.inside)
            for seen in taken
        ]
        for bundle, model in zip(bundles, models, strict=True):
            kind = kind_of(bundle.input)
            aligned = kind.is_aligned
            inside = on_grid(brains[aligned], bundle.input) > 0.5
            change = on_grid(truths[aligned], bundle.input)
            given = network_input(taken, bundle.input, image, rng)
            scan = torch.from_numpy(given)[None, None].float()
            shown = {'gradient': image_gradient(model, scan)}
            inputs = (scan, None) if kind.takes_graph else (scan,)
            for method in bundle.metadata['saliency']:
                for stream, values in explain(method, model, inputs).items():
                    shown[f'{method} {stream}'.strip()] = values
            for name, values in shown.items():
                maps[bundle.name, name].append((values, change, inside))
    for (bundle_name, method), found in maps.items():
        single = np.array([agreement(v[m], t[m]) for v, t, m in found])
        everywhere = np.all([m for _, _, m in found], axis=0)
        means = [np.mean([part[k] for part in found], axis=0)[everywhere] for k in (0, 1)]
        group = agreement(*means)
        sys.stdout.write(
            f'| {bundle_name} | {method} | {len(found)} | {np.median(single[:, 0]):.2f} | '
            f'{np.median(single[:, 1]):.2f} | {group[0]:.2f} | {group[1]:.2f} |\n'
        )


if __name__ == '__main__':
    main()
