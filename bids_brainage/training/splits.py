"""Who trains, who chooses the epoch, who tests: always whole people."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bids_brainage.training.recipe import SplitRecipe

TRAINING, VALIDATION, TEST = 'training', 'validation', 'test'
SIMULATED = 'simulated'
"""Who trains, too: simulated people in a training of real ones (`RunRecipe.simulated_share`)."""

LONGITUDINAL, RETEST, UNSEEN, EXCLUDED = 'longitudinal', 'retest', 'unseen', 'excluded'
ROLES = (TRAINING, SIMULATED, VALIDATION, TEST, LONGITUDINAL, RETEST, UNSEEN, EXCLUDED)
USED = (TRAINING, VALIDATION, TEST)

DAYS_PER_YEAR = 365.25
N_PARTITIONS = 10
NESTED_SHARE = 0.1


@dataclass(frozen=True)
class Item:
    """One scan as splitting sees it.

    Attributes
    ----------
    source : str
        BIDS URI.
    participant, session : str
        Labels without prefix; session may be None.
    age : float
        Years.
    sex, cohort : str
        Empty when unknown.
    acq_days : float
        Day of the scan, NaN when unknown.
    role : str
        What the scan is for, by its cohort or as a simulated one; empty where the split decides.
    """

    source: str
    participant: str
    session: str | None
    age: float
    sex: str = ''
    cohort: str = ''
    acq_days: float = math.nan
    role: str = ''


@dataclass(frozen=True)
class Assignment:
    """The role of one scan in one fold (folds count from 1)."""

    item: Item
    fold: int
    role: str


def make_split(items: Sequence[Item], recipe: SplitRecipe, seed: int) -> list[Assignment]:
    """Assign every scan a role in every fold.

    Parameters
    ----------
    items : sequence of Item
        All usable scans.
    recipe : SplitRecipe
        Method and shares.
    seed : int
        Of the shuffles; the same seed and scans give the same split on any machine.

    Returns
    -------
    list of Assignment
        Fold by fold, in the order of `items`.
    """
    reserved = reserved_people(items, recipe)
    unit = _unit(recipe)
    free = [x for x in items if not x.role and x.participant not in reserved]
    firsts: dict[str, Item] = {}
    for item in free:
        firsts.setdefault(unit(item), item)
    methods = {'random': _random_roles, 'kl': _kl_roles, 'folds': _fold_roles}
    folds = methods[recipe.method](firsts, recipe, np.random.default_rng(seed))
    result = []
    for number, roles in enumerate(folds, start=1):
        for item in items:
            role = item.role or reserved.get(item.participant) or roles[unit(item)]
            if role == VALIDATION and recipe.selection == 'none':
                role = TRAINING
            result.append(Assignment(item, number, role))
    return result


def reserved_people(items: Iterable[Item], recipe: SplitRecipe) -> dict[str, str]:
    """Return the role of people whom the recipe keeps out, among those that it deals out."""
    if not recipe.reserve_repeated:
        return {}
    return repeated_people([item for item in items if not item.role], recipe.retest_max_days)


def repeated_people(items: Iterable[Item], retest_max_days: float) -> dict[str, str]:
    """Find people with several sessions between which the time is known.

    By the rules of the group level (`bids_brainage.statistics.pairing`): dates count where they
    agree with the ages, and equal ages without dates are no test-retest.

    Returns
    -------
    dict
        Participant → ``longitudinal``, or ``retest`` when all later sessions repeat an earlier
        one within the limit.
    """
    import pandas as pd

    from bids_brainage.statistics.pairing import pair_scans

    items = list(items)
    if not items:
        return {}
    labels, people = np.unique([item.participant for item in items], return_inverse=True)
    scans = pd.DataFrame(
        {
            'person': people,
            'session': [item.session or '' for item in items],
            'series': [item.source for item in items],
            'run': '',
            'age': [item.age for item in items],
            'acq_days': [item.acq_days for item in items],
        }
    )
    found: dict[str, str] = {}
    for person, visits in pair_scans(scans, retest_max_days).visits.groupby('person'):
        later = set(visits['role'].iloc[1:])
        if later and 'unknown' not in later:
            repeats = later == {'retest'}
            found[str(labels[int(person)])] = RETEST if repeats else LONGITUDINAL
    return found


def decile_edges(ages: Sequence[float]) -> list[float]:
    """Return minimum, the quantiles 0.1 to 0.9 (linear interpolation) and maximum, merged."""
    inner = np.quantile(np.asarray(ages, dtype=float), np.arange(1, 10) / 10)
    return sorted({float(min(ages)), *map(float, inner), float(max(ages))})


def divergence(part: Mapping[Hashable, float], whole: Mapping[Hashable, float]) -> float:
    """Kullback-Leibler divergence of a partition from the whole, natural logarithm.

    Parameters
    ----------
    part, whole : mapping
        Stratum → share or count; each is normalised.  `whole` is positive wherever `part` is.
    """
    n_part, n_whole = sum(part.values()), sum(whole.values())
    return sum(
        (count / n_part) * math.log((count / n_part) / (whole[stratum] / n_whole))
        for stratum, count in part.items()
        if count > 0
    )


def deal(
    strata: Mapping[Hashable, Sequence[str]], hands: int, rng: np.random.Generator
) -> list[list[str]]:
    """Deal shuffled members of each stratum round-robin, going on where the last one ended."""
    result: list[list[str]] = [[] for _ in range(hands)]
    place = 0
    for name in sorted(strata, key=str):
        members = list(strata[name])
        for index in rng.permutation(len(members)):
            result[place % hands].append(members[index])
            place += 1
    return result


def _unit(recipe: SplitRecipe) -> Callable[[Item], str]:
    """Return the function that names what is never divided."""
    if recipe.unit == 'scan':
        return lambda item: item.source
    return lambda item: item.participant


def _decade_strata(firsts: Mapping[str, Item]) -> dict[Hashable, list[str]]:
    strata: dict[Hashable, list[str]] = defaultdict(list)
    for name, item in firsts.items():
        decade = '' if math.isnan(item.age) else f'{int(item.age // 10):02d}'
        strata[(decade, item.sex, item.cohort)].append(name)
    return strata


def by_quota(
    strata: Mapping[Hashable, Sequence[str]],
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> dict[str, str]:
    """Share out shuffled strata so that every role keeps its share all along.

    Parameters
    ----------
    strata : mapping
        Stratum → members.
    shares : mapping
        Role → share; they sum to 1.
    rng : numpy.random.Generator
        Of the shuffles.

    Returns
    -------
    dict
        Member → role; the count of each role differs from its share by less than 1.
    """
    counts = dict.fromkeys(shares, 0)
    roles: dict[str, str] = {}
    for name in sorted(strata, key=str):
        members = list(strata[name])
        for index in rng.permutation(len(members)):
            done = len(roles) + 1
            role = max(shares, key=lambda r: (shares[r] * done - counts[r], shares[r]))
            counts[role] += 1
            roles[members[index]] = role
    return roles


def _random_roles(
    firsts: Mapping[str, Item], recipe: SplitRecipe, rng: np.random.Generator
) -> list[dict[str, str]]:
    shares = {
        TRAINING: 1 - recipe.validation - recipe.test,
        VALIDATION: recipe.validation,
        TEST: recipe.test,
    }
    return [by_quota(_decade_strata(firsts), shares, rng)]


def _kl_roles(
    firsts: Mapping[str, Item], recipe: SplitRecipe, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Choose test and validation among ten partitions by their likeness to the whole."""
    edges = decile_edges([item.age for item in firsts.values()])

    def stratum(name: str) -> Hashable:
        item = firsts[name]
        place = int(np.searchsorted(edges[1:-1], item.age, side='right'))
        return (f'{place:02d}', item.cohort)

    strata: dict[Hashable, list[str]] = defaultdict(list)
    for name in firsts:
        strata[stratum(name)].append(name)
    parts = [part for part in deal(strata, N_PARTITIONS, rng) if part]
    whole = Counter(stratum(name) for name in firsts)
    order = sorted(
        range(len(parts)),
        key=lambda k: (divergence(Counter(map(stratum, parts[k])), whole), k),
    )
    roles = dict.fromkeys(firsts, TRAINING)
    for place, role in zip(order, (TEST, VALIDATION), strict=False):
        roles |= dict.fromkeys(parts[place], role)
    return [roles]


def _fold_roles(
    firsts: Mapping[str, Item], recipe: SplitRecipe, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Hold every part out once; see `SplitRecipe.selection`."""
    parts = deal(_decade_strata(firsts), recipe.folds, rng)
    folds = []
    for held_out in parts:
        roles = dict.fromkeys(firsts, TRAINING) | dict.fromkeys(held_out, TEST)
        if recipe.selection == 'halves':
            roles |= dict.fromkeys(held_out[::2], VALIDATION)
        elif recipe.selection == 'fold_val':
            roles |= dict.fromkeys(held_out, VALIDATION)
        else:
            rest = {name: item for name, item in firsts.items() if roles[name] == TRAINING}
            shares = {TRAINING: 1 - NESTED_SHARE, VALIDATION: NESTED_SHARE}
            roles |= by_quota(_decade_strata(rest), shares, rng)
        folds.append(roles)
    return folds
