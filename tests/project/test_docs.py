"""The documentation speaks of the program as it is."""

import argparse
import ast
import importlib
import os
import re
import runpy
import signal
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import make_reference
import nibabel as nib
import numpy as np
import pytest
import python_reference
from bold_phantom import template
from program import run
from shell_blocks import shell_lines
from stats_tree import write_fastsurfer, write_subject

from bids_brainage.cli import convert
from bids_brainage.cli.main import main
from bids_brainage.cli.parser import build_parser, check_level
from bids_brainage.outputs import read_brainage

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
PAGES = [page for page in PAGES if 'generated' not in page.parts]
PROGRAMS = ('bids_brainage', '.venv/bin/bids_brainage', 'bids/brainage', 'brainage.sif')


def commands():
    return [(page.stem, words) for page in PAGES for words in shell_lines(page.read_text('utf-8'))]


def program_calls():
    for page, words in commands():
        if words[:2] == ['apptainer', 'build']:
            continue
        for position, word in enumerate(words):
            if word in PROGRAMS and len(words) > position + 1:
                yield pytest.param(words[position + 1 :], id=f'{page}: {" ".join(words)[:60]}')
                break


@pytest.mark.parametrize('arguments', program_calls())
def test_every_documented_call_is_understood(arguments):
    if arguments[0] == convert.COMMAND:
        namespace = convert.build_parser().parse_args(arguments[1:])
        assert namespace.name is None or namespace.files
        return
    listing = '--list-models' in arguments
    namespace = build_parser(positionals=not listing).parse_args(arguments)
    assert listing or namespace.analysis_level
    problems = []
    given = {name: value for name, value in vars(namespace).items() if value is not None}
    if not listing:
        check_level(given, problems)
    assert not problems


def participant_calls():
    """Documented calls that need no weights but the packaged ones."""
    for call in program_calls():
        (arguments,) = call.values
        if 'participant' in arguments and '--models' not in arguments:
            yield pytest.param(arguments, id=call.id)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A dataset of the people that the pages name, and the files that they tell to write."""
    image = nib.Nifti1Image(np.ones((64, 64, 64), np.float32), np.diag([3.0, 3, 3, 1]))
    for label in ('01', '10159'):
        folder = tmp_path / 'data' / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        nib.save(image, folder / f'sub-{label}_run-1_T1w.nii.gz')
    description = '{"Name": "study", "BIDSVersion": "1.10.0"}'
    (tmp_path / 'data' / 'dataset_description.json').write_text(description, 'utf-8')
    people = 'participant_id\tage\tdiagnosis\nsub-01\t40\tcontrol\nsub-10159\t41\tcontrol\n'
    (tmp_path / 'data' / 'participants.tsv').write_text(people, 'utf-8')
    for page, language, name in (
        ('openneuro', 'json', 'filter.json'),
        ('cluster', 'yaml', 'slurm.yml'),
    ):
        text = (ROOT / 'docs' / 'howto' / f'{page}.md').read_text('utf-8')
        (block,) = re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)
        (tmp_path / name).write_text(block, 'utf-8')
    for folder in ('maps', 'data/derivatives/fmriprep', 'data/derivatives/cat12', 'my/models'):
        (tmp_path / folder).mkdir(parents=True)
    for name in ('atlas.nii.gz', 'atlas.tsv', 'my/models/aicbv_mamba.mystudy.safetensors'):
        (tmp_path / name).write_bytes(b'')
    derivatives = tmp_path / 'data' / 'derivatives'
    write_subject(derivatives / 'freesurfer', 'sub-01')
    write_fastsurfer(derivatives / 'fastsurfer', 'sub-01')
    (derivatives / 'dlmuse.csv').write_text('MRID,4,11\nsub-01_run-1_T1w,900,1500\n', 'utf-8')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('arguments', participant_calls())
def test_every_documented_participant_call_finds_its_scans(study, capsys, arguments):
    options = [re.sub('(^|=)/', rf'\1{study}/', word) for word in arguments[2:]]
    before = signal.getsignal(signal.SIGTERM)
    with mock.patch.dict(os.environ):
        status = main([str(study / 'data'), str(study / 'out'), *options, '--dry-run'])
    signal.signal(signal.SIGTERM, before)
    told = capsys.readouterr()
    assert status == 0, told.err
    labels = ['01', '10159']
    if '--participant-label' in arguments:
        labels = [arguments[arguments.index('--participant-label') + 1]]
    assert f'{len(labels)} T1w images, {len(labels)} to do' in told.out
    for label in labels:
        assert f'sub-{label}_run-1_T1w' in told.out


def test_openneuro_recipe_ends_with_0_where_functional_images_were_not_fetched(tmp_path):
    """As DataLad leaves a dataset: content for one T1w image, and links to nowhere."""
    t1w, _, affine = template()
    thick = t1w[:, :, : t1w.shape[2] // 2 * 2].reshape(*t1w.shape[:2], -1, 2).mean(axis=3)
    root = tmp_path / 'ds000030'
    for label in ('10159', '10171'):
        for name in ('anat/{}_T1w.nii.gz', 'func/{}_task-rest_bold.nii.gz'):
            path = root / f'sub-{label}' / name.format(f'sub-{label}')
            path.parent.mkdir(parents=True)
            path.symlink_to('../../.git/annex/objects/x')
    content = root / 'sub-10159/anat/sub-10159_T1w.nii.gz'
    content.unlink()
    nib.save(nib.Nifti1Image(thick, affine @ np.diag([1, 1, 2, 1])), content)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    text = (ROOT / 'docs' / 'howto' / 'openneuro.md').read_text('utf-8')
    recipe = next(words for words in shell_lines(text) if words[0] == 'bids_brainage')
    assert recipe[1:] == [
        '.', '../ds000030-brainage', 'participant', '--participant-label', '10159',
    ]  # fmt: skip
    quick = ('--models', 'densenet169_clinical.adults', '--saliency', 'none')
    done = run(*recipe[1:], *quick, '-w', tmp_path / 'work', cwd=root)
    assert done.returncode == 0, done.stderr
    assert '1 BOLD series are left out, as no model takes connectivity' in done.stderr
    out = tmp_path / 'ds000030-brainage'
    (row,) = read_brainage(out / 'sub-10159/anat/sub-10159_brainage.tsv')
    assert row['status'] == 'ok'
    assert {path.name for path in out.glob('sub-*/')} == {'sub-10159'}


def told_by_the_package():
    """Return the texts that the modules hold, each without what is put into it at run time."""
    for path in sorted((ROOT / 'bids_brainage').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.split(r'%[sd]', node.value)


def quoted_messages():
    text = (ROOT / 'docs' / 'howto' / 'troubleshooting.md').read_text('utf-8')
    rows = [line for line in text.splitlines() if line.startswith('| `')]
    return [message for row in rows for message in re.findall('`(.+?)`', row.split(' | ')[0])]


def test_every_message_of_the_troubleshooting_page_is_one_of_the_package():
    texts = list(told_by_the_package())
    messages = quoted_messages()
    assert len(messages) >= 20
    for message in messages:
        parts = [part.strip() for part in message.split('...') if part.strip()]
        assert max(map(len, parts)) > 8, f'{message!r} says nothing'
        for part in parts:
            assert any(part in text for text in texts), f'{part!r} of {message!r}'


def test_every_documented_module_exists():
    names = {
        words[words.index('-m') + 1] for _, words in commands() if words[-1] and '-m' in words
    }
    names |= {
        name
        for page in PAGES
        for name in re.findall(r'python -m (bids_brainage[\w.]*)', page.read_text('utf-8'))
    }
    own = {name for name in names if name.startswith('bids_brainage')}
    assert own
    assert {name for name in own if find_spec(name) is None} == set()


def test_every_documented_target_exists():
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text('utf-8'), re.MULTILINE))
    used = {words[1] for _, words in commands() if words[0] == 'make' and len(words) > 1}
    assert used
    assert used <= targets


def test_every_option_in_the_text_exists():
    """Options named in the prose, `--like-this`, are options of the program."""
    parsers = (build_parser(), convert.build_parser())
    known = {text for p in parsers for action in p._actions for text in action.option_strings}
    named = {
        option
        for page in PAGES
        for option in re.findall(r'`(--[a-z][\w-]*)', page.read_text('utf-8'))
    }
    assert len(named) >= 10
    assert named <= known


LINK = re.compile(r'\]\(<?([^)\s>]+)>?\)')
SITE = re.compile(r'^[a-z][a-z+.-]*:')


def prose(path):
    """The text of a page without its blocks of code."""
    return re.sub(r'^ *```.*?^ *```', '', path.read_text('utf-8'), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """Names of the headings of a page, as forges make them."""
    found = []
    for title in re.findall(r'^#{1,6} +(.*?) *$', prose(path), re.MULTILINE):
        words = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', title).lower()
        name = re.sub(r'[^\w\- ]', '', words).replace(' ', '-')
        found.append(name if name not in found else f'{name}-{found.count(name)}')
    return found


def dead_links(page):
    """Links of a page to files or headings that are not there."""
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition('#')
        path = (page.parent / target).resolve() if target else page
        if SITE.match(link):
            continue
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield link


ALL_PAGES = sorted({*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), *ROOT.glob('*/*.md')})
ALL_PAGES = [page for page in ALL_PAGES if not {'_build', '.venv'} & set(page.parts)]


@pytest.mark.parametrize('page', ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    assert list(dead_links(page)) == []


def test_dead_links_are_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# A `b-c`: d?\n[a](#a-b-c-d) [b](#absent) [c](absent.md) [d](page.md#nowhere) '
        '[e](https://example.org/#x)\n```text\n[f](code.md)\n```\n',
        'utf-8',
    )
    assert list(dead_links(page)) == ['#absent', 'absent.md', 'page.md#nowhere']


@pytest.mark.parametrize('page', ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_read_well_where_the_code_lies(page):
    """No directive or role of Sphinx, which a forge shows as it stands."""
    raw = re.findall(r'^ *(?:`{3,}|:{3,})\{.*$|\{[\w:]+\}`', page.read_text('utf-8'), re.MULTILINE)
    raw += re.findall(r'^:::.*$|^: .*$', prose(page), re.MULTILINE)
    assert raw == []


def test_the_entry_page_leads_to_every_page():
    listed = {
        (ROOT / 'docs' / link.partition('#')[0]).resolve()
        for link in LINK.findall((ROOT / 'docs' / 'index.md').read_text('utf-8'))
    }
    pages = {page.resolve() for page in ALL_PAGES if 'docs' in page.relative_to(ROOT).parts}
    assert pages - listed == {ROOT / 'docs' / 'index.md'}


def test_sphinx_gets_the_contents_from_the_links_of_the_entry_page():
    """The settings turn the lists of links into the tables of contents that Sphinx needs."""
    conf = runpy.run_path(str(ROOT / 'docs' / 'conf.py'))
    source = [(ROOT / 'docs' / 'index.md').read_text('utf-8')]
    conf['for_sphinx'](None, 'index', source)
    trees = re.findall(
        r'```\{toctree\}\n:hidden:\n:caption: (.*?)\n\n(.*?)```', source[0], re.DOTALL
    )
    assert [title for title, _ in trees][:2] == ['Start', 'For you']
    names = [name for _, body in trees for name in body.split()]
    assert len(names) == len(set(names))
    assert {ROOT / 'docs' / f'{name}.md' for name in names} == {
        page for page in ALL_PAGES if 'docs' in page.relative_to(ROOT).parts
    } - {ROOT / 'docs' / 'index.md'}
    assert '(<https://github.com/bids-apps/brainage/blob/main/CHANGES.md>)' in source[0]


def test_reference_pages_are_up_to_date(capsys):
    assert make_reference.main(['--check']) == 0, capsys.readouterr().err


def test_documented_python_is_there():
    """Names that examples in Python take from the package."""
    taken = 0
    for page in ALL_PAGES:
        for block in re.findall(
            r'^```python\n(.*?)^```', page.read_text('utf-8'), re.DOTALL | re.M
        ):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith('bids_brainage'):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names), page
                    taken += 1
    assert taken


def test_reference_names_every_option_and_its_spellings():
    page = make_reference.options_page()
    for action in build_parser()._actions:
        for spelling in action.option_strings:
            assert f'`{spelling}`' in page
        if action.help != argparse.SUPPRESS:
            assert make_reference.plain(action.help).replace('|', '\\|') in page


def test_reference_pages_are_rewritten_only_when_they_change(tmp_path):
    make_reference.write_pages(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(before) == set(make_reference.PAGES)
    (tmp_path / 'columns.md').write_text('old', 'utf-8')
    (tmp_path / 'former.md').write_text('old', 'utf-8')
    assert make_reference.stale_pages(tmp_path) == ['columns.md', 'former.md']
    make_reference.write_pages(tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(after) == set(before)
    assert {name for name in before if before[name] != after[name]} == {'columns.md'}


def test_models_page_states_what_every_packaged_bundle_states():
    page = make_reference.models_page()
    for path in (ROOT / 'bids_brainage' / 'data' / 'bundles').iterdir():
        facts = make_reference.read(f'bundles/{path.name}/metadata.json')
        assert f'## `{path.name}`' in page
        for check in facts['validation']:
            assert f'| {check["n"]} | {check["mae"]:.4g} |' in page
    assert page.index('the default') < page.index('## `densenet169')


def test_python_reference_names_what_the_package_has():
    for modules in python_reference.API.values():
        for module, names in modules.items():
            there = [name for name, _, _ in python_reference.summaries(module, ())]
            assert set(names) <= set(there)
            assert all(text for _, _, text in python_reference.summaries(module, names))


def test_table_escapes_what_would_break_a_row():
    assert make_reference.table(['a'], [['x|y\nz']]).endswith('| x\\|y z |\n')
