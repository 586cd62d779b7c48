"""Options of the train level and their check."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bids_brainage.settings import existing_file, flag, whole_number

if TYPE_CHECKING:
    from bids_brainage.config import Train

_TAG = re.compile(r'[0-9A-Za-z][0-9A-Za-z_-]*')


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only the train level has."""
    group = parser.add_argument_group('train level')
    group.add_argument(
        '--arch',
        nargs='+',
        metavar='NAME',
        help='architecture to train; several are trained on one split and compared',
    )
    group.add_argument(
        '--bundle-name', metavar='TAG', help='second part of the name of the trained model'
    )
    group.add_argument(
        '--recipe', metavar='TOML', help="changes of the paper's recipe, key by key"
    )
    group.add_argument(
        '--split', metavar='TSV', help='table of who trains and who tests, as a training wrote it'
    )
    group.add_argument(
        '--cohorts',
        metavar='TSV',
        help='table of further datasets, by cohort, role, bids_dir and output_dir',
    )
    group.add_argument(
        '--folds', metavar='K', help="train K models on K folds (default: the recipe's)"
    )
    group.add_argument(
        '--epochs', metavar='N', help="most epochs of a network (default: the recipe's)"
    )
    group.add_argument(
        '--start-from',
        metavar='MODEL',
        help='bundle whose weights are the start: a name as for --models, or its folder',
    )
    group.add_argument(
        '--resume',
        action='store_true',
        default=None,
        help='go on with a training that was stopped',
    )
    group.add_argument(
        '--devices', metavar='N', help='processes, one per GPU, on each node (default: 1)'
    )
    group.add_argument('--num-nodes', metavar='N', help='nodes that train together (default: 1)')


def train_settings(settings: Mapping[str, Any], problems: list[str]) -> Train:
    """Check the options of the train level.

    Parameters
    ----------
    settings : mapping
        Options by destination, text or lists of text.
    problems : list of str
        Extended by one sentence for each problem.
    """
    from bids_brainage.config import Train

    names = settings.get('arch', ())
    arch = tuple(dict.fromkeys([names] if isinstance(names, str) else map(str, names)))
    if settings.get('analysis_level') == 'train':
        _check_names(arch, settings.get('bundle_name'), problems)
    tag = settings.get('bundle_name')
    return Train(
        arch=arch,
        bundle_name=None if tag is None else str(tag),
        recipe=existing_file(settings, 'recipe', problems),
        split=existing_file(settings, 'split', problems),
        cohorts=existing_file(settings, 'cohorts', problems),
        folds=whole_number(settings, 'folds', None, problems),
        epochs=whole_number(settings, 'epochs', None, problems),
        start_from=settings.get('start_from'),
        resume=flag(settings, 'resume', problems),
        devices=whole_number(settings, 'devices', 1, problems),
        num_nodes=whole_number(settings, 'num_nodes', 1, problems),
    )


def _check_names(arch: tuple[str, ...], tag: Any, problems: list[str]) -> None:
    """Demand known architectures and a usable tag."""
    from bids_brainage.inference.aicbv import ARCHITECTURES
    from bids_brainage.models.registry import trainable_models

    trainable = [*trainable_models(), *ARCHITECTURES]
    if not arch:
        problems.append(f'--arch: needed to train; one of {", ".join(trainable)}.')
    for name in arch:
        if name not in trainable:
            problems.append(f'--arch: expected {", ".join(trainable)}, found {name!r}.')
    if len(arch) > 1 and not ARCHITECTURES.keys().isdisjoint(arch):
        problems.append('--arch: a generator of maps is trained alone.')
    if not tag:
        problems.append('--bundle-name: needed to train; it becomes the model ARCH.TAG.')
    elif not _TAG.fullmatch(str(tag)):
        problems.append(
            f'--bundle-name: expected letters, digits, - and _, found {tag!r} (give it without '
            'the architecture).'
        )
