"""What the BIDS validator says about a folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def _validator() -> str:
    beside = Path(sys.executable).with_name('bids-validator-deno')
    found = shutil.which('bids-validator-deno') or (str(beside) if beside.exists() else None)
    if found is None:
        pytest.skip('bids-validator-deno is neither on PATH nor beside the interpreter')
    return found


def errors_of(root: Path) -> list[dict[str, str]]:
    done = subprocess.run(
        [_validator(), str(root), '--format', 'json'], capture_output=True, text=True, timeout=120
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue['severity'] == 'error']
