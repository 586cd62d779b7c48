"""The program, called as a user does."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path


def run(*arguments, cwd, **environment):
    """Call the program as a user does and return the finished process."""
    return subprocess.run(
        [sys.executable, '-m', 'bids_brainage', *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def tree(root):
    """Return file → hash of everything but the logs of single runs."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob('*'))
        if p.is_file() and 'log' not in p.parent.parts[-2:] and 'logs' not in p.parts
    }
