"""The split as a table on disk: written for the record, and accepted back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bids_brainage.outputs.files import write_tsv
from bids_brainage.training.additive import LEAST_PEOPLE
from bids_brainage.training.splits import (
    EXCLUDED,
    ROLES,
    TEST,
    TRAINING,
    USED,
    VALIDATION,
    Assignment,
    Item,
)
from bids_brainage.tsv import read_tsv

SCAN_COLUMNS = (
    'participant_id',
    'session_id',
    'source',
    'fold',
    'role',
    'age',
    'sex',
    'cohort',
)
COLUMNS = (*SCAN_COLUMNS, 'reason')
MIN_PEOPLE = {TRAINING: 8, VALIDATION: 2, TEST: 2}
"""Fewest people of a role with whom a training can mean anything."""

MIN_WITHOUT_EPOCHS = {TRAINING: LEAST_PEOPLE, VALIDATION: 0, TEST: 2}
"""The same where no epoch is chosen."""


def write_split(
    path: Path | str, assignments: Iterable[Assignment], left_out: Iterable[tuple[Item, str]] = ()
) -> None:
    """Write one row per scan and fold, and one for each scan that is left out, with why."""
    rows = [_row(a.item, a.fold, a.role, '') for a in assignments]
    rows += [_row(item, None, EXCLUDED, reason) for item, reason in left_out]
    write_tsv(path, rows, COLUMNS)


def _row(item: Item, fold: int | None, role: str, reason: str) -> dict[str, object]:
    return {
        'participant_id': f'sub-{item.participant}',
        'session_id': f'ses-{item.session}' if item.session else None,
        'source': item.source,
        'fold': fold,
        'role': role,
        'age': item.age,
        'sex': item.sex or None,
        'cohort': item.cohort or None,
        'reason': reason or None,
    }


def read_split(path: Path | str, items: Sequence[Item], problems: list[str]) -> list[Assignment]:
    """Read a split and fit it to the scans that there are.

    Scans that the table does not name, or names ``excluded``, are left out; rows of scans
    that are not there are a problem.

    Parameters
    ----------
    path : path-like
        Table with columns ``source`` (or ``participant_id``), ``fold`` and ``role``.
    items : sequence of Item
        Usable scans.
    problems : list of str
        Extended by one sentence for each problem.
    """
    try:
        rows = read_tsv(path)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f'--split {path}: cannot be read ({error}).')
        return []
    key = 'source' if rows and 'source' in rows[0] else 'participant_id'
    if not rows or not {key, 'fold', 'role'} <= set(rows[0]):
        problems.append(f'--split {path}: expected columns source, fold and role.')
        return []
    by_key: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_key[item.source if key == 'source' else f'sub-{item.participant}'].append(item)
    result: list[Assignment] = []
    unknown = sorted({row['role'] for row in rows} - set(ROLES))
    absent = sorted({r[key] for r in rows if r['role'] != EXCLUDED and r[key] not in by_key})
    if unknown:
        problems.append(f'--split {path}: unknown roles {", ".join(unknown)}.')
    if absent:
        problems.append(
            f'--split {path}: {len(absent)} of its scans cannot be used or are not there: '
            f'{_some(absent)}. Remove their rows, or make their derivatives.'
        )
    for row in rows:
        if row['role'] in ROLES and row['role'] != EXCLUDED and row['fold'].isdigit():
            result += [Assignment(x, int(row['fold']), row['role']) for x in by_key[row[key]]]
    return result


def split_problems(
    assignments: Sequence[Assignment],
    *,
    by_scan: bool = False,
    least: Mapping[str, int] = MIN_PEOPLE,
) -> list[str]:
    """Return what is wrong with a split: people in two roles, double scans, too few people.

    Parameters
    ----------
    assignments : sequence of Assignment
        All folds.
    by_scan : bool
        The recipe splits by scan on purpose, so that people may stand in several roles.
    least : mapping
        Fewest people of each role.
    """
    problems = []
    folds = sorted({a.fold for a in assignments}) or [1]
    for fold in folds:
        members = [a for a in assignments if a.fold == fold]
        roles: dict[str, set[str]] = defaultdict(set)
        for member in members:
            roles[member.item.participant].add(member.role)
        torn = sorted(who for who, held in roles.items() if len(held) > 1)
        if torn and not by_scan:
            problems.append(
                f'Fold {fold}: {len(torn)} people stand in several roles, so that the test '
                f'would know them: {_some(torn)}. Give each person one role.'
            )
        sources = [member.item.source for member in members]
        if len(sources) != len(set(sources)):
            problems.append(f'Fold {fold}: some scans stand in it twice. Remove double rows.')
        problems += _too_few(fold, members, least)
    return problems


def _too_few(fold: int, members: Sequence[Assignment], least: Mapping[str, int]) -> list[str]:
    problems = []
    for role in USED:
        people = {m.item.participant for m in members if m.role == role}
        # With `fold_val` the held-out people choose the epoch and test at once.
        if role == TEST and not people:
            continue
        if len(people) < least[role]:
            problems.append(
                f'Fold {fold}: {len(people)} people for {role}, at least {least[role]} are '
                'needed. Add people, use fewer folds, or other shares ([split] of --recipe).'
            )
    return problems


def _some(names: Sequence[str], most: int = 5) -> str:
    """List some names and say how many more there are."""
    shown = ', '.join(names[:most])
    return shown + (f' and {len(names) - most} more' if len(names) > most else '')
