"""Life cycle of the program: read options, run a level, end with a truthful status."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bids_brainage.cli.request import parse
from bids_brainage.errors import BrainAgeError

if TYPE_CHECKING:
    from bids_brainage.cli.check import ListModels
    from bids_brainage.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program; those of the process when not given.

    Returns
    -------
    int
        Exit status, see `bids_brainage.errors`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know fewer characters
            stream.reconfigure(errors='replace')
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ['convert']:  # a dataset of that name is given as ./convert
        from bids_brainage.cli.convert import run

        return run(arguments[1:])
    request = parse(arguments)
    from bids_brainage.cli.check import ListModels  # not needed for --help
    from bids_brainage.config import Config

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if isinstance(request, ListModels):
            return _list_models(request)
        return _run(request)
    except BrainAgeError as error:
        if isinstance(request, Config) and request.execution.debug:
            traceback.print_exc()
        sys.stderr.write(f'\nbids_brainage: {error}\n')
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(
            '\nbids_brainage: stopped; finished scans are kept, the same command goes on.\n'
        )
        return 130


def _interrupt(number: int, frame: object) -> None:
    """End like a keyboard interrupt when a scheduler asks the program to stop."""
    raise KeyboardInterrupt


def _run(config: Config) -> int:
    from bids_brainage.dataset.discovery import check_dataset
    from bids_brainage.outputs.logs import open_log
    from bids_brainage.runs.environment import prepare_environment

    if config.execution.analysis_level == 'group':
        from bids_brainage.runs.group import require_results

        require_results(config.execution.output_dir)
    else:  # before anything is written
        check_dataset(
            config.execution.bids_dir, validate=not config.execution.skip_bids_validation
        )
    prepare_environment(config)
    with open_log(config):
        if config.execution.analysis_level == 'participant':
            from bids_brainage.runs.participant import run_participant

            return run_participant(config)
        if config.execution.analysis_level == 'train':
            from bids_brainage.runs.train import run_train

            return run_train(config)
        from bids_brainage.runs.group import run_group

        return run_group(config)


def _list_models(request: ListModels) -> int:
    from bids_brainage.bundles.listing import details_text, models_text
    from bids_brainage.bundles.places import model_dirs

    folders = model_dirs(request.model_dir)
    texts = [details_text(name, folders) for name in request.names] or [models_text(folders)]
    sys.stdout.write('\n\n'.join(texts) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
