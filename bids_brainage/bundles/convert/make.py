"""From files of published weights to a bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle, export_bundle
from bids_brainage.bundles.convert.check import fit
from bids_brainage.bundles.convert.read import READERS, Identity, identify
from bids_brainage.bundles.convert.record import NOT_RUN, Choices, Layout, Published, Training
from bids_brainage.errors import BundleError, OptionError
from bids_brainage.models.registry import create_model, model_info

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE_YEARS = 0.05
_TAG = re.compile(r'[A-Za-z0-9_-]+')


def convert(
    record: Published,
    paths: Sequence[Path],
    folder: Path,
    *,
    tag: str | None = None,
    choices: Choices | None = None,
    accept_licence: bool = False,
) -> Bundle:
    """Convert the files of one published network to one bundle.

    Parameters
    ----------
    record : Published
        The network.
    paths : sequence of Path
        Its files, in any order.
    folder : Path
        Folder of bundles; ``<arch>.<tag>`` is made in it.
    tag : str or None
        Second part of the bundle's name; None takes the usual one.
    choices : Choices or None
        What the user says of the weights.
    accept_licence : bool
        The user has confirmed the restriction of the licence.

    Returns
    -------
    Bundle
        As written.

    Raises
    ------
    OptionError
        The options contradict the record.
    MissingInputError, BundleError
        A file is absent, or is not what the record expects, or the bundle exists.
    """
    choices = choices or Choices()
    name = f'{record.arch}.{record.tag if tag is None else tag}'
    _check_options(record, paths, name, choices, accept_licence)
    identities = [identify(path) for path in paths]
    is_published = _check_identity(record, identities, choices)
    members = []
    for path in paths:
        state = READERS[record.format](path)
        layout = record.layout(state, choices)
        tensors = fit(state, layout, arch=record.arch, title=record.title, source=str(path))
        members.append((layout, tensors))
    options, tensors = _joined(record, members)
    metadata = _metadata(record, name, options, choices, identities, is_published)
    return export_bundle(folder / name, tensors, metadata)


def _check_options(
    record: Published, paths: Sequence[Path], name: str, choices: Choices, accept_licence: bool
) -> None:
    """Refuse what can be refused before a file is read."""
    tag = name.partition('.')[2]
    if not _TAG.fullmatch(tag):
        raise OptionError(f'--tag: expected letters, digits, - and _, found {tag!r}.')
    if len(paths) != record.n_files:
        raise OptionError(
            f'convert {record.name}: expected {record.n_files} '
            f'file{"s" if record.n_files > 1 else ""} '
            f'({", ".join(file.name for file in record.files)}), found {len(paths)}.'
        )
    if choices.age_range is not None:
        low, high = choices.age_range
        if not (isfinite(low) and isfinite(high) and low < high):
            raise OptionError(f'--age-range: expected two rising ages, found {low:g} {high:g}.')
    if choices.training_n is not None and choices.training_n < 1:
        raise OptionError(f'--training-n: expected 1 or more, found {choices.training_n}.')
    if record.restriction and not accept_licence:
        raise OptionError(
            f'convert {record.name}: the licence of the weights is {record.licence}. '
            f'{record.restriction} Read it at {record.source}; if you may use the weights, give '
            '--accept-licence.'
        )


def _check_identity(
    record: Published, identities: Sequence[Identity], choices: Choices
) -> bool | None:
    """Say whether the files are the published ones; None if that is not public.

    Raises
    ------
    BundleError
        A file is another, and the user has not said what it was trained on; or a file is given
        twice.
    """
    if len({identity.sha256 for identity in identities}) < len(identities):
        raise BundleError(
            f'convert {record.name}: expected {record.n_files} different files, found the same '
            'content twice. Give each file of the ensemble once.'
        )
    known = {file.git_blob for file in record.files if file.git_blob}
    if not known:
        return None
    others = [identity for identity in identities if identity.git_blob not in known]
    if others and (choices.training_data is None or choices.training_n is None):
        raise BundleError(
            f'{others[0].name}: expected {" or ".join(map(str, record.files))}, found git blob '
            f'{others[0].git_blob} ({others[0].size:,} bytes). Download it again from '
            f'{record.source}. If these are other weights of the same layout, say what they '
            'were trained on with --training-data and --training-n.'
        )
    return not others


def _joined(
    record: Published, members: Sequence[tuple[Layout, Mapping[str, Tensor]]]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return options and tensors of the network, or of the ensemble."""
    if record.n_files == 1:
        layout, tensors = members[0]
        return dict(layout.options), dict(tensors)
    options: dict[str, Any] = {'members': [dict(layout.options) for layout, _ in members]}
    if record.combine != 'mean':
        options['combine'] = record.combine
    return options, {
        f'members.{index}.{key}': value
        for index, (_, tensors) in enumerate(members)
        for key, value in tensors.items()
    }


def _training(record: Published, choices: Choices, is_published: bool | None) -> Training:
    """Return on whom the weights were trained, as the user or the record says."""
    known = record.training
    own = choices.training_data is not None and is_published is not True
    low, high = choices.age_range or ((None, None) if own else (known.age_min, known.age_max))
    if own and record.output['kind'] == 'bins' and low is None:
        low, high = known.age_min, known.age_max  # the edges of the bins, which were not changed
    return Training(
        str(choices.training_data) if own else known.data,
        (choices.training_n or 0) if own else known.n,
        low,
        high,
    )


def _limitations(record: Published, is_published: bool | None) -> str:
    identity = {
        True: 'The file is the published one.',
        False: 'The file is not the published one.',
        None: 'Whether the file is the published one cannot be told.',
    }[is_published]
    return (
        f'{NOT_RUN}. {identity} {record.differences} Not validated by this package: calibrate '
        'on your own cohort.'
    )


def _metadata(
    record: Published,
    name: str,
    options: dict[str, Any],
    choices: Choices,
    identities: Sequence[Identity],
    is_published: bool | None,
) -> dict[str, Any]:
    """Metadata of the bundle; what nobody has said is stated as unknown."""
    info = model_info(record.arch)
    training = _training(record, choices, is_published)
    other = is_published is False
    names = ', '.join(identity.name for identity in identities)
    changed = {} if record.shape is None else {'shape': list(record.shape), 'affine': None}
    return {
        'name': name,
        'version': '1.0.0',
        'arch': record.arch,
        'arch_options': options,
        'status': 'trained',
        'title': f'{record.title}, converted',
        'description': f'Weights of {names}, renamed. The authors prepare an image so: '
        f'{record.preprocessing}',
        'intended_use': 'Research, on people of the training ages.',
        'limitations': _limitations(record, is_published),
        'license': choices.licence or ('unknown' if other else record.licence),
        'copyright': choices.copyright or ('unknown' if other else record.copyright),
        'reference': dict(record.reference),
        'input': {**info.input, 'space': choices.space, 'orientation': 'RAS', **changed},
        'output': {'quantity': 'age', 'unit': 'year', **_output(record, options)},
        'training': {
            **asdict(training),
            'simulated': False,
            'age_mean': None,
            'sex_female_fraction': None,
            'sites': [],
            'recipe': {},
        },
        'validation': [],
        'bias_correction': None,
        'conformal': None,
        'saliency': list(
            _methods(record, options) if record.saliency is None else record.saliency
        ),
        'tolerance_years': TOLERANCE_YEARS,
        'golden': {'seed': 0, 'scale': record.scale},
        'converted_from': {
            'name': record.name,
            'source': record.source,
            'published': is_published,
            'files': [asdict(identity) for identity in identities],
        },
    }


def _methods(record: Published, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the explanation maps of the architecture."""
    import torch

    with torch.device('meta'):
        methods: tuple[str, ...] = create_model(record.arch, **options).saliency_methods
    return methods


def _output(record: Published, options: Mapping[str, Any]) -> dict[str, Any]:
    if record.output['kind'] != 'bins':
        return dict(record.output)
    return {'kind': 'bins', **{key: options[key] for key in ('n_bins', 'age_range')}}
