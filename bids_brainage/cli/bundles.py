"""Where bundles are looked for, and which ones run when none is named."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

DEFAULT_MODELS = ('volumes.lifespan',)
"""Models that run without ``--models``: the best on real scans of those that are packaged."""


def model_dirs(given: Path | None) -> tuple[Path, ...]:
    """Return the folders of bundles: the user's first, then the packaged one."""
    packaged = Path(str(files('bids_brainage').joinpath('data/bundles')))
    return (given, packaged) if given else (packaged,)
