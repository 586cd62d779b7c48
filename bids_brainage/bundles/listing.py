"""What ``--list-models`` prints: one line a model, or all about those that are named."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.bundles.bundle import Bundle, find_bundles, load_bundle, resolve_bundle
from bids_brainage.bundles.places import DEFAULT_MODELS
from bids_brainage.bundles.validation import stated_validations
from bids_brainage.errors import BundleError
from bids_brainage.models.registry import list_models, model_info

COLUMNS = (
    'name',
    'status',
    'n_train',
    'ages',
    'mae_real',
    'mae_simulated',
)
WIDTH = 99
"""Longest line that is printed, characters."""

LEGEND = (
    'n_train: people it was fitted on; ages: theirs, in years; mae: mean absolute error in years '
    'on scans of people that it had not seen. The systems and when to take which: docs, "The '
    'systems". Licence, training and limits of a model: --list-models NAME. converted: weights '
    'that others publish, layout checked, not run with the published weights; to convert: bring '
    'your own copy of them, see bids_brainage convert --help.'
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
    except BundleError:
        return empty | {'name': path.name, 'status': 'unusable'}
    return {
        'name': bundle.name,
        'status': _status(bundle),
        'n_train': _n_train(bundle),
        'ages': _ages(bundle),
        'mae_real': _mae(bundle, False),
        'mae_simulated': _mae(bundle, True),
    }


def _status(bundle: Bundle) -> str:
    if bundle.name in DEFAULT_MODELS:
        return 'default'
    return 'converted' if 'converted_from' in bundle.metadata else bundle.status


def _n_train(bundle: Bundle) -> int | None:
    """Return how many people it was fitted on; None if those who published it do not say."""
    n: int = bundle.metadata['training']['n']
    return n or (None if 'converted_from' in bundle.metadata else n)


def _ages(bundle: Bundle) -> str | None:
    training = bundle.metadata['training']
    limits = (training['age_min'], training['age_max'])
    return None if None in limits else f'{limits[0]:.0f} to {limits[1]:.0f}'


def model_rows(model_dirs: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Describe every bundle, the default first, then every architecture that has none.

    Parameters
    ----------
    model_dirs : iterable of path-like
        Folders that hold bundles.

    Returns
    -------
    list of dict
        Keys are :data:`COLUMNS`; ages and MAE in years, None where unknown.  ``status`` is
        ``default`` (which is trained), ``trained``, ``converted``, ``untrained``, ``trainable
        only`` (no bundle is installed), ``to convert`` (weights of others, none installed) or
        ``unusable``.  A validation set counts as simulated when its row carries
        ``"simulated": true``, or says nothing of it and the training was simulated; the set
        with the largest n is shown.
    """
    rows = [_bundle_row(path) for path in find_bundles(model_dirs).values()]
    rows.sort(key=lambda row: row['name'] not in DEFAULT_MODELS)
    present = {row['name'].partition('.')[0] for row in rows}
    empty = dict.fromkeys(COLUMNS)
    rows += [
        empty
        | {
            'name': arch,
            'status': 'trainable only' if model_info(arch).trainable else 'to convert',
        }
        for arch in list_models()
        if arch not in present
    ]
    return rows


def models_text(model_dirs: Iterable[Path | str]) -> str:
    """Return the table of models with its legend."""

    def cell(value: object) -> str:
        if value is None:
            return 'n/a'
        return f'{value:.2f}' if isinstance(value, float) else str(value)

    rows = [[cell(row[name]) for name in COLUMNS] for row in model_rows(model_dirs)]
    lines = [list(COLUMNS), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    table = (
        '  '.join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    return '\n'.join([*table, '', textwrap.fill(LEGEND, WIDTH)])


def details_text(name: str, model_dirs: Sequence[Path]) -> str:
    """Return all that a person should know of a model before using it.

    Raises
    ------
    BundleError
        There is no such model, or it is damaged; an architecture without weights has none.
    """
    bundle = resolve_bundle(name, model_dirs)
    metadata, training = bundle.metadata, bundle.metadata['training']
    is_default = ', the default' if name in DEFAULT_MODELS else ''
    reference = metadata['reference']
    doi = f' https://doi.org/{reference["doi"]}' if reference.get('doi') else ''
    kind = 'simulated scans' if training['simulated'] else 'real scans'
    told = 'converted' if 'converted_from' in metadata else bundle.status
    n = _n_train(bundle)
    people = f'n {"not stated" if n is None else n}, ages {_ages(bundle) or "not stated"}'
    if mixed := training.get('n_simulated'):
        people += f'; and {mixed} simulated people'
    facts = {
        'model': f'{bundle.name}, version {bundle.version}, {told}{is_default}',
        'title': metadata['title'],
        'about': metadata['description'],
        'use': metadata['intended_use'],
        'input': f'{metadata["input"]["kind"]} ({model_info(bundle.arch).title})',
        'training': f'{training["data"]} ({kind}; {people})',
        'tested': _tested(bundle) or 'no error is stated',
        'limits': metadata['limitations'],
        'licence': metadata['license'],
        'cite': f'{reference["text"]}.{doi}',
        'weights': f'{bundle.path} (SHA-256 {bundle.weights_sha256[:12]})',
    }
    return '\n'.join(
        _paragraph(label if i == 0 else '', text)
        for label, value in facts.items()
        for i, text in enumerate([value] if isinstance(value, str) else value)
    )


def _tested(bundle: Bundle) -> list[str]:
    """Return one line for each error that the bundle states."""
    lines = []
    for check in bundle.metadata['validation']:
        for stated in stated_validations([check], bundle.metadata['training']['simulated']):
            remarks = [check.get('method', ''), 'simulated' if stated.simulated else '']
            remark = ', '.join(filter(None, remarks))
            lines.append(
                f'{stated.dataset}: mean absolute error {stated.mae:.2f} years, n {stated.n}'
                + (f' ({remark})' if remark else '')
            )
    return lines


def _paragraph(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label.ljust(10),
        subsequent_indent=' ' * 10,
        break_long_words=False,
        break_on_hyphens=False,
    )
