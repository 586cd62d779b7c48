"""The BIDS filter file: which images of each kind to take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainage.errors import OptionError

QUERIES = {'t1w': {'datatype': 'anat'}, 'bold': {'datatype': 'func'}}

SUFFIXES = {'t1w': ['T1w', 'UNIT1'], 'bold': ['bold']}
"""Suffixes that a query takes unless it names one."""

Filters = dict[str, dict[str, list[Any]]]


def read_filters(path: str | Path) -> Filters:
    """Read a ``--bids-filter-file``.

    Raises
    ------
    OptionError
        The file cannot be read or is not as `check_filters` wants it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except OSError as error:
        raise OptionError(f'BIDS filter file {path}: {error.strerror or error}.') from error
    except ValueError as error:
        raise OptionError(f'BIDS filter file {path} is not valid JSON: {error}.') from error
    return check_filters(content, str(path))


def check_filters(content: Any, origin: str = 'BIDS filter') -> Filters:
    """Bring filters to one form: query, then entity, then list of accepted values.

    ``null`` selects images without the entity, ``"*"`` any value; a lone value becomes a list
    of one.

    Raises
    ------
    OptionError
        Not an object of objects, or a query other than ``t1w`` and ``bold``.
    """
    example = '{"t1w": {"acquisition": null}}'
    if not isinstance(content, Mapping):
        raise OptionError(f'{origin}: expected a JSON object such as {example}.')
    filters: Filters = {}
    for query, entities in content.items():
        if str(query).lower() not in QUERIES:
            raise OptionError(
                f'{origin}: unknown query {query!r}, expected one of {", ".join(QUERIES)}.'
            )
        if not isinstance(entities, Mapping):
            raise OptionError(f'{origin}: query {query!r} must be an object such as {example}.')
        filters[str(query).lower()] = {
            str(entity): list(values) if isinstance(values, (list, tuple)) else [values]
            for entity, values in entities.items()
        }
    return filters
