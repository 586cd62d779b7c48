"""Generate people of all ages and write what models take of them, ready for training.

    python tools/lifespan_cohort.py LABEL_MAP_DIR OUT --people 2000

``LABEL_MAP_DIR`` holds SynthSeg's training label maps (Apache-2.0); ``atlas`` takes the average
brain of the packaged atlas instead.  ``OUT`` gets one folder of
prepared inputs for each grid, ``split.tsv``, and ``truth.tsv`` (true volumes, and the best age
anybody could say from them).  A run that was stopped goes on where it was; a finished one that
is called again with another ``--learn`` writes the inputs anew with that age to learn: ``best`` is
the age that people with the same volumes have in the middle, ``drawn`` the person's own.

Of the first 8,000 people seven tenths train, a tenth chooses the epoch, a fifth tests; those
after them all train, so that cohorts of any size are tested on the same people.  The first test
people are scanned three times: again on the same day (retest), and years later (longitudinal),
with the same contrast but other noise, pose and errors.
"""

from __future__ import annotations

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from bids_brainage.errors import ProcessingError
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.outputs.files import write_tsv
from bids_brainage.simulation.lifespan.anatomy import HeadAnatomy, atlas_anatomy, load_anatomies
from bids_brainage.simulation.lifespan.cohort import (
    Individual,
    draw_age,
    draw_traits,
    individual_at,
)
from bids_brainage.simulation.lifespan.imperfection import Imperfection
from bids_brainage.simulation.lifespan.inputs import (
    modulated_gm,
    painted,
    t1w_brain,
    t1w_clinical,
    t1w_structural,
)
from bids_brainage.simulation.lifespan.person import Carver, prepare_carver
from bids_brainage.simulation.lifespan.population import Population, load_population
from bids_brainage.simulation.lifespan.registration import (
    Normalised,
    Registered,
    TemplateAnatomy,
    align,
    normalise,
    template_anatomy,
)
from bids_brainage.simulation.lifespan.render import Acquisition, draw_acquisition
from bids_brainage.training.cache import write_rows
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.split_table import write_split
from bids_brainage.training.splits import (
    LONGITUDINAL,
    RETEST,
    TEST,
    TRAINING,
    VALIDATION,
    Assignment,
    Item,
)

LOG = logging.getLogger('lifespan_cohort')
AGES = (18.0, 95.0)
YEARS_LATER = 4.0
CHUNK = 50
#: In place of a folder of label maps.
ATLAS = Path('atlas')
#: People with a higher number all train.
TESTED = 8000
#: Volume that the program's segmentation finds / FreeSurfer's, median of real people measured
#: both ways (6 to 11, by structure; `tools/match_measures.py`).
GAIN = {
    'cortex': 1.12, 'cerebellum_cortex': 1.0, 'thalamus': 0.89, 'caudate': 0.96, 'putamen': 1.03,
    'pallidum': 0.96, 'hippocampus': 0.96, 'amygdala': 1.12,
}  # fmt: skip
#: Inputs: name, architecture whose grid it is, how much coarser.
GRIDS = (
    ('modulated_gm-6mm', 'resnet_crossvit', 3),
    ('t1w_brain-4mm', 'vgg8', 4),
    ('t1w_clinical-4mm', 'densenet169_clinical', 2),
    ('t1w_structural-6mm', 'amagenet', 4),
)
#: The same on the grids of the papers.
PUBLISHED = tuple((f'{name.rpartition("-")[0]}-published', arch, 1) for name, arch, _ in GRIDS)
#: Grey matter of System A as it goes on with real people.
FINER_MAPS = (('modulated_gm-4mm', 'resnet_crossvit', 2),)

KEYS = ('source', 'number', 'session', 'age', 'sex', 'role', 'log_share')


@dataclass(frozen=True)
class Plan:
    """What to generate."""

    label_maps: Path
    out: Path
    people: int
    seed: int
    repeated: int
    learn: str
    grids: tuple[tuple[str, str, int], ...] = GRIDS
    device: str = 'cpu'

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return -(-self.people // CHUNK)


@dataclass(frozen=True)
class World:
    """What all people are made with."""

    population: Population
    carvers: list[Carver]
    templates: dict[str, TemplateAnatomy]
    blocks: dict[str, dict]


@dataclass(frozen=True)
class Visit:
    """One scan of one person."""

    source: str
    number: int
    session: int
    age: float
    sex: str
    role: str
    log_share: np.ndarray
    inputs: dict[str, np.ndarray]


def role_of(number: int) -> str:
    """Return the role of a person: fixed by the number, so that cohorts can grow."""
    if number >= TESTED:
        return TRAINING
    return ((TRAINING,) * 7 + (VALIDATION, TEST, TEST))[number % 10]


def visits_of(seed: int, number: int, repeated: int, world: World) -> list[Visit]:
    """Make all scans of a person."""
    traits = draw_traits(world.population, seed, number)
    age, role = draw_age(seed, number, AGES), role_of(number)
    first = individual_at(traits, age, world.population, world.carvers, exact=False)
    out = [_visit(first, 1, role, world)]
    if role == TEST and number < 5 * repeated:
        out.append(_visit(first, 2, RETEST, world))
        if age + YEARS_LATER <= AGES[1]:
            later = individual_at(
                traits, age + YEARS_LATER, world.population, [first.carver], exact=False
            )
            out.append(_visit(later, 3, LONGITUDINAL, world))
    return out


def _visit(person: Individual, session: int, role: str, world: World) -> Visit:
    seed, number = person.traits.key
    template = world.templates[person.carver.anatomy.name]
    protocol, _ = acquire(seed, number, 1)
    _, rng = acquire(seed, number, session)
    image = painted(template, protocol.contrast)
    scans = (
        normalise(person, template, session, Imperfection()),
        align(person, template, session, Imperfection()),
    )
    inputs = {
        name: network_input(scans, block, image, rng) for name, block in world.blocks.items()
    }
    return Visit(
        source_of(f'sub-{number:05d}', session),
        number,
        session,
        person.age,
        person.traits.sex,
        role,
        person.log_share,
        inputs,
    )


def source_of(label: str, session: int) -> str:
    """Return the name under which a scan of a person stands in the caches and tables."""
    return f'bids::{label}/ses-{session}/anat/{label}_ses-{session}_T1w.nii.gz'


def acquire(seed: int, number: int, session: int) -> tuple[Acquisition, np.random.Generator]:
    """Draw how a session is scanned; the generator goes on with its slices."""
    rng = np.random.default_rng([seed, number, 6, session])
    return draw_acquisition(rng), rng


def network_input(
    scans: tuple[Normalised, Registered],
    block: dict,
    image: torch.Tensor,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return what one kind of network takes of a scan whose brain is painted already.

    ``scans`` are the scan deformed to the template and the one that was only aligned.
    """
    deformed, aligned = scans
    grid, error = (tuple(block['shape']), np.array(block['affine'])), Imperfection()
    if block['kind'] == 'modulated_gm':
        return modulated_gm(deformed, *grid, error)
    if kind_of(block).native:
        return t1w_clinical(deformed.person, image, block, rng)
    if kind_of(block).takes_graph:
        return t1w_structural(aligned, image, *grid, error)
    return t1w_brain(aligned, image, *grid, error)


def anatomies(label_maps: Path, cache: Path) -> list[HeadAnatomy]:
    """Return the heads that people are carved out of."""
    return [atlas_anatomy()] if label_maps == ATLAS else load_anatomies(label_maps, cache)


@lru_cache(maxsize=1)
def make_world(
    label_maps: Path,
    cache: Path,
    grids: tuple[tuple[str, str, int], ...] = GRIDS,
    device: str = 'cpu',
) -> World:
    """Prepare anatomies (once) and grids."""
    carvers = [prepare_carver(a, device) for a in anatomies(label_maps, cache)]
    templates = {c.anatomy.name: template_anatomy(c.anatomy, device, GAIN) for c in carvers}
    blocks = {
        name: input_block(arch, make_recipe(arch, {'data': {'coarsen': factor}}))
        for name, arch, factor in grids
    }
    return World(load_population(), carvers, templates, blocks)


def generate(plan: Plan, workers: int) -> None:
    """Make all chunks that are not there yet."""
    (plan.out / 'chunks').mkdir(parents=True, exist_ok=True)
    anatomies(plan.label_maps, plan.out / 'anatomies')
    missing = [k for k in range(plan.n_chunks) if not chunk_path(plan.out, k).is_file()]
    with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
        for done, _ in enumerate(pool.map(make_chunk, repeat(plan), missing), start=1):
            LOG.info('%d of %d people', (plan.n_chunks - len(missing) + done) * CHUNK, plan.people)


def make_chunk(plan: Plan, k: int) -> None:
    """Make one chunk of people."""
    torch.set_num_threads(1)
    world = make_world(plan.label_maps, plan.out / 'anatomies', plan.grids, plan.device)
    visits = []
    for number in range(k * CHUNK, min((k + 1) * CHUNK, plan.people)):
        try:
            visits += visits_of(plan.seed, number, plan.repeated, world)
        except ProcessingError as error:  # with one anatomy, that cannot become everybody
            LOG.warning('left out: %s', error)
    partial = plan.out / 'chunks' / f'partial-{k}.npz'
    np.savez(
        partial,
        **{name: np.array([getattr(v, name) for v in visits]) for name in KEYS},
        **{
            name: np.stack([v.inputs[name] for v in visits]).astype(np.float16)
            for name in world.blocks
        },
    )
    partial.rename(chunk_path(plan.out, k))


def chunk_path(out: Path, number: int) -> Path:
    """Return where a chunk lies."""
    return out / 'chunks' / f'{number:04d}.npz'


def assemble(plan: Plan) -> None:
    """Write caches, split and truth from the chunks."""
    out = plan.out
    paths = [chunk_path(out, k) for k in range(plan.n_chunks)]
    columns: dict[str, list] = {key: [] for key in KEYS}
    for path in paths:
        with np.load(path) as chunk:
            for key in KEYS:
                columns[key].extend(chunk[key])
    population = load_population()
    best = population.expected_age(np.array(columns['log_share']), *AGES)
    targets = {'best': best, 'drawn': columns['age']}[plan.learn]
    for name, arch, factor in plan.grids:
        block = input_block(arch, make_recipe(arch, {'data': {'coarsen': factor}}))

        def rows(name: str = name):
            visits = zip(columns['source'], targets, strict=True)
            for path in paths:
                with np.load(path) as chunk:
                    for image in chunk[name]:
                        source, target = next(visits)
                        yield str(source), float(target), (image[None],)

        write_rows(out / name, block, rows(), f'lifespan-{plan.seed}-{plan.people}-{plan.learn}')
    assignments, truth = [], []
    for i, source in enumerate(columns['source']):
        label = f'{int(columns["number"][i]):05d}'
        item = Item(
            str(source), label, str(columns['session'][i]), float(columns['age'][i]),
            str(columns['sex'][i]), 'lifespan',
        )  # fmt: skip
        assignments.append(Assignment(item, 1, str(columns['role'][i])))
        shares = dict(zip(population.structures, columns['log_share'][i], strict=True))
        truth.append({
            'source': str(source), 'participant_id': f'sub-{label}',
            'session_id': f'ses-{columns["session"][i]}', 'role': str(columns['role'][i]),
            'age': item.age, 'sex': item.sex, 'expected_age': float(best[i]), **shares,
        })  # fmt: skip
    write_split(out / 'split.tsv', assignments)
    write_tsv(out / 'truth.tsv', truth, list(truth[0]))


def main() -> None:
    """Generate and assemble."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('label_map_dir', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--people', type=int, default=2000)
    parser.add_argument('--repeated', type=int, default=60, help='test people scanned again')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--learn', choices=('best', 'drawn'), default='best')
    parser.add_argument('--workers', type=int, default=1, help='processes, 2.5 GB each')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--published', action='store_true', help='grids of the papers')
    which.add_argument('--finer-maps', action='store_true', help='grey matter at 4 mm alone')
    parser.add_argument('--device', default='cpu', help='of torch')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    grids = PUBLISHED if options.published else FINER_MAPS if options.finer_maps else GRIDS
    plan = Plan(
        options.label_map_dir, options.out, options.people, options.seed, options.repeated,
        options.learn, grids, options.device,
    )  # fmt: skip
    generate(plan, options.workers)
    assemble(plan)


if __name__ == '__main__':
    main()
