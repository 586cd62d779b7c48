"""JSON sidecars with BIDS inheritance."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from bids_brainage.names import Name, split_name

LOGGER = logging.getLogger(__name__)


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
        self._folders: dict[Path, list[tuple[Path, Name]]] = {}
        self._contents: dict[Path, dict[str, Any]] = {}

    def metadata(self, relative: str) -> dict[str, Any]:
        """Return the merged metadata of an image given by its path relative to the root."""
        parts = relative.split('/')
        name = split_name(parts[-1])
        if name is None:
            return {}
        merged: dict[str, Any] = {}
        for depth in range(len(parts)):
            applicable = [
                (len(own.entities), path)
                for path, own in self._json_files(self.root.joinpath(*parts[:depth]))
                if own.suffix == name.suffix and own.entities.items() <= name.entities.items()
            ]
            for _, path in sorted(applicable):
                merged.update(self._read(path))
        return merged

    def _json_files(self, folder: Path) -> list[tuple[Path, Name]]:
        if folder not in self._folders:
            names = ((path, split_name(path.name)) for path in folder.glob('*.json'))
            self._folders[folder] = [(path, name) for path, name in names if name is not None]
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
