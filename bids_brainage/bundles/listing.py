"""The rows of ``--list-models``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bids_brainage.bundles.bundle import Bundle, find_bundles, load_bundle
from bids_brainage.bundles.validation import stated_validations
from bids_brainage.errors import BundleError
from bids_brainage.models.registry import list_models

COLUMNS = (
    'name',
    'arch',
    'status',
    'n_train',
    'age_min',
    'age_max',
    'mae_simulated',
    'mae_real',
    'license',
)


def _mae(bundle: Bundle, simulated: bool) -> float | None:
    """Return the MAE of the largest validation set of one kind (years)."""
    metadata = bundle.metadata
    stated = stated_validations(metadata['validation'], metadata['training']['simulated'])
    rows = [row for row in stated if row.simulated is simulated]
    return max(rows, key=lambda row: row.n).mae if rows else None


def _bundle_row(path: Path) -> dict[str, Any]:
    empty = dict.fromkeys(COLUMNS)
    try:
        bundle = load_bundle(path, verify=False)
    except BundleError as error:
        return empty | {'name': path.name, 'status': f'unusable: {error}'}
    training = bundle.metadata['training']
    return {
        'name': bundle.name,
        'arch': bundle.arch,
        'status': bundle.status,
        'n_train': training['n'],
        'age_min': training['age_min'],
        'age_max': training['age_max'],
        'mae_simulated': _mae(bundle, True),
        'mae_real': _mae(bundle, False),
        'license': bundle.metadata['license'],
    }


def model_rows(model_dirs: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Describe every bundle, then every architecture that has none.

    Parameters
    ----------
    model_dirs : iterable of path-like
        Folders that hold bundles.

    Returns
    -------
    list of dict
        Keys are :data:`COLUMNS`; ages and MAE in years, None where unknown.  ``status`` is
        ``trained``, ``untrained``, ``trainable only`` (no bundle is installed) or
        ``unusable: <reason>``.  A validation set counts as simulated when its row carries
        ``"simulated": true``, or says nothing of it and the training was simulated; the set
        with the largest n is shown.
    """
    rows = [_bundle_row(path) for path in find_bundles(model_dirs).values()]
    present = {row['arch'] for row in rows}
    empty = dict.fromkeys(COLUMNS)
    rows += [
        empty | {'name': arch, 'arch': arch, 'status': 'trainable only'}
        for arch in list_models()
        if arch not in present
    ]
    return rows
