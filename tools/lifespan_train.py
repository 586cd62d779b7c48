r"""Train one system on generated people, judge it on generated and on real ones, and export it.

    python tools/lifespan_train.py COHORT MODELS --arch vgg8 --grid t1w_brain-4mm \
        --recipe tools/recipes/vgg8.toml --bids REAL_BIDS --real REAL_OUTPUT

``COHORT`` comes from ``tools/lifespan_cohort.py``.  ``REAL_OUTPUT`` are participant-level
derivatives of the real scans in ``REAL_BIDS``, with ages; the straight line that takes the
network's scale to theirs is fitted on adults, and every figure of it leaves the person out.
A run that was stopped goes on where it was.  Figures go to ``MODELS/<name>.json``,
predictions on generated people to ``MODELS/<name>-generated.tsv``.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from fit_volumes import ADULT, LEVEL, calibrate_left_out, coverage, figures
from lifespan_cohort import AGES

from bids_brainage.bundles.bundle import export_bundle
from bids_brainage.bundles.untrained import output_block
from bids_brainage.dataset.discovery import find_scans
from bids_brainage.errors import BrainAgeError
from bids_brainage.inputs.arrays import prepare_slices
from bids_brainage.inputs.kinds import kind_of, prepare_input
from bids_brainage.models.registry import model_info
from bids_brainage.simulation.lifespan.population import load_population
from bids_brainage.statistics.accuracy import accuracy
from bids_brainage.statistics.conformal import half_width
from bids_brainage.training.cache import open_cache
from bids_brainage.training.calibrate import calibrate_predictions
from bids_brainage.training.cohort import find_candidates
from bids_brainage.training.comparison import CHANGE, RETEST_KEYS, comparison_rows
from bids_brainage.training.export import Cohort, bundle_metadata
from bids_brainage.training.fit import fit_job
from bids_brainage.training.job import Job, fold_sources
from bids_brainage.training.network import model_options
from bids_brainage.training.predictions import (
    Row,
    of_role,
    prediction_rows,
    trained_model,
    write_predictions,
)
from bids_brainage.training.recipe import read_overrides
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.splits import LONGITUDINAL, RETEST, TEST, TRAINING

LOG = logging.getLogger('lifespan_train')
TRIAL_USE = (
    'To try the whole way of this system without training, to see what it looks at, and as a '
    'start for training on real scans ([run] start_from, with the same [data] coarsen). For ages '
    'use volumes.lifespan, or weights trained on your own healthy cohort.'
)
PAIR_USE = (
    'Research T1w scans, beside volumes.lifespan: the mean of both (--consensus) was closer to '
    'the age on real scans than either, and this one shows where in the image it looks. And as '
    'a start for training on real scans ([run] start_from, with the same [data] coarsen).'
)
THICK_USE = (
    'Routine scans with thick slices, taken as they are, without registration, where the volumes '
    'that the default model needs are hard to measure; and as a start for training on such scans '
    '([run] start_from, with the same [data] coarsen). Research scans take --synthetic-slices.'
)
#: What weights are for, by architecture; for the others `TRIAL_USE`.
USES = {'vgg8': PAIR_USE, 'densenet169_clinical': THICK_USE}
#: Slices farther apart are those of a routine scan.
THICK_MM = 4.0
#: Ages whose mean absolute errors are compared on real scans, years; people a bin must have.
AGE_BINS, SMALLEST_BIN = (18.0, 40.0, 65.0), 5


def with_first_visits(rows: Sequence[Row]) -> list[Row]:
    """Add the first visits of people who were scanned again to their later ones."""
    first = {row['participant_id']: row for row in rows if row['role'] == TEST}
    again = [
        {**first[row['participant_id']], 'role': row['role']}
        for row in rows
        if row['role'] in (RETEST, LONGITUDINAL)
    ]
    return [*rows, *again]


def oracle_rows(
    like: Sequence[Row], truth: pd.DataFrame, seen: Sequence[str] | None = None
) -> list[Row]:
    """Return predictions for the same scans of an oracle that is told (some) true volumes."""
    population = load_population()
    shares = truth[list(population.structures)].to_numpy()
    ages = population.expected_age(shares, *AGES, seen)
    expected = dict(zip(truth['source'], ages.tolist(), strict=True))
    return [{**row, 'predicted_age': expected[row['source']]} for row in like]


def simulated_figures(rows: Sequence[Row], truth: pd.DataFrame) -> dict:
    """Return accuracy beside the oracle, test-retest and change over time on generated people.

    None for what nobody was scanned again for.
    """
    scans = with_first_visits(rows)
    compared = comparison_rows({'network': scans, 'oracle': oracle_rows(scans, truth)})
    found = {(row['model'], row['subset']): row for row in compared}
    test = found['network', 'all']
    best = found['oracle', 'all']['mae']

    def again(subset: str, keys: Sequence[str]) -> dict | None:
        row = found.get(('network', subset))
        return row and {key: row[key] for key in keys}

    age = np.array([row['age'] for row in of_role(scans, TEST)])
    return {
        'n_test': test['n'],
        'mae': test['mae'],
        'bias': test['me'],
        'r': test['r'],
        'median_baseline_mae': float(np.abs(age - np.median(age)).mean()),
        'oracle_mae': best,
        'ratio_to_oracle': test['mae'] / best,
        'retest': again('test-retest', RETEST_KEYS),
        'longitudinal': again('longitudinal', CHANGE),
    }


def real_predictions(
    model: torch.nn.Module, declared: dict, bids_dir: Path, output: Path
) -> pd.DataFrame:
    """Predict all real adults with known age.

    For thick slices a research scan counts as the mean of the thick-slice scans it contains.
    """
    people = pd.read_csv(bids_dir / 'participants.tsv', sep='\t', na_values='n/a', index_col=0)
    rows = []
    for one in find_candidates(find_scans(bids_dir), bids_dir, output, declared):
        item = one.item
        wanted = {role: path for role, path in one.files.items() if role != 'connectivity'}
        absent = [role for role, path in wanted.items() if not path.is_file()]
        if not item.age >= ADULT or absent:
            continue
        try:
            raw = predict_real(model, declared, wanted)
        except BrainAgeError as problem:
            LOG.warning('%s: %s', item.source, problem)
            continue
        person = people.loc[f'sub-{item.participant}']
        source = str(person.get('source', 'n/a'))
        rows.append({
            'scan': item.source, 'participant_id': item.participant, 'age': item.age, 'raw': raw,
            'group': str(person.get('group', 'n/a')),
            'source': (re.search(r'ds\d+|IXI|NiChart', source) or [source])[0],
        })  # fmt: skip
    return pd.DataFrame(rows)


def predict_real(model: torch.nn.Module, declared: dict, files: dict[str, Path]) -> float:
    """Predict one real scan, years."""
    thick = True
    if kind_of(declared).native:
        image = nib.as_closest_canonical(nib.load(files['t1w_uncorrected']))
        thick = float(image.header.get_zooms()[2]) >= THICK_MM
    scans = [prepare_input(declared, files)] if thick else prepare_slices(declared, files)
    images = np.stack([np.ascontiguousarray(scan.arrays[0]) for scan in scans])
    with torch.inference_mode():
        return float(model(torch.from_numpy(images).float()).mean())


def real_figures(real: pd.DataFrame) -> tuple[list[dict], float]:
    """Return validation rows on real adults and the half width of the interval."""
    age = real['age'].to_numpy()
    out = calibrate_left_out(real, real['raw'].to_numpy())
    method = 'line fitted on the other people'
    healthy = real['group'].isin(['healthy', 'healthy control']).to_numpy()
    everybody = np.full(len(real), True)
    rows = [
        figures('real scans, all adults', real['age'], out, method),
        figures('real scans, stated healthy adults', real['age'][healthy], out[healthy], method),
    ]
    for row, part in zip(rows, (everybody, healthy), strict=True):
        row['interval_coverage'] = coverage(out - age, part)
    rows[0]['mmae'] = accuracy(age, out, AGE_BINS, SMALLEST_BIN)['mmae'].value
    rows.append(
        figures(
            'real scans, all adults, not calibrated',
            real['age'],
            real['raw'].to_numpy(),
            'as trained on generated people',
        )
    )
    for source, part in real.groupby('source'):
        index = part.index.to_numpy()
        if len(index) >= 3:
            rows.append(figures(f'real scans, {source}', part['age'], out[index], method))
    return rows, half_width(out - age, LEVEL).value


def fold_in(model, slope: float, intercept: float) -> None:
    """Put a straight line, in years, into the last layer of a network.

    System D's last layer gives a share of its age range.
    """
    low = getattr(model, 'age_min', 0.0)
    span = getattr(model, 'age_max', 1.0) - low
    layer = model.get_submodule(model.output_layer)
    with torch.no_grad():
        layer.weight *= slope
        layer.bias *= slope
        layer.bias += (slope * low + intercept - low) / span


def make_job(options: argparse.Namespace, declared: dict) -> Job:
    """Return the training."""
    recipe = make_recipe(options.arch, read_overrides(options.recipe) if options.recipe else {})
    name = f'{options.arch}.{options.tag}'
    return Job(
        name=name,
        arch=options.arch,
        declared=declared,
        recipe=recipe,
        seed=options.seed,
        folder=str(options.cohort / 'training' / f'{name}-{options.grid}'),
        cache=str(options.cohort / options.grid),
        split=str(options.cohort / 'split.tsv'),
        accelerator='cuda' if torch.cuda.is_available() else 'cpu',
    )


def card(arch: str, declared: dict, results: dict, n: int) -> dict:
    """Say in plain words what the weights are good for and what not."""
    edges = ' x '.join(f'{v:.1f}'.removesuffix('.0') for v in declared['voxel_size_mm'])
    simulated = results['simulated']
    structural = (
        ' Its functional part is untrained and not used: no open data could teach it.'
        if kind_of(declared).takes_graph
        else ''
    )
    return {
        'title': f'{model_info(arch).title}, reduced, trained on generated people',
        'description': (
            f'A reduced version of the published system: voxels of {edges} mm, {n} generated '
            'people, few epochs on a CPU. The people are real heads warped to structure volumes '
            'drawn from tables of real people; a straight line takes its ages to the scale of '
            f'real scans.{structural}'
        ),
        'intended_use': USES.get(arch, TRIAL_USE),
        'limitations': (
            f'Not the published weights and not their accuracy. On generated people its error is '
            f'{simulated["ratio_to_oracle"]:.2f} times what true volumes allow; on real scans see '
            'the validation rows. The line and the interval come from a small, mixed set of real '
            'scans of adults. Generated people age in volume only: it knows nothing of contrast '
            'changes, lesions or disease. Not for children, not for diagnosis. To use it, '
            'calibrate on healthy people of your own (group level, --reference-group) or train.'
        ),
        'license': (
            'Apache-2.0 for the weights; made of SynthSeg label maps (Apache-2.0) and of tables: '
            'OpenNeuro (CC0/PDDL), IXI (CC BY-SA 3.0), DLMUSE (SBIA licence)'
        ),
        'copyright': 'The bids_brainage developers',
    }  # fmt: skip


def main() -> None:
    """Train, measure, calibrate, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cohort', type=Path)
    parser.add_argument('models', type=Path)
    parser.add_argument('--arch', required=True)
    parser.add_argument('--grid', required=True)
    parser.add_argument('--recipe', type=Path)
    parser.add_argument('--tag', default='lifespan-reduced')
    parser.add_argument('--version', default='1', help='of the weights')
    parser.add_argument('--changes', default='First version.', help='what is new in this version')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--real', type=Path)
    parser.add_argument('--bids', type=Path)
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    torch.set_num_threads(options.threads)
    declared = json.loads((options.cohort / options.grid / 'cache.json').read_text())['input']
    job = make_job(options, declared)
    job.write()
    fit_job(job)
    cache = open_cache(Path(job.cache), verify=False)
    rows = prediction_rows(job, cache, job.accelerator)
    truth = pd.read_csv(options.cohort / 'truth.tsv', sep='\t')
    results = {'name': job.name, 'grid': options.grid, 'recipe': asdict(job.recipe)}
    results['simulated'] = simulated_figures(rows, truth)
    LOG.info('%s', {k: v for k, v in results['simulated'].items() if not isinstance(v, dict)})
    export(options, job, cache, rows, results)


def export(options, job: Job, cache, rows: list[dict], results: dict) -> None:
    """Judge on real scans, fold the calibration in, write bundle and figures."""
    model = trained_model(job, cache, 1)
    chosen = fold_sources(job)[1][TRAINING]
    architecture = model_options(job, cache.ages[cache.rows_of(chosen)])
    calibration = calibrate_predictions(
        of_role(rows, TRAINING, TEST), dataset='generated people', simulated=True,
        method='held-out generated people',
    )  # fmt: skip
    metadata = bundle_metadata(
        job, rows, Cohort('generated people', True), calibration, architecture
    )
    metadata |= {'version': options.version, 'changelog': {options.version: options.changes}}
    metadata['bias_correction'] = None
    metadata['output'] = output_block(model)
    # Grad-CAM of a reduced network has a few voxels; guided backpropagation has them all.
    finest = 'guided_backprop'
    known = list(model.saliency_methods)
    metadata['saliency'] = [finest] if finest in known else known
    if kind_of(job.declared).takes_graph:
        metadata['input'] = {**metadata['input'], 'structural_only': True}
    metadata |= card(options.arch, job.declared, results, len(chosen))
    options.models.mkdir(parents=True, exist_ok=True)
    if options.real:
        real = real_predictions(model, job.declared, options.bids, options.real)
        checks, half = real_figures(real)
        results['real'] = checks
        for row in checks:
            LOG.info('%s', row)
        slope, intercept = np.polyfit(real['raw'], real['age'], 1)
        fold_in(model, float(slope), float(intercept))
        metadata['validation'] = [*checks, calibration.validation]
        metadata['conformal'] = {
            'level': LEVEL, 'half_width_years': round(half, 2), 'n': len(real),
            'source': 'absolute leave-one-out errors on real scans of adults',
        }  # fmt: skip
        metadata['training']['calibration'] = {'slope': slope, 'intercept': intercept}
        real.assign(calibrated=calibrate_left_out(real, real['raw'].to_numpy())).to_csv(
            options.models / f'{job.name}-real.tsv', sep='\t', index=False
        )
    write_predictions(options.models / f'{job.name}-generated.tsv', rows)
    (options.models / f'{job.name}.json').write_text(json.dumps(results, indent=1) + '\n')
    if not (options.models / job.name).exists():
        export_bundle(options.models / job.name, model.eval(), metadata, dtype='float16')


if __name__ == '__main__':
    main()
