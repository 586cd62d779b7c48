"""Write the Boutiques descriptor from the parser, the one source of the options.

python tools/make_boutiques.py           write boutiques.json
python tools/make_boutiques.py --check   end with 1 when boutiques.json is not up to date
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bids_brainage import __version__
from bids_brainage.cli.parser import PROGRAM, build_parser

TARGET = Path(__file__).parents[1] / 'boutiques.json'
NOT_FOR_RUNS = {'help', 'version', 'list_models'}
FILES = {'JSON', 'TOML', 'YAML'}
FOLDERS = {'bids_dir', 'model_dir'}  # folders that must be there before the run
EXIT_STATUS = {
    1: 'An item or report failed; the others finished. See logs/*/status.tsv.',
    2: 'Bad command line or conflicting options.',
    16: 'The input is not a valid BIDS dataset.',
    18: 'Labels or filters selected nothing.',
    65: 'All selected inputs are unreadable or unusable.',
    66: 'An input, a template or weights are missing.',
    70: 'The workflow could not be built (a bug).',
    73: 'The output or work folder cannot be created or written.',
    75: 'A resource was busy; trying again may work.',
    127: 'Programs that the workflow calls are missing.',
}


def describe() -> dict[str, Any]:
    """Return the descriptor of the command line."""
    actions = [a for a in build_parser()._actions if a.dest not in NOT_FOR_RUNS]
    inputs = [describe_option(action) for action in actions]
    line = ' '.join([PROGRAM, *(item['value-key'] for item in inputs)])
    return {
        'name': PROGRAM,
        'description': 'Brain age from BIDS datasets: how old a brain looks, why, and how far '
        'to trust it.',
        'tool-version': __version__,
        'schema-version': '0.5',
        'url': 'https://github.com/bids-apps/brainage',
        'command-line': line,
        'container-image': {'type': 'docker', 'image': f'bids/brainage:{__version__}'},
        'inputs': inputs,
        'output-files': [
            {
                'id': 'output',
                'name': 'Output dataset',
                'description': 'BIDS derivative dataset with tables, maps and reports',
                'path-template': '[OUTPUT_DIR]',
            }
        ],
        'error-codes': [{'code': code, 'description': text} for code, text in EXIT_STATUS.items()],
        'suggested-resources': {'cpu-cores': 2, 'ram': 4},
        'tags': {'domain': ['neuroinformatics', 'bids', 'mri']},
    }


def describe_option(action: argparse.Action) -> dict[str, Any]:
    """Return the descriptor of one option or positional argument."""
    item: dict[str, Any] = {
        'id': action.dest,
        'name': action.dest.replace('_', ' ').capitalize(),
        'description': action.help or '',
        'value-key': f'[{action.dest.upper()}]',
        'optional': not action.required,
        'type': _type(action),
    }
    if action.option_strings:
        long = [text for text in action.option_strings if text.startswith('--')]
        item['command-line-flag'] = (long or action.option_strings)[0]
    if action.nargs == '+':
        item |= {'list': True, 'min-list-entries': 1}
    if action.choices is not None:
        item['value-choices'] = list(action.choices)
    return item


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return 'Flag'
    if action.metavar in FILES or action.dest in FOLDERS:
        return 'File'
    return 'Number' if action.metavar == 'N' else 'String'


def main(argv: list[str] | None = None) -> int:
    """Write or check the file; returns the exit status."""
    parser = argparse.ArgumentParser(description='Make the Boutiques descriptor.')
    parser.add_argument('--check', action='store_true', help='only compare')
    check = parser.parse_args(argv).check
    text = json.dumps(describe(), indent=2, ensure_ascii=False) + '\n'
    if not check:
        TARGET.write_text(text, encoding='utf-8')
    elif not TARGET.is_file() or TARGET.read_text(encoding='utf-8') != text:
        sys.stderr.write(f'{TARGET.name} is not up to date: run python tools/make_boutiques.py\n')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
