"""One number, its limits, or the reason why it does not exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Stat:
    """A statistic that is either defined or explained, never zero or NaN by accident.

    Attributes
    ----------
    value : float or None
        The estimate in float64; None when it is undefined.
    reason : str or None
        Why `value` (or, with a value, why the limits) do not exist.
    low, high : float or None
        Confidence limits in the unit of `value`.

    Examples
    --------
    >>> bool(Stat(0.0)), bool(Stat(None, 'nobody has an age'))
    (True, False)
    """

    value: float | None
    reason: str | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError('an undefined statistic needs a reason')
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError(f'a statistic is finite or None, got {number}')

    def __bool__(self) -> bool:
        """Whether the statistic is defined."""
        return self.value is not None

    def get(self) -> float:
        """Return the value of a statistic that is known to be defined.

        Raises
        ------
        ValueError
            If it is undefined; the message is the reason.
        """
        if self.value is None:
            raise ValueError(self.reason)
        return self.value

    def with_limits(self, low: float, high: float) -> Stat:
        """Return a copy with confidence limits."""
        return replace(self, low=float(low), high=float(high))


def defined(value: float, why_not: str = 'not finite') -> Stat:
    """Wrap a number; a NaN or infinity becomes an undefined statistic with `why_not`."""
    number = float(value)
    return Stat(number) if math.isfinite(number) else Stat(None, why_not)


def undefined(reason: str) -> Stat:
    """Return a statistic that does not exist, for the given reason."""
    return Stat(None, reason)


def flatten(stats: Mapping[str, Stat], limits: bool = False) -> dict[str, float | str | None]:
    """Turn named statistics into the cells of one table row.

    Parameters
    ----------
    stats : mapping of str to Stat
        Column name and statistic.
    limits : bool
        Also give ``<name>_low`` and ``<name>_high``.

    Returns
    -------
    dict
        Values, with None for the undefined ones, and ``reason``: the distinct reasons as
        ``name, name: why`` joined by ``; ``, or None.

    Examples
    --------
    >>> flatten({'mae': Stat(3.5), 'r': Stat(None, 'one scan')})
    {'mae': 3.5, 'r': None, 'reason': 'r: one scan'}
    """
    row: dict[str, float | str | None] = {}
    why: dict[str, list[str]] = {}
    for name, stat in stats.items():
        row[name] = stat.value
        if limits:
            row[f'{name}_low'], row[f'{name}_high'] = stat.low, stat.high
        if stat.reason:
            why.setdefault(stat.reason, []).append(name)
    row['reason'] = '; '.join(f'{", ".join(names)}: {text}' for text, names in why.items()) or None
    return row
