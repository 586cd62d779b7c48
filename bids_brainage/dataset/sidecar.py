"""JSON sidecars with BIDS inheritance."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger(__name__)


def parse_entities(name: str) -> tuple[dict[str, str], str] | None:
    """Take a BIDS file name apart into entities by short key, and suffix.

    Returns None for names that are not made of ``key-value`` chunks and a suffix.
    """
    *chunks, suffix = name.split('.', 1)[0].split('_')
    pairs = [chunk.partition('-') for chunk in chunks]
    if not suffix or '-' in suffix or not all(key and value for key, _, value in pairs):
        return None
    return {key: value for key, _, value in pairs}, suffix


class Sidecars:
    """Read the metadata of images; each folder is listed once.

    A JSON file applies to an image when it lies in the image's folder or above it, has the same
    suffix, and names no entity that the image does not have.  Nearer and more specific files
    win.  Links without content are passed over.

    Parameters
    ----------
    bids_dir : path
        Root of the dataset, where inheritance starts.
    """

    def __init__(self, bids_dir: str | Path) -> None:
        self.root = Path(bids_dir)
        self._folders: dict[Path, list[tuple[Path, dict[str, str], str]]] = {}
        self._contents: dict[Path, dict[str, Any]] = {}

    def metadata(self, relative: str) -> dict[str, Any]:
        """Return the merged metadata of an image given by its path relative to the root."""
        parts = relative.split('/')
        parsed = parse_entities(parts[-1])
        if parsed is None:
            return {}
        entities, suffix = parsed
        merged: dict[str, Any] = {}
        for depth in range(len(parts)):
            applicable = [
                (len(keys), path)
                for path, keys, kind in self._json_files(self.root.joinpath(*parts[:depth]))
                if kind == suffix and keys.items() <= entities.items()
            ]
            for _, path in sorted(applicable):
                merged.update(self._read(path))
        return merged

    def _json_files(self, folder: Path) -> list[tuple[Path, dict[str, str], str]]:
        if folder not in self._folders:
            found = []
            for path in folder.glob('*.json'):
                bare = parse_entities(path.name)
                if bare is not None:
                    found.append((path, *bare))
            self._folders[folder] = found
        return self._folders[folder]

    def _read(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            self._contents[path] = {}
            try:
                content = json.loads(path.read_text(encoding='utf-8-sig'))
            except FileNotFoundError:
                LOGGER.debug('%s is a link without content', path)
            except (OSError, ValueError) as error:
                LOGGER.warning('%s is passed over: not readable as JSON (%s)', path, error)
            else:
                if isinstance(content, dict):
                    self._contents[path] = content
        return self._contents[path]
