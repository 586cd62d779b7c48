"""Each page that reproduces a paper: its commands run, and give the tables that it names."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
from paper_study import DIAGNOSES, newcomers, write_cohort
from program import run
from shell_blocks import shell_lines

from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = {
    path.stem.removeprefix('reproduce-'): path
    for path in sorted((ROOT / 'docs/howto').glob('reproduce-*.md'))
}
# Grids and epochs are for seconds on a CPU; the rest is the papers'.
TOY = {
    'resnet-crossvit': '[data]\ncoarsen = 4\n[run]\nbatch_size = 4\n'
    '[schedule]\nwarmup_epochs = 1\n',
    'vgg8-aicbv': '[data]\ncoarsen = 5\n[run]\nbatch_size = 4\n',
    'densenet-clinical': '[data]\ncoarsen = 3\n[split]\nfolds = 2\n[run]\nbatch_size = 8\n'
    '[augmentation]\nshift_voxels = [1, 1, 0]\n',
    'amagenet': '[data]\ncoarsen = 4\n[split]\nfolds = 2\n[run]\nbatch_size = 4\n',
}
CBV = f'{TOY["vgg8-aicbv"]}[fusion]\npartner = "vgg8.t1w"\n'.replace(
    '[data]', '[data]\nmodality = "aicbv"'
)
COHORTS = 'cohort\trole\tbids_dir\toutput_dir\nsecond\ttrain\tsecond/bids\tsecond/out\n'
UNSEEN = 'far\tunseen\tfar/bids\tfar/out\n'


@pytest.fixture(scope='module')
def people(request, tmp_path_factory):
    """The newcomers, kept by pytest's cache as long as the simulation is the same."""
    cache = getattr(request.config, 'cache', None)
    return newcomers(cache.mkdir('papers') if cache else tmp_path_factory.mktemp('papers'))


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Two cohorts that train, and one that is unseen."""
    root = tmp_path_factory.mktemp('study')
    write_cohort(root, 'First', 44, 0, (18, 85))
    write_cohort(root / 'second', 'Second', 12, 1, (18, 60))
    write_cohort(root / 'far', 'Far', 8, 2, (40, 85))
    (root / 'cohorts.tsv').write_text(COHORTS + UNSEEN)
    return root


@pytest.fixture(scope='module', params=PAGES)
def page(request, people, study, tmp_path_factory):
    """The commands of a page on the study, done; its name, and where it was done."""
    name, root = request.param, tmp_path_factory.mktemp('page') / 'study'
    shutil.copytree(study, root)
    shutil.copytree(people / 'out', root / 'new')
    (root / 'toy.toml').write_text(TOY[name])
    (root / 'cbv.toml').write_text(CBV)
    for words in shell_lines(PAGES[name].read_text('utf-8')):
        call = on_the_study(words[1:], people, root)
        if call is not None:
            done = run(*call, cwd=root, OMP_NUM_THREADS='1')
            assert done.returncode == 0, f'{shlex.join(call)}\n{done.stderr}'
    return name, root


def on_the_study(words, people, root):
    """Put the folders of the study in the place of those of a page; None if that is done."""
    level, *options = words[2:]
    if level == 'participant' and '--models' not in options:
        return None  # before the training: the derivatives are there
    places = {
        '/my/models': root / 'models', 'aicbv=/maps': f'aicbv={people / "maps"}',
        'cohorts.tsv': root / 'cohorts.tsv', 'cbv.toml': root / 'cbv.toml',
    }  # fmt: skip
    options = [str(places.get(o, o)) for o in options]
    options = [f'{root}{o}' if o.startswith('/out/') else o for o in options]
    if level == 'train':
        toy = [] if '--recipe' in options else ['--recipe', str(root / 'toy.toml')]
        end = ['--epochs', '1', '--device', 'cpu', '-w', str(root / 'work'), *toy]
        return [str(root / 'bids'), str(root / 'out'), level, *options, *end]
    # Sloppy runs are flagged "do not use".
    end = ['--sloppy', '--device', 'cpu'] if level == 'participant' else ['--include-flagged']
    end += ['-w', str(root / 'work')]
    return [str(people / 'bids'), str(root / 'new'), level, *options, *end]


def rows_of_page(name):
    """Return file and columns of each row of a page's table that names a table of numbers."""
    for line in PAGES[name].read_text('utf-8').splitlines():
        cells = line.strip('|').split(' | ')
        if line.startswith('| ') and len(cells) == 3 and '---' not in line:
            files = re.findall(r'`([\w./<>-]+\.tsv)`', cells[1])
            yield cells[0], files, re.findall(r'`([a-z0-9_]+)`', cells[2])


def find(root, name):
    """Find a table by the name that a page gives it."""
    places = [root / 'out' / name, root / 'new' / name]
    places += sorted((root / 'out/logs/training').rglob(Path(name).name))
    return next((path for path in places if path.is_file()), None)


def test_tables_are_there_with_the_columns_that_the_page_names(page):
    name, root = page
    for what, files, columns in rows_of_page(name):
        for file in files:
            if '*' in file or file in ('participants.tsv', 'split.tsv'):
                continue
            path = find(root, file)
            assert path is not None, f'{what}: no {file}'
            with path.open(encoding='utf-8') as lines:
                head = next(csv.reader(lines, delimiter='\t'))
                cells = {cell for row in csv.reader(lines, delimiter='\t') for cell in row}
            known = {*head, *cells}
            absent = [c for c in columns if c not in known]
            assert not (files == [file] and absent), f'{what}: {file} has no {absent}'


def test_who_is_in_the_tables(page):
    name, root = page
    (first, *_) = sorted((root / 'out/logs/training').glob('*.*/split.tsv'))
    roles = {row['participant_id']: row['role'] for row in read_tsv(first) if row['fold'] != '2'}
    taught = {person for person, role in roles.items() if role in ('training', 'validation')}
    assert taught and not any(person.startswith('sub-far+') for person in taught)
    if name == 'resnet-crossvit':
        assert {roles[p] for p in ('sub-01', 'sub-02', 'sub-second+01')} == {'longitudinal'}
        assert {role for p, role in roles.items() if p.startswith('sub-far+')} == {'unseen'}
        (compared,) = (root / 'out/logs/training').glob('comparison-paper.tsv')
        counts = {row['subset']: row['n'] for row in read_tsv(compared)}
        assert counts['unseen far'] == '10'  # eight people, two came twice
    if name == 'densenet-clinical':
        patients = {
            row['participant_id'] for row in read_tsv(root / 'bids/participants.tsv')
            if row['diagnosis'] != 'control'
        }  # fmt: skip
        assert patients and not patients & taught
    accuracy = [row for row in read_tsv(root / 'new/group_accuracy.tsv') if row['subset'] == 'all']
    assert {int(row['n']) for row in accuracy} <= set(range(len(DIAGNOSES) + 1))
    assert any('paper' in row['model'] or 'vgg8.' in row['model'] for row in accuracy)
