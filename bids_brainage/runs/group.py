"""The group level: read the derivatives, compute, write tables and the page."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.config import Config, Group
from bids_brainage.errors import (
    MissingInputError,
    NothingSelectedError,
    OptionError,
    UnusableImageError,
)
from bids_brainage.outputs.logs import IMPORTANT

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.outputs.collect import Predictions
    from bids_brainage.runs.group_maps import Chosen
    from bids_brainage.statistics.tables.options import GroupOptions

log = logging.getLogger(__name__)


def run_group(config: Config) -> int:
    """Run the group level.

    Reads only tables in the output dataset, tables of the raw dataset, and, unless
    ``--saliency none`` is given, the explanation maps and T1w images of at most `MAX_PEOPLE`
    people of each decade and model (see `bids_brainage.runs.group_maps`).

    Parameters
    ----------
    config : Config
        Settings of the run.

    Returns
    -------
    int
        0; 1 when a table or map could not be read (the others are used); 65 when no prediction
        can be used.

    Raises
    ------
    MissingInputError
        There are no participant results (exit status 66).
    NothingSelectedError
        The labels or models select none of them (18).
    OptionError
        A named column does not exist, or ``--reports-only`` was given (2).
    """
    from bids_brainage.outputs.collect import read_predictions
    from bids_brainage.runs.group_maps import choose_maps
    from bids_brainage.runs.group_summary import announce
    from bids_brainage.runs.held_out import use_held_out
    from bids_brainage.runs.ratings import add_ratings
    from bids_brainage.statistics.tables.rows import left_out

    if config.execution.reports_only:
        raise OptionError(
            '--reports-only is for the participant level. The group level reads only tables and '
            'writes its page with them; run it without this option (and with --saliency none to '
            'leave out the maps).'
        )
    found = read_predictions(config.execution.output_dir)
    table = select(
        found.table,
        config.execution.participant_label,
        config.execution.session_label,
        config.workflow.models,
    )
    if config.group.predictions:
        table = use_held_out(table, config.group.predictions)
    options = group_options(config.group, config.seeds.random_seed, found.models)
    table, options = add_columns(table, config.execution.bids_dir, options)
    if config.group.ratings is not None:
        table = add_ratings(table, config.group.ratings)
    announce(config, table)
    poor = left_out(table, options.excluded_flags).notna()
    chosen = choose_maps(table[~poor], found.maps, config.workflow.saliency)
    if config.execution.dry_run:
        n_maps = sum(len(group.paths) for group in chosen)
        place = config.execution.output_dir / 'group.html'
        log.log(IMPORTANT, 'Would read %d maps, write the tables and %s', n_maps, place)
        return 0
    return _compute(config, found, table, options, chosen)


def _compute(
    config: Config,
    found: Predictions,
    table: pd.DataFrame,
    options: GroupOptions,
    chosen: Sequence[Chosen],
) -> int:
    """Compute and write everything; the exit status."""
    from bids_brainage.outputs.group_tables import write_group_tables
    from bids_brainage.reports.group import write_group_report
    from bids_brainage.reports.index import write_index
    from bids_brainage.runs.group_importance import gather_importance
    from bids_brainage.runs.group_maps import make_group_maps
    from bids_brainage.runs.group_summary import about, accuracy_lines, flagged, report_written
    from bids_brainage.runs.group_volumes import gather_volumes
    from bids_brainage.statistics.tables.analysis import analyse

    output_dir = config.execution.output_dir
    result = analyse(table, options)
    maps = make_group_maps(output_dir, chosen)
    volumes = gather_volumes(output_dir, table)
    importance = gather_importance(output_dir, table, found.importances, options)
    warnings = [*result.warnings, *volumes.notes]
    for note in warnings:
        log.warning('%s', note)
    unreadable = (
        ('all', 'prediction table', found.problems),
        ('saliency', 'image', maps.problems),
        ('importance', 'table of importance', importance.problems),
        ('volumes', 'table of volumes', volumes.problems),
    )
    further = {'saliency': maps.table, 'importance': importance.table, 'volumes': volumes.table}
    tables = {
        **result.tables,
        'exclusions': _with_unreadable(result.tables['exclusions'], unreadable),
        **{name: rows for name, rows in further.items() if len(rows)},
    }
    analysis = {**result.facts, 'warnings': warnings}
    names = write_group_tables(output_dir, tables, analysis, found.models)
    write_group_report(output_dir, tables, analysis, result.plots, maps.figures, about(config))
    write_index(output_dir)
    problems = [problem for *_, some in unreadable for problem in some]
    for name, reason in problems:
        log.error('%s was left out: %s', name, reason)
    usable = bool((tables['accuracy']['subset'] == 'all').any())
    if usable:
        sys.stdout.write('\n' + accuracy_lines(tables) + '\n\n')
    report_written(config, tables, names, len(problems))
    if not usable:
        log.error('No prediction can be used; group_exclusions.tsv says why.%s', flagged(tables))
        return UnusableImageError.exit_code
    return 1 if problems else 0


def group_options(group: Group, seed: int, models: Mapping[str, Any]) -> GroupOptions:
    """Turn the settings, and what the side files say of the models, into options."""
    from bids_brainage.flags import stop_flags
    from bids_brainage.statistics.tables.options import GroupOptions

    stopped = frozenset() if group.include_flagged else stop_flags()
    sessions = group.retest_sessions
    reference = group.reference_group
    column, _, value = (reference or '').partition('=')
    return GroupOptions(
        group_column=group.group_column,
        covariates=group.covariates,
        retest_sessions=tuple(zip(sessions[::2], sessions[1::2], strict=True)),
        retest_max_days=group.retest_max_days,
        reference_group=(column, value) if reference else None,
        bias_correction=group.bias_correction,
        correlate=group.correlate,
        min_bin_n=group.min_bin_n,
        seed=seed,
        excluded_flags=stopped | set(group.exclude_flags),
        networks=_networks(models),
    )


def _networks(models: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Pair the networks of System B that the regressions of its bundles name."""
    named = [facts.get('Networks') or {} for facts in models.values()]
    t1w, aicbv = (
        dict.fromkeys(networks[kind] for networks in named if kind in networks)
        for kind in ('t1w', 'aicbv')
    )
    return tuple((t, a) for t in t1w for a in aicbv)


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


def add_columns(
    table: pd.DataFrame, bids_dir: Path, options: GroupOptions
) -> tuple[pd.DataFrame, GroupOptions]:
    """Add group, covariate, phenotype and site columns and acquisition times.

    Age and sex stay those of the prediction table.  Any other column of the dataset that has
    the name of one of the prediction table is added as ``NAME (dataset)``.

    Returns
    -------
    table : DataFrame
        With the columns.
    options : GroupOptions
        With the names of the columns that were added.

    Raises
    ------
    OptionError
        A named column does not exist, or nobody has the value of the reference group.
    """
    from bids_brainage.dataset.phenotype import acquisition_days, phenotype_columns
    from bids_brainage.names import SITE_COLUMNS

    reference = options.reference_group
    named = [options.group_column, *options.covariates, *options.correlate]
    named.append(reference[0] if reference else None)
    asked = [name for name in dict.fromkeys(named) if name and name not in ('age', 'sex')]
    wanted = [name for name in asked if name not in table]
    shadowed = [name for name in asked if name in table]
    added: dict[str, Any] = {}
    who, when = table['participant_id'].tolist(), table['session_id'].tolist()
    for name, values in phenotype_columns(bids_dir, wanted, (*SITE_COLUMNS, *shadowed)).items():
        pairs = zip(who, when, strict=True)
        cells = [values.get((w, s), values.get((w, None))) for w, s in pairs]
        added[f'{name} (dataset)' if name in shadowed else name] = cells
    several = table.groupby('participant_id')['source'].transform('nunique') > 1
    days = acquisition_days(bids_dir, table.loc[several, 'source'].unique())
    table = table.assign(**added, acq_days=table['source'].map(days).astype(float))
    options = _renamed(
        options, {n: f'{n} (dataset)' for n in shadowed if f'{n} (dataset)' in added}
    )
    _check_reference(table, options)
    _check_numbers(table, options.correlate)
    return table, options


def _renamed(options: GroupOptions, names: Mapping[str, str]) -> GroupOptions:
    """Options whose columns have other names."""
    reference, column = options.reference_group, options.group_column
    return replace(
        options,
        group_column=names.get(column, column) if column else None,
        covariates=tuple(names.get(x, x) for x in options.covariates),
        correlate=tuple(names.get(x, x) for x in options.correlate),
        reference_group=(names.get(reference[0], reference[0]), reference[1])
        if reference
        else None,
    )


def _check_reference(table: pd.DataFrame, options: GroupOptions) -> None:
    """Refuse a reference group of nobody."""
    if options.reference_group is None:
        return
    column, value = options.reference_group
    if not (table[column].astype(str) == value).any():
        levels = ', '.join(sorted(table[column].dropna().astype(str).unique())[:20])
        raise OptionError(
            f'--reference-group {column}={value}: nobody has this value; column '
            f'{column} holds {levels or "no value"}.'
        )


def _check_numbers(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse to correlate with words."""
    import pandas as pd

    for column in columns:
        cells = table[column].dropna()
        cells = cells[~cells.astype(str).isin(['', 'n/a'])]
        if len(cells) and pd.to_numeric(cells, errors='coerce').isna().all():
            raise OptionError(
                f'--correlate {column}: expected numbers, found {cells.iloc[0]!r} and no number '
                'in the whole column. To compare groups use --group-column.'
            )


def require_results(output_dir: Path) -> None:
    """Refuse an output folder without participants before anything is written in it.

    Raises
    ------
    MissingInputError
        The folder does not exist or has no ``sub-*``.
    """
    if not output_dir.is_dir():
        raise MissingInputError(
            f'{output_dir} does not exist: the group level needs the output folder of the '
            'participant level. Run that first, or correct the path.'
        )
    if not any(output_dir.glob('sub-*')):
        raise MissingInputError(
            f'No participant results in {output_dir}: expected folders sub-*, found none. Run '
            'the participant level first, with the same output folder.'
        )


def _with_unreadable(
    table: pd.DataFrame, unreadable: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]
) -> pd.DataFrame:
    """Add a line to the exclusions for each file that cannot be used."""
    import pandas as pd

    rows = [
        {
            'participant_id': name.split('/', 1)[0],
            'source': f'bids::{name}',
            'analysis': analysis,
            'reason': f'{what} cannot be read: {reason}',
        }
        for analysis, what, problems in unreadable
        for name, reason in problems
    ]
    if not rows:
        return table
    extra = pd.DataFrame(rows).reindex(columns=table.columns)
    return pd.concat([table.astype(object), extra.astype(object)], ignore_index=True)
