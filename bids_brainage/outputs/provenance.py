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

from bids_brainage.outputs.files import locked, read_json, write_json

_BLOCK = 1 << 20

MADE_FROM = 'MadeFrom'
"""Key of a side file under which stands what its product was made from."""


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def remembered_sha256(path: str | Path, memo: str | Path, *, remember: bool = True) -> str:
    """Return the SHA-256 of a file, reading it only if its size or time has changed.

    A file that was copied or touched is read once more, and its hash then tells that it is the
    same.

    Parameters
    ----------
    path : path
        The file.
    memo : path
        JSON file with the size, time and hash of files that were read before.  It belongs to the
        logs: who removes it loses the time of one reading.
    remember : bool
        Put the hash of a file that was read into `memo`.
    """
    path, memo = Path(path).absolute(), Path(memo)
    state = path.stat()
    now = {'size': state.st_size, 'mtime_ns': state.st_mtime_ns}
    known = read_json(memo).get(str(path), {})
    if now.items() <= known.items() and 'sha256' in known:
        return str(known['sha256'])
    digest = sha256_file(path)
    if remember:
        with locked(memo.parent):
            files = {**read_json(memo), str(path): {**now, 'sha256': digest}}
            write_json(memo, {name: files[name] for name in sorted(files)})
    return digest


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
