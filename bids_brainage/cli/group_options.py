"""Options of the group level and their check."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.config import BIAS_CORRECTIONS
from bids_brainage.settings import column_value, flag, texts, whole_number

if TYPE_CHECKING:
    from bids_brainage.config import Group


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only the group level has."""
    group = parser.add_argument_group('group level')
    group.add_argument(
        '--group-column', metavar='NAME', help='column of the tables whose levels are compared'
    )
    group.add_argument(
        '--covariates',
        nargs='+',
        metavar='NAME',
        help='further columns to hold equal between groups (age and sex always are)',
    )
    group.add_argument(
        '--retest-sessions',
        nargs='+',
        metavar='LABEL',
        help='pairs of sessions A B [C D...] that are test-retest '
        '(default: sessions within --retest-max-days)',
    )
    group.add_argument(
        '--retest-max-days',
        metavar='N',
        help='longest interval of test-retest sessions; longer ones are change (default: 90)',
    )
    group.add_argument(
        '--reference-group',
        metavar='COLUMN=VALUE',
        help='healthy people on whom age bias and intervals are calibrated',
    )
    group.add_argument(
        '--bias-correction',
        metavar='METHOD',
        help='line that takes the age bias out: linear (through the whole reference group), '
        'tails (its youngest and oldest twentieth, of 100 people or more) or none '
        '(default: linear)',
    )
    group.add_argument(
        '--correlate',
        nargs='+',
        metavar='COLUMN',
        help='columns to correlate with the brain age gap',
    )
    group.add_argument(
        '--min-bin-n',
        metavar='N',
        help='fewest scans or pairs of a decade that may be the worst one (default: 5)',
    )
    _add_selection(group)


def _add_selection(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which predictions count."""
    group.add_argument(
        '--include-flagged',
        action='store_true',
        default=None,
        help='count images flagged "do not use", which are left out otherwise',
    )
    group.add_argument(
        '--exclude-flags',
        nargs='+',
        metavar='FLAG',
        help='leave out images with these flags, too, such as anisotropic',
    )
    group.add_argument(
        '--ratings',
        metavar='TSV',
        help='table saved from index.html; images rated reject are left out',
    )
    group.add_argument(
        '--predictions',
        nargs='+',
        metavar='TSV',
        help='predictions.tsv of trainings (logs/training/MODEL): people who trained a model '
        'count with the age by the folds that have not seen them, instead of not at all',
    )


def group_settings(settings: Mapping[str, Any], problems: list[str]) -> Group:
    """Check the options of the group level.

    Parameters
    ----------
    settings : mapping
        Options by destination, text or lists of text.
    problems : list of str
        Extended by one sentence for each problem.
    """
    from bids_brainage.config import Group

    sessions = tuple(
        f'ses-{x.removeprefix("ses-")}' for x in texts(settings, 'retest_sessions', problems)
    )
    if len(sessions) % 2:
        problems.append(
            f'--retest-sessions: expected pairs of labels, found {len(sessions)}: '
            f'{" ".join(sessions)}.'
        )
    for first, second in zip(sessions[::2], sessions[1::2], strict=False):
        if first == second:
            problems.append(f'--retest-sessions: {first} is paired with itself.')
    reference = settings.get('reference_group')
    if reference is not None:
        reference = column_value('--reference-group: expected', reference, problems)
    column = settings.get('group_column')
    return Group(
        group_column=None if column is None else str(column),
        covariates=tuple(texts(settings, 'covariates', problems)),
        retest_sessions=sessions,
        retest_max_days=_days(settings, problems),
        reference_group=reference,
        bias_correction=_method(settings, problems),
        correlate=tuple(texts(settings, 'correlate', problems)),
        min_bin_n=whole_number(settings, 'min_bin_n', 5, problems),
        include_flagged=flag(settings, 'include_flagged', problems),
        exclude_flags=_flag_names(settings, problems),
        ratings=_ratings(settings, problems),
        predictions=_predictions(settings, problems),
    )


def _flag_names(settings: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    """Return the flags to leave out, each of which must exist."""
    from bids_brainage.flags import flag_table

    names = tuple(texts(settings, 'exclude_flags', problems))
    if unknown := [name for name in names if name not in flag_table()]:
        problems.append(
            f'--exclude-flags: no flag {", ".join(unknown)}. Flags are '
            f'{", ".join(sorted(flag_table()))}.'
        )
    return names


def _ratings(settings: Mapping[str, Any], problems: list[str]) -> Path | None:
    """Return the table of ratings, which must be there."""
    value = settings.get('ratings')
    if value is None:
        return None
    path = Path(str(value)).absolute()
    if not path.is_file():
        problems.append(f'--ratings: {path} is not a file. Save the ratings from index.html.')
    return path


def _predictions(settings: Mapping[str, Any], problems: list[str]) -> tuple[Path, ...]:
    """Return the tables of trainings, which must be there."""
    paths = tuple(Path(text).absolute() for text in texts(settings, 'predictions', problems))
    for path in paths:
        if not path.is_file():
            problems.append(
                f'--predictions: {path} is not a file. A training writes '
                'logs/training/MODEL/predictions.tsv.'
            )
    return paths


def _method(settings: Mapping[str, Any], problems: list[str]) -> str:
    """Return how the age bias is corrected."""
    value = settings.get('bias_correction', BIAS_CORRECTIONS[0])
    if value not in BIAS_CORRECTIONS:
        problems.append(
            f'--bias-correction: expected {", ".join(BIAS_CORRECTIONS)}, found {value!r}.'
        )
        return BIAS_CORRECTIONS[0]
    return str(value)


def _days(settings: Mapping[str, Any], problems: list[str]) -> float:
    """Return the limit between test–retest and longitudinal, days."""
    value = settings.get('retest_max_days', 90.0)
    try:
        days = float(value)
    except (TypeError, ValueError):
        days = -1.0
    if not 0 < days < 36525:
        problems.append(f'--retest-max-days: expected a number of days above 0, found {value!r}.')
        return 90.0
    return days
