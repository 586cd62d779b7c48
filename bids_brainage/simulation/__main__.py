"""Command line: ``python -m bids_brainage.simulation OUT --participants N``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_brainage.errors import BrainAgeError


def build_parser() -> argparse.ArgumentParser:
    """Options of the generator."""
    parser = argparse.ArgumentParser(
        prog='python -m bids_brainage.simulation',
        description='Write a BIDS dataset of simulated people: T1w heads with known ages.',
    )
    parser.add_argument('out', type=Path, help='new or empty folder for the dataset')
    parser.add_argument('--participants', type=int, default=2, metavar='N')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes (default 0)')
    sessions = parser.add_mutually_exclusive_group()
    sessions.add_argument(
        '--sessions',
        type=int,
        default=1,
        metavar='M',
        help='the second is a retest after five weeks, later ones follow every two years',
    )
    sessions.add_argument(
        '--intervals',
        type=float,
        nargs='+',
        action='append',
        metavar='YEARS',
        help='years of the second and later sessions after the first, instead of --sessions; '
        'given several times, participants take turns',
    )
    parser.add_argument(
        '--resolution',
        type=float,
        nargs='+',
        default=[1.0],
        metavar='MM',
        help='voxel size, one number or three (left-right, front-back, up-down; default 1)',
    )
    parser.add_argument(
        '--age-range', type=float, nargs=2, default=[20.0, 85.0], metavar=('MIN', 'MAX')
    )
    parser.add_argument('--skull-strip', action='store_true', help='zero outside the brain')
    parser.add_argument(
        '--truth',
        action='store_true',
        help='also write brain masks, region labels and volumes as derivatives/simulation',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the generator; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if len(options.resolution) not in (1, 3):
        parser.error('--resolution takes one number or three')
    if options.sessions < 1:
        parser.error('--sessions must be at least 1')
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', stream=sys.stderr)
    from bids_brainage.simulation.dataset import Plan, session_intervals, write_dataset

    size = options.resolution
    plan = Plan(
        participants=options.participants,
        schedules=tuple((0.0, *years) for years in options.intervals)
        if options.intervals
        else (session_intervals(options.sessions),),
        seed=options.seed,
        resolution=size[0] if len(size) == 1 else (size[0], size[1], size[2]),
        ages=(options.age_range[0], options.age_range[1]),
        skull_strip=options.skull_strip,
        truth=options.truth,
    )
    try:
        write_dataset(options.out, plan)
    except BrainAgeError as error:
        logging.getLogger(__name__).error('%s', error)
        return error.exit_code
    return 0


if __name__ == '__main__':
    sys.exit(main())
