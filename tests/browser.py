"""A page in a real browser: how many sheets it prints on, and where its parts lie."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def _run(*arguments: str) -> str:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f'no browser: none of {", ".join(NAMES)} is on PATH')
    options = ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage')
    done = subprocess.run(
        [program, *options, *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


def sheets(html: str, folder: Path, size: str) -> int:
    """Print a page on sheets of a size (``A4``, ``letter``) and count them."""
    page, pdf = folder / f'{size}.html', folder / f'{size}.pdf'
    page.write_text(html.replace('</style>', f'@page {{ size: {size}; }}</style>', 1), 'utf-8')
    _run('--no-pdf-header-footer', f'--print-to-pdf={pdf}', page.as_uri())
    return len(re.findall(rb'/Type\s*/Page\b', pdf.read_bytes()))


def ask(html: str, folder: Path, width: int, script: str) -> object:
    """Lay a page out at a width (CSS pixels) and return what a script's expression gives.

    Narrow windows are as wide as the browser allows, with the page inside them at the width.
    """
    page = folder / f'{width}.html'
    style = f'<style>html {{ width: {width}px; }}</style>'
    probe = (
        f'<script>addEventListener("load", () => {{ const found = JSON.stringify({script}); '
        'document.body.innerHTML = ""; document.body.dataset.found = found; })</script>'
    )
    text = _POLICY.sub('', html).replace('</head>', f'{style}{probe}</head>', 1)
    page.write_text(text, 'utf-8')
    window = f'--window-size={max(width, 500)},2000'
    dom = _run(window, '--virtual-time-budget=5000', '--dump-dom', page.as_uri())
    found = re.search(r'data-found="([^"]*)"', dom)
    assert found, dom[-2000:]
    return json.loads(found[1].replace('&quot;', '"').replace('&lt;', '<').replace('&amp;', '&'))
