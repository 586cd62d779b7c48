"""How fast people of all ages are generated.

    python benchmarks/lifespan.py [--label-maps DIR] [--people 20] [--device cuda]

One volume is a person's modulated grey matter at 2 mm template space resampled to a model's
grid, from drawing the person to the array.  A warp can be used for many scans, so scans of the
same person are timed on their own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    """Time each step and print volumes per second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--label-maps', type=Path, help='without it: the packaged atlas')
    parser.add_argument('--people', type=int, default=20)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    import numpy as np
    import torch

    from bids_brainage.simulation.lifespan.anatomy import atlas_anatomy, load_anatomies
    from bids_brainage.simulation.lifespan.cohort import draw_traits, individual_at
    from bids_brainage.simulation.lifespan.inputs import modulated_gm, normalise, template_anatomy
    from bids_brainage.simulation.lifespan.person import prepare_carver
    from bids_brainage.simulation.lifespan.population import load_population
    from bids_brainage.simulation.lifespan.render import draw_acquisition, take_scan

    torch.set_num_threads(options.threads)
    if options.label_maps:
        with tempfile.TemporaryDirectory() as cache:
            anatomy = load_anatomies(options.label_maps, Path(cache))[0]
    else:
        anatomy = atlas_anatomy()
    carver = prepare_carver(anatomy, options.device)
    template = template_anatomy(anatomy, options.device)
    population, affine = load_population(), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-83.5, -119.5, -71.5)
    acquisition = draw_acquisition(np.random.default_rng(0), skull_strip=True)
    seconds = dict.fromkeys(('warp', 'exact warp', 'grey matter map', 'scan 2 mm'), 0.0)
    for number in range(options.people):
        traits = draw_traits(population, 0, number)
        age = 40.0 + number
        for name, exact in (('warp', False), ('exact warp', True)):
            start = time.perf_counter()
            person = individual_at(traits, age, population, [carver], exact=exact)
            seconds[name] += time.perf_counter() - start
        start = time.perf_counter()
        modulated_gm(normalise(person, template), (84, 102, 84), affine)
        seconds['grey matter map'] += time.perf_counter() - start
        start = time.perf_counter()
        take_scan(person, acquisition, number)
        seconds['scan 2 mm'] += time.perf_counter() - start
    for name, value in seconds.items():
        per_second = options.people / value
        sys.stdout.write(f'{name:16s} {value / options.people:.3f} s  {per_second:.1f} per s\n')
    whole = options.people / (seconds['warp'] + seconds['grey matter map'])
    sys.stdout.write(f'{"person and map":16s} {1 / whole:.3f} s  {whole:.1f} per s\n')


if __name__ == '__main__':
    main()
