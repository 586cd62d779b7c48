"""A second run on what a first one left: what it makes anew, what it reads, what it corrects."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import run, tree

from bids_brainage.names import memo_path
from bids_brainage.outputs import read_brainage

REPOSITORY = Path(__file__).parents[2]
OPTIONS = ('--nprocs', '2', '--sloppy')
PREPROCESSING = ('brain mask', 'bias field', 'registration', 'tissue', 'regions', 'normalisation')
MOST_LINES = 17_800

COUNT_LINES = """
import atexit, os, sys

@atexit.register
def count():
    if sys.argv[:1] and sys.argv[0].endswith('bids_brainage/__main__.py'):
        files = {getattr(m, '__file__', None) for n, m in sys.modules.items()
                 if n.split('.')[0] == 'bids_brainage'}
        with open(os.environ['COUNTED'], 'w') as stream:
            stream.write(str(sum(len(open(f).readlines()) for f in files if f)))
"""
"""Hook of the interpreter that tells how many lines of the package the program has loaded."""

LIST_IMAGES = """
import os, sys

def note(event, arguments):
    if event == 'open' and '.nii' in str(arguments[0]):
        with open(os.environ['OPENED'], 'a') as stream:
            stream.write(f'{arguments[0]}\\n')

sys.addaudithook(note)
"""
"""Hook of the interpreter that lists every image that is opened."""


def hooked(folder, code):
    """Return the environment in which every Python process runs `code` at its start."""
    folder.mkdir(exist_ok=True)
    (folder / 'sitecustomize.py').write_text(code)
    return {'PYTHONPATH': f'{folder}{os.pathsep}{REPOSITORY}'}


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """Run one simulated person with the default model."""
    root = tmp_path_factory.mktemp('first')
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '1',
            '--seed', '3', '--resolution', '3',
        ],
        cwd=root, check=True,
    )  # fmt: skip
    environment = hooked(root / 'hook', COUNT_LINES) | {'COUNTED': str(root / 'lines')}
    process = run('bids', 'out', 'participant', *OPTIONS, '-w', 'work', cwd=root, **environment)
    assert process.returncode == 0, process.stderr
    return root


@pytest.fixture
def study(first, tmp_path):
    """Return a copy of dataset and outputs, without the work folder, as a container has it."""
    for name in ('bids', 'out'):
        shutil.copytree(first / name, tmp_path / name)
    return tmp_path


def participant(root, *more, **environment):
    return run(
        'bids', 'out', 'participant', *OPTIONS, '-w', 'work', *more, cwd=root, **environment
    )


def rows(root, subject='01'):
    (path,) = (root / 'out').glob(f'sub-{subject}/**/*_brainage.tsv')
    return {row['model']: row for row in read_brainage(path)}


def side(root, subject='01'):
    (path,) = (root / 'out').glob(f'sub-{subject}/**/*_brainage.json')
    return path, json.loads(path.read_text())


def images(root):
    return {name: digest for name, digest in tree(root / 'out').items() if '.nii.gz' in name}


def correct(root, **columns):
    """Change what `participants.tsv` says of everybody."""
    path = root / 'bids' / 'participants.tsv'
    with path.open() as stream:
        table = list(csv.DictReader(stream, delimiter='\t'))
    with path.open('w') as stream:
        writer = csv.DictWriter(stream, table[0].keys(), delimiter='\t', lineterminator='\n')
        writer.writeheader()
        writer.writerows({**line, **columns} for line in table)


def forget(root, *models):
    """Take rows and facts of models out of the outputs."""
    path, content = side(root)
    for model in models:
        del content['Models'][model]
    path.write_text(json.dumps(content))
    table = path.with_suffix('.tsv')
    kept = [
        line for line in table.read_text().splitlines() if not set(models) & {*line.split('\t')}
    ]
    table.write_text('\n'.join(kept) + '\n')


def test_default_run_loads_no_code_that_it_does_not_need(first):
    lines = int((first / 'lines').read_text())
    sys.stdout.write(f'a default T1w run loads {lines} lines of the package\n')
    assert 5_000 < lines <= MOST_LINES


def test_lost_prediction_comes_back_to_the_byte_without_preprocessing(study):
    before = tree(study / 'out')
    forget(study, 'volumes.adults')
    for path in (study / 'out').rglob('*model-volumesadults*'):
        path.unlink()
    process = participant(study)
    assert process.returncode == 0, process.stderr
    assert not [step for step in PREPROCESSING if step in process.stderr]
    after = tree(study / 'out')
    for name in ('dataset_description.json', 'sub-01.html'):  # where the dataset lies, and when
        del before[name], after[name]
    assert after == before


def test_later_model_starts_from_the_images_that_are_there(study):
    before = images(study)
    process = participant(study, '--models', 'volumes.lifespan', '--saliency', 'none')
    assert process.returncode == 0, process.stderr
    assert 'brain age' in process.stderr
    assert not [step for step in PREPROCESSING if step in process.stderr]
    assert images(study) == before
    found = rows(study)
    assert set(found) == {'volumes.adults', 'volumes.lifespan'}
    assert {row['status'] for row in found.values()} == {'ok'}
    assert {'sloppy', 'anisotropic'} <= set(found['volumes.lifespan']['qc_flag'].split(';'))
    methods = (study / 'out' / 'logs' / 'CITATION.md').read_text()
    assert 'registered to the' in methods  # as the images were made


def test_outputs_of_the_former_version_are_not_made_again(study):
    path, content = side(study)
    for facts in content['Models'].values():
        del facts['MadeFrom']
    path.write_text(json.dumps(content))
    for other in (study / 'out').rglob('*.json'):
        if other.name != path.name and 'MadeFrom' in (text := other.read_text()):
            stripped = {k: v for k, v in json.loads(text).items() if k not in ADDED}
            other.write_text(json.dumps(stripped))
    process = participant(study, '--dry-run')
    assert '1 T1w images, 0 to do' in process.stdout


ADDED = ('MadeFrom', 'Quality', 'InputSHA256')


def test_corrected_sex_reaches_rows_and_page_with_nothing_to_do(study):
    old = rows(study)['volumes.adults']
    correct(study, sex={'M': 'F', 'F': 'M'}[old['sex']])
    process = participant(study)
    assert process.returncode == 0, process.stderr
    assert '0 to do' in process.stderr
    new = rows(study)['volumes.adults']
    assert {name for name in new if new[name] != old[name]} == {'sex'}


def test_corrected_age_reaches_rows_gaps_flags_and_pages(study):
    old, before = rows(study)['volumes.adults'], images(study)
    correct(study, age='97.5')
    process = participant(study, '--reports-only')
    assert process.returncode == 0, process.stderr
    assert 'explanation of volumes.adults still compares with people of another age' in (
        process.stderr
    )
    new = rows(study)['volumes.adults']
    assert (new['age'], new['predicted_age']) == (97.5, old['predicted_age'])
    assert new['brain_age_gap'] == pytest.approx(old['predicted_age'] - 97.5)
    assert (old['in_training_range'], new['in_training_range']) == (True, False)
    assert set(new['qc_flag'].split(';')) - set(old['qc_flag'].split(';')) == {
        'age_outside_training'
    }
    assert '97.5' in (study / 'out' / 'sub-01.html').read_text()
    assert images(study) == before
    process = participant(study)
    assert process.returncode == 0, process.stderr
    assert not [step for step in PREPROCESSING if step in process.stderr]
    assert rows(study)['volumes.adults'] == new  # flags in the order of a run from the start
    assert side(study)[1]['Models']['volumes.adults']['ReferenceAge'] > 90
    unlike = {name for name, digest in images(study).items() if before[name] != digest}
    assert all('saliency' in name for name in unlike)
    process = run('bids', 'out', 'group', '--include-flagged', cwd=study)
    assert process.returncode == 0, process.stderr
    assert '97.5' in (study / 'out' / 'group_brainage.tsv').read_text()


def test_run_with_nothing_to_do_opens_no_image(study):
    seen = study / 'opened'
    environment = hooked(study / 'hook', LIST_IMAGES) | {'OPENED': str(seen)}
    process = participant(study, **environment)  # a copy: every image has a new time
    assert '0 to do' in process.stderr
    assert len(seen.read_text().splitlines()) == 1  # read once to find that it is the same
    remembered = (study / 'out' / memo_path('01')).read_bytes()
    seen.unlink()
    process = participant(study, **environment)
    assert '0 to do' in process.stderr
    assert not seen.exists()
    assert (study / 'out' / memo_path('01')).read_bytes() == remembered


def add_twin(root):
    """Add a second person with the same scan and all that was made of it."""
    for folder in ('bids', 'out'):
        target = root / folder / 'sub-02'
        shutil.copytree(root / folder / 'sub-01', target)
        for path in sorted(target.rglob('*'), reverse=True):
            if path.suffix in ('.json', '.tsv'):
                path.write_text(path.read_text().replace('sub-01', 'sub-02'))
            path.rename(path.with_name(path.name.replace('sub-01', 'sub-02')))


def test_killed_run_leaves_complete_people(study):
    add_twin(study)
    command = [
        sys.executable, '-m', 'bids_brainage', 'bids', 'out', 'participant', '--sloppy', '-w',
        'work', '--nprocs', '1', '--models', 'volumes.adults', 'volumes.lifespan', '--consensus',
        '--saliency', 'none',
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=study, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)}, start_new_session=True,
    ) as process:  # fmt: skip
        while 'consensus' not in rows(study) and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert 'volumes.lifespan' not in rows(study, '02')  # it was killed before the second person
    found = rows(study)
    assert found['consensus']['status'] == 'ok'
    low, high = sorted(found[m]['predicted_age'] for m in ('volumes.adults', 'volumes.lifespan'))
    assert low < found['consensus']['predicted_age'] < high
