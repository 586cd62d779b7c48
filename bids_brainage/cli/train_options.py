"""Options of the train level and their check."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        '--folds', metavar='K', help="train K models on K folds (default: the recipe's)"
    )
    group.add_argument(
        '--epochs', metavar='N', help="most epochs of a network (default: the recipe's)"
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
    resume = settings.get('resume', False)
    if not isinstance(resume, bool):
        problems.append('resume of the configuration file: expected true or false.')
    return Train(
        arch=arch,
        bundle_name=None if tag is None else str(tag),
        recipe=_file(settings, 'recipe', problems),
        split=_file(settings, 'split', problems),
        folds=_count(settings, 'folds', problems),
        epochs=_count(settings, 'epochs', problems),
        resume=resume is True,
        devices=_count(settings, 'devices', problems) or 1,
        num_nodes=_count(settings, 'num_nodes', problems) or 1,
    )


def _check_names(arch: tuple[str, ...], tag: Any, problems: list[str]) -> None:
    """Demand known architectures and a usable tag."""
    from bids_brainage.inference.aicbv import ARCHITECTURES
    from bids_brainage.models.registry import list_models

    trainable = [*list_models(), *ARCHITECTURES]
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


def _file(settings: Mapping[str, Any], name: str, problems: list[str]) -> Path | None:
    value = settings.get(name)
    if value is None:
        return None
    path = Path(str(value)).absolute()
    if not path.is_file():
        problems.append(f'--{name} {path} is not a file.')
    return path


def _count(settings: Mapping[str, Any], name: str, problems: list[str]) -> int | None:
    value = settings.get(name)
    if value is None:
        return None
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if isinstance(value, bool) or number < 1:
        option = '--' + name.replace('_', '-')
        problems.append(f'{option}: expected a whole number of at least 1, found {value!r}.')
        return None
    return number
