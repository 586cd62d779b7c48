"""Architectures, their registry and the bundle format.

Importing this package reads no weights and imports no deep-learning library, so that
``--list-models`` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_brainage.models.registry import ModelInfo, create_model, list_models, model_info

if TYPE_CHECKING:
    from pathlib import Path

    from bids_brainage.models.check import BundleReport

__all__ = ['ModelInfo', 'check_bundle', 'create_model', 'list_models', 'model_info']


def check_bundle(path: Path | str) -> BundleReport:
    """Check a bundle against everything that is asked of one.

    Parameters
    ----------
    path : path-like
        Folder of the bundle.

    Returns
    -------
    BundleReport
        See `bids_brainage.models.check.check_bundle`, which this imports when it is called.
    """
    from bids_brainage.models.check import check_bundle as check

    return check(path)
