"""The one reader of typed settings: from the command line, configuration files and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]
Problems = list[str]


def option(name: str) -> str:
    """Return how a setting is written on the command line."""
    return '-v' if name == 'verbosity' else '--' + name.replace('_', '-')


def whole_number(
    settings: Settings,
    name: str,
    default: Any,
    problems: Problems,
    lowest: int = 1,
    highest: int | None = None,
) -> Any:
    """Return a setting as a whole number; ``default`` if it is absent or none.

    Examples
    --------
    >>> problems = []
    >>> whole_number({'nprocs': '4'}, 'nprocs', 1, problems), problems
    (4, [])
    >>> whole_number({'nprocs': 'all'}, 'nprocs', 1, problems), problems
    (1, ["--nprocs: expected a whole number of at least 1, found 'all'."])
    """
    value = settings.get(name)
    if value is None:
        return default
    try:
        number = int(str(value))
    except ValueError:
        number = lowest - 1
    if isinstance(value, bool) or number < lowest or (highest is not None and number > highest):
        limit = f'of at least {lowest}' if highest is None else f'from {lowest} to {highest}'
        problems.append(f'{option(name)}: expected a whole number {limit}, found {value!r}.')
        return default
    return number


def flag(settings: Settings, name: str, problems: Problems) -> bool:
    """Return a setting that is on or off; off if it is absent."""
    value = settings.get(name, False)
    if not isinstance(value, bool):
        problems.append(f'{name} of the configuration file: expected true or false.')
        return False
    return value


def texts(settings: Settings, name: str, problems: Problems) -> list[str]:
    """Return a setting as a list of texts; a single text is a list of one."""
    value = settings.get(name, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        problems.append(f'{name} of the configuration file: expected a list of texts.')
        return []
    return values


def existing_file(settings: Settings, name: str, problems: Problems) -> Path | None:
    """Return the absolute path of a file that is there; None if it is not asked for."""
    if settings.get(name) is None:
        return None
    path = Path(str(settings[name])).absolute()
    if not path.is_file():
        problems.append(f'{option(name)} {path} is not a file.')
    return path


def column_value(said: str, text: Any, problems: Problems) -> str:
    """Return ``COLUMN=VALUE`` as a text; `said` begins the problem where it is not one."""
    name, sign, value = str(text).partition('=')
    if not (name and sign and value):
        problems.append(f'{said} COLUMN=VALUE, found {text!r}.')
    return str(text)


def typed_as(old: Any, value: Any) -> Any:
    """Return a value in the type of the one that it replaces.

    Raises
    ------
    TypeError
        It has another type, which no whole number for a decimal number is, or another length.

    Examples
    --------
    >>> typed_as(0.5, 1), typed_as((1.0, 2.0), [3, 4])
    (1.0, (3.0, 4.0))
    >>> typed_as(('stop',), [])
    ()
    """
    if isinstance(old, bool) or isinstance(value, bool):
        if not (isinstance(old, bool) and isinstance(value, bool)):
            raise TypeError(f'expected {type(old).__name__}, found {value!r}')
        return value
    if isinstance(old, tuple) and (not old or isinstance(old[0], str)):
        if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
            raise TypeError(f'expected a list of texts, found {value!r}')
        return tuple(value)
    if isinstance(old, tuple):
        numbers = isinstance(value, list | tuple) and len(value) == len(old)
        if not numbers or not all(isinstance(x, int | float) for x in value):
            raise TypeError(f'expected {len(old)} numbers, found {value!r}')
        return tuple(type(old[0])(x) for x in value)
    if isinstance(old, float) and isinstance(value, int):
        return float(value)
    if not isinstance(value, type(old)):
        raise TypeError(f'expected {type(old).__name__}, found {value!r}')
    return value
