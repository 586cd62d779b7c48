"""The program, called as a user does."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments, cwd, before=(), **environment):
    """Call the program as a user does, perhaps by another command, and return the process."""
    return subprocess.run(
        [*before, sys.executable, '-m', 'bids_brainage', *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def unprivileged():
    """Return the command prefix that takes root's right to read everything away; none needed
    elsewhere."""
    if os.geteuid():
        return []
    if shutil.which('setpriv') is None:
        pytest.skip('root without setpriv reads everything')
    rights = '-dac_override,-dac_read_search'
    return ['setpriv', f'--bounding-set={rights}', f'--inh-caps={rights}']


def tree(root):
    """Return file → hash of everything but the logs of single runs."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob('*'))
        if p.is_file() and 'log' not in p.parent.parts[-2:] and 'logs' not in p.parts
    }
