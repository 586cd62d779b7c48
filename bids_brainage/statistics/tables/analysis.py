"""All group statistics of one table of predictions, without touching a file.

Data go one way: :func:`prepare` types the rows and sets aside what cannot be used,
:func:`calibrate_model` adds corrected ages and intervals from the reference group, and one
module per table does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.names import split_name
from bids_brainage.statistics.bias import (
    CalibrationRefusedError,
    calibration_rows,
    correction_report,
    fit_bias,
)
from bids_brainage.statistics.bins import MIN_BIN_N
from bids_brainage.statistics.bootstrap import Bootstrap
from bids_brainage.statistics.conformal import calibrate, leave_one_out_half_widths
from bids_brainage.statistics.pairing import UNKNOWN_INTERVAL, Pairs, pair_scans
from bids_brainage.statistics.tables.accuracy import accuracy_table
from bids_brainage.statistics.tables.change import longitudinal_table, reliability_table
from bids_brainage.statistics.tables.differences import differences_table, untested
from bids_brainage.statistics.tables.fusion import fuse_models, fusion_coefficients
from bids_brainage.statistics.tables.points import plot_data

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_LEVEL = 0.9
"""Nominal coverage of recalibrated intervals when the models state none."""

NUMBERS = (
    'age',
    'predicted_age',
    'interval_low',
    'interval_high',
    'interval_level',
    'predicted_age_corrected',
)

IDENTIFIERS = ['participant_id', 'session_id', 'run', 'source', 'model']


@dataclass(frozen=True)
class GroupOptions:
    """What the user may choose at group level.

    Attributes
    ----------
    group_column : str or None
        Factor of the group differences.
    covariates : tuple of str
        Further covariates; age and sex are always used.
    retest_sessions : tuple of (str, str)
        Named test–retest sessions (``ses-A``, ``ses-B``).
    retest_max_days : float
        Longest interval of test–retest sessions when none are named.
    reference_group : (str, str) or None
        Column and value of the healthy reference group.
    correlate : tuple of str
        Columns to correlate with the gap.
    seed, draws : int
        Of the bootstrap.
    min_bin_n : int
        Smallest bin that may set a worst-bin error.
    """

    group_column: str | None = None
    covariates: tuple[str, ...] = ()
    retest_sessions: tuple[tuple[str, str], ...] = ()
    retest_max_days: float = 90
    reference_group: tuple[str, str] | None = None
    correlate: tuple[str, ...] = ()
    seed: int = 0
    draws: int = 2000
    min_bin_n: int = MIN_BIN_N


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
        ``exclusions`` and, with several models, ``fusion``.
    """
    import pandas as pd

    options = options or GroupOptions()
    bootstrap = Bootstrap(draws=options.draws, seed=options.seed)
    frame, dropped = prepare(predictions)
    warnings: list[str] = []
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
    fused = fuse_models(frames)
    tables = {
        'brainage': _union(predictions, models, bool(calibration)),
        'accuracy': accuracy_table(frames, bootstrap, options),
        'longitudinal': longitudinal_table(models, sems, bootstrap, options),
        'reliability': reliability,
        'differences': differences_table(frames, options, fused),
        **({'fusion': fusion_coefficients(fused)} if fused else {}),
        'exclusions': pd.concat(dropped, ignore_index=True)[[*IDENTIFIERS, 'analysis', 'reason']],
    }
    facts = {
        'limits': bootstrap.method,
        'min_bin_n': options.min_bin_n,
        'test_retest': _pairing_rule(options),
        'calibration': calibration,
        'n_images': int(predictions['source'].nunique()),
        'n_participants': int(predictions['participant_id'].nunique()),
        'n_tests': int(tables['differences']['p'].notna().sum()),
    }
    warnings += untested(tables['differences'])
    return GroupResult(tables, facts, warnings, plot_data(models, options.group_column))


def prepare(predictions: pd.DataFrame) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Type the rows and set aside those without a prediction.

    Returns
    -------
    frame : DataFrame
        Usable rows, indexed as the input, with ``person`` (int), ``session``, ``run``,
        ``series`` (text, empty if none), ``acq_days`` and numeric columns; ages that are
        top-coded are missing.
    dropped : list of DataFrame
        Identifiers, ``analysis`` and ``reason`` of rows left out of all or some analyses.
    """
    import pandas as pd

    frame = predictions.copy(deep=False)
    for name in NUMBERS:
        values = frame.get(name, np.nan)
        frame[name] = pd.to_numeric(pd.Series(values, index=frame.index), errors='coerce')
    status = frame['status'].fillna('ok') if 'status' in frame else pd.Series('ok', frame.index)
    failed = status != 'ok'
    absent = ~failed & ~np.isfinite(frame['predicted_age'])
    twice = ~failed & ~absent & frame.duplicated(['source', 'model'])
    dropped = [
        _dropped(frame[failed], 'all', 'status ' + status[failed].astype(str)),
        _dropped(frame[absent], 'all', 'no predicted age'),
        _dropped(frame[twice], 'all', 'second row of the same image and model'),
    ]
    frame = frame[~(failed | absent | twice)].copy()
    censored = pd.Series(False, frame.index)
    if 'age_censored' in frame:
        censored = frame['age_censored'].astype(str).str.casefold() == 'true'
    without = 'accuracy, differences'
    dropped.append(_dropped(frame[censored], without, 'age is top-coded, so no exact error'))
    dropped.append(_dropped(frame[frame['age'].isna() & ~censored], without, 'no age'))
    frame.loc[censored, 'age'] = np.nan
    frame['person'] = pd.factorize(frame['participant_id'], sort=True)[0]
    for name, column in (('session', 'session_id'), ('run', 'run')):
        values = frame[column] if column in frame else pd.Series(None, frame.index, dtype=object)
        frame[name] = values.astype(object).where(values.notna(), '').astype(str)
    codes, sources = pd.factorize(frame['source'])
    frame['series'] = np.array([series_name(x) for x in sources], dtype=object)[codes]
    if 'acq_days' not in frame:
        frame['acq_days'] = np.nan
    return frame, dropped


def series_name(source: str) -> str:
    """Name of an image without participant, session and run: equal for repeated scans.

    >>> series_name('bids:raw:sub-1/ses-2/anat/sub-1_ses-2_acq-mp_run-1_T1w.nii.gz')
    'acq-mp_T1w.nii.gz'
    """
    name = split_name(source)
    if name is None:
        return source.rsplit('/', 1)[-1]
    rest = name.stem(without=('sub', 'ses', 'run'))
    return f'{rest}_{name.suffix}{name.extension}' if rest else name.suffix + name.extension


def calibrate_model(
    one: pd.DataFrame, options: GroupOptions
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Add corrected ages and recalibrated intervals of one model from the reference group.

    Parameters
    ----------
    one : DataFrame
        Rows of one model with ``baseline`` (first usable scan of each person).
    options : GroupOptions
        With `reference_group`.

    Returns
    -------
    one : DataFrame
        With ``corrected`` (years), ``calibration`` (bool: person used to fit the line),
        ``group_low`` and ``group_high`` (years).
    facts : dict
        Coefficients, half width and accuracy before and after; empty without reference.
    notes : list of str
        Why something could not be calibrated.
    """
    one = one.assign(
        corrected=one['predicted_age_corrected'],
        calibration=False,
        group_low=np.nan,
        group_high=np.nan,
    )
    if options.reference_group is None:
        return one, {}, []
    column, value = options.reference_group
    member = (one[column].astype(str) == value).to_numpy(bool)
    reference = member & one['baseline'].to_numpy(bool)
    age, predicted = one['age'].to_numpy(np.float64), one['predicted_age'].to_numpy(np.float64)
    facts: dict[str, Any] = {'reference': f'{column}={value}', 'n_reference': int(reference.sum())}
    notes: list[str] = []
    try:
        rows = calibration_rows(age, reference)
        fit = fit_bias(age, predicted, rows)
        used = one['person'].isin(one['person'].to_numpy()[rows]).to_numpy()
        one = one.assign(corrected=fit.apply(age, predicted), calibration=used)
        report = correction_report(age, predicted, fit, np.flatnonzero(used))
        facts['bias_correction'] = fit.as_dict()
        facts['accuracy'] = {k: {n: s.value for n, s in v.items()} for k, v in report.items()}
    except CalibrationRefusedError as error:
        facts['bias_correction'] = None
        notes.append(f'no bias correction: {error}')
    one, interval = _recalibrate(one, reference, age, predicted)
    if interval['half_width_years'] is None:
        notes.append(f'no recalibrated intervals: {interval["reason"]}')
    return one, {**facts, 'conformal': interval}, notes


def _recalibrate(
    one: pd.DataFrame, reference: np.ndarray, age: np.ndarray, predicted: np.ndarray
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Set intervals around the uncorrected prediction from the reference group's residuals."""
    stated = one['interval_level'].dropna()
    level = float(stated.iloc[0]) if len(stated) else DEFAULT_LEVEL
    residuals = (predicted - age)[reference]
    fit = calibrate(residuals, level)
    facts = {
        'level': level,
        'half_width_years': fit.half_width.value,
        'n': fit.n,
        'reason': fit.half_width.reason,
    }
    if not fit.half_width:
        return one, facts
    own = dict(
        zip(
            one['person'].to_numpy()[reference],
            leave_one_out_half_widths(residuals, level),
            strict=True,
        )
    )
    width = one['person'].map(own).fillna(fit.half_width.get()).to_numpy(np.float64)
    return one.assign(group_low=predicted - width, group_high=predicted + width), facts


def _baseline(one: pd.DataFrame, pairs: Pairs) -> np.ndarray:
    """Mark the first scan with an age of each person, in order of time."""
    order = np.lexsort((np.arange(len(one)), one['run'].to_numpy(str), pairs.visit))
    order = order[np.isfinite(one['age'].to_numpy(np.float64)[order])]
    _, first = np.unique(one['person'].to_numpy()[order], return_index=True)
    mark = np.zeros(len(one), bool)
    mark[order[first]] = True
    return mark


def _dropped(rows: pd.DataFrame, analysis: str, reason: Any) -> pd.DataFrame:
    """List identifiers of excluded rows with the analysis and the reason."""
    return rows.reindex(columns=IDENTIFIERS).assign(analysis=analysis, reason=reason)


def _unpaired(one: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """Exclusion lines of scans whose place in time is unknown."""
    unknown = (pairs.visits['role'] == 'unknown').to_numpy()[pairs.visit]
    return _dropped(one[unknown], 'longitudinal, reliability', UNKNOWN_INTERVAL)


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
