"""Ages of people who trained a model, by the folds of the training that have not seen them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.people import FALSE, TRUE, UNSEEN
from bids_brainage.errors import OptionError
from bids_brainage.inference.row import LEARNT_FROM
from bids_brainage.names import TRAINING_ROLE as ROLE
from bids_brainage.tsv import is_missing, read_given_tsv

if TYPE_CHECKING:
    import pandas as pd

NEW = 'unseen'

NEEDED = ('source', 'role', 'predicted_age')
WITHOUT = ('interval_low', 'interval_high', 'predicted_age_sd', 'predicted_age_corrected')
"""What belongs to the age that the whole model told."""


def use_held_out(table: pd.DataFrame, paths: Sequence[Path]) -> pd.DataFrame:
    """Put the ages of held-out people in the place of those that the trained model told.

    Parameters
    ----------
    table : DataFrame
        Predictions as read, cells as text.
    paths : sequence of Path
        ``predictions.tsv`` of trainings; the folder has the name of the model.

    Returns
    -------
    DataFrame
        Images that a network which has not seen the person has predicted have that age (the mean
        if there are several), no interval, and ``in_training`` false.  The others are as before.
        The column `ROLE` tells these apart from people who had no part in the training.

    Raises
    ------
    OptionError
        A file is no such table, or none of its people is here.
    """
    table = table.copy()
    for path in paths:
        model, ages = path.parent.name, held_out_ages(path)
        mine = (table['model'] == model) & table['source'].isin(list(ages))
        if not mine.any():
            raise OptionError(
                f'--predictions {path}: none of its {len(ages)} images of held-out people has a '
                f'prediction of {model} in the output folder, which has the models '
                f'{", ".join(sorted(table["model"].dropna().unique()))}. Run the participant '
                'level with this model, or give the table of another training.'
            )
        told = table.loc[mine, 'source'].map(ages).tolist()
        pairs = zip(told, table.loc[mine, 'age'].map(_number).tolist(), strict=True)
        values: dict[str, Any] = {
            **dict.fromkeys(WITHOUT),
            'in_training': FALSE,
            ROLE: UNSEEN,
            'qc_flag': [_without_flag(cell) for cell in table.loc[mine, 'qc_flag']],
            'predicted_age': [str(predicted) for predicted in told],
            'brain_age_gap': [None if age is None else str(p - age) for p, age in pairs],
        }
        for name, cells in values.items():
            if name not in table:
                table[name] = None
            table.loc[mine, name] = cells
        others = (table['model'] == model) & ~mine & (table['in_training'] != TRUE)
        table.loc[others, ROLE] = NEW
    return table


def held_out_ages(path: Path) -> dict[str, float]:
    """Return the predicted age of each image of a held-out person, years, by its URI.

    Raises
    ------
    OptionError
        The file is no table of predictions.
    """
    rows = read_given_tsv('--predictions', path)
    absent = [name for name in NEEDED if not rows or name not in rows[0]]
    if absent:
        raise OptionError(
            f'--predictions {path}: no column {", ".join(absent)}. Expected predictions.tsv of a '
            'training (logs/training/MODEL/predictions.tsv).'
        )
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row['role'] == UNSEEN and (age := _number(row['predicted_age'])) is not None:
            found[row['source']].append(age)
    return {source: fmean(ages) for source, ages in found.items()}


def _without_flag(cell: str | None) -> str | None:
    left = [flag for flag in (cell or '').split(';') if flag != LEARNT_FROM]
    return ';'.join(left) or None


def _number(text: Any) -> float | None:
    if text is None or is_missing(text):
        return None
    try:
        return float(text)
    except ValueError:
        return None
