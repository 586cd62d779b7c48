"""What a person sees of the group level: what it reads, a table at the end, what it wrote."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bids_brainage.config import Group
from bids_brainage.outputs.dataset import dataset_name
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.runs.progress import plain_table
from bids_brainage.statistics.reliability import LEAST_PAIRS
from bids_brainage.statistics.tables.rows import HOW_TO_COUNT, LEARNT

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.config import Config
    from bids_brainage.reports.group import About

log = logging.getLogger(__name__)

HEAD = (
    *('model', 'images', 'people', 'error (years)', 'bias (years)', 'r'),
    *('retest error (years)', 'error of change (years)'),
)

MAX_REASONS = 6
"""Most reasons of exclusion that are listed; the table has them all."""


def announce(config: Config, table: pd.DataFrame) -> None:
    """Say what is read."""
    log.log(IMPORTANT, 'bids_brainage %s', config.environment.version)
    log.log(IMPORTANT, 'dataset   %s', config.execution.bids_dir)
    log.log(IMPORTANT, 'output    %s', config.execution.output_dir)
    log.log(
        IMPORTANT,
        'results   %d predictions of %d people: %s',
        len(table),
        table['participant_id'].nunique(),
        ', '.join(sorted(table['model'].unique())),
    )
    log.log(IMPORTANT, 'seed      %d', config.seeds.random_seed)


def about(config: Config) -> About:
    """Gather of which study and by which call the page is made."""
    from bids_brainage.reports.group import About

    run = config.execution
    day = run.run_id[:8]
    return About(
        study=dataset_name(run.bids_dir),
        date=f'{day[:4]}-{day[4:6]}-{day[6:]}' if day.isdigit() else '',
        version=config.environment.version,
        command=command(config),
        pages=frozenset(path.name for path in run.output_dir.glob('sub-*.html')),
    )


def command(config: Config) -> str:
    """Write the call that gives the same tables and page."""
    run, group = config.execution, config.group
    options: dict[str, Any] = {
        'participant-label': run.participant_label,
        'session-label': run.session_label,
        'models': config.workflow.models,
        **{name.replace('_', '-'): value for name, value in asdict(group).items()},
        'random-seed': config.seeds.random_seed or None,
    }
    usual = {name.replace('_', '-'): value for name, value in asdict(Group()).items()}
    words = ['bids_brainage', str(run.bids_dir), str(run.output_dir), 'group']
    for name, value in options.items():
        if value in (None, (), False) or value == usual.get(name):
            continue
        words.append(f'--{name}')
        several = value if isinstance(value, tuple) else () if value is True else (value,)
        words += [f'{x:g}' if isinstance(x, float) else str(x) for x in several]
    return shlex.join(words)


def accuracy_lines(tables: Mapping[str, pd.DataFrame]) -> str:
    """Lay out the headline numbers, one line per model.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        ``accuracy``, ``reliability`` and ``longitudinal``.

    Returns
    -------
    str
        Plain text; years with one decimal, n/a where there is no number or too few pairs.
    """
    accuracy, change = tables['accuracy'], tables['longitudinal']
    lines = []
    for model in dict.fromkeys(accuracy['model']):
        first = _first(accuracy, model=model, subset='all', unit='scan', corrected=False)
        retest = _first(tables['reliability'], model=model)
        moved = _first(change, model=model, row='summary')
        lines.append(
            (
                str(model),
                str(first.get('n', 0)),
                str(first.get('n_subjects', 0)),
                _number(first.get('mae')),
                _number(first.get('me'), '+.1f'),
                _number(first.get('r'), '.2f'),
                _number(retest.get('sem') if retest.get('n', 0) >= LEAST_PAIRS else None),
                _number(moved.get('made') if moved.get('n_pairs', 0) >= LEAST_PAIRS else None),
            )
        )
    return plain_table(HEAD, lines)


def flagged(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say how images could be counted that were left out because of a flag or a training."""
    reasons = tables['exclusions']['reason'].astype(str)
    said = ''
    if reasons.str.startswith('flagged ').any():
        said += ' Flagged images are counted with --include-flagged.'
    if (reasons == LEARNT).any():
        said += f' {HOW_TO_COUNT}'
    return said


def report_written(
    config: Config, tables: Mapping[str, pd.DataFrame], names: Sequence[str], n_unreadable: int
) -> None:
    """Say what was left out and where the results are."""
    folder = config.execution.output_dir
    people, models = (tables['brainage'][c].nunique() for c in ('participant_id', 'model'))
    log.log(IMPORTANT, 'done      people: %d, models: %d', people, models)
    if n_unreadable:
        log.log(IMPORTANT, 'failed    %d files could not be read', n_unreadable)
    kinds = tables['exclusions'][['analysis', 'reason']].value_counts()
    for (analysis, reason), n in kinds.head(MAX_REASONS).items():
        log.log(IMPORTANT, 'left out  %d of %s: %s', n, analysis, reason)
    if len(kinds) > MAX_REASONS:
        log.log(IMPORTANT, 'left out  for other reasons: see group_exclusions.tsv')
    log.log(IMPORTANT, 'tables    %s', ', '.join(names))
    log.log(IMPORTANT, 'report    %s', folder / 'group.html')
    citation = folder / 'logs' / 'CITATION.md'
    if citation.exists():
        log.log(IMPORTANT, 'citation  %s', citation)


def _first(table: pd.DataFrame, **cells: Any) -> dict[str, Any]:
    """Return the first row with these cells, empty if there is none."""
    for name, value in cells.items():
        table = table[table[name] == value]
    return {str(k): v for k, v in table.iloc[0].items()} if len(table) else {}


def _number(value: Any, form: str = '.1f') -> str:
    """Write a number, n/a for None and NaN."""
    return 'n/a' if value is None or value != value else format(float(value), form)
