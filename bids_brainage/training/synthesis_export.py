"""Held-out error of a trained generator, and its file for ``--aicbv-weights`` with a card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.outputs.files import write_json
from bids_brainage.training.cache import Cache
from bids_brainage.training.export import Cohort
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.splits import TEST, TRAINING
from bids_brainage.training.synthesis import FOLD, build_generator

SCHEMA = 'bids_brainage-generator-1'
METRICS = ('mae', 'r', 'ssim', 'mean_map_mae')
COLUMNS = ('participant_id', 'source', *METRICS)
REFERENCES = {
    'aicbv_mamba': {
        'text': 'Jomsky et al., arXiv:2412.01865, as MedSegMamba (Cao, Li, Guo, '
        'arXiv:2409.08307) with one linear channel.',
        'doi': '10.48550/arXiv.2412.01865',
    },
    'aicbv_resattunet2d': {
        'text': 'After Liu et al., "DeepContrast", Front. Aging Neurosci. 2022.',
        'doi': None,
    },
}

Row = dict[str, Any]
Map = npt.NDArray[np.float32]


def trained_generator(job: Job) -> Any:
    """Return the generator with the weights of its best epoch, in eval mode on the CPU."""
    import torch

    path = job.fold_folder(FOLD) / 'best.pt'
    model = build_generator(job.arch, job.recipe)
    model.load_state_dict(torch.load(path, map_location='cpu', weights_only=True)['model'])
    return model.eval()


def mean_map(cache: Cache, rows: npt.NDArray[np.intp]) -> Map:
    """Return the mean map of some rows, shape (X, Y, Z); voxel by voxel, over those with brain."""
    total = np.zeros(cache.arrays[1].shape[2:], np.float32)
    count = np.zeros_like(total)
    for row in rows:
        total += cache.arrays[1][row, 0]
        count += cache.arrays[0][row, 0] != 0
    return np.divide(total, np.maximum(count, 1), dtype=np.float32)


def map_errors(made: Map, measured: Map, brain: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Compare a generated map with the measured one.

    Parameters
    ----------
    made, measured : ndarray, shape (X, Y, Z)
        Maps divided by the mean of their brightest 1 %.
    brain : ndarray of bool, shape (X, Y, Z)
        Where they are compared.

    Returns
    -------
    dict
        ``mae``, Pearson's ``r``, and ``ssim``: mean structural similarity (Wang et al. 2004,
        doi:10.1109/TIP.2003.819861; 7-voxel windows), data range that of the measured map.
    """
    from skimage.metrics import structural_similarity

    from bids_brainage.inference.aicbv import brain_box

    x, y = made[brain].astype(float), measured[brain].astype(float)
    box = brain_box(brain)
    _, similarity = structural_similarity(
        made[box], measured[box], data_range=float(np.ptp(y)), full=True
    )
    constant = not (np.ptp(x) > 0 and np.ptp(y) > 0)
    return {
        'mae': float(np.abs(x - y).mean()),
        'r': float('nan') if constant else float(np.corrcoef(x, y)[0, 1]),
        'ssim': float(similarity[brain[box]].mean()),
    }


def held_out_errors(job: Job, cache: Cache, model: Any) -> list[Row]:
    """Generate the maps of the held-out scans whole and compare them with the measured ones.

    Returns
    -------
    list of dict
        `COLUMNS` of each scan; ``mean_map_mae`` is the error of the training people's mean
        map, which a generator has to beat.
    """
    from bids_brainage.inference.generate import synthesise

    roles = fold_sources(job)[FOLD]
    always = mean_map(cache, cache.rows_of(roles[TRAINING]))
    model = model.to(job.accelerator)
    errors = []
    for row in cache.rows_of(roles[TEST]):
        t1w, measured = (np.asarray(array[row, 0], np.float32) for array in cache.arrays)
        brain = t1w != 0
        found = map_errors(synthesise(model, t1w, brain), measured, brain)
        source = cache.sources[row]
        errors.append({
            'participant_id': source.rpartition('/')[2].partition('_')[0],
            'source': source,
            **found,
            'mean_map_mae': float(np.abs(always - measured)[brain].mean()),
        })  # fmt: skip
    model.to('cpu')
    return errors


def summary(errors: Sequence[Row], cohort: Cohort) -> dict[str, Any]:
    """Average the held-out errors, each person counting once."""
    people: dict[str, list[Row]] = defaultdict(list)
    for row in errors:
        people[row['participant_id']].append(row)
    means = {
        name: float(np.mean([np.mean([row[name] for row in rows]) for rows in people.values()]))
        for name in METRICS
    }
    return {
        'dataset': f'held-out people of {cohort.name}',
        'n': len(people),
        'n_scans': len(errors),
        **means,
        'method': 'people held out of training and of the choice of the epoch; whole maps, brain '
        'voxels',
    }


def generator_card(job: Job, cache: Cache, errors: Sequence[Row], cohort: Cohort) -> Row:
    """Return what there is to say of a generator, less the hash of its weights."""
    from bids_brainage import __version__

    training = cache.rows_of(fold_sources(job)[FOLD][TRAINING])
    names = {cache.sources[row].rpartition('/')[2].partition('_')[0] for row in training}
    limits = 'Other scanners, contrasts and populations can give maps that are quite wrong.'
    if cohort.simulated:
        limits = f'The training images are simulated; expect other maps on real scans. {limits}'
    return {
        'schema': SCHEMA,
        'name': job.name,
        'arch': job.arch,
        'arch_options': dict(job.recipe.model),
        'description': f'Generator of cerebral blood volume maps, trained on {cohort.name}.',
        'limitations': limits,
        'license': 'not stated: to be chosen by the owner of the training data',
        'reference': REFERENCES[job.arch],
        'input': job.declared,
        'output': {
            'quantity': 'cerebral blood volume',
            'unit': 'mean of the brightest 1 % of the voxels of the map',
        },
        'training': {
            'data': cohort.name,
            'simulated': cohort.simulated,
            'n': len(names),
            'n_scans': len(training),
            'recipe': job.recipe.as_dict(),
            'seed': job.seed,
        },
        'validation': [summary(errors, cohort)],
        'package_version': __version__,
    }


def export_generator(path: Path, job: Job, model: Any, card: Row) -> Row:
    """Write card and weights; the weights come last, so that where they are all is there.

    Parameters
    ----------
    path : Path
        ``<arch>.<tag>.safetensors``, as ``--aicbv-weights`` takes it; the card is beside it, with
        ``.json`` in the place of the suffix.
    job, model, card
        From `trained_generator` and `generator_card`.

    Returns
    -------
    dict
        The card with ``weights_sha256``, as ``SourceSHA256`` of the maps made with them.
    """
    from bids_brainage.inference.aicbv import save_generator
    from bids_brainage.outputs import sha256_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    save_generator(model, partial, dict(job.recipe.model))
    complete = {**card, 'weights_sha256': sha256_file(partial)}
    write_json(path.with_suffix('.json'), complete)
    partial.replace(path)
    return complete
