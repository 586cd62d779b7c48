"""Print what trained systems reach on generated and on real people, as Markdown.

    python tools/lifespan_table.py COHORT MODELS resnet_crossvit.lifespan resnet_only.lifespan ...

``COHORT`` comes from ``tools/lifespan_cohort.py``, ``MODELS`` from ``tools/lifespan_train.py``;
all models must have been trained on the same split.  The oracle is the best age that anybody
could say from a person's true volumes: of all structures, and of those of grey matter, which is
what System A is shown.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
from lifespan_train import oracle_rows, with_first_visits

from bids_brainage.errors import MissingInputError
from bids_brainage.simulation.lifespan.registration import GREY
from bids_brainage.training.comparison import comparison_rows
from bids_brainage.training.predictions import Row, read_predictions

ORACLES = {'oracle': None, 'oracle, grey matter alone': GREY}
GENERATED = (
    ('all', ('n', 'mae', 'mmae', 'me', 'r')),
    ('test-retest', ('n', 'icc_3_1', 'sigma_d')),
    ('longitudinal', ('n', 'made')),
)
REAL = ('n', 'mae', 'mmae', 'bias', 'r', 'interval_coverage', 'median_baseline_mae')


def generated_table(trainings: dict[str, list[Row]]) -> list[str]:
    """Return one line for each model: accuracy, reliability and change."""
    names = [key for _, keys in GENERATED for key in keys]
    rows = comparison_rows(trainings)
    lines = [f'| model | {" | ".join(names)} |', '| --- ' * (len(names) + 1) + '|']
    for model in trainings:
        found = {row['subset']: row for row in rows if row['model'] == model}
        cells = [text(found.get(part, {}).get(key)) for part, keys in GENERATED for key in keys]
        lines.append(f'| {model} | {" | ".join(cells)} |')
    return lines


def real_table(results: dict[str, dict]) -> list[str]:
    """Return one line for each model and set of real scans."""
    lines = [f'| model | people | {" | ".join(REAL)} |', '| --- ' * (len(REAL) + 2) + '|']
    for model, result in results.items():
        for row in result.get('real', []):
            cells = [text(row.get(key)) for key in REAL]
            lines.append(f'| {model} | {row["dataset"]}, {row["method"]} | {" | ".join(cells)} |')
    return lines


def text(value: float | None) -> str:
    """Return a number for the table."""
    if value is None:
        return '–'
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cohort', type=Path)
    parser.add_argument('models', type=Path)
    parser.add_argument('names', nargs='+')
    options = parser.parse_args()
    trainings: dict[str, list[Row]] = {}
    results = {}
    for name in options.names:
        path = options.models / f'{name}-generated.tsv'
        if not path.is_file():
            raise MissingInputError(f'{path} is not there. Run tools/lifespan_train.py first.')
        trainings[name] = with_first_visits(read_predictions(path))
        results[name] = json.loads((options.models / f'{name}.json').read_text())
    like = trainings[options.names[0]]
    truth = pd.read_csv(options.cohort / 'truth.tsv', sep='\t')
    oracles = {name: oracle_rows(like, truth, seen) for name, seen in ORACLES.items()}
    trainings = {**oracles, **trainings}
    sys.stdout.write('\n'.join([*generated_table(trainings), '', *real_table(results)]) + '\n')


if __name__ == '__main__':
    main()
