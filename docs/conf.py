"""Settings of the documentation (Sphinx); `make docs` builds it."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'tools'))

import make_reference  # noqa: E402 - found by the line above

from bids_brainage import __version__  # noqa: E402

make_reference.write_pages(HERE / 'reference' / 'generated')

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
exclude_patterns = ['_build', 'reference/generated/architectures.md']
myst_enable_extensions = ['colon_fence', 'deflist']
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
html_title = f'bids_brainage {version}'
html_theme_options = {
    'source_repository': 'https://github.com/bids-apps/brainage/',
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


def setup(app):
    """Connect the hooks: one before napoleon reads the docstring, one after."""
    app.connect('autodoc-process-docstring', keep_absolute_bars, priority=400)
    app.connect('autodoc-process-docstring', join_names, priority=600)
