"""Tables of several sites, brought to one scale."""

import json
import shutil

import pytest
from program import run
from stats_tree import PAIRS, write_subject

from bids_brainage.outputs import read_brainage

USUAL = {f'{side}-{name}': v for name, v in PAIRS.items() for side in ('Left', 'Right')}
LARGER = {name: 1.25 * USUAL[name] for name in ('Left-Hippocampus', 'Right-Hippocampus')}
SITES = {'a': 12, 'b': 12, 'c': 3}


def call(root, out, *options):
    return run(
        'bids', out, 'participant', '--derivatives', 'freesurfer=fs', '-w', 'work', *options,
        cwd=root,
    )  # fmt: skip


def ages(root, out):
    rows = [r for p in sorted((root / out).rglob('*_brainage.tsv')) for r in read_brainage(p)]
    return {r['participant_id'].removeprefix('sub-'): r['predicted_age'] for r in rows}


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Everybody has the same brain, but at sites b and c the hippocampus comes out larger."""
    root = tmp_path_factory.mktemp('sites')
    (root / 'bids').mkdir()
    (root / 'bids' / 'dataset_description.json').write_text(
        '{"Name": "n", "BIDSVersion": "1.10.0"}'
    )
    rows = ['participant_id\tage\tsex\tsite\tgroup']
    for site, n in SITES.items():
        for k in range(n):
            label = f'{site}{k:02}'
            write_subject(root / 'fs', f'sub-{label}', volumes={} if site == 'a' else LARGER)
            rows.append(f'sub-{label}\t40\tF\t{site}\t{"patient" if k == 0 else "control"}')
    (root / 'bids' / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    plain, told = call(root, 'plain'), call(root, 'told', '--harmonise')
    assert plain.returncode == told.returncode == 0, told.stderr
    return root, told


def test_sites_come_together(study):
    root, _ = study
    before, after = ages(root, 'plain'), ages(root, 'told')
    apart = before['b01'] - before['a01']
    assert abs(apart) > 0.3
    assert abs(after['b01'] - after['a01']) < 0.35 * abs(apart)


def test_a_site_with_few_people_is_left_as_it_is_with_a_word(study):
    root, told = study
    assert ages(root, 'told')['c01'] == pytest.approx(ages(root, 'plain')['c01'])
    assert 'freesurfer, site c has 3 people of known age, fewer than 11' in told.stderr


def test_side_file_and_methods_say_so(study):
    root, _ = study
    folder = root / 'told' / 'sub-b01' / 'anat'
    side = json.loads((folder / 'sub-b01_rec-freesurfer_brainage.json').read_text())
    facts = side['Models']['tables.openneuro']['MadeFrom']['Harmonisation']
    assert (facts['Site'], facts['People']) == ('b', 11)
    assert 'Johnson' in (root / 'told' / 'logs' / 'CITATION.md').read_text()
    assert 'Johnson' not in (root / 'plain' / 'logs' / 'CITATION.md').read_text()


def test_one_person_alone_gets_the_same_age(study):
    root, _ = study
    alone = call(root, 'alone', '--harmonise', '--participant-label', 'b03')
    assert alone.returncode == 0, alone.stderr
    assert ages(root, 'alone')['b03'] == pytest.approx(ages(root, 'told')['b03'], abs=1e-9)


def test_ages_are_made_anew_when_others_change_and_only_then(study):
    root, _ = study
    again = call(root, 'told', '--harmonise', '--dry-run')
    assert '27 tables of other programs, 0 to do' in again.stdout
    one = root / 'fs' / 'sub-b05'
    shutil.move(one, root / 'away')
    try:
        changed = call(root, 'told', '--harmonise', '--dry-run')
        assert '26 tables of other programs, 11 to do' in changed.stdout
    finally:
        shutil.move(root / 'away', one)


def test_only_those_that_are_named_count(study):
    root, _ = study
    healthy = call(root, 'healthy', '--harmonise', 'group=control', '--participant-label', 'b00')
    assert healthy.returncode == 0, healthy.stderr
    nobody = call(root, 'healthy', '--harmonise', 'group=nobody')
    assert nobody.returncode == 2
    assert 'nobody of known age among 27 visits' in nobody.stderr


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--harmonise', 'group'], 'expected nothing or COLUMN=VALUE'),
        (['--harmonise', 'colour=red'], 'Column colour is in no table'),
    ],
)
def test_what_cannot_be_done_is_told(study, options, said):
    process = call(study[0], 'told', '--dry-run', *options)
    assert process.returncode == 2, process.stderr
    assert said in process.stderr


def test_a_model_that_does_not_say_how_sites_differ_is_refused(study, tmp_path):
    root, _ = study
    table = tmp_path / 'dlmuse.csv'
    names = ','.join(['MRID', '600', '702', *map(str, range(4, 210))])
    table.write_text(f'{names}\nsub-a00,250000,1500000,{",".join(["8000"] * 206)}\n')
    process = run(
        'bids', 'other', 'participant', '--derivatives', f'dlmuse={table}', '--harmonise',
        '--dry-run', cwd=root,
    )  # fmt: skip
    assert process.returncode == 2
    assert 'tables.openneuro' in process.stderr
