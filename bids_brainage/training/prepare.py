"""From a dataset and its derivatives to a checked job: nothing here takes hours."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.inputs.grey_matter import LEARNT, maker_of
from bids_brainage.inputs.kinds import kind_of, learns_graph
from bids_brainage.models.registry import model_info
from bids_brainage.outputs.connectivity import count_regions, session_matrices
from bids_brainage.preprocessing.bold.names import DEFAULT_ATLAS
from bids_brainage.training.cache import build_cache
from bids_brainage.training.cohort import (
    GREY_MATTER,
    Candidate,
    choice_sentences,
    derivative_files,
    find_candidates,
    keep_apart,
    problem_sentences,
)
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.training.pairs import pair_block
from bids_brainage.training.recipe import Recipe
from bids_brainage.training.split_table import (
    MIN_PEOPLE,
    MIN_WITHOUT_EPOCHS,
    read_split,
    split_problems,
    write_split,
)
from bids_brainage.training.splits import SIMULATED, Assignment, Item, make_split, reserved_people
from bids_brainage.training.studies import Study
from bids_brainage.training.table import table_block

log = logging.getLogger(__name__)

Data = Sequence[tuple[Study, Sequence[Scan]]]


@dataclass(frozen=True)
class Prepared:
    """Checked inputs of a training.

    Attributes
    ----------
    cache, split : Path
        Folder of the prepared inputs, and the split table.
    left_out : int
        Scans that cannot be used.
    assignments : tuple of Assignment
        Who does what.
    """

    cache: Path
    split: Path
    left_out: int
    assignments: tuple[Assignment, ...] = ()


def input_block(arch: str, recipe: Recipe) -> dict[str, Any]:
    """Return the ``input`` block of the bundle to be trained.

    Parameters
    ----------
    arch : str
        Registry name.
    recipe : Recipe
        Its `coarsen` makes the published grid coarser by a whole factor, same corner; with
        `start_from` the block is that of the bundle.
    """
    if arch in ARCHITECTURES:
        return pair_block()
    if recipe.run.start_from:
        return load_bundle(recipe.run.start_from, verify=False).input
    published = model_info(arch).input
    if kind_of(published).is_table:
        return table_block(published, recipe)
    block: dict[str, Any] = {
        'space': None,
        'affine': None,
        'orientation': 'RAS',
        'normalisation': 'see the reference',
        'skull_stripped': True,
        **published,
    }
    factor = recipe.data.coarsen
    if factor == 1:
        return block
    block['shape'] = [n // factor for n in block['shape']]
    block['voxel_size_mm'] = [size * factor for size in block['voxel_size_mm']]
    if block['affine'] is not None:
        step = np.diag([factor, factor, factor, 1.0])
        step[:3, 3] = (factor - 1) / 2
        block['affine'] = (np.asarray(block['affine'], float) @ step).tolist()
    return block


def input_of(arch: str, recipe: Recipe, data: Data, atlas: str) -> dict[str, Any]:
    """Return the ``input`` block of the bundle to be trained on the data at hand.

    Parameters
    ----------
    arch : str
        Registry name.
    recipe : Recipe
    data : sequence of (Study, sequence of Scan)
        Datasets, and the scans of their selected participants.
    atlas : str
        Label of the atlas whose connectivity is taken.
    """
    declared = input_block(arch, recipe)
    if not recipe.run.start_from:
        declared = with_regions(declared, data, atlas)
    return with_maker(declared, data)


def with_regions(declared: Mapping[str, Any], data: Data, atlas: str) -> dict[str, Any]:
    """Return an ``input`` block with the number of regions that the connectivity at hand has.

    Parameters
    ----------
    declared : mapping
        From `input_block`.
    data : sequence of (Study, sequence of Scan)
        Datasets, and the scans of their selected participants.
    atlas : str
        Label of the atlas whose connectivity is taken.
    """
    if not learns_graph(declared):
        return dict(declared)
    found = (
        session_matrices(study.output_dir, s.subject, s.session, atlas)
        for study, scans in data
        for s in scans
    )
    first = next((paths[0] for paths in found if paths), None)
    return {**declared, 'n_nodes': declared['n_nodes'] if first is None else count_regions(first)}


def with_maker(declared: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """Return an ``input`` block that says which other program made most maps of grey matter.

    Parameters
    ----------
    declared : mapping
        From `input_block`.
    data : sequence of (Study, sequence of Scan)
        Datasets, and the scans of their selected participants.
    """
    if GREY_MATTER not in kind_of(declared).derivatives:
        return dict(declared)
    maps = (
        derivative_files(scan, study.output_dir, declared)[GREY_MATTER]
        for study, scans in data
        for scan in scans
        if scan.suffix == 'T1w'
    )
    makers = Counter(maker_of(path) for path in maps if path.is_file())
    most = makers.most_common(1)[0][0] if makers else None
    kept = {key: value for key, value in declared.items() if key != LEARNT}
    return kept if most is None else {**kept, LEARNT: most}


def prepare_training(
    data: Data,
    work_dir: Path,
    recipe: Recipe,
    declared: Mapping[str, Any],
    *,
    split_path: Path,
    given_split: Path | None = None,
    atlas: str = DEFAULT_ATLAS,
    reference: tuple[str, str] | None = None,
    seed: int = 0,
    workers: int = 1,
    check_only: bool = False,
) -> Prepared:
    """Check people and images, prepare the inputs, and split.

    Parameters
    ----------
    data : sequence of (Study, sequence of Scan)
        Datasets, and the scans of their selected participants.
    work_dir : Path
        Folder for the cache.
    recipe : Recipe
        How to split and what to prepare.
    declared : mapping
        From `input_block`.
    split_path : Path
        Where the split table is written.
    given_split : Path or None
        A split to use instead of a new one.
    atlas : str
        Label of the atlas whose connectivity is taken.
    reference : (column, value), optional
        Healthy people; nobody else takes part.
    seed, workers : int
        Of the split; threads of the preparation.
    check_only : bool
        Look at tables and names only, prepare and write nothing.

    Raises
    ------
    TrainingInputError
        People or images cannot be used, or the split is not sound; all problems together.
    MissingInputError
        There are no derivatives at all.
    """
    candidates = keep_apart(
        _all_candidates(data, recipe, declared, atlas, reference), recipe.data.years_apart
    )
    for sentence in choice_sentences(candidates):
        log.warning(
            'Left out: %s; [data] exclude_flags and years_apart of --recipe say which', sentence
        )
    problems = _known_problems(candidates, recipe)
    usable = [c for c in candidates if not c.problem]
    left_out = [c for c in candidates if c.problem]
    cache = work_dir / cache_name(declared)
    if not check_only:
        early: list[str] = []
        _split(usable, recipe, seed, given_split, early)
        if early:  # told before inputs are prepared, which can take hours
            raise TrainingInputError([*problems, *early])
        usable, spoilt = _with_inputs(cache, usable, declared, recipe, workers)
        left_out += spoilt
        if recipe.data.on_problem == 'stop':
            problems += [s for s in problem_sentences(spoilt) if s not in problems]
    assignments = _split(usable, recipe, seed, given_split, problems)
    if problems:
        raise TrainingInputError(problems)
    if not check_only:
        write_split(split_path, assignments, [(c.item, c.problem) for c in left_out])
    return Prepared(cache, split_path, len(left_out), tuple(assignments))


def cache_name(declared: Mapping[str, Any]) -> str:
    """Return the name of the folder of prepared inputs, from the ``input`` block."""
    return f'inputs-{declared["kind"]}-{"x".join(map(str, declared["shape"]))}'


def _all_candidates(
    data: Data,
    recipe: Recipe,
    declared: Mapping[str, Any],
    atlas: str,
    reference: tuple[str, str] | None,
) -> list[Candidate]:
    """Return the scans of all datasets, each under its name beside those of the others."""
    result = []
    for study, scans in data:
        found = find_candidates(
            scans,
            study.bids_dir,
            study.output_dir,
            declared,
            modality=recipe.data.modality,
            atlas=atlas,
            reference=reference,
            exclude_flags=recipe.data.exclude_flags,
        )
        _require_derivatives(found, study.output_dir)
        made_up: set[str] = set()
        if recipe.run.simulated_share:
            made_up = {scan.uri for scan in scans if scan.metadata.get('Simulated') is True}
        for one in found:
            role = SIMULATED if one.item.source in made_up else ''
            result.append(replace(one, item=study.named(replace(one.item, role=role))))
    return result


def _require_derivatives(candidates: Sequence[Candidate], output_dir: Path) -> None:
    if not any(path.is_file() for c in candidates for path in c.files.values()):
        raise MissingInputError(
            f'No derivatives to train on in {output_dir} for {len(candidates)} T1w scans. Run the '
            'participant level first, with the same output folder and --level full (the default).'
        )


def _known_problems(candidates: Sequence[Candidate], recipe: Recipe) -> list[str]:
    """Return what stops the training; with ``leave_out`` only tell it."""
    problems = problem_sentences(candidates)
    if recipe.data.on_problem == 'leave_out':
        for sentence in problems[:-1]:
            log.warning('Left out: %s', sentence)
        return []
    return problems


def _with_inputs(
    cache: Path,
    usable: Sequence[Candidate],
    declared: Mapping[str, Any],
    recipe: Recipe,
    workers: int,
) -> tuple[list[Candidate], list[Candidate]]:
    """Prepare the inputs; return who has them, and who has not with the reason."""
    failed = build_cache(
        cache, usable, declared, synthetic=recipe.data.synthetic_slices, workers=workers
    )
    spoilt = [replace(candidate, problem=reason) for candidate, reason in failed]
    gone = {c.item.source for c in spoilt}
    return [c for c in usable if c.item.source not in gone], spoilt


EVERYBODY_REPEATED = (
    'Everybody has several sessions, and reserve_repeated keeps such people out of the training. '
    'Set reserve_repeated = false in [split] of --recipe; all scans of a person stay together.'
)


def _split(
    usable: Sequence[Candidate],
    recipe: Recipe,
    seed: int,
    given: Path | None,
    problems: list[str],
) -> list[Assignment]:
    items = [candidate.item for candidate in usable]
    if not items:
        problems.append('No scan is left to train on.')
        return []
    if mixing := _mixing_problem(items, recipe):
        problems.append(mixing)
        return []
    free = {item.participant for item in items if not item.role}
    if given is not None:
        assignments = read_split(given, items, problems)
        problems += _misplaced(assignments, given)
    elif free and len(reserved_people(items, recipe.split)) == len(free):
        problems.append(EVERYBODY_REPEATED)
        return []
    else:
        assignments = make_split(items, recipe.split, seed)
    if not assignments:
        problems.append('Nobody is left to train on.')
    else:
        least = MIN_WITHOUT_EPOCHS if recipe.split.selection == 'none' else MIN_PEOPLE
        problems += split_problems(assignments, by_scan=recipe.split.unit == 'scan', least=least)
    return assignments


def _mixing_problem(items: Sequence[Item], recipe: Recipe) -> str:
    """Say what is missing for batches of real and simulated people; empty if nothing."""
    share = recipe.run.simulated_share
    if not share:
        return ''
    words = f'simulated_share = {share:g} in [run]'
    if all(item.role != SIMULATED for item in items):
        return (
            f'{words}: none of the {len(items)} scans is of a simulated person ("Simulated": true '
            'in the side file of the image). Add simulated people, in --cohorts say, or leave the '
            'key out.'
        )
    if all(item.role for item in items):
        return (
            f'{words}: no scan of a real person is left, who train, choose the epoch and test. '
            'Add real people, in --cohorts say, or leave the key out.'
        )
    return ''


def _misplaced(assignments: Sequence[Assignment], given: Path) -> list[str]:
    """Say whether simulated people have another role in a split than the recipe gives them."""
    wrong = {
        a.item.source for a in assignments if (a.role == SIMULATED) != (a.item.role == SIMULATED)
    }
    if not wrong:
        return []
    return [
        f'--split {given}: {len(wrong)} scans have the role {SIMULATED} and should not, or the '
        f'other way round, {min(wrong)} say. With simulated_share in [run] all simulated people '
        'have it, and without it nobody.'
    ]
