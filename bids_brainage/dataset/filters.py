"""The BIDS filter file: which images of each kind to take."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainage.errors import OptionError
from bids_brainage.names import long_names

LOGGER = logging.getLogger(__name__)

QUERIES = {'t1w': {'datatype': 'anat'}, 'bold': {'datatype': 'func'}}

SUFFIXES = {'t1w': ['T1w', 'UNIT1'], 'bold': ['bold']}
"""Suffixes that a query takes unless it names one."""

_LONG = {key: name for key, name in long_names().items() if key not in ('from', 'to', 'mode')}

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
    of one.  Entities may have their short names (``ce``), and queries of other programs
    (``flair``, ``fmap``) are passed over with a word.

    Raises
    ------
    OptionError
        Not an object of objects, or no query is ``t1w`` or ``bold``.
    """
    example = '{"t1w": {"acquisition": null}}'
    if not isinstance(content, Mapping):
        raise OptionError(f'{origin}: expected a JSON object such as {example}.')
    filters: Filters = {}
    unknown = []
    for query, entities in content.items():
        name = str(query).lower()
        if name not in QUERIES:
            unknown.append(str(query))
            continue
        if not isinstance(entities, Mapping):
            raise OptionError(f'{origin}: query {query!r} must be an object such as {example}.')
        filters[name] = {
            _LONG.get(str(entity), str(entity)): (
                list(values) if isinstance(values, (list, tuple)) else [values]
            )
            for entity, values in entities.items()
        }
    if unknown and not filters:
        raise OptionError(
            f'{origin}: unknown query {", ".join(unknown)}, expected {" or ".join(QUERIES)}.'
        )
    if unknown:
        LOGGER.warning(
            '%s: the queries %s are passed over; t1w and bold are used.',
            origin, ', '.join(unknown),
        )  # fmt: skip
    return filters
