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


def test_documentation_is_built_and_published_where_the_metadata_say():
    jobs = read(ROOT / '.github' / 'workflows' / 'docs.yml')['jobs']
    steps = jobs['build']['steps']
    assert 'make docs' in [step.get('run') for step in steps]
    (made,) = re.findall(r'-q docs (\S+)', (ROOT / 'Makefile').read_text('utf-8'))
    (artifact,) = [step for step in steps if 'pages-artifact' in step.get('uses', '')]
    assert artifact['with']['path'] == made
    assert jobs['publish']['needs'] == 'build'
    assert jobs['publish']['permissions'] == {'pages': 'write', 'id-token': 'write'}
    owner, name = read(ROOT / 'CITATION.cff')['repository-code'].split('/')[-2:]
    address = f'https://{owner}.github.io/{name}/'
    assert read(ROOT / 'CITATION.cff')['url'] == address
    for file in ('setup.py', 'README.md', 'docs/conf.py'):
        assert address in (ROOT / file).read_text('utf-8'), file


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
