"""Hashes and identifiers that say what a file was made with."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def config_hash(options: Mapping[str, Any]) -> str:
    """Hash the options that alter shared images.

    Order of keys, tuples against lists, and paths against text make no difference; None equals
    an absent option.  The list of models does not belong here: models add rows, not images.

    Returns
    -------
    str
        First 16 hexadecimal digits of the SHA-256 of the canonical JSON text.
    """
    present = {key: value for key, value in options.items() if value is not None}
    text = json.dumps(present, sort_keys=True, separators=(',', ':'), default=str)
    return hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]


def new_run_id(now: datetime | None = None) -> str:
    """Return a new run identifier ``YYYYMMDD-HHMMSS_<uuid4>`` (UTC)."""
    moment = now or datetime.now(UTC)
    return f'{moment:%Y%m%d-%H%M%S}_{uuid.uuid4()}'


def software_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of distributions, without importing them.

    Distributions that are not installed are left out; the result is sorted by name.
    """
    found = {}
    for name in sorted(packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
