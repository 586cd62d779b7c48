"""From the arguments of the process to the settings of a run, or the problems of the options."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from bids_brainage.cli.parser import PROGRAM, build_parser, check_foreign

if TYPE_CHECKING:
    from bids_brainage.cli.check import ListModels
    from bids_brainage.config import Config


def parse(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> Config | ListModels:
    """Read the command line into the settings of a run.

    All problems of the options are printed together; the process then ends with status 2.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program; those of the process when not given.
    environ : mapping, optional
        Environment (``BIDS_BRAINAGE_MODEL_DIR``, ``BIDS_BRAINAGE_OFFLINE``,
        ``BIDS_BRAINAGE_CONTAINER_TAG``); that of the process when not given.

    Returns
    -------
    Config or ListModels
        `ListModels` when ``--list-models`` is given, with or without other arguments.

    Raises
    ------
    SystemExit
        Status 0 after ``--help`` and ``--version``, 2 after an option problem.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    environ = os.environ if environ is None else environ
    listing = '--list-models' in arguments
    parser = build_parser(positionals=not listing)
    problems: list[str] = []
    known = check_foreign(arguments, problems)
    if listing:
        namespace, _ = parser.parse_known_args(known)
    else:
        namespace = parser.parse_args(known)

    from bids_brainage.cli.check import build_config, list_request
    from bids_brainage.config import Config

    given = {name: value for name, value in vars(namespace).items() if value is not None}
    request: Config | ListModels | None
    if listing:
        request = list_request(given, environ, problems)
    else:
        request = build_config(given, environ, problems)
    if request is None or problems:
        _fail(parser, problems)
    if isinstance(request, Config):
        command = shlex.join([PROGRAM, *arguments])
        return replace(request, environment=replace(request.environment, command=command))
    return request


def _fail(parser: argparse.ArgumentParser, problems: Sequence[str]) -> NoReturn:
    """Print all problems and end with status 2."""
    lines = '\n'.join(f'  * {problem}' for problem in problems)
    parser.exit(2, f'{parser.format_usage()}{PROGRAM}: error: in the options:\n{lines}\n')
