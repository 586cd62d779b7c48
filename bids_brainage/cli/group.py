"""The group level: read the derivatives, compute, write tables and the page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.config import Config, Group
from bids_brainage.errors import NothingSelectedError, OptionError

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.cli.group_maps import Chosen, GroupMaps
    from bids_brainage.statistics.group import GroupOptions

log = logging.getLogger(__name__)


def run_group(config: Config) -> int:
    """Run the group level.

    Reads only prediction tables in the output dataset, tables of the raw dataset, and, unless
    ``--saliency none`` is given, the explanation maps and T1w images of at most `MAX_PEOPLE`
    people of each decade and model (see `bids_brainage.cli.group_maps`).

    Parameters
    ----------
    config : Config
        Settings of the run.

    Returns
    -------
    int
        0, or 1 when a prediction table or map could not be read (the others are used).

    Raises
    ------
    MissingInputError
        There are no participant results (exit status 66).
    NothingSelectedError
        The labels or models select none of them (18).
    OptionError
        A named column does not exist, or ``--reports-only`` was given (2).
    """
    from bids_brainage.cli.group_maps import choose_maps
    from bids_brainage.outputs.collect import read_predictions
    from bids_brainage.outputs.group_tables import write_group_tables
    from bids_brainage.reports.group import write_group_report
    from bids_brainage.statistics.group import analyse

    if config.execution.reports_only:
        raise OptionError(
            '--reports-only is for the participant level. The group level reads only tables and '
            'writes its page with them; run it without this option (and with --saliency none to '
            'leave out the maps).'
        )
    output_dir = config.execution.output_dir
    found = read_predictions(output_dir)
    table = select(
        found.table,
        config.execution.participant_label,
        config.execution.session_label,
        config.workflow.models,
    )
    options = group_options(config.group, config.seeds.random_seed)
    table = add_columns(table, config.execution.bids_dir, options)
    n_people = table['participant_id'].nunique()
    log.info('Group level: %d images x models of %d participants', len(table), n_people)
    chosen = choose_maps(table, found.maps, config.workflow.saliency)
    if config.execution.dry_run:
        n_maps = sum(len(group.paths) for group in chosen)
        log.log(
            25, 'Would read %d maps, write the tables and group.html in %s', n_maps, output_dir
        )
        return 0
    result = analyse(table, options)
    for note in result.warnings:
        log.warning('%s', note)
    maps = _maps(output_dir, chosen)
    exclusions = _with_unreadable(result.tables['exclusions'], found.problems, maps.problems)
    tables = {**result.tables, 'exclusions': exclusions}
    if len(maps.table):
        tables['saliency'] = maps.table
    analysis = {**result.facts, 'warnings': result.warnings}
    write_group_tables(output_dir, tables, analysis, found.models)
    write_group_report(output_dir, tables, analysis, result.plots, maps.figures)
    for name, reason in (*found.problems, *maps.problems):
        log.error('%s was left out: %s', name, reason)
    return 1 if found.problems or maps.problems else 0


def _maps(output_dir: Path, chosen: Sequence[Chosen]) -> GroupMaps:
    """Make the group maps; without any, remove those of an earlier run and their table."""
    from bids_brainage.cli.group_maps import make_group_maps
    from bids_brainage.outputs.group_tables import group_path

    maps = make_group_maps(output_dir, chosen)
    if not len(maps.table):
        path = output_dir / group_path('saliency')
        for stale in (path, path.with_suffix('.json')):
            stale.unlink(missing_ok=True)
    return maps


def group_options(group: Group, seed: int) -> GroupOptions:
    """Turn the settings into options of the analysis."""
    from bids_brainage.statistics.group import GroupOptions

    sessions = group.retest_sessions
    reference = group.reference_group
    column, _, value = (reference or '').partition('=')
    return GroupOptions(
        group_column=group.group_column,
        covariates=group.covariates,
        retest_sessions=tuple(zip(sessions[::2], sessions[1::2], strict=True)),
        retest_max_days=group.retest_max_days,
        reference_group=(column, value) if reference else None,
        correlate=group.correlate,
        seed=seed,
    )


def select(
    table: pd.DataFrame,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    models: Sequence[str] = (),
) -> pd.DataFrame:
    """Keep the rows of the given participants, sessions (bare labels) and models.

    Raises
    ------
    NothingSelectedError
        Nothing is left.
    """
    chosen = {
        'participant_id': [f'sub-{label}' for label in participants],
        'session_id': [f'ses-{label}' for label in sessions],
        'model': list(models),
    }
    kept = table
    for column, values in chosen.items():
        if values:
            kept = kept[kept[column].isin(values)]
    if kept.empty:
        asked = '; '.join(f'{name}: {", ".join(v)}' for name, v in chosen.items() if v)
        models_there = ', '.join(sorted(table['model'].unique()))
        raise NothingSelectedError(
            f'No prediction is left after selecting {asked}. The output folder has '
            f'{table["participant_id"].nunique()} participants and the models {models_there}.'
        )
    return kept.reset_index(drop=True)


def add_columns(table: pd.DataFrame, bids_dir: Path, options: GroupOptions) -> pd.DataFrame:
    """Add group, covariate, phenotype and site columns and acquisition times.

    Columns that the prediction table has itself (sex, age) stay as they are.

    Raises
    ------
    OptionError
        A named column does not exist, or nobody has the value of the reference group.
    """
    from bids_brainage.dataset.phenotype import acquisition_days, phenotype_columns
    from bids_brainage.statistics.group_accuracy import SITE_COLUMNS

    reference = options.reference_group
    named = [options.group_column, *options.covariates, *options.correlate]
    named.append(reference[0] if reference else None)
    wanted = [name for name in dict.fromkeys(named) if name and name not in table]
    added: dict[str, Any] = {}
    who, when = table['participant_id'].tolist(), table['session_id'].tolist()
    for name, values in phenotype_columns(bids_dir, wanted, SITE_COLUMNS).items():
        pairs = zip(who, when, strict=True)
        added[name] = [values.get((w, s), values.get((w, None))) for w, s in pairs]
    several = table.groupby('participant_id')['source'].transform('nunique') > 1
    days = acquisition_days(bids_dir, table.loc[several, 'source'].unique())
    table = table.assign(**added, acq_days=table['source'].map(days).astype(float))
    if reference and not (table[reference[0]].astype(str) == reference[1]).any():
        levels = ', '.join(sorted(table[reference[0]].dropna().astype(str).unique())[:20])
        raise OptionError(
            f'--reference-group {reference[0]}={reference[1]}: nobody has this value; column '
            f'{reference[0]} holds {levels or "no value"}.'
        )
    return table


def _with_unreadable(
    table: pd.DataFrame, tables: Sequence[tuple[str, str]], maps: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Add a line to the exclusions for each prediction table and map that cannot be used."""
    import pandas as pd

    rows = [
        {
            'participant_id': name.split('/', 1)[0],
            'source': f'bids::{name}',
            'analysis': analysis,
            'reason': f'{what} cannot be read: {reason}',
        }
        for analysis, what, problems in (
            ('all', 'prediction table', tables),
            ('saliency', 'image', maps),
        )
        for name, reason in problems
    ]
    if not rows:
        return table
    extra = pd.DataFrame(rows).reindex(columns=table.columns)
    return pd.concat([table.astype(object), extra.astype(object)], ignore_index=True)
