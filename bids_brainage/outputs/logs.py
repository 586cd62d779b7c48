"""Log of a run: to the terminal and to ``logs/bids_brainage-<run>.log``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bids_brainage.errors import OutputError

if TYPE_CHECKING:
    from bids_brainage.config import Config

IMPORTANT = 25
VERBOSE = 15
FORMAT = '%(asctime)s %(name)s %(levelname)s: %(message)s'
SHORT = '%(asctime)s  %(message)s'


@contextmanager
def open_log(config: Config) -> Iterator[logging.Logger]:
    """Send messages to the terminal and, unless nothing is to be written, to a file.

    Raises
    ------
    OutputError
        If the log folder cannot be made.
    """
    logging.addLevelName(IMPORTANT, 'IMPORTANT')
    logging.addLevelName(VERBOSE, 'VERBOSE')
    logger = logging.getLogger('bids_brainage')
    logger.setLevel(min(config.execution.log_level, logging.INFO))
    logger.propagate = False
    handlers: list[logging.Handler] = []
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(config.execution.log_level)
    terminal.setFormatter(logging.Formatter(SHORT, '%H:%M:%S'))
    handlers.append(terminal)
    if not config.execution.dry_run:
        handlers.append(_file_handler(config))
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _file_handler(config: Config) -> logging.Handler:
    folder = config.execution.output_dir / 'logs'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(
            folder / f'bids_brainage-{config.execution.run_id}.log', encoding='utf-8', delay=True
        )
    except OSError as error:
        raise OutputError(
            f'cannot write in {folder} ({error}). Choose an output folder that this user may '
            'write to.'
        ) from error
    handler.setLevel(min(config.execution.log_level, logging.INFO))
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def duration(seconds: float) -> str:
    """Return a duration in words a person uses.

    Examples
    --------
    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3 min', '2 h 30 min')
    """
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60} min'
