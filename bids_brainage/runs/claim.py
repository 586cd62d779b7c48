"""Keep two runs from working on the same scan, or model, in one work folder at once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bids_brainage.errors import OutputError, TemporaryError

FILE = 'running.lock'
TAKEN = (errno.EAGAIN, errno.EACCES)
"""What a lock answers that another process holds; all else says that there are no locks."""


@contextmanager
def claimed(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Claim what this run works on until the context ends, or the process, however it dies.

    Each name is one byte of a lock file, locked by POSIX record locks: these hold between the
    nodes of a cluster where the file system has them, and ten thousand names take one open file.
    On file systems without them nothing is claimed.

    Parameters
    ----------
    folder : Path
        Work folder; made if need be.
    names : iterable of str
        What no other run may work on in this folder.

    Raises
    ------
    TemporaryError
        Another process has claimed one of them (exit status 75).
    OutputError
        The lock file cannot be written (73).
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open('ab')
    except OSError as error:
        raise OutputError(
            f'cannot write in the work folder {folder} ({error}). Choose another with --work-dir.'
        ) from error
    with handle:
        for name in names:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(name))
            except OSError as error:
                if error.errno not in TAKEN:
                    break
                raise TemporaryError(
                    f'another run works on {name} in {folder}. Wait until it has ended, or '
                    'give this one a work folder of its own with --work-dir.'
                ) from error
        yield


def _byte(name: str) -> int:
    """Return the place of a name in the lock file, which stays empty."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], 'big')
