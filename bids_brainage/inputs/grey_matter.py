"""Which program made a map of grey matter: a model is to see maps like those it learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainage.names import side_file
from bids_brainage.outputs.files import read_json

PROGRAM = 'cat12'
MADE_BY = 'MadeBy'
"""Key of the side file of a map that another program made."""

LEARNT = 'maps_by'
"""Key of the ``input`` block of a model that has learnt from such maps."""

MEASURE = 'cat12_maps'
"""Measure of a scan whose map another program made."""


def maker_of(path: Path) -> str | None:
    """Return which other program made a map; None for our own, or no map."""
    return read_json(side_file(path)).get(MADE_BY)


def is_of_others(declared: Mapping[str, Any], measures: Mapping[str, Any]) -> bool:
    """Return whether a model has learnt from maps of one program and is shown those of another.

    Parameters
    ----------
    declared : mapping
        The ``input`` block of a model of grey matter.
    measures : mapping
        Quality measures of the scan.

    Examples
    --------
    >>> is_of_others({}, {'cat12_maps': 1.0}), is_of_others({}, {})
    (True, False)
    >>> is_of_others({'maps_by': 'cat12'}, {'cat12_maps': 1.0})
    False
    """
    shown = PROGRAM if measures.get(MEASURE) else None
    return declared.get(LEARNT) != shown
