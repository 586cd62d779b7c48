"""Settings of the documentation (Sphinx); `make docs` builds it."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'tools'))

import python_reference  # noqa: E402 - found by the line above

from bids_brainage import __version__  # noqa: E402

REPOSITORY = 'https://github.com/bids-apps/brainage'

project = 'bids_brainage'
author = 'The bids_brainage developers'
copyright = f'2026, {author}'
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
exclude_patterns = ['_build']
myst_heading_anchors = 3
default_role = 'code'
smartquotes = False  # they turn the two dashes of an option into one
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True

html_theme = 'furo'
html_baseurl = 'https://bids-apps.github.io/brainage/'
html_title = f'bids_brainage {version}'
html_theme_options = {
    'source_repository': f'{REPOSITORY}/',
    'source_branch': 'main',
    'source_directory': 'docs/',
}


def keep_absolute_bars(app, what, name, obj, options, lines):
    """Keep |x| in docstrings: an absolute value, not a substitution."""
    lines[:] = [re.sub(r'(?<!`)\|(\w+)\|', r'\\|\1\\|', line) for line in lines]


def join_names(app, what, name, obj, options, lines):
    """Keep ``a, b : type`` among attributes together: Sphinx takes ``a,`` for the type."""
    lines[:] = [
        re.sub(r'^:(?:ivar|vartype) [\w, ]+:', lambda field: field[0].replace(', ', ','), line)
        for line in lines
    ]


def contents(text):
    """Return the tables of contents of a page of links: one for each heading with a list."""
    parts = []
    for section in re.split(r'^## ', text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition('\n')
        pages = re.findall(r'^\* \[[^]]+\]\(((?!\.\.)[^)#]+)\.md\)', body, flags=re.MULTILINE)
        if pages:
            lines = ['```{toctree}', ':hidden:', f':caption: {title}', '', *pages, '```']
            parts.append('\n'.join(lines))
    return '\n\n'.join(parts)


def leave_documentation(text, folder):
    """Let links to files outside of the documentation lead to the repository."""

    def address(match):
        path = Path(os.path.normpath(folder / match[1]))
        if match[1].startswith(('http', '#')) or path.is_relative_to(HERE):
            return match[0]
        inside = path.relative_to(HERE.parent).as_posix()
        return f'](<{REPOSITORY}/blob/main/{inside}{match[2] or ""}>)'

    return re.sub(r'\]\(([^)#\s]+)(#[^)\s]*)?\)', address, text)


def for_sphinx(app, docname, source):
    """Add to a page what only the built documentation needs; the files are plain Markdown."""
    text = leave_documentation(source[0], (HERE / docname).parent)
    if docname == 'index':
        text += f'\n\n{contents(text)}\n'
    elif docname == 'reference/generated/api':
        text += f'\n{python_reference.directives()}'
    source[0] = text


def setup(app):
    """Connect the hooks; of those for docstrings one runs before napoleon reads it, one after."""
    app.connect('source-read', for_sphinx)
    app.connect('autodoc-process-docstring', keep_absolute_bars, priority=400)
    app.connect('autodoc-process-docstring', join_names, priority=600)
