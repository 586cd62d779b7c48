"""Prepared inputs on disk: one memory-mapped raw array per model input, with checksums.

A training reads each input many times and prepares it once.  Values are stored in half
precision (relative error 5e-4) unless they do not fit; rows of a table, which are small, exactly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.dataset.header import is_thick_axial
from bids_brainage.errors import BrainAgeError, OutputError
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.outputs.files import read_json, write_json
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.training.cohort import Candidate

log = logging.getLogger(__name__)

INDEX = 'cache.json'
SCHEMA = 'bids_brainage-cache-2'
LARGEST_HALF = 6.0e4
PROGRESS_SECONDS = 15.0
Arrays = tuple[npt.NDArray[Any], ...]
CacheRow = tuple[str, float, Arrays]


@dataclass(frozen=True)
class Cache:
    """Prepared inputs, opened without reading them.

    Attributes
    ----------
    folder : Path
        Where the arrays and ``cache.json`` are.
    arrays : tuple of memory-mapped ndarray
        One per model input; the first axis is the row.
    sources : tuple of str
        BIDS URI of each row's scan; a scan has several rows when it is cut into synthetic ones.
    ages : ndarray, shape (n_rows,)
        Years.
    """

    folder: Path
    arrays: Arrays
    sources: tuple[str, ...]
    ages: npt.NDArray[np.float64]

    def rows_of(self, sources: set[str]) -> npt.NDArray[np.intp]:
        """Return the rows of some scans, ascending."""
        return np.array([k for k, s in enumerate(self.sources) if s in sources], dtype=np.intp)


def expected_key(
    candidates: Sequence[Candidate], declared: Mapping[str, Any], synthetic: bool
) -> str:
    """Hash what the cached rows depend on: the grid, the scans, and their files' states."""
    state = [
        [c.item.source, c.item.age, *(_state(path) for _, path in sorted(c.files.items()))]
        for c in candidates
    ]
    text = json.dumps([SCHEMA, dict(declared), synthetic, state], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _state(path: Path) -> list[object]:
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]


def build_cache(
    folder: Path,
    candidates: Sequence[Candidate],
    declared: Mapping[str, Any],
    *,
    synthetic: bool = False,
    workers: int = 1,
) -> list[tuple[Candidate, str]]:
    """Prepare every scan and write the arrays, unless an up-to-date cache is there.

    Parameters
    ----------
    folder : Path
        Of this cache.
    candidates : sequence of Candidate
        Scans without known problems.
    declared : mapping
        The ``input`` block of the bundle.
    synthetic : bool
        Cut research scans into thick-slice ones (System C).
    workers : int
        Threads.

    Returns
    -------
    list of (Candidate, str)
        Scans that cannot be used, with why; they are not in the cache.
    """
    key = expected_key(candidates, declared, synthetic)
    index = read_json(folder / INDEX)
    if index.get('key') == key:
        log.log(IMPORTANT, 'inputs    %d rows are there, in %s', len(index['sources']), folder)
        by_source = {c.item.source: c for c in candidates}
        return [(by_source[source], reason) for source, reason in index['unusable']]
    return _write_cache(folder, candidates, declared, key, synthetic, workers)


def _write_cache(
    folder: Path,
    candidates: Sequence[Candidate],
    declared: Mapping[str, Any],
    key: str,
    synthetic: bool,
    workers: int,
) -> list[tuple[Candidate, str]]:
    """Write arrays first and the index last, so that a half-written cache is none."""
    unusable: list[tuple[Candidate, str]] = []
    reasons: list[tuple[str, str]] = []

    def rows() -> Iterator[CacheRow]:
        for candidate, outcome in _prepared(candidates, declared, synthetic, workers):
            reason = outcome if isinstance(outcome, str) else _row_problem(outcome, declared)
            if reason:
                unusable.append((candidate, reason))
                reasons.append((candidate.item.source, reason))
                continue
            for arrays in outcome:
                yield candidate.item.source, candidate.item.age, arrays  # type: ignore[misc]

    log.log(IMPORTANT, 'inputs    of %d scans are prepared, into %s', len(candidates), folder)
    write_rows(folder, declared, rows(), key, reasons)
    size = sum(path.stat().st_size for path in folder.glob('input-*.bin'))
    log.log(IMPORTANT, 'inputs    %.2f GB', size / 1024**3)
    return unusable


def write_rows(
    folder: Path,
    declared: Mapping[str, Any],
    rows: Iterable[CacheRow],
    key: str,
    unusable: Sequence[tuple[str, str]] = (),
) -> None:
    """Write prepared rows as a cache, wherever they come from.

    Parameters
    ----------
    folder : Path
        Of this cache; an old one in it is replaced.
    declared : mapping
        The ``input`` block of the bundle.
    rows : iterable of (str, float, tuple of ndarray)
        Source, age in years, the model's inputs without batch axis.
    key : str
        Says what the rows depend on.
    unusable : sequence of (str, str)
        Sources that give no row, and why; read after the last row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    for old in folder.glob('input-*.bin'):
        old.unlink()
    writer = _Writer(folder)
    sources: list[str] = []
    ages: list[float] = []
    for source, age, arrays in rows:
        writer.add(arrays)
        sources.append(source)
        ages.append(age)
    content = {
        'schema': SCHEMA,
        'key': key,
        'input': dict(declared),
        'arrays': writer.close(),
        'sources': sources,
        'ages': ages,
        'unusable': [list(pair) for pair in unusable],
    }
    write_json(folder / INDEX, content)


def open_cache(folder: Path, *, verify: bool = True) -> Cache:
    """Open a cache.

    Parameters
    ----------
    folder : Path
        Its folder.
    verify : bool
        Compare the checksum of every array.

    Raises
    ------
    OutputError
        An array is absent or was altered.
    """
    index = read_json(folder / INDEX)
    if index.get('schema') != SCHEMA:
        raise OutputError(f'{folder}: expected a cache of training inputs ({SCHEMA}).')
    arrays = []
    for entry in index['arrays']:
        path = folder / entry['file']
        if not path.is_file() or (verify and _sha256(path) != entry['sha256']):
            raise OutputError(
                f'{path}: absent or altered since it was written. Delete {folder} and run again.'
            )
        shape = tuple(entry['shape'])
        arrays.append(np.memmap(path, dtype=entry['dtype'], mode='r', shape=shape))
    return Cache(folder, tuple(arrays), tuple(index['sources']), np.array(index['ages'], float))


class _Writer:
    """Append rows to one raw file per input; the shapes are those of the first row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.layout: list[tuple[tuple[int, ...], str]] = []

    def add(self, arrays: Arrays) -> None:
        """Write one row."""
        if not self.layout:
            self.layout = [(a.shape, 'float64' if a.ndim == 1 else 'float16') for a in arrays]
        for number, (array, (_, dtype)) in enumerate(zip(arrays, self.layout, strict=True)):
            with (self.folder / f'input-{number}.bin').open('ab') as stream:
                stream.write(np.ascontiguousarray(array, dtype).tobytes())
        self.count += 1

    def close(self) -> list[dict[str, Any]]:
        """Return what the index says of the files."""
        return [
            {
                'file': f'input-{number}.bin',
                'shape': [self.count, *shape],
                'dtype': dtype,
                'sha256': _sha256(self.folder / f'input-{number}.bin'),
            }
            for number, (shape, dtype) in enumerate(self.layout)
        ]


def _prepared(
    candidates: Sequence[Candidate],
    declared: Mapping[str, Any],
    synthetic: bool,
    workers: int,
) -> Iterator[tuple[Candidate, list[Arrays] | str]]:
    """Yield the prepared rows of each scan, or why there are none, in order."""

    def work(candidate: Candidate) -> list[Arrays] | str:
        try:
            return prepare_rows(declared, candidate.files, synthetic=synthetic)
        except (BrainAgeError, OSError, ValueError) as error:
            return str(error)

    start = last = time.monotonic()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        # Chunks keep the prepared but not yet written rows few.
        for first in range(0, len(candidates), 4 * max(workers, 1)):
            chunk = candidates[first : first + 4 * max(workers, 1)]
            found = zip(chunk, pool.map(work, chunk), strict=True)
            for done, prepared in enumerate(found, start=first + 1):
                yield prepared
                now = time.monotonic()
                if now - last >= PROGRESS_SECONDS:
                    last, left = now, (now - start) / done * (len(candidates) - done)
                    log.log(
                        IMPORTANT, 'inputs    %d of %d scans, about %.0f min left',
                        done, len(candidates), left / 60,
                    )  # fmt: skip


def prepare_rows(
    declared: Mapping[str, Any], files: Mapping[str, Path], *, synthetic: bool = False
) -> list[Arrays]:
    """Prepare the rows of one scan: one, or one for each thick-slice scan that it contains.

    Returns
    -------
    list of tuple of ndarray
        The model's inputs without batch axis.
    """
    from bids_brainage.inputs.arrays import prepare_slices

    # as in prediction, a scan of thick slices is taken as it is
    if synthetic and not is_thick_axial(files['t1w_uncorrected']):
        return [_complete(item.arrays) for item in prepare_slices(declared, files)]
    arrays = prepare_input(declared, files).arrays
    return [_complete(arrays[:1] if declared.get('structural_only') else arrays)]


def _complete(arrays: Sequence[npt.NDArray[Any] | None]) -> Arrays:
    if any(array is None for array in arrays):
        raise ValueError('an input of the model is missing; training needs all of them.')
    return tuple(array for array in arrays if array is not None)


def _row_problem(rows: Sequence[Arrays], declared: Mapping[str, Any]) -> str:
    """Say what is wrong with prepared rows: number, shape, values; empty if nothing."""
    if not rows:
        return 'the scan gives no input at all. Look at the image.'
    shape = tuple(declared['shape'])
    expected = shape if len(shape) == 1 else (1, *shape)
    for arrays in rows:
        if tuple(arrays[0].shape) != expected:
            return (
                f'input of shape {tuple(arrays[0].shape)}, expected {expected}. The preparation '
                f'of {declared["kind"]} does not reach this grid; change [data] coarsen.'
            )
        for array in arrays:
            if not np.isfinite(array).all():
                return 'input with values that are not numbers (NaN). Run its preprocessing again.'
            if np.abs(array).max() > LARGEST_HALF:
                return f'input with values above {LARGEST_HALF:g}. Check the intensities.'
            if np.ptp(array) == 0:
                return 'input that is constant. Check the image and its brain mask.'
    return ''


def _sha256(path: Path) -> str:
    with path.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
