"""The command ``bids_brainage convert``: weights that others publish, made into a bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_brainage.bundles.convert.catalogue import described, find
from bids_brainage.bundles.convert.record import NOT_RUN, Choices
from bids_brainage.bundles.places import user_model_dir
from bids_brainage.errors import BrainAgeError, OptionError

COMMAND = 'convert'
"""First word of the command line."""

PROGRAM = f'bids_brainage {COMMAND}'
INTRODUCTION = (
    'Make a bundle from weights that others publish and that you have downloaded. Nothing is '
    'fetched, and no code that a file may hold is run.'
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=INTRODUCTION,
        epilog=f'networks:\n\n{described()}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('name', nargs='?', metavar='NAME', help='network, see below; without it, list them')
    add('files', nargs='*', type=Path, metavar='FILE', help='its weights')
    add(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder of bundles (default: your own models, where every run looks)',
    )
    add('--tag', metavar='TAG', help="second part of the bundle's name")
    add(
        '--accept-licence',
        '--accept-license',
        action='store_true',
        help='you have read the licence of the weights and may use them',
    )
    group = parser.add_argument_group('other weights of the same layout, or of another order')
    add = group.add_argument
    add('--training-data', metavar='TEXT', help='what they were trained on')
    add('--training-n', type=int, metavar='N', help='number of training scans')
    add(
        '--age-range',
        type=float,
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='training ages in years; for SFCN the outer edges of its age bins',
    )
    add('--licence', '--license', metavar='TEXT', help='their licence')
    add('--copyright', metavar='TEXT', help='holder of the rights in them')
    add(
        '--array-order',
        choices=('LAS', 'RAS'),
        default='LAS',
        help='order of the training arrays (default: LAS, as FSL stores its MNI152 grid)',
    )
    add(
        '--space',
        metavar='LABEL',
        default='MNI152NLin6Asym',
        help='TemplateFlow label of the training space (default: MNI152NLin6Asym, that of FSL)',
    )
    return parser


def run(argv: Sequence[str]) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str
        Arguments after ``convert``.

    Returns
    -------
    int
        Exit status, see `bids_brainage.errors`.
    """
    parser = build_parser()
    given = parser.parse_args(argv)
    if given.name is None:
        parser.print_help()
        return 0
    try:
        _convert(given)
    except BrainAgeError as error:
        sys.stderr.write(f'\n{PROGRAM}: {error}\n')
        return error.exit_code
    return 0


def _convert(given: argparse.Namespace) -> None:
    record = find(given.name)
    if not given.files:
        raise OptionError(
            f'convert {record.name}: expected {record.n_files} FILE, found none. Download '
            f'{", ".join(file.name for file in record.files)} from {record.source}.'
        )
    choices = Choices(
        array_order=given.array_order,
        space=given.space,
        age_range=None if given.age_range is None else tuple(given.age_range),
        training_data=given.training_data,
        training_n=given.training_n,
        licence=given.licence,
        copyright=given.copyright,
    )
    from bids_brainage.bundles.convert.make import convert

    bundle = convert(
        record,
        given.files,
        given.out or user_model_dir(),
        tag=given.tag,
        choices=choices,
        accept_licence=given.accept_licence,
    )
    sys.stdout.write(f'{bundle.path}\n')
    sys.stderr.write(
        f'{bundle.name}: licence {bundle.metadata["license"]}. {NOT_RUN}. Check it with '
        f'`python -m bids_brainage.bundles.check {bundle.path}`.\n'
    )
