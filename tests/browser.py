"""A page in a real browser: how many sheets it prints on, and where its parts lie."""

import re
import subprocess
from pathlib import Path

import browser_probe
import pytest


def _program() -> str:
    if browser_probe.BROWSER is None:
        pytest.skip(f'no browser: none of {", ".join(browser_probe.BROWSERS)} is on PATH')
    return browser_probe.BROWSER


def _run(*arguments: str) -> str:
    options = ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage')
    done = subprocess.run(
        [_program(), *options, *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


def sheets(html: str, folder: Path, size: str) -> int:
    """Print a page on sheets of a size (``A4``, ``letter``) and count them."""
    page, pdf = folder / f'{size}.html', folder / f'{size}.pdf'
    page.write_text(html.replace('</style>', f'@page {{ size: {size}; }}</style>', 1), 'utf-8')
    _run('--no-pdf-header-footer', f'--print-to-pdf={pdf}', page.as_uri())
    return len(re.findall(rb'/Type\s*/Page\b', pdf.read_bytes()))


def ask(html: str, folder: Path, width: int, script: str) -> object:
    """Lay a page out at a width (CSS pixels) and return what a script's expression gives."""
    page = folder / f'{width}.html'
    page.write_text(html, 'utf-8')
    _program()
    return browser_probe.ask(page, f'return ({script.strip()});', folder, width)
