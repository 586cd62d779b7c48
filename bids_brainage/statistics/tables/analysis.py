"""All group statistics of one table of predictions, without touching a file.

Data go one way: :func:`prepare` types the rows and sets aside what cannot be used,
:func:`calibrate_model` adds corrected ages and intervals from the reference group, and one
module per table does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.statistics.bootstrap import Bootstrap
from bids_brainage.statistics.pairing import UNKNOWN_INTERVAL, Pairs, pair_scans
from bids_brainage.statistics.tables.accuracy import accuracy_table
from bids_brainage.statistics.tables.calibration import calibrate_model
from bids_brainage.statistics.tables.change import longitudinal_table, reliability_table
from bids_brainage.statistics.tables.differences import differences_table, untested
from bids_brainage.statistics.tables.fusion import fuse_models, fusion_coefficients
from bids_brainage.statistics.tables.options import GroupOptions
from bids_brainage.statistics.tables.points import plot_data
from bids_brainage.statistics.tables.rows import (
    EXCLUSION_COLUMNS,
    LEARNT,
    dropped_rows,
    learnt_from,
    prepare,
    quality_notes,
    training_notes,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class GroupResult:
    """Tables by name (``brainage``, ``accuracy``...) and facts for their side files.

    Attributes
    ----------
    tables : dict of str to DataFrame
        In the order of the reports; missing cells are None or NaN.
    facts : dict
        JSON-ready: methods, calibration coefficients, counts.
    warnings : list of str
        What a reader should know before believing the numbers.
    plots : dict of str to DataFrame
        Points of the figures, see :func:`.group_plots.plot_data`.
    """

    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    plots: dict[str, pd.DataFrame] = field(default_factory=dict)


def analyse(predictions: pd.DataFrame, options: GroupOptions | None = None) -> GroupResult:
    """Compute every group table.

    Parameters
    ----------
    predictions : DataFrame
        One row per image and model, with the columns of ``_brainage.tsv``; further columns
        (groups, covariates, phenotypes as text or numbers; ``acq_days``) as far as known.
        Ages are in years.  It is not changed.
    options : GroupOptions, optional
        Defaults if not given.

    Returns
    -------
    GroupResult
        ``brainage``, ``accuracy``, ``longitudinal``, ``reliability``, ``differences``,
        ``exclusions`` and, with both networks of System B, ``fusion``.
    """
    import pandas as pd

    options = options or GroupOptions()
    bootstrap = Bootstrap(draws=options.draws, seed=options.seed)
    seen = learnt_from(predictions)
    frame, dropped = prepare(predictions[~seen], options.excluded_flags)
    learnt, unusable = prepare(predictions[seen], options.excluded_flags)
    dropped += [*unusable, dropped_rows(learnt, 'all', LEARNT)]
    warnings = quality_notes(predictions, dropped, options.excluded_flags)
    warnings += training_notes(learnt)
    calibration: dict[str, Any] = {}
    models: dict[str, tuple[pd.DataFrame, Pairs]] = {}
    for model, rows in frame.groupby('model', sort=True, observed=True):
        one = rows.reset_index(names='row')
        pairs = pair_scans(one, options.retest_max_days, options.retest_sessions)
        one = one.assign(visit=pairs.visit, baseline=_baseline(one, pairs))
        one, facts, notes = calibrate_model(one, options)
        if facts:
            calibration[str(model)] = facts
        warnings += [f'{model}: {note}' for note in notes]
        dropped.append(_unpaired(one, pairs))
        models[str(model)] = (one, pairs)
    reliability, sems = reliability_table(models)
    frames = {model: one for model, (one, _) in models.items()}
    fused = fuse_models(frames, options.networks)
    tables = {
        'brainage': _union(predictions, models, bool(calibration)),
        'accuracy': accuracy_table(frames, bootstrap, options, learnt),
        'longitudinal': longitudinal_table(models, sems, bootstrap, options),
        'reliability': reliability,
        'differences': differences_table(frames, options, fused),
        **({'fusion': fusion_coefficients(fused)} if fused else {}),
        'exclusions': pd.concat(dropped, ignore_index=True)[EXCLUSION_COLUMNS],
    }
    facts = {
        'limits': bootstrap.method,
        'min_bin_n': options.min_bin_n,
        'test_retest': _pairing_rule(options),
        'calibration': calibration,
        'n_images': int(predictions['source'].nunique()),
        'n_participants': int(predictions['participant_id'].nunique()),
        'group_column': options.group_column,
        'reference_group': '='.join(options.reference_group or ()) or None,
        'n_tests': int(tables['differences']['p'].notna().sum()),
    }
    warnings += untested(tables['differences'])
    return GroupResult(tables, facts, warnings, plot_data(models, options))


def _baseline(one: pd.DataFrame, pairs: Pairs) -> np.ndarray:
    """Mark the first scan with an age of each person, in order of time."""
    order = np.lexsort((np.arange(len(one)), one['run'].to_numpy(str), pairs.visit))
    order = order[np.isfinite(one['age'].to_numpy(np.float64)[order])]
    _, first = np.unique(one['person'].to_numpy()[order], return_index=True)
    mark = np.zeros(len(one), bool)
    mark[order[first]] = True
    return mark


def _unpaired(one: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """Exclusion lines of scans whose place in time is unknown."""
    unknown = (pairs.visits['role'] == 'unknown').to_numpy()[pairs.visit]
    return dropped_rows(one[unknown], 'longitudinal, reliability', UNKNOWN_INTERVAL)


def _union(
    predictions: pd.DataFrame, models: dict[str, tuple[pd.DataFrame, Pairs]], calibrated: bool
) -> pd.DataFrame:
    """All rows as they were read, with group-level columns when there is a reference group."""
    if not calibrated:
        return predictions
    table = predictions.copy(deep=False)
    rows = np.concatenate([one['row'].to_numpy() for one, _ in models.values()])
    where = table.index.get_indexer(rows)
    names = {
        'corrected': 'predicted_age_group_corrected',
        'group_low': 'group_interval_low',
        'group_high': 'group_interval_high',
        'calibration': 'calibration',
    }
    for column, name in names.items():
        values = np.full(len(table), None, dtype=object)
        values[where] = np.concatenate(
            [one[column].to_numpy(object) for one, _ in models.values()]
        )
        table[name] = values if column == 'calibration' else values.astype(np.float64)
    return table


def _pairing_rule(options: GroupOptions) -> str:
    """One sentence that says which pairs are test–retest."""
    if options.retest_sessions:
        named = ', '.join(f'{a} and {b}' for a, b in options.retest_sessions)
        sessions = f'the named sessions {named}'
    else:
        sessions = f'sessions at most {options.retest_max_days:g} days apart'
    return f'Test-retest: {sessions}, and runs within a session. All other intervals are change.'
