"""Where bundles are looked for, and which ones run when none is named."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_MODELS = ('volumes.adults',)
"""Models that run without ``--models``: the best on real scans of those that are packaged."""

DEFAULT_BY_PROGRAM = {
    'freesurfer': 'tables.openneuro',
    'fastsurfer': 'tables.openneuro',
    'dlmuse': 'tables.ixi',
}
"""Program whose tables are given → model that runs for them without ``--models``."""


def user_model_dir() -> Path:
    """Return the folder where a person's own bundles live when no ``--model-dir`` is given."""
    home = os.environ.get('XDG_DATA_HOME') or Path.home() / '.local' / 'share'
    return Path(home) / 'bids_brainage' / 'models'


def model_dirs(given: Path | None) -> tuple[Path, ...]:
    """Return the folders of bundles: the user's first, then the packaged one."""
    from importlib.resources import files  # --help asks only for the default above

    packaged = Path(str(files('bids_brainage').joinpath('data/bundles')))
    return (given or user_model_dir(), packaged)
