"""Which published networks can be converted."""

from __future__ import annotations

from importlib import import_module

from bids_brainage.bundles.convert.record import NOT_RUN, Published
from bids_brainage.errors import OptionError

MODULES = ('sfcn', 'synthba', 'pyment', 'brainagenext')
"""Modules of this folder that hold records."""


def published() -> dict[str, Published]:
    """Return the records of all networks by name."""
    modules = (import_module(f'bids_brainage.bundles.convert.{name}') for name in MODULES)
    return {record.name: record for module in modules for record in module.RECORDS}


def find(name: str) -> Published:
    """Return the record of a network.

    Raises
    ------
    OptionError
        There is none of this name.
    """
    records = published()
    if name not in records:
        raise OptionError(
            f'convert: expected one of {", ".join(records)}, found {name!r}. A dataset in a '
            'folder called convert is given as ./convert.'
        )
    return records[name]


def described() -> str:
    """Return what a user should know before a conversion, a paragraph for each network."""
    return '\n\n'.join(_described(record) for record in published().values())


def _described(record: Published) -> str:
    number = '' if record.n_files == 1 else f', {record.n_files} files, in any order'
    lines = [
        f'{record.name}: {record.title}, becomes {record.arch}.{record.tag}{number}',
        f'  paper    {record.reference["text"]}, doi:{record.reference["doi"]}',
        f'  weights  {record.source}',
        f'  licence  {record.licence}',
    ]
    if record.restriction:
        lines.append(f'           needs --accept-licence: {record.restriction}')
    for index, file in enumerate(record.files):
        lines.append(f'  {"expects" if index == 0 else "or":8} {file}')
    return '\n'.join([*lines, f'  checked  {NOT_RUN.lower()}'])
