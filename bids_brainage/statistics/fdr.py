"""P values of a family of tests."""

from __future__ import annotations

from collections.abc import Sequence

from bids_brainage.statistics.result import Stat, defined


def fdr(p_values: Sequence[Stat]) -> list[Stat]:
    """Benjamini–Hochberg adjusted p values of one family; undefined ones do not count.

    Examples
    --------
    >>> [p.value for p in fdr([Stat(0.01), Stat(None, 'untested'), Stat(0.04)])]
    [0.02, None, 0.04]
    """
    from scipy.stats import false_discovery_control

    known = [p.get() for p in p_values if p]
    adjusted = iter(false_discovery_control(known) if known else [])
    return [defined(next(adjusted)) if p else p for p in p_values]
