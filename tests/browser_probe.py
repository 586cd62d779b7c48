"""A page in headless Chromium: a script asks it questions and gives the answers back."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason='no Chromium to open the page')


def ask(page: Path, script: str, tmp_path: Path, width: int = 1280) -> Any:
    """Run a script in a page of a width, pixels; the value that it returns.

    Parameters
    ----------
    page : Path
        The page; it is copied beside itself, so that its links keep their meaning.
    script : str
        Body of an asynchronous function.
    """
    probe = f"""<script>window.addEventListener('load', async () => {{
      const found = await (async () => {{ {script} }})();
      document.body.dataset.probe = JSON.stringify(found);
    }});</script></body>"""
    copy = page.with_name(f'probe-{page.name}')
    copy.write_text(page.read_text().replace('</body>', probe))
    # Windows of Chromium are at least 500 pixels wide: narrower pages are tried at that width.
    command = [str(BROWSER), '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
    command += ['--disable-background-networking', f'--user-data-dir={tmp_path / "profile"}']
    command += [f'--window-size={width},900', '--virtual-time-budget=4000', '--dump-dom']
    try:
        result = subprocess.run(
            [*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
    finally:
        copy.unlink()
    found = re.search(r'data-probe="([^"]*)"', result.stdout)
    assert found, result.stderr[-2000:]
    return json.loads(html.unescape(found[1]))
