"""Turn the simple Markdown of the methods text into safe HTML.

Known: headings, paragraphs, lists, bold, emphasis, code, and links to http(s) addresses.
Everything else stays as text; HTML in the source is shown, never obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

_INLINE = (
    (re.compile(r'`([^`]+)`'), r'<code>\1</code>'),
    (re.compile(r'\[([^\]]+)\]\((https?://[^\s)]+)\)'), r'<a href="\2">\1</a>'),
    (re.compile(r'&lt;(https?://[^\s&]+)&gt;'), r'<a href="\1">\1</a>'),
    (re.compile(r'(https?://[^\s<>&\x00]*[^\s<>&\x00.,;:)])'), r'<a href="\1">\1</a>'),
    (re.compile(r'\*\*([^*]+)\*\*'), r'<strong>\1</strong>'),
    (re.compile(r'(?<![\w*])[*_]([^*_\s][^*_]*)[*_](?![\w*])'), r'<em>\1</em>'),
)
#: the first patterns protect what they made from the later ones
_KEPT = 4
_ITEM = re.compile(r'\s*(?:[-*+]|\d+[.)])\s+(.*)')
_HEADING = re.compile(r'(#{1,6})\s+(.*?)\s*#*$')


def to_html(source: str, *, top: int = 3) -> str:
    """Convert Markdown text.

    Parameters
    ----------
    source : str
        Markdown.
    top : int
        Level that the highest heading gets.

    Returns
    -------
    str
        HTML without scripts, styles or loaded resources.
    """
    blocks = re.split(r'\n\s*\n', re.sub(r'<!--.*?-->', '', source, flags=re.DOTALL))
    return '\n'.join(_block(lines, top) for block in blocks if (lines := _lines(block)))


def _lines(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.strip()]


def _block(lines: list[str], top: int) -> str:
    """Convert one block; a heading may be followed directly by its text."""
    if heading := _HEADING.fullmatch(lines[0].strip()):
        level = min(top + len(heading[1]) - 1, 6)
        rest = f'\n{_block(lines[1:], top)}' if lines[1:] else ''
        return f'<h{level}>{_inline(heading[2])}</h{level}>{rest}'
    if first := _ITEM.fullmatch(lines[0]):
        items = [first[1]]
        for line in lines[1:]:
            if item := _ITEM.fullmatch(line):
                items.append(item[1])
            else:
                items[-1] += f' {line.strip()}'
        kind = 'ol' if lines[0].strip()[0].isdigit() else 'ul'
        return f'<{kind}>{"".join(f"<li>{_inline(item)}</li>" for item in items)}</{kind}>'
    return f'<p>{_inline(" ".join(line.strip() for line in lines))}</p>'


def _inline(source: str) -> str:
    """Escape, then convert marks inside a line; links are kept apart from emphasis marks."""
    kept: list[str] = []

    def keep(template: str) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            kept.append(match.expand(template))
            return f'\x00{len(kept) - 1}\x00'

        return replace

    html = escape(source.replace('\x00', ''))
    for pattern, template in _INLINE[:_KEPT]:
        html = pattern.sub(keep(template), html)
    for pattern, template in _INLINE[_KEPT:]:
        html = pattern.sub(template, html)
    while '\x00' in html:  # kept parts may hold others
        html = re.sub(r'\x00(\d+)\x00', lambda match: kept[int(match[1])], html)
    return html
