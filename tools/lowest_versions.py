"""Print the lowest versions that setup.py allows, for pip: ``make test-lowest`` installs them.

python tools/lowest_versions.py > lowest.txt     what the package and its tests require
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SETUP = Path(__file__).parents[1] / 'setup.py'
LISTS = ('REQUIRES', 'TEST')


def lowest(setup: str, lists: tuple[str, ...] = LISTS) -> list[str]:
    """Return a pin for each requirement of setup.py: ``name>=2.1,<3`` becomes ``name==2.1``.

    Parameters
    ----------
    setup : str
        Text of setup.py, in which the requirements stand as lists of texts.
    lists : tuple of str
        Names of these lists.

    Raises
    ------
    ValueError
        A requirement does not begin with the lowest version.
    """
    pins = []
    for node in ast.parse(setup).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(target, ast.Name) or target.id not in lists:
            continue
        for requirement in ast.literal_eval(node.value):
            name, found, rest = requirement.partition('>=')
            if not found or not name.replace('-', '').replace('_', '').isalnum():
                raise ValueError(f'setup.py: {requirement} does not begin with a lowest version')
            pins.append(f'{name}=={rest.partition(",")[0]}')
    return pins


if __name__ == '__main__':
    sys.stdout.write('\n'.join(lowest(SETUP.read_text('utf-8'))) + '\n')
