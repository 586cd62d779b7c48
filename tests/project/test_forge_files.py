"""Files that the forge and pre-commit read: valid, and calling what a person calls."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / '.pre-commit-config.yaml',
    ROOT / 'CITATION.cff',
    *sorted((ROOT / '.github').rglob('*.yml')),
]


def read(path):
    return yaml.safe_load(path.read_text('utf-8'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_file_is_valid_yaml(path):
    assert isinstance(read(path), dict)


def test_workflow_calls_targets_of_the_makefile():
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text('utf-8'), re.MULTILINE))
    jobs = read(ROOT / '.github' / 'workflows' / 'ci.yml')['jobs']
    commands = [step['run'] for job in jobs.values() for step in job['steps'] if 'run' in step]
    called = set(re.findall(r'^make (\S+)', '\n'.join(commands), re.MULTILINE))
    assert called == {'demo', 'docs', 'image'}
    assert called <= targets
    assert '.ci/run' in commands
    assert 'make test' in (ROOT / '.ci' / 'run').read_text('utf-8')


def test_problem_form_insists_on_command_and_version():
    fields = {f.get('id'): f for f in read(ROOT / '.github/ISSUE_TEMPLATE/problem.yml')['body']}
    for name in ('command', 'version', 'log'):
        assert fields[name]['validations']['required']


def test_pre_commit_runs_the_tools_of_the_environment():
    (repository,) = read(ROOT / '.pre-commit-config.yaml')['repos']
    assert repository['repo'] == 'local'  # so the versions are those of constraints.txt
    entries = {hook['id']: hook['entry'].split() for hook in repository['hooks']}
    assert {'ruff-check', 'ruff-format', 'mypy', 'shellcheck', 'boutiques'} <= set(entries)
    assert all(words[0].startswith('.venv/bin/') for words in entries.values())
    assert (ROOT / entries['boutiques'][1]).is_file()


def test_citation_has_what_the_format_requires():
    citation = read(ROOT / 'CITATION.cff')
    assert {'cff-version', 'message', 'title', 'authors', 'version', 'license'} <= set(citation)
