"""Which predictions take part: typed rows, and those that are set aside with a reason."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.flags import flag_names, stop_flags
from bids_brainage.names import split_name

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (
    'age',
    'predicted_age',
    'interval_low',
    'interval_high',
    'interval_level',
    'predicted_age_corrected',
)

IDENTIFIERS = ['participant_id', 'session_id', 'run', 'source', 'model']

REJECT = 'reject'
"""Rating of an image that a person does not want to be used."""

LEARNT = 'the model has learnt from this person'
HOW_TO_COUNT = (
    'People who trained a model count with the age by the folds that have not seen them: '
    '--predictions logs/training/MODEL/predictions.tsv.'
)

EXCLUSION_COLUMNS = [*IDENTIFIERS, 'analysis', 'reason', 'qc_flag']


def learnt_from(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of people from whom the model has learnt."""
    import pandas as pd

    if 'in_training' not in table:
        return pd.Series(False, index=table.index)
    return table['in_training'].astype(str).str.casefold() == 'true'


def training_notes(learnt: pd.DataFrame) -> list[str]:
    """Say who was left out because the model has learnt from them; rows as prepared."""
    return [
        f'{model}: {_counted(rows)} from whom this model has learnt are left out of every '
        'statistic, since their ages say nothing about how good it is (accuracy shows them as '
        f'training people). {HOW_TO_COUNT}'
        for model, rows in learnt.groupby('model', sort=True, observed=True)
    ]


def left_out(table: pd.DataFrame, excluded_flags: Collection[str]) -> pd.Series:
    """Say why rows are left out of every statistic because of their quality.

    Parameters
    ----------
    table : DataFrame
        Predictions, with ``qc_flag`` and ``rating`` as far as known.
    excluded_flags : collection of str
        Flags whose rows are left out; so are rows that a person rated `REJECT`.

    Returns
    -------
    Series of str
        The reason for each row, None where there is none.
    """
    import pandas as pd

    reasons = pd.Series(None, index=table.index, dtype=object)
    if 'qc_flag' in table:
        cells = table['qc_flag'].astype(object)
        named = {
            cell: f'flagged {", ".join(found)}'
            for cell in cells.dropna().unique()
            if (found := [name for name in flag_names(cell) if name in excluded_flags])
        }
        found = cells.map(named)
        reasons = found.astype(object).where(found.notna(), None)
    if 'rating' in table:
        reasons = reasons.where(table['rating'] != REJECT, 'rated reject')
    return reasons


def quality_notes(
    predictions: pd.DataFrame, dropped: list[pd.DataFrame], excluded_flags: Collection[str]
) -> list[str]:
    """Say how many images were left out because of their quality, and how many bad ones count.

    Parameters
    ----------
    predictions : DataFrame
        As read.
    dropped : list of DataFrame
        From :func:`prepare`.
    excluded_flags : collection of str
        Flags whose rows were left out.
    """
    import pandas as pd

    notes = []
    gone = pd.concat(dropped, ignore_index=True)
    gone = gone[gone['reason'].astype(str).str.startswith(('flagged ', 'rated '))]
    if len(gone):
        notes.append(
            f'Left out of every statistic because of quality flags or ratings: {_counted(gone)}; '
            'see "Left out".'
        )
    reasons = left_out(predictions, stop_flags() - set(excluded_flags))
    kept = predictions[reasons.notna() & (reasons != 'rated reject')]
    if len(kept):
        notes.append(f'Flagged "do not use" and counted all the same: {_counted(kept)}.')
    return notes


def _counted(rows: pd.DataFrame) -> str:
    """Count the images and people of some rows."""
    images, people = rows['source'].nunique(), rows['participant_id'].nunique()
    images_of = f'{images} image{"s" if images > 1 else ""} of'
    return f'{images_of} {people} {"people" if people > 1 else "person"}'


def prepare(
    predictions: pd.DataFrame, excluded_flags: Collection[str] = ()
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Type the rows and set aside those without a prediction, or with flags that forbid its use.

    Parameters
    ----------
    predictions : DataFrame
        As for :func:`.analyse`.
    excluded_flags : collection of str
        Flags whose rows are left out; see :func:`left_out`.

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
    reasons = left_out(frame, excluded_flags)
    poor = ~failed & ~absent & ~twice & reasons.notna()
    dropped = [
        dropped_rows(frame[failed], 'all', 'status ' + status[failed].astype(str)),
        dropped_rows(frame[absent], 'all', 'no predicted age'),
        dropped_rows(frame[twice], 'all', 'second row of the same image and model'),
        dropped_rows(frame[poor], 'all', reasons[poor]),
    ]
    frame = frame[~(failed | absent | twice | poor)].copy()
    censored = pd.Series(False, frame.index)
    if 'age_censored' in frame:
        censored = frame['age_censored'].astype(str).str.casefold() == 'true'
    without = 'accuracy, differences'
    dropped.append(dropped_rows(frame[censored], without, 'age is top-coded, so no exact error'))
    dropped.append(dropped_rows(frame[frame['age'].isna() & ~censored], without, 'no age'))
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


def dropped_rows(rows: pd.DataFrame, analysis: str, reason: Any) -> pd.DataFrame:
    """List identifiers of excluded rows with the analysis and the reason."""
    named = rows.reindex(columns=[*IDENTIFIERS, 'qc_flag'])
    return named.assign(analysis=analysis, reason=reason)[EXCLUSION_COLUMNS]
