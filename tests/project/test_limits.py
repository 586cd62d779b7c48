"""The limits that docs/contributing.md states are held."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / 'bids_brainage').rglob('*.py'))
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60


def too_long(text):
    """Functions with more lines than allowed, the docstring not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            if node.end_lineno - node.lineno + 1 - told > LONGEST_FUNCTION:
                yield node.name


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_short(path):
    text = path.read_text('utf-8')
    assert text.count('\n') <= LONGEST_MODULE
    assert list(too_long(text)) == []


def test_every_folder_has_a_line_in_the_guide():
    guide = (ROOT / 'docs' / 'contributing.md').read_text('utf-8')
    folders = {path.parent.name for path in MODULES if path.parent.parent.name == 'bids_brainage'}
    assert folders and all(f'\n{folder}/ ' in guide for folder in folders)


def test_a_long_function_is_seen():
    body = ''.join(f'    x = {k}\n' for k in range(LONGEST_FUNCTION))
    assert list(too_long(f'def f():\n    """Text."""\n{body}')) == ['f']
    assert list(too_long(f'def f():\n    """Text."""\n{body[:-10]}')) == []
