"""Atomic writers: a temporary name in the same folder, then a rename.

A file whose content is already right is left alone (its time stamp too), so that a second run
changes nothing and jobs that share an output folder never show each other half a file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bids_brainage.errors import OutputError, ReadWriteError
from bids_brainage.tsv import format_cell

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


def write_bytes(path: str | Path, content: bytes) -> bool:
    """Write ``content`` atomically.

    Returns
    -------
    bool
        True if the file was written, False if it already held exactly this content.

    Raises
    ------
    OutputError
        The folder or file cannot be created (exit status 73).
    ReadWriteError
        The disk is full or failed (exit status 74).
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.{_writer()}')
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _as_output_error(path, error) from error
    return True


def _writer() -> str:
    """Return the end of the name of a file that this process is writing."""
    return f'{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}'


_WRITING = re.compile(r'\..+\.(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{8}')

ABANDONED_S = 24 * 3600.0
"""Age from which a file that is being written has no writer any more, wherever that ran."""


def remove_abandoned(paths: Iterable[Path]) -> int:
    """Remove files whose writers were killed: of this machine, or a day old; return how many."""
    removed = 0
    for path in paths:
        named = _WRITING.fullmatch(path.name)
        try:
            if named and not _is_written(path, named['host'], int(named['process'])):
                path.unlink()
                removed += 1
        except OSError:  # its writer has just finished
            continue
    return removed


def _is_written(path: Path, host: str, process: int) -> bool:
    if time.time() - path.stat().st_mtime > ABANDONED_S:
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_text(path: str | Path, text: str) -> bool:
    """Write UTF-8 text atomically (see `write_bytes`); one line end closes the file."""
    return write_bytes(path, (text.rstrip('\n') + '\n').encode('utf-8'))


def write_json(path: str | Path, obj: Any) -> bool:
    """Write ``obj`` as indented JSON, keys in the given order, non-finite numbers as null."""
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text)


def write_tsv(path: str | Path, table: Any, columns: Sequence[str] | None = None) -> bool:
    """Write a table atomically as BIDS TSV.

    Parameters
    ----------
    path : path
        File to write.
    table : pandas.DataFrame or sequence of mappings
        Rows; cells are written by `bids_brainage.tsv.format_cell`.
    columns : sequence of str, optional
        Columns and their order; the table's own order when not given.  A column that a row
        lacks is written ``n/a``.
    """
    rows = table.to_dict('records') if hasattr(table, 'to_dict') else list(table)
    if columns is None:
        columns = list(table.columns) if hasattr(table, 'columns') else list(_keys(rows))
    lines = ['\t'.join(columns)]
    lines += ['\t'.join(format_cell(row.get(name)) for name in columns) for row in rows]
    return write_text(path, '\n'.join(lines))


def publish_file(source: str | Path, path: str | Path) -> bool:
    """Copy ``source`` to ``path`` atomically; keep ``path`` when its bytes are the same."""
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise _as_output_error(Path(source), error) from error
    return write_bytes(path, content)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object that this package wrote; an absent file reads as empty.

    Raises
    ------
    ReadWriteError
        The file exists but is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ReadWriteError(
            f'Cannot read {path}: {error}. Remove the file and run again.'
        ) from error
    if not isinstance(content, dict):
        raise ReadWriteError(
            f'{path} holds a JSON {type(content).__name__}, expected an object. '
            'Remove the file and run again.'
        )
    return content


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold an advisory lock on ``folder`` while a file in it is read, merged and written.

    Protects the processes of one machine from each other; on file systems without locks (some
    network mounts) it does nothing, and there each subject's files have one writing job anyway.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _as_output_error(folder, error) from error
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS):
                raise _as_output_error(folder, error) from error
        yield
    finally:
        os.close(handle)


def _as_output_error(path: Path, error: OSError) -> OutputError:
    """Translate an operating-system error into one that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ReadWriteError(f'No space left to write {path}: free space or change folders.')
    if error.errno == errno.EIO:
        return ReadWriteError(f'Input/output error on {path}: check the disk or the mount.')
    return OutputError(f'Cannot write {path}: {error.strerror or error}. Check the permissions.')


def _keys(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """Collect the keys of all rows in order of first appearance."""
    return {key: None for row in rows for key in row}


def _plain(obj: Any) -> Any:
    """Reduce numpy scalars, arrays, paths and tuples to what JSON knows; NaN becomes null."""
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, (set, frozenset)):
        return sorted(_plain(value) for value in obj)
    if hasattr(obj, 'tolist'):
        return _plain(obj.tolist())
    if isinstance(obj, float) and not abs(obj) < float('inf'):
        return None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    return obj
