"""What the runs on a participant left in the logs: settings and messages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainage.tsv import is_missing, read_tsv

SETTINGS = 'bids_brainage.toml'


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the newest ``bids_brainage.toml`` of a participant's folder; empty without one.

    Run identifiers start with the time, so the last name is the newest.
    """
    found = [
        *folder.glob('log/*/bids_brainage.toml'),
        *folder.glob('ses-*/log/*/bids_brainage.toml'),
    ]
    newest = max(found, key=lambda path: path.parent.name, default=None)
    if newest is None:
        return {}
    try:
        return tomllib.loads(newest.read_text(encoding='utf-8'))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}  # the page only loses what it says about the run


def status_messages(output_dir: Path, subject: str) -> dict[str, tuple[str, ...]]:
    """Collect the failures of the last run that handled each source, those with a reason first."""
    failures: dict[str, tuple[str, ...]] = {}
    for path in sorted((output_dir / 'logs').glob('*/status.tsv')):
        current: dict[str, tuple[str, ...]] = {}
        for row in read_tsv(path):
            source = row.get('source', '')
            if not re.search(rf'[/:#]sub-{re.escape(subject)}(?![0-9a-zA-Z+])', source):
                continue
            texts = current.setdefault(source, ())
            if row.get('status') == 'failed':
                current[source] = (*texts, _failure(row))
        failures.update(current)
    return {source: _told(texts) for source, texts in failures.items() if texts}


def _failure(row: Mapping[str, str]) -> str:
    """Write a failed step with its message, if it has one; the result is no step of its own."""
    step, message = row.get('step', ''), row.get('message', '')
    if is_missing(message):
        return f'{step} failed'
    return message if step == 'result' else f'{step}: {message}'


def _told(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Put messages that give a reason first."""
    return tuple(sorted(texts, key=lambda text: text.endswith(' failed')))
