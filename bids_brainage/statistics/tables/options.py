"""What the user of the group level may choose."""

from __future__ import annotations

from dataclasses import dataclass, field

from bids_brainage.config import BIAS_CORRECTIONS
from bids_brainage.flags import stop_flags
from bids_brainage.statistics.bins import MIN_BIN_N


@dataclass(frozen=True)
class GroupOptions:
    """What the user may choose at group level.

    Attributes
    ----------
    group_column : str or None
        Factor of the group differences.
    covariates : tuple of str
        Further covariates; age and sex are always used.
    retest_sessions : tuple of (str, str)
        Named test–retest sessions (``ses-A``, ``ses-B``).
    retest_max_days : float
        Longest interval of test–retest sessions when none are named.
    reference_group : (str, str) or None
        Column and value of the healthy reference group.
    bias_correction : str
        How ages are corrected with that group, see :func:`.fit_line`; ``none`` leaves them.
    correlate : tuple of str
        Columns to correlate with the gap.
    seed, draws : int
        Of the bootstrap.
    min_bin_n : int
        Smallest bin that may set a worst-bin error.
    excluded_flags : frozenset of str
        Quality flags whose rows are left out of every statistic.
    networks : tuple of (str, str)
        Pairs of networks of System B, of the T1w image and of the map of blood volume, whose
        regressions T, A, TA and TAS are fitted.
    """

    group_column: str | None = None
    covariates: tuple[str, ...] = ()
    retest_sessions: tuple[tuple[str, str], ...] = ()
    retest_max_days: float = 90
    reference_group: tuple[str, str] | None = None
    bias_correction: str = BIAS_CORRECTIONS[0]
    correlate: tuple[str, ...] = ()
    seed: int = 0
    draws: int = 2000
    min_bin_n: int = MIN_BIN_N
    excluded_flags: frozenset[str] = field(default_factory=stop_flags)
    networks: tuple[tuple[str, str], ...] = ()
