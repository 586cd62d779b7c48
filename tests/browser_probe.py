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

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason='no Chromium to open the page')


NARROWEST = 500
"""Chromium's windows are at least so wide, pixels; narrower pages are shown in a frame of one."""

FRAME = """<body style="margin: 0"><script>
addEventListener('message', (told) => {{ document.body.dataset.probe = told.data; }});
</script><iframe src="{address}" style="width: {width}px; height: 900px; border: 0"></iframe>
"""


def _allowed(text: str) -> str:
    """Take the policy out of a page that may run no script at all."""
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)
    return text if not policy or 'script-src' in policy[0] else text.replace(policy[0], '')


def ask(page: Path, script: str, tmp_path: Path, width: int = 1280) -> Any:
    """Run a script in a page of a width, CSS pixels; the value that it returns.

    The page keeps its policy, unless that forbids all scripts, also that of the question.

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
      parent.postMessage(JSON.stringify(found), '*');
    }});</script></body>"""
    copy = page.with_name(f'probe-{page.name}')
    copy.write_text(_allowed(page.read_text()).replace('</body>', probe))
    frame = tmp_path / f'frame-{page.name}'
    frame.write_text(FRAME.format(width=width, address=copy.as_uri()))
    shown = copy if width >= NARROWEST else frame
    command = [str(BROWSER), '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
    command += ['--disable-background-networking', f'--user-data-dir={tmp_path / "profile"}']
    command += [
        f'--window-size={max(width, NARROWEST)},900',
        '--virtual-time-budget=4000',
        '--dump-dom',
    ]
    try:
        result = subprocess.run(
            [*command, '--dump-dom', shown.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    finally:
        copy.unlink()
    found = re.search(r'data-probe="([^"]*)"', result.stdout)
    assert found, result.stderr[-2000:]
    return json.loads(html.unescape(found[1]))
