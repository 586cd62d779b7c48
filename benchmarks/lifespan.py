"""How fast people of all ages are generated.

    python benchmarks/lifespan.py [--label-maps DIR --cache DIR] [--people 20] [--processes 2]

One volume is a person's modulated grey matter at 2 mm in template space, from drawing the person
to the array.  A warp can be used for many scans, so scans of the same person are timed on their
own.  Several processes with one thread each run side by side, and their rates are added.  An
attempt to make a person whom an anatomy cannot become counts as time, not as a person.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STEPS = ('warp', 'exact warp', 'grey matter map', 'scan 2 mm')


def measure(cache: Path, label_maps: Path | None, people: int, device: str) -> dict[str, float]:
    """Return the seconds of each step for all people together, on one thread."""
    import numpy as np
    import torch

    from bids_brainage.errors import ProcessingError
    from bids_brainage.simulation.lifespan.anatomy import atlas_anatomy, load_anatomies
    from bids_brainage.simulation.lifespan.cohort import draw_traits, individual_at
    from bids_brainage.simulation.lifespan.inputs import modulated_gm
    from bids_brainage.simulation.lifespan.person import prepare_carver
    from bids_brainage.simulation.lifespan.population import load_population
    from bids_brainage.simulation.lifespan.registration import normalise, template_anatomy
    from bids_brainage.simulation.lifespan.render import draw_acquisition, take_scan

    torch.set_num_threads(1)
    anatomy = load_anatomies(label_maps, cache)[0] if label_maps else atlas_anatomy()
    carver = prepare_carver(anatomy, device)
    template = template_anatomy(anatomy, device)
    population, affine = load_population(), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-83.5, -119.5, -71.5)
    acquisition = draw_acquisition(np.random.default_rng(0), skull_strip=True)
    seconds = dict.fromkeys(STEPS, 0.0)
    number = made = 0
    while made < people:
        traits = draw_traits(population, 0, number)
        age = 20.0 + 70.0 * made / people
        number += 1
        person = None
        for name, exact in (('exact warp', True), ('warp', False)):
            start = time.perf_counter()
            with suppress(ProcessingError):
                person = individual_at(traits, age, population, [carver], exact=exact)
            seconds[name] += time.perf_counter() - start
        if person is None:
            continue
        made += 1
        start = time.perf_counter()
        modulated_gm(normalise(person, template), (84, 102, 84), affine)
        seconds['grey matter map'] += time.perf_counter() - start
        start = time.perf_counter()
        take_scan(person, acquisition, number)
        seconds['scan 2 mm'] += time.perf_counter() - start
    return seconds


def main() -> None:
    """Time each step and print volumes per second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--label-maps', type=Path, help='without it: the packaged atlas')
    parser.add_argument('--cache', type=Path, default=Path('anatomies'), help='prepared heads')
    parser.add_argument('--people', type=int, default=20)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--processes', type=int, default=1)
    options = parser.parse_args()
    if options.label_maps:
        from bids_brainage.simulation.lifespan.anatomy import load_anatomies

        load_anatomies(options.label_maps, options.cache)
    with ProcessPoolExecutor(options.processes, get_context('spawn')) as pool:
        jobs = [
            pool.submit(measure, options.cache, options.label_maps, options.people, options.device)
            for _ in range(options.processes)
        ]
        found = [job.result() for job in jobs]
    for one in found:
        one['person and map'] = one['warp'] + one['grey matter map']
    for name in (*STEPS, 'person and map'):
        rate = sum(options.people / one[name] for one in found)
        sys.stdout.write(f'{name:16s} {options.processes / rate:.3f} s  {rate:.1f} per s\n')


if __name__ == '__main__':
    main()
