"""What is wrong with the tables of ages, told once for everyone it concerns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from bids_brainage.dataset.tables import Table, plain_id

MOST_PEOPLE = 20
"""People that a message lists by name."""

_AGE_LIKE = re.compile(r'(?<![a-zA-Z])(?i:age)(?![a-z])|(?<=[a-z])Age(?![a-z])')


@dataclass(frozen=True)
class Fault:
    """Why a table gives no age to some people.

    Attributes
    ----------
    table : str
        Its path; the pattern of its path where every participant has one.
    problem, remedy : str
        What is wrong, and what to do.
    lost : bool
        Whether the age is not looked for in other tables.
    minor : bool
        Whether the table may well be meant to be so, as one without an age column.
    detail : str
        What stands there for one person.
    """

    table: str
    problem: str
    remedy: str
    lost: bool = False
    minor: bool = False
    detail: str = ''


@dataclass
class Faults:
    """Faults by table, with the people that each concerns."""

    people: dict[Fault, dict[str, None]] = field(default_factory=dict)

    def add(self, fault: Fault, subject: str, *, unknown: bool) -> None:
        """Note that a fault concerns a person, whose age is then unknown or not."""
        known = replace(fault, detail='', lost=unknown)
        detail = f' ({fault.detail})' if fault.detail else ''
        self.people.setdefault(known, {})[f'sub-{subject}{detail}'] = None

    def messages(self) -> list[str]:
        """Return one message for each fault."""
        return [_message(fault, list(people)) for fault, people in self.people.items()]


def _message(fault: Fault, people: list[str]) -> str:
    listed = ', '.join(people[:MOST_PEOPLE])
    if len(people) > MOST_PEOPLE:
        listed += f' and {len(people) - MOST_PEOPLE} more'
    effect = 'Age unknown' if fault.lost else 'Age taken from elsewhere'
    return f'{fault.table} {fault.problem}. {fault.remedy} {effect}: {listed}.'


def place_of(relative: str) -> str:
    """Return the path of a table with the labels of a participant left open."""
    return re.sub(r'(sub|ses)-[^/_]+', r'\1-*', relative)


def no_column(table: Table, wanted: str) -> Fault:
    """Return the fault of a table without the age column."""
    found = ', '.join(table.header)
    alike = [name for name in table.header if _AGE_LIKE.search(name)]
    if alike:
        remedy = f'Give --age-column {alike[0]} (columns found: {found}).'
    else:
        remedy = f'Name the column with --age-column if there is one (columns found: {found}).'
    return Fault(place_of(table.relative), f'has no column {wanted}', remedy, minor=not alike)


def no_row(table: Table, identifier: str, session: str | None) -> Fault:
    """Return the fault of a table without a row for an identifier."""
    place = place_of(table.relative)
    if identifier in table.rows:
        return Fault(place, f'has no row for ses-{session}', 'Add it.')
    written = table.plain_ids.get(plain_id(identifier))
    if written is not None:
        remedy = 'Write the ids as the folders are named.'
        return Fault(place, 'writes ids otherwise than the folders', remedy, detail=written)
    ids = ', '.join(list(table.rows)[:5])
    remedy = f'Add rows; ids found: {ids}.' if place == table.relative else 'Add rows.'
    return Fault(place, 'has no row for some', remedy, minor=True)
