"""The helper programs beside the package."""

import json
import re
from pathlib import Path

import compare_ages
import make_boutiques
import pytest

from bids_brainage import __version__, errors
from bids_brainage.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
HEADER = 'source\tmodel\tpredicted_age\n'


@pytest.fixture(scope='module')
def descriptor():
    return json.loads((ROOT / 'boutiques.json').read_text('utf-8'))


def test_boutiques_descriptor_is_up_to_date(capsys):
    assert make_boutiques.main(['--check']) == 0, capsys.readouterr().err


def test_parser_takes_every_input_of_the_descriptor(descriptor):
    """Fill in the descriptor's command line as Boutiques would, then read it."""
    line, expected = descriptor['command-line'], {}
    for item in descriptor['inputs']:
        value = item.get('value-choices', ['7'])[0]
        if item['type'] == 'Flag':
            text, expected[item['id']] = item['command-line-flag'], 1
        else:
            values = [value, '8'] if item.get('list') else [value]
            text = ' '.join([*filter(None, [item.get('command-line-flag')]), *values])
            expected[item['id']] = values if item.get('list') else value
        line = line.replace(item['value-key'], text)
    program, *arguments = line.split()
    assert program == 'bids_brainage'
    read = vars(build_parser().parse_args(arguments))
    assert {name: read[name] for name in expected} == expected


def test_descriptor_names_every_exit_status(descriptor):
    kinds = [errors.BrainAgeError, *errors.BrainAgeError.__subclasses__()]
    listed = {item['code'] for item in descriptor['error-codes']}
    assert {kind.exit_code for kind in kinds} == listed


def write_ages(folder, **ages):
    for subject, age in ages.items():
        path = folder / f'sub-{subject}' / 'anat' / f'sub-{subject}_brainage.tsv'
        path.parent.mkdir(parents=True)
        path.write_text(f'{HEADER}bids:raw:{subject}\tsfcn.x\t{age}\n', 'utf-8')
    return folder


@pytest.mark.parametrize(
    ('second', 'status', 'said'),
    [
        ({'a': '40.0004', 'b': 'n/a'}, 0, '2 predictions agree'),
        ({'a': '40.002', 'b': 'n/a'}, 1, 'bids:raw:a sfcn.x: 40.0 and 40.002 years'),
        ({'a': '40.0'}, 1, 'bids:raw:b sfcn.x: only in the first'),
        ({'a': '40.0', 'b': '41.0'}, 1, 'bids:raw:b sfcn.x: n/a and 41.0'),
        ({'a': 'nan', 'b': 'n/a'}, 1, 'bids:raw:a sfcn.x: 40.0 and nan years'),
    ],
)
def test_compare_ages(tmp_path, capsys, second, status, said):
    first = write_ages(tmp_path / 'first', a='40.0', b='n/a')
    other = write_ages(tmp_path / 'second', **second)
    assert compare_ages.main([str(first), str(other)]) == status
    assert said in capsys.readouterr().out


def test_compare_ages_refuses_nothing_to_compare(tmp_path):
    assert compare_ages.main([str(tmp_path), str(tmp_path)]) == 1


def test_singularity_recipe_has_the_parts_that_apptainer_reads():
    text = (ROOT / 'singularity.def').read_text('utf-8')
    header, *sections = re.split(r'^%(?=\w)', text, flags=re.MULTILINE)
    assert re.search(r'^Bootstrap: docker$', header, re.MULTILINE)
    assert re.search(r'^From: bids/brainage:\S+$', header, re.MULTILINE)
    names = [section.split()[0] for section in sections]
    assert sorted(names) == ['environment', 'help', 'labels', 'runscript', 'test']


def test_image_and_recipe_set_the_same_environment():
    docker = (ROOT / 'Dockerfile').read_text('utf-8').split('\nENV PATH=', 2)[-1]
    block = 'PATH=' + docker.split('\n\n')[0]
    in_image = set(re.findall(r'^\s*(\w+)=', block, re.MULTILINE))
    recipe = (ROOT / 'singularity.def').read_text('utf-8')
    in_recipe = set(re.findall(r'^\s*export (\w+)=', recipe, re.MULTILINE))
    assert in_image - {'BIDS_BRAINAGE_CONTAINER_TAG'} == in_recipe


@pytest.mark.parametrize(
    ('name', 'pattern'),
    [
        ('Dockerfile', r'^ARG VERSION=(.+)$'),
        ('CITATION.cff', r'^version: (.+)$'),
        ('CHANGES.md', r'^## (\S+)'),
    ],
)
def test_version_is_the_same_everywhere(name, pattern):
    found = re.search(pattern, (ROOT / name).read_text('utf-8'), re.MULTILINE)
    assert found[1] == __version__
