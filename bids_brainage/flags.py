"""Quality flags: what they mean, and how they stand in the column ``qc_flag``."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def flag_table() -> dict[str, dict[str, Any]]:
    """Return all flags with label, severity, threshold, unit, explanation, reason, advice."""
    text = files('bids_brainage').joinpath('data/qc_flags.json').read_text('utf-8')
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def stop_flags() -> frozenset[str]:
    """Return the flags that say "do not use"."""
    return frozenset(name for name, text in flag_table().items() if text['severity'] == 'stop')


def flag_names(cell: str | None) -> list[str]:
    """Return the names in a cell of ``qc_flag``, without the detail that may follow them.

    >>> flag_names('mask_volume(2100 mL);anisotropic')
    ['mask_volume', 'anisotropic']
    """
    parts = [part.strip() for part in (cell or '').split(';')]
    return [re.split(r'[^\w-]', part, maxsplit=1)[0] for part in parts if part]
