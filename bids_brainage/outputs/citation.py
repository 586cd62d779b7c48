"""What to cite: ``logs/CITATION.md``, ``.bib`` and ``.html``."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids_brainage import __version__
from bids_brainage.errors import WorkflowError
from bids_brainage.outputs.files import write_text

_INTRODUCTION = (
    'Brain age was estimated with bids_brainage {version}. '
    'Please cite the works below for the parts that your analysis used.'
)
_BIBTEX_KIND = {'article': 'article', 'software': 'misc', 'preprint': 'misc'}


@cache
def citations() -> dict[str, dict[str, Any]]:
    """Return all references by key (``data/citations.json``)."""
    text = (files('bids_brainage') / 'data' / 'citations.json').read_text(encoding='utf-8')
    return dict(json.loads(text))


def write_citations(
    output_dir: str | Path,
    methods: str = '',
    keys: Iterable[str] | None = None,
    *,
    md_only: bool = False,
) -> Path:
    """Write the three citation files.

    Parameters
    ----------
    output_dir : path
        Output dataset.
    methods : str
        Paragraphs (separated by blank lines) that describe what was done.  They must not depend
        on the participant, so that every job writes the same file.
    keys : iterable of str, optional
        References to list; when not given, those that the methods speak of (`spoken_of`), and
        all without methods.
    md_only : bool
        Write ``CITATION.md`` alone.

    Returns
    -------
    Path
        ``logs/CITATION.md``.

    Raises
    ------
    WorkflowError
        A key has no reference.
    """
    if keys is None and methods.strip():
        keys = spoken_of(methods)
    selected = _select(keys)
    introduction = _INTRODUCTION.format(version=__version__)
    folder = Path(output_dir) / 'logs'
    write_text(folder / 'CITATION.md', as_markdown(introduction, methods, selected))
    if md_only:
        return folder / 'CITATION.md'
    write_text(folder / 'CITATION.html', as_html(introduction, methods, selected))
    write_text(folder / 'CITATION.bib', as_bibtex(selected))
    return folder / 'CITATION.md'


def append_methods(output_dir: str | Path, paragraph: str, *, md_only: bool = False) -> None:
    """Add a paragraph to the methods text of the dataset, unless it is there.

    Parameters
    ----------
    output_dir : path
        Output dataset.
    paragraph : str
        What was done besides what the text says; the same for every participant.
    md_only : bool
        As in `write_citations`.
    """
    path = Path(output_dir) / 'logs' / 'CITATION.md'
    text = path.read_text(encoding='utf-8') if path.is_file() else ''
    _, _, after = text.partition(_INTRODUCTION.format(version=__version__))
    methods, _, _ = after.partition('## References')
    if paragraph.strip() not in methods:
        text = f'{methods.strip()}\n\n{paragraph.strip()}'
        write_citations(output_dir, text, md_only=md_only)


def spoken_of(methods: str) -> list[str]:
    """Return the references that a methods text needs: one of its words under ``when`` is there.

    References without such words are for every run.
    """
    return [
        key
        for key, entry in citations().items()
        if 'when' not in entry or any(word in methods for word in entry['when'])
    ]


def as_markdown(
    introduction: str, methods: str, references: Mapping[str, Mapping[str, Any]]
) -> str:
    """Render the citation text as Markdown."""
    parts = ['# Methods and citations', introduction]
    if methods.strip():
        parts.append(methods.strip())
    parts.append('## References')
    parts.append('\n'.join(f'* {_sentence(entry)}' for entry in references.values()))
    return '\n\n'.join(parts)


def as_html(introduction: str, methods: str, references: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the citation text as a self-contained HTML page."""
    paragraphs = [introduction, *(part for part in methods.split('\n\n') if part.strip())]
    body = [f'<p>{html.escape(part.strip())}</p>' for part in paragraphs]
    items = []
    for entry in references.values():
        link = f'https://doi.org/{entry["doi"]}'
        text = html.escape(_sentence(entry).removesuffix(link))
        items.append(f'<li>{text}<a href="{html.escape(link)}">{html.escape(link)}</a></li>')
    return '\n'.join(
        [
            '<!DOCTYPE html>',
            '<html lang="en"><head><meta charset="utf-8"><title>Methods and citations</title>',
            '</head><body>',
            '<h1>Methods and citations</h1>',
            *body,
            '<h2>References</h2>',
            '<ul>',
            *items,
            '</ul>',
            '</body></html>',
        ]
    )


def as_bibtex(references: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the references as BibTeX."""
    return '\n\n'.join(_bibtex(key, entry) for key, entry in references.items())


def _select(keys: Iterable[str] | None) -> dict[str, dict[str, Any]]:
    known = citations()
    if keys is None:
        return dict(known)
    wanted = set(keys)
    if unknown := sorted(wanted - set(known)):
        raise WorkflowError(f'No reference for {unknown} in data/citations.json.')
    return {key: entry for key, entry in known.items() if key in wanted}


def _sentence(entry: Mapping[str, Any]) -> str:
    authors = ', '.join(entry['authors']).replace(', others', ' et al.')
    role = entry['role']
    return (
        f'{role[0].upper()}{role[1:]}: {authors} ({entry["year"]}). {entry["title"]}. '
        f'{entry["journal"]}. https://doi.org/{entry["doi"]}'
    )


def _bibtex(key: str, entry: Mapping[str, Any]) -> str:
    kind = entry['kind']
    place = 'journal' if kind == 'article' else 'howpublished'
    fields = {
        'author': ' and '.join(entry['authors']),
        'title': f'{{{_tex(entry["title"])}}}',
        place: _tex(entry['journal']),
        'year': str(entry['year']),
        'doi': entry['doi'],
    }
    lines = ',\n'.join(f'  {name} = {{{value}}}' for name, value in fields.items())
    return f'@{_BIBTEX_KIND[kind]}{{{key},\n{lines}\n}}'


def _tex(text: str) -> str:
    return text.replace('&', r'\&').replace('_', r'\_')
