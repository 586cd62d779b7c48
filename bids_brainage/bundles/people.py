"""Who a model has learnt from, told without naming anybody.

A bundle keeps salted hashes of the dataset's name and the participant's label, by what the person
was for.  The age of somebody who trained a model says nothing about how good it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

LEARNT_FROM = ('training', 'validation')
"""Roles of which the weights know something: who trains, and who chooses the epoch."""

UNSEEN = 'test'

TRUE, FALSE, UNKNOWN = 'true', 'false', 'unknown'
"""Values of the column ``in_training``."""

DIGITS = 16


def hashed(salt: str, dataset: str, participant: str = '') -> str:
    """Return the hash of a person, or of a dataset.

    >>> hashed('a', 'My study', '01') == hashed('a', 'My study', '02')
    False
    """
    text = '\n'.join((salt, dataset, participant))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


Person = tuple[str, str]
"""Name of the dataset, and label of the participant in it without ``sub-``."""


def people_block(salt: str, roles: Mapping[str, Iterable[Person]]) -> dict[str, str | list[str]]:
    """Return what a bundle keeps of its people.

    Parameters
    ----------
    salt : str
        Anything that is the bundle's own.
    roles : mapping
        Role → people; who has several counts as the first of ``training``, ``validation``,
        ``test``.
    """
    names = {dataset for people in roles.values() for dataset, _ in people}
    block: dict[str, str | list[str]] = {
        'salt': salt,
        'datasets': sorted(hashed(salt, dataset) for dataset in names),
    }
    placed: set[Person] = set()
    for role in (*LEARNT_FROM, UNSEEN):
        mine = set(roles.get(role, ())) - placed
        block[role] = sorted(hashed(salt, *person) for person in mine)
        placed |= mine
    return block


def in_training(training: Mapping[str, Any], dataset: str, participant: str) -> str:
    """Tell whether a model has learnt from a person.

    Parameters
    ----------
    training : mapping
        The ``training`` block of a bundle.
    dataset : str
        Name of the dataset that the person is in.
    participant : str
        Label without ``sub-``.

    Returns
    -------
    str
        ``'true'``, ``'false'``, or ``'unknown'``: the bundle does not say who trained it, or comes
        from another dataset, where the same person may have another label.
    """
    people = training.get('people')
    if not people or hashed(people['salt'], dataset) not in people['datasets']:
        return UNKNOWN
    mine = hashed(people['salt'], dataset, participant)
    return TRUE if any(mine in people[role] for role in LEARNT_FROM) else FALSE


def in_any_training(values: Iterable[str | None]) -> str:
    """Return the value for what is computed from several models."""
    given = {value or UNKNOWN for value in values}
    return next((value for value in (TRUE, UNKNOWN) if value in given), FALSE)
