"""One age from several models: mean weighted by the error that each was validated with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

from bids_brainage.bundles.validation import SOURCE_LEFT_OUT, Validation, leading_validation
from bids_brainage.errors import OptionError

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Member:
    """One model of a consensus.

    Attributes
    ----------
    name : str
        As in the column ``model``.
    validation : Validation
        The one that weighs it.
    """

    name: str
    validation: Validation


@dataclass(frozen=True)
class ConsensusAge:
    """Age of one scan, years.

    Attributes
    ----------
    age : float
    sd : float
        Standard deviation (n - 1) over the models, unweighted: how far they disagree.
    interval : tuple or None
        Lower and upper limit, nominal coverage of the members; None if one has no interval.
    """

    age: float
    sd: float
    interval: Interval | None


def validated_members(
    models: Sequence[tuple[str, Sequence[Mapping[str, Any]], bool]],
) -> list[Member]:
    """Return models with the errors that weigh them.

    That is how far off they were on scanners from which they had learnt nothing, if all of them
    say so: models that know a scanner by heart are no better for strangers.  Else it is the
    validation that speaks for each.

    Parameters
    ----------
    models : sequence of (str, sequence of mapping, bool)
        Name, ``validation`` of the bundle, and whether its training was simulated, for entries
        that do not say so themselves.

    Raises
    ------
    OptionError
        One of them has no positive error.
    """
    for method in (SOURCE_LEFT_OUT, None):
        found = [leading_validation(checks, simulated, method) for _, checks, simulated in models]
        if None not in found:
            break
    members = []
    for (name, _, _), validation in zip(models, found, strict=True):
        if validation is None:
            raise OptionError(
                f'--consensus: {name} states no error that it was validated with, so it cannot '
                'be weighed. Leave it out of --models, or leave --consensus out.'
            )
        members.append(Member(name, validation))
    return members


def consensus_weights(members: Sequence[Member]) -> dict[str, float]:
    """Return the weight of each model: one over its squared error, all together 1.

    Parameters
    ----------
    members : sequence of Member

    Returns
    -------
    dict
        Name → weight.  With independent errors without bias these weights have the least
        variance; the errors of models on one scan are correlated, so they are a convention.

    Raises
    ------
    OptionError
        There are fewer than two, or some were validated on simulated scans and others on real
        ones.
    """
    if len(members) < 2:
        raise OptionError(
            '--consensus: one model has no consensus with itself. Name several with --models.'
        )
    if len({member.validation.simulated for member in members}) > 1:
        made_up = ', '.join(m.name for m in members if m.validation.simulated)
        raise OptionError(
            f'--consensus: {made_up} was validated on simulated scans and the others on real '
            'ones, so their errors cannot be compared. Leave one kind out of --models.'
        )
    inverse = {member.name: member.validation.mae**-2 for member in members}
    total = sum(inverse.values())
    return {name: value / total for name, value in inverse.items()}


def consensus_age(
    weights: Mapping[str, float],
    ages: Mapping[str, float],
    intervals: Mapping[str, Interval | None],
) -> ConsensusAge:
    """Return the weighted mean of the models' ages.

    The limits of the interval are the weighted means of the members' limits.  That is the right
    width when the members' errors go fully together and too wide else; its level is the lowest
    of theirs.

    Parameters
    ----------
    weights, ages : mapping
        Name → weight, and age in years.
    intervals : mapping
        Name → limits (years) and level, None where a model has none.
    """
    known = [intervals[name] for name in weights]
    interval = None
    if all(item is not None for item in known):
        pairs = [(w, i) for w, i in zip(weights.values(), known, strict=True) if i is not None]
        interval = (
            sum(w * i[0] for w, i in pairs),
            sum(w * i[1] for w, i in pairs),
            min(i[2] for _, i in pairs),
        )
    age = sum(weight * ages[name] for name, weight in weights.items())
    return ConsensusAge(age, stdev(ages[name] for name in weights), interval)
